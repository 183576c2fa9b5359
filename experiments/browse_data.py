"""What a network is going to be trained on: the first thing to look at when training fails.

    python -m experiments.browse_data --config=experiments/configs/NAME.py --output=FOLDER [--count=36] \
        [--config.data.KEY=VALUE ...]

Writes FOLDER/examples.png, a contact sheet of crops exactly as the training gets them: classes in colour, ignored
pixels hatched. Prints how often each class occurs, in windows and in pixels of the crops, and how large the windows
are; the last line of stdout is the same as one JSON object.
"""

import json
from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """Defines the command line."""
    cli.define_config("a file in experiments/configs")
    cli.define_path("output", None, "folder for examples.png", in_bucket=True)
    flags.DEFINE_integer("count", 36, "crops on the sheet", lower_bound=1)
    flags.DEFINE_integer("sample", 512, "crops whose pixels are counted", lower_bound=1, upper_bound=20_000)
    flags.mark_flags_as_required(["config", "output"])


def main(argv: Sequence[str]) -> None:
    """Draws the sheet and prints the statistics."""
    from .tasks.browse_data import run

    cli.no_arguments(argv)
    print(json.dumps(run(**cli.arguments_of(run))))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
