"""All benchmarks by name, each with the flags that it takes."""

from types import ModuleType
from typing import NamedTuple

from . import crf, environment, forward, growth, infer, input, proposals, repeat, scaling, train, unpool


class Benchmark(NamedTuple):
    """A benchmark."""

    module: ModuleType  # its `run` returns numbers, one JSON object; its `tables` makes tables of them
    flags: tuple[str, ...] = ()  # the arguments of `run`


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
