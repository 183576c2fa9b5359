"""The exception for bad input, and a function that shortens other exceptions to one line."""


class InputError(ValueError):
    """Error that a user can correct: an unusable file, folder, config key or size.

    The message is one line. It says what is wrong and where, what was expected, and what to do. Programs in
    `experiments` print it without a stack trace and exit with status 1.
    """


def one_line(error: BaseException, limit: int = 200) -> str:
    """Returns the message of an exception as one line.

    Args:
      error: the exception. Of an OSError only the reason is taken, without error number and file name.
      limit: the largest number of characters; the rest is cut off.

    Returns:
      The message with all white space replaced by single spaces, or the name of the class if the message is empty.
    """
    reason = " ".join(str(error).split())
    if isinstance(error, OSError) and type(error).__str__ is OSError.__str__:
        reason = error.strerror or reason
    return reason[:limit] or type(error).__name__
