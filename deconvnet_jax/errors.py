"""The one exception for bad input."""


class InputError(ValueError):
    """Something the user gave (a file, a folder, a config key, a size) is not usable.

    The message is one line for that user: it names the file or key, says what was expected and what to do.
    Programs in `experiments` print it without a stack trace and exit with status 1.
    """
