"""Weak scaling from compiled programs: what a step loses to summing up gradients on more accelerators.

    python -m experiments.benchmark scaling [--report=FILE] [--step_ms=MS] [--json=FILE]

Nothing is measured here. When each all-reduce starts and ends, and its bytes, are those of a program that XLA compiled
(`experiments.compile --json=FILE`); without --report, of all such files in docs/results/compiled. Everything else in
the step takes its compiled bound times a factor: that of one H100 where it was measured, or the reader's own step time,
--step_ms. Rates of links are the vendors', of which 80 % is assumed to be reached (`experiments/compiled/hardware.py`).
More accelerators are assumed to run the same program, each with as many images.
"""

import json
from functools import partial
from pathlib import Path

from deconvnet_jax.errors import InputError

from ..compiled.hardware import all_reduce_seconds
from ..compiled.schedule import Collective, step_seconds
from ..compiled.topologies import accelerator_of
from .harness import Numbers, Table

REPORTS = Path(__file__).resolve().parents[2] / "docs/results/compiled"
SIZES = (8, 64, 256)  # accelerators
# A step of 64 images in bfloat16 took 38.4 ms on one H100 (docs/performance.md); the bound of that program was 26.8 ms.
SLOWER_THAN_BOUND = 38.4 / 26.8


def run(report: str | Path | None, step_ms: float | None) -> Numbers:
    """Computes the scaling.

    Args:
      report: file of `experiments.compile --json`; None: all in docs/results/compiled.
      step_ms: measured milliseconds of that report's step on one accelerator; None: estimated from its bound.

    Raises:
      InputError: for a time that is none, or a file that cannot be used.
    """
    if step_ms is not None and step_ms <= 0:
        raise InputError(f"--step_ms={step_ms:g}: expected the milliseconds of a step, more than 0")
    if step_ms is not None and report is None:
        raise InputError(f"--step_ms={step_ms:g}: expected --report too, the compiled program of that step")
    files = [Path(report)] if report else sorted(REPORTS.glob("*.json"))
    if not files:
        raise InputError(f"{REPORTS} holds no reports; give --report=FILE, made by experiments.compile --json=FILE")
    return {
        "step": "given" if step_ms else f"bound of the compiled program times {SLOWER_THAN_BOUND:.2f}",
        "cases": [case(read_report(file), step_ms) for file in files],
    }


def read_report(file: Path) -> Numbers:
    """Returns the report of a compiled program.

    Raises:
      InputError: if the file is not one.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        found["step"]["collectives"] = [Collective(**one) for one in found["step"]["collectives"]]
        accelerator_of(found["topology"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"--report={file} is no report of experiments.compile --json; name another file") from error
    return found


def case(report: Numbers, step_ms: float | None) -> Numbers:
    """Returns the numbers of a compiled program on one accelerator and on more."""
    step, accelerator = report["step"], accelerator_of(report["topology"])
    alone = step_ms / 1000 if step_ms else SLOWER_THAN_BOUND * step["bound_seconds"]
    scaling = {}
    for size in SIZES:
        duration = partial(all_reduce_seconds, levels=accelerator.levels(size))
        together = step_seconds(step["collectives"], step["bound_seconds"], alone / step["bound_seconds"], duration)
        exchanges = sum(one.times * duration(one.num_bytes) for one in step["collectives"])
        scaling[str(size)] = {"all_reduce": exchanges, "step": together, "efficiency": alone / together}
    return {
        "topology": report["topology"],
        "batch_per_device": report["batch_per_device"],
        "dtype": report["config"]["dtype"],
        "gradients": report["config"]["all_reduce_dtype"],
        "early_share": step["early_share"],
        "step_seconds": alone,
        "scaling": scaling,
    }


def tables(numbers: Numbers) -> list[Table]:
    """Returns a row for each compiled program."""
    on = f"on {', '.join(map(str, SIZES))} accelerators"
    title = f"Step on one accelerator: {numbers['step']}. All-reduces and efficiency: {on}."
    columns = (
        *("compiled for", "images each", "dtype", "step, ms", "starts early, %", "all-reduces, ms", "efficiency, %"),
    )
    rows = []
    for row in numbers["cases"]:
        milliseconds, early = f"{1000 * row['step_seconds']:.1f}", f"{100 * row['early_share']:.0f}"
        of_size = row["scaling"].values()
        all_reduces = " / ".join(f"{1000 * scaling['all_reduce']:.1f}" for scaling in of_size)
        efficiency = " / ".join(f"{100 * scaling['efficiency']:.0f}" for scaling in of_size)
        images = str(row["batch_per_device"])
        rows.append([row["topology"], images, row["dtype"], milliseconds, early, all_reduces, efficiency])
    return [Table(title, columns, rows)]
