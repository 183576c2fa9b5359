"""Runs one benchmark, or each in a separate process, and collects the numbers."""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import write_text

from ..benchmarks import harness
from ..benchmarks.registry import BENCHMARKS
from ..common.output import output_file
from ..common.scripts import PACKAGE

ALL = "all"
NAMES = (*BENCHMARKS, ALL)
REFUSED = ("picture", "dtype", "quick")  # by benchmarks that do not take them


def run(words: Sequence[str], values: flags.FlagValues) -> None:
    """Runs one benchmark, or all."""
    if len(words) != 1 or words[0] not in NAMES:
        given = " ".join(words) or "nothing"
        raise InputError(f"expected the name of one benchmark ({', '.join(NAMES)}); got {given}")
    name = words[0]
    for flag in REFUSED:
        known = [other for other, benchmark in BENCHMARKS.items() if flag in benchmark.flags]
        if values[flag].value and name not in (*known, ALL):
            named = " and ".join(known)
            raise InputError(f"--{flag}={values[flag].value} has no meaning for '{name}', only for {named}")
    path = values.json and output_file(values.json, "--json")
    if values.picture:
        values.picture = output_file(values.picture, "--picture", ".png")
    numbers = run_all(values) if name == ALL else run_one(name, values)
    text = json.dumps(numbers)
    if path:
        write_text(path, text + "\n")
    print(text)


def run_one(name: str, values: flags.FlagValues) -> harness.Numbers:
    """Runs a benchmark with the flags that it takes and prints its tables; returns its numbers."""
    benchmark = BENCHMARKS[name]
    numbers = benchmark.module.run(**{flag: values[flag].value for flag in benchmark.flags})
    harness.show(benchmark.module.tables(numbers))
    return numbers


def run_all(values: flags.FlagValues) -> dict[str, Any]:
    """Returns the numbers of all, each measured in a separate process with the flags it takes; None if it failed."""
    numbers: dict[str, Any] = {}
    for name, benchmark in BENCHMARKS.items():
        if name == "proposals" and not values.voc_root:
            continue
        given = [f"--{flag}={values[flag].value}" for flag in benchmark.flags if values[flag].present]
        command = [sys.executable, "-m", f"{PACKAGE}.benchmark", name, *given]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        numbers[name] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
    return numbers
