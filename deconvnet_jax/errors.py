"""The exception for bad input, and functions that write parts of messages."""

import difflib
from collections.abc import Iterable


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


def counted(number: int, noun: str, plural: str = "") -> str:
    """Returns a number with its noun in the singular or plural.

    Args:
      number: the number, shown with thousands separators.
      noun: the singular.
      plural: the plural; "" adds an s to the noun.

    Example:
      >>> counted(1, "class", "classes"), counted(0, "image"), counted(1200, "image")
      ('1 class', '0 images', '1,200 images')
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Returns the end of an error message that suggests the most similar name.

    Args:
      name: the name that does not exist.
      names: the names that exist.

    Returns:
      "; did you mean NAME?", or "" if no name is similar.

    Example:
      >>> did_you_mean("scene", ["scenes", "camvid"]), did_you_mean("cityscapes", ["voc2012", "camvid"])
      ('; did you mean scenes?', '')
    """
    return "".join(f"; did you mean {similar}?" for similar in difflib.get_close_matches(name, names, n=1))
