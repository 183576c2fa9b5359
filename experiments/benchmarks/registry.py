"""The table of all benchmarks: name, module and flags."""

from types import ModuleType
from typing import NamedTuple

from . import crf, environment, forward, growth, infer, input, proposals, repeat, scaling, train, unpool


class Benchmark(NamedTuple):
    """A benchmark.

    Attributes:
      module: its `run` returns the numbers as one JSON object; its `tables` turns them into tables.
      flags: names of the flags of experiments.benchmark that `run` takes as arguments.
    """

    module: ModuleType
    flags: tuple[str, ...] = ()


BENCHMARKS = {
    "environment": Benchmark(environment),
    "input": Benchmark(input, ("quick",)),
    "proposals": Benchmark(proposals, ("voc_root", "split", "forest")),
    "train": Benchmark(train, ("batch_size", "width", "dtype", "quick")),
    "repeat": Benchmark(repeat, ("batch_size", "width", "dtype")),
    "forward": Benchmark(forward, ("batch_size", "width", "quick")),
    "unpool": Benchmark(unpool, ("batch_size",)),
    "infer": Benchmark(infer, ("batch_size", "width")),
    "crf": Benchmark(crf, ("voc_root",)),
    "growth": Benchmark(growth, ("width", "picture")),
    "scaling": Benchmark(scaling, ("report", "step_ms")),
}
