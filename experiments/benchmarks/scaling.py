"""Computes weak scaling from compiled programs: the time that a step loses to all-reduces on more accelerators.

    python -m experiments.benchmark scaling [--report=FILE] [--step_ms=MS] [--json=FILE]

Nothing is measured here. The start, the end and the bytes of each all-reduce are read from a report of a program that
XLA compiled (`experiments.compile --json=FILE`); without --report, from all reports in docs/results/compiled.

Assumptions:

- Everything else in the step takes its compiled bound times a factor. The factor is the one measured on one H100, or it
  follows from your own step time, --step_ms.
- Links reach 80 % of the vendors' rates (`experiments/compiled/hardware.py`).
- More accelerators run the same program, each with as many images.
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
SIZES = (8, 64, 256)  # numbers of accelerators
# A step of 64 images in bfloat16 took 38.4 ms on one H100 (docs/performance.md); the bound of that program was 26.8 ms.
SLOWER_THAN_BOUND = 38.4 / 26.8


def run(report: str | Path | None, step_ms: float | None) -> Numbers:
    """Computes the scaling of every report.

    Args:
      report: file of `experiments.compile --json`; None takes all files in docs/results/compiled.
      step_ms: measured milliseconds of that report's step on one accelerator; None estimates them from the bound.

    Returns:
      The numbers for `tables`, one JSON object.

    Raises:
      InputError: for a `step_ms` that is not above 0 or has no `report`, and for a file that cannot be used.
    """
    if step_ms is not None and step_ms <= 0:
        raise InputError(f"--step_ms={step_ms:g}: expected the milliseconds of a step, above 0")
    if step_ms is not None and report is None:
        raise InputError(f"--step_ms={step_ms:g} needs the compiled program of that step; give --report=FILE too")
    files = [Path(report)] if report else sorted(REPORTS.glob("*.json"))
    if not files:
        raise InputError(
            f"{REPORTS} holds no reports; give --report=FILE, which experiments.compile --json=FILE writes"
        )
    return {
        "step": "given" if step_ms else f"bound of the compiled program times {SLOWER_THAN_BOUND:.2f}",
        "cases": [case(read_report(file), step_ms) for file in files],
    }


def read_report(file: Path) -> Numbers:
    """Reads a report of a compiled program.

    Raises:
      InputError: if the file cannot be read or is no such report.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        found["step"]["collectives"] = [Collective(**one) for one in found["step"]["collectives"]]
        accelerator_of(found["topology"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"--report={file} is no report of experiments.compile --json; name another file") from error
    return found


def case(report: Numbers, step_ms: float | None) -> Numbers:
    """Computes the scaling of one compiled program.

    Args:
      report: the result of `read_report`.
      step_ms: measured milliseconds of the step on one accelerator; None estimates them from the bound.

    Returns:
      The program's setting, "step_seconds" on one accelerator, and "scaling": by number of accelerators, seconds of
      "all_reduce" and "step", and "efficiency" from 0 to 1.
    """
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
    """Returns one table with a row for each compiled program, from the numbers of `run`."""
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
