r"""Shows the crops that a training gets, and counts their classes.

Usage:
    python -m experiments.browse_data --config=NAME --output=FOLDER [--config.data.KEY=VALUE ...]

Example:
    python -m experiments.browse_data --config=demo --output=runs/demo/browse \
        --config.data.voc_root=runs/demo/data/scenes --config.data.data_dir=runs/demo/data/tfds

Look at the data first when a training fails. The program writes OUTPUT/examples.png: a sheet of crops exactly as the
training gets them, with classes in colour and ignored pixels hatched. It prints how often each class occurs, in
windows and in pixels of the crops, and how large the windows are. The last line of stdout has the same numbers as one
JSON object.
"""

import json
from collections.abc import Sequence

from absl import flags

from .common import cli, named_files


def define_flags() -> None:
    """Defines the command line."""
    cli.define_config("Config that names the data and says how crops are made.")
    cli.define_path("output", None, "Folder for examples.png.", in_bucket=True)
    flags.DEFINE_integer("count", 36, "Number of crops on the sheet.", lower_bound=1)
    flags.DEFINE_integer("sample", 512, "Number of crops whose pixels are counted.", lower_bound=1, upper_bound=20_000)
    cli.define_palette()
    flags.mark_flags_as_required(["config", "output"])


def main(argv: Sequence[str]) -> None:
    """Draws the sheet and prints the statistics."""
    cli.no_arguments(argv)
    named_files.check_data(flags.FLAGS.config)

    from .tasks.browse_data import run

    print(json.dumps(run(**cli.arguments_of(run))))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
