"""How the programs are started: `python -m experiments.NAME` in a checkout, a command where the wheel is installed."""

import functools
import re
import runpy
from collections.abc import Callable

PACKAGE = __name__.rpartition(".common.")[0]  # "experiments", or "deconvnet_jax.experiments" in the wheel
# Program -> command; [project.scripts] in pyproject.toml has the same.
COMMANDS = {
    "benchmark": "deconvnet-benchmark",
    "browse_data": "deconvnet-browse",
    "calibrate_bn": "deconvnet-calibrate",
    "claims": "deconvnet-claims",
    "compile": "deconvnet-compile",
    "export_model": "deconvnet-export",
    "import_coco": "deconvnet-import-coco",
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
    """Returns what starts a program where this package is, for messages and help."""
    return f"python -m experiments.{program}" if PACKAGE == "experiments" else COMMANDS[program]


def with_commands(text: str) -> str:
    """Returns a text whose `python -m experiments.NAME` are what starts the programs here."""
    return re.sub(r"python -m experiments\.(\w+)", lambda found: command(found[1]), text)


def __getattr__(program: str) -> Callable[[], object]:
    """Returns the function behind a command: it runs the program as `python -m` does."""
    if program not in COMMANDS:
        raise AttributeError(program)
    return functools.partial(runpy.run_module, f"{PACKAGE}.{program}", run_name="__main__", alter_sys=True)
