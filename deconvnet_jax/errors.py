"""The one exception for bad input, and what other exceptions say in one line."""


class InputError(ValueError):
    """Something the user gave (a file, a folder, a config key, a size) is not usable.

    The message is one line for that user: it names the file or key, says what was expected and what to do.
    Programs in `experiments` print it without a stack trace and exit with status 1.
    """


def one_line(error: BaseException, limit: int = 200) -> str:
    """Returns the reason that an exception gives, in one line of at most `limit` characters; else its class's name."""
    reason = " ".join(str(error).split())
    if isinstance(error, OSError) and type(error).__str__ is OSError.__str__:  # which adds a number and a file's name
        reason = error.strerror or reason
    return reason[:limit] or type(error).__name__
