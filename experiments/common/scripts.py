"""Names the commands that start programs: `python -m experiments.NAME`, or deconvnet-... from the wheel."""

import functools
import re
import runpy
from collections.abc import Callable
from pathlib import Path

PACKAGE = __name__.rpartition(".common.")[0]  # "experiments", or "deconvnet_jax.experiments" in the wheel
# The file that lists every setting of a config, for messages and help.
SETTINGS_FILE = "experiments/configs/default.py"
if PACKAGE != "experiments":
    SETTINGS_FILE = str(Path(__file__).parents[1] / "configs/default.py")
# Command of each program in the wheel, as in [project.scripts] of pyproject.toml.
COMMANDS = {
    "benchmark": "deconvnet-benchmark",
    "browse_data": "deconvnet-browse",
    "calibrate_bn": "deconvnet-calibrate",
    "claims": "deconvnet-claims",
    "compile": "deconvnet-compile",
    "export_model": "deconvnet-export",
    "import_coco": "deconvnet-import-coco",
    "import_masks": "deconvnet-import-masks",
    "import_weights": "deconvnet-import-weights",
    "plot_metrics": "deconvnet-plot",
    "predict": "deconvnet-predict",
    "prepare_data": "deconvnet-prepare",
    "train_edges": "deconvnet-train-edges",
    "visualize": "deconvnet-visualize",
    "voc_eval": "deconvnet-eval",
    "voc_train": "deconvnet-train",
}


def command(program: str) -> str:
    """Returns the command that starts a program in this installation, for messages and help."""
    return f"python -m experiments.{program}" if PACKAGE == "experiments" else COMMANDS[program]


def with_commands(text: str) -> str:
    """Returns a text with every `python -m experiments.NAME` replaced by this installation's command."""
    return re.sub(r"python -m experiments\.(\w+)", lambda found: command(found[1]), text)


def __getattr__(program: str) -> Callable[[], object]:
    """Returns the function behind a command, which runs the program as `python -m` does."""
    if program not in COMMANDS:
        raise AttributeError(program)
    return functools.partial(runpy.run_module, f"{PACKAGE}.{program}", run_name="__main__", alter_sys=True)
