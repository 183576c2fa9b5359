"""Says in one line what is wrong with a command line: an unknown or missing flag, or an unknown setting."""

import re
import sys
from collections.abc import Iterator

import ml_collections
from absl import flags

from deconvnet_jax.errors import InputError, did_you_mean
from deconvnet_jax.settings import similar_settings

from ..configs import default
from .help_page import is_required, own_flags
from .scripts import SETTINGS_FILE

FOR_PREDICTIONS = "Config whose section `inference` says how to segment."  # help of --config of some programs
_MOST_NAMES = 3  # settings that a message suggests


def error_line(error: BaseException) -> str:
    """Returns the line that a program prints for a command line that cannot be parsed.

    Args:
      error: The exception of absl or ml_collections.
    """
    if isinstance(error.__context__, InputError):  # raised by the parser of a flag; absl wraps it in another text
        return f"error: {error.__context__}"
    if isinstance(error, flags.UnrecognizedFlagError):
        return f"error: {_unknown_flag(error.flagname)} (see --help)"
    inner = error.args[0] if error.args else None
    unknown = next((each for each in (error, inner) if isinstance(each, KeyError)), None)
    if unknown is not None:  # a setting that does not exist
        return f"error: no such setting: {_unknown_setting(str(unknown.args[0]))}"
    missing = [f"--{flag.name}" for flag, _ in own_flags(flags.FLAGS) if is_required(flag) and flag.value is None]
    if missing and "other than None" in str(error):
        return f"error: missing flag{'s' * (len(missing) > 1)} {' and '.join(missing)} (see --help)"
    return f"error: {' '.join(str(error).split())} (see --help)"


def _unknown_flag(name: str) -> str:
    """Returns what is wrong with a flag that is not defined, and the flags or settings that may be meant."""
    takes_settings = "config" in flags.FLAGS
    if name.startswith("config.") and takes_settings:
        return f"--{name} changes a setting of --config, which is missing; give --config=NAME"
    if takes_settings:
        used = "inference." if (flags.FLAGS["config"].help or "").startswith(FOR_PREDICTIONS) else ""
        known = [key for key in _settings() if key.startswith(used)]
        meant = [key for key in known if key == name or key.endswith(f".{name}")][:_MOST_NAMES]
        if meant:
            return f"unknown flag --{name}; did you mean {' or '.join(f'--config.{key}' for key in meant)}?"
    similar = did_you_mean(name, [flag.name for flag, _ in own_flags(flags.FLAGS)])
    return f"unknown flag --{name}{similar.replace('mean ', 'mean --')}"


def _unknown_setting(reason: str) -> str:
    """Returns the first setting on the command line that does not exist, with similar ones and the place of the list.

    Args:
      reason: The text of ml_collections, which quotes only the last part of the setting. It is used if the command line
        does not show the setting.
    """
    known = list(_settings())
    place = f"({SETTINGS_FILE} lists all settings)"
    for key in _given_settings():
        if key.startswith("stage1.") and "'stage1'" in reason:
            return f"{key}; only configs of two stages have it, such as voc_two_stage {place}"
        if key.removeprefix("stage1.") not in known:
            meant = " or ".join(similar_settings(key, known)[:_MOST_NAMES])
            return f"{key}{meant and f'; did you mean {meant}?'} {place}"
    return f"{' '.join(reason.split())} {place}"


def _given_settings() -> Iterator[str]:
    """Yields the keys of all --config.KEY on the command line."""
    for word in sys.argv[1:]:
        if found := re.match(r"--?config\.([\w.]+)", word):
            yield found[1]


def _settings() -> Iterator[str]:
    """Yields the key of every setting, with its section."""

    def keys(config: ml_collections.ConfigDict, section: str) -> Iterator[str]:
        for name in config:
            value = config.get(name)
            if isinstance(value, ml_collections.ConfigDict):
                yield from keys(value, f"{section}{name}.")
            else:
                yield f"{section}{name}"

    return keys(default.get_config(), "")
