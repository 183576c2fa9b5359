"""The text that --help prints: the docstring of a program, then its flags with their defaults."""

import itertools
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence

from absl import flags

from .scripts import PACKAGE, SETTINGS_FILE, with_commands

WIDTH = 100  # columns of the explanations of flags
ASKING = ("--help", "-help", "-h", "-?")
_SEVERAL_HOSTS = "Flags for several hosts (each runs the same command; see docs/launch.md)"


def is_asked_for(argv: Sequence[str]) -> bool:
    """Returns whether a command line asks for help: --help or -h before a `--`.

    Args:
      argv: The program's name, then the words of its command line.
    """
    return any(word in ASKING for word in itertools.takewhile(lambda word: word != "--", argv[1:]))


def help_page(docstring: str, values: flags.FlagValues) -> str:
    """Returns the help of a program whose flags are defined and not yet parsed.

    Args:
      docstring: The docstring of the program: a summary, the usage, and what the program does.
      values: The flags. Only those that this project defines are shown: required ones first, then the others in the
        order of their definition. Flags for several hosts come last, under a separate heading.
    """
    shown = dict(own_flags(values))
    parts = [with_commands(docstring).strip()]
    for title, chosen in (
        ("Flags", [flag for flag, module in shown.items() if not _is_for_hosts(module)]),
        (_SEVERAL_HOSTS, [flag for flag, module in shown.items() if _is_for_hosts(module)]),
    ):
        if chosen:
            entries = (entry for flag in sorted(chosen, key=is_required, reverse=True) for entry in _entries(flag))
            parts.append("\n".join([f"{title}:", *entries]))
    return "\n\n".join(parts)


def own_flags(values: flags.FlagValues) -> Iterator[tuple[flags.Flag, str]]:
    """Yields the flags that this project defines, each with its module, in the order of their definition.

    Earlier names of flags (`cli.define_old_name`) are left out.
    """
    module_of = {id(flag): module for module, found in values.flags_by_module_dict().items() for flag in found}
    for name in values:
        module = module_of.get(id(values[name]), "")
        is_own = module == sys.argv[0] or module.startswith(f"{PACKAGE}.")  # absl calls the main module argv[0].
        if is_own and not (values[name].help or "").startswith("Alias for "):
            yield values[name], module


def is_required(flag: flags.Flag) -> bool:
    """Returns whether a program refuses to start without a flag (`flags.mark_flag_as_required`)."""
    return any("other than None" in validator.message for validator in flag.validators)


def _is_for_hosts(module: str) -> bool:
    return module == f"{PACKAGE}.common.hosts"


def _entries(flag: flags.Flag) -> Iterator[str]:
    """Yields the lines of a flag; those of --config are followed by --config.KEY=VALUE."""
    note = "(required)" if is_required(flag) else f"(default: {_default(flag)})"
    text = re.sub(r"^<.*?>: ", "", flag.help or "")  # absl puts the choices before the help.
    without = flag.default is None or flag.name == "config"  # Their help says what happens without them.
    yield f"  {_form(flag)}{f'  {note}' if is_required(flag) or not without else ''}"
    yield textwrap.fill(text, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False)
    if flag.name == "config":
        yield "  --config.KEY=VALUE"
        yield textwrap.indent(
            "Changes one setting, for example --config.batch_size=8 or --config.inference.crf=usual.\n"
            f"{SETTINGS_FILE} lists all settings with their meaning and default.",
            " " * 6,
        )


def _form(flag: flags.Flag) -> str:
    """Returns a flag as it is typed, for example "--step=N"."""
    if flag.boolean:
        return f"--[no]{flag.name}"
    if flag.name == "config":
        return "--config=NAME|FILE"
    written = re.match(
        r"[A-Z0-9]+(?:[:,][A-Z0-9]+)+", flag.help or ""
    )  # Such a help begins with the form, e.g. HOST:PORT.
    if written:
        return f"--{flag.name}={written[0]}"
    if isinstance(flag.parser, flags.EnumParser):
        return f"--{flag.name}={'|'.join(flag.parser.enum_values)}"
    names = {"int": "N", "float": "X", "path": "PATH", "comma separated list of strings": "A,B,..."}
    return f"--{flag.name}={names.get(flag.flag_type(), 'NAME')}"


def _default(flag: flags.Flag) -> str:
    if flag.boolean:
        return "on" if flag.default else "off"
    if isinstance(flag.default, list):
        return ",".join(flag.default)
    return f"{flag.default:,}".replace(",", "_") if isinstance(flag.default, int) else str(flag.default)
