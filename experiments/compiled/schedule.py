"""Reads from a compiled program its operations, its bytes, and when its all-reduces start and end.

Times are lower bounds. An instruction takes the longer of two times: its operations at the peak rate, and its bytes at
the memory's bandwidth. The program itself is slower.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .hlo import Computation, Instruction, Module

# libtpu divides an exchange into parts inside fusions that compute. Fusions with these names start and end it.
PARTS_START, PARTS_DONE = "async-collective-start", "async-collective-done"
LATE = 0.9  # An all-reduce that starts after this share of the backward pass's products is late.
SHOWN = 10  # number of instructions in `Schedule.largest`


class Rates(NamedTuple):
    """Rates of a device.

    Attributes:
      flops: peak floating-point operations per second.
      bandwidth: bytes per second of its memory.
    """

    flops: float
    bandwidth: float


@dataclass(frozen=True)
class Collective:
    """All-reduce or another exchange between devices.

    Attributes:
      name: of the instruction.
      kind: such as "all-reduce".
      num_bytes: of its results on each device.
      times: number of runs per step; more than 1 inside a loop.
      asynchronous: whether other instructions can run between its start and its end.
      start_product: number of convolutions and matrix products of the backward pass before its start.
      end_product: number of those before its end.
      before_backward_end: whether products of the backward pass run after its start.
      flops_between: floating-point operations between its start and its end.
      start_seconds: bound of the time of all instructions before its start, without exchanges.
      end_seconds: the same before its end.
    """

    name: str
    kind: str
    num_bytes: int
    times: int
    asynchronous: bool
    start_product: int
    end_product: int
    before_backward_end: bool
    flops_between: int
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True)
class Schedule:
    """Work of a program on one device. Bytes and seconds do not include exchanges with other devices.

    Attributes:
      flops: floating-point operations of convolutions and matrix products, two per multiply-add, without padding.
      num_bytes: moved from and to the device's memory.
      backward_products: number of convolutions and matrix products of the backward pass.
      arithmetic_seconds: `flops` at the peak rate.
      memory_seconds: `num_bytes` at the memory's bandwidth.
      bound_seconds: sum of the bounds of all instructions; a TPU's prefetches run at the same time as others.
      exchanged_bytes: that every device exchanges with others.
      early_share: share of `exchanged_bytes` whose exchange starts before the last tenth of the backward products.
      collectives: all exchanges, in the order of their starts.
      largest: the instructions that move the most bytes, each with "name", "opcode", "layer", "bytes" and "times".
    """

    flops: int
    num_bytes: int
    backward_products: int
    arithmetic_seconds: float
    memory_seconds: float
    bound_seconds: float
    exchanged_bytes: int
    early_share: float
    collectives: tuple[Collective, ...]
    largest: tuple[dict[str, Any], ...]


def read_schedule(text: str, rates: Rates, layers: Sequence[str] = (), arguments: Sequence[str] = ()) -> Schedule:
    """Returns the work of a compiled program on one device.

    Args:
      text: of the scheduled HLO module.
      rates: of the device.
      layers: names of the network's layers, by which `Schedule.largest` names the origin of instructions.
      arguments: names of the program's arguments in their order, for instructions that belong to no layer.
    """
    module = Module.parse(text)
    steps = list(_steps(module, module.entry, 1))
    clock = _Clock(module, rates)
    for step in steps:
        clock.run(step)
    collectives = tuple(clock.finished())
    exchanged = sum(one.num_bytes * one.times for one in collectives)
    early = [one for one in collectives if one.start_product <= LATE * clock.products]
    return Schedule(
        flops=clock.flops,
        num_bytes=clock.num_bytes,
        backward_products=clock.products,
        arithmetic_seconds=clock.flops / rates.flops,
        memory_seconds=clock.num_bytes / rates.bandwidth,
        bound_seconds=max(clock.seconds, clock.num_bytes / rates.bandwidth),
        exchanged_bytes=exchanged,
        early_share=sum(one.num_bytes * one.times for one in early) / max(1, exchanged),
        collectives=collectives,
        largest=tuple(_largest(module, steps, layers, arguments)),
    )


class _Step(NamedTuple):
    """Instruction with the computation that contains it and the number of its runs."""

    instruction: Instruction
    computation: Computation
    times: int


def _steps(module: Module, computation: Computation, times: int) -> Iterator[_Step]:
    """Yields all instructions in the order of execution; those of a loop once, with its number of iterations."""
    for instruction in computation.instructions.values():
        inner = module.called(instruction)
        if inner and instruction.opcode in ("while", "call"):
            yield from _steps(module, inner, times * instruction.trip_count)
        else:
            yield _Step(instruction, computation, times)


def _starts_and_ends(instruction: Instruction) -> tuple[bool, bool]:
    """Returns whether an instruction starts its exchange, and whether it ends it."""
    if instruction.opcode == "fusion" and instruction.name.startswith((PARTS_START, PARTS_DONE)):
        return instruction.name.startswith(PARTS_START), instruction.name.startswith(PARTS_DONE)
    return not instruction.opcode.endswith("-done"), not instruction.opcode.endswith("-start")


@dataclass
class _Clock:
    """Counter of the instructions that have run so far."""

    module: Module
    rates: Rates
    flops: int = 0
    num_bytes: int = 0
    products: int = 0  # convolutions and matrix products of the backward pass
    seconds: float = 0.0
    # By name of each exchange: kind, times, whether asynchronous, `now` at its start; and bytes, `now` at its end.
    begun: dict[str, tuple[str, int, bool, tuple[int, int, float]]] = field(default_factory=dict)
    ended: dict[str, tuple[int, tuple[int, int, float]]] = field(default_factory=dict)

    @property
    def now(self) -> tuple[int, int, float]:
        """The products of the backward pass, operations and seconds so far."""
        return self.products, self.flops, self.seconds

    def run(self, step: _Step) -> None:
        """Counts one instruction."""
        instruction, computation, times = step
        kind = self.module.exchange(instruction)
        if kind or (instruction.opcode == "async-done" and instruction.operands[0] in self.begun):
            starts, ends = _starts_and_ends(instruction)
            computes = instruction.opcode == "fusion" and starts and ends
            in_parts = any(name.startswith(PARTS_START) for name in self.begun.keys() - self.ended.keys())
            if not (computes and in_parts):  # Otherwise it holds a part of an exchange that has started.
                self._exchange(instruction, times, kind or "")
            if not computes:
                return
        num_bytes = self.module.traffic(computation, instruction)
        self.num_bytes += times * num_bytes
        products = list(self.module.products(computation, instruction))
        flops = sum(count for _, count in products)
        self.flops += times * flops
        self.products += times * sum("transpose(" in product.op_name for product, _ in products)
        if not instruction.opcode.endswith(
            ("-start", "-done")
        ):  # A prefetch runs at the same time as other instructions.
            self.seconds += times * max(flops / self.rates.flops, num_bytes / self.rates.bandwidth)

    def _exchange(self, instruction: Instruction, times: int, kind: str) -> None:
        name, (starts, ends) = instruction.name, _starts_and_ends(instruction)
        if starts:
            asynchronous = not ends and '"is_sync":true' not in instruction.attributes
            self.begun[name] = kind, times, asynchronous, self.now
        if ends:
            candidates = (name, name.replace(PARTS_DONE, PARTS_START), *instruction.operands)
            start = next(candidate for candidate in candidates if candidate in self.begun)
            self.ended[start] = sum(array.num_bytes for array in instruction.arrays), self.now

    def finished(self) -> Iterator[Collective]:
        """Yields all exchanges. Call it after the last instruction."""
        for name, (kind, times, asynchronous, (start_product, start_flops, start)) in self.begun.items():
            num_bytes, (end_product, end_flops, end) = self.ended[name]
            yield Collective(
                *(name, kind, num_bytes, times, asynchronous, start_product, end_product),
                before_backward_end=start_product < self.products,
                flops_between=end_flops - start_flops,
                start_seconds=start,
                end_seconds=end,
            )


def _largest(
    module: Module, steps: Sequence[_Step], layers: Sequence[str], arguments: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yields the instructions that move the most bytes; bytes written by the end of a pair count for its start."""
    moved: dict[str, int] = {}
    by_name = {step.instruction.name: step for step in steps}
    for instruction, computation, times in steps:
        owner = instruction.operands[0] if instruction.opcode.endswith("-done") else instruction.name
        moved[owner] = moved.get(owner, 0) + times * module.traffic(computation, instruction)
    for name in sorted(moved, key=lambda name: -moved[name])[:SHOWN]:
        instruction, computation, times = by_name[name]
        yield {
            "name": name,
            "opcode": instruction.opcode,
            "layer": _origin(instruction, computation, layers, arguments if computation is module.entry else ()),
            "bytes": moved[name],
            "times": times,
        }


def _origin(instruction: Instruction, computation: Computation, layers: Sequence[str], arguments: Sequence[str]) -> str:
    """Returns the layer of an instruction and its pass, or else the largest argument that it reads."""
    parts = instruction.op_name.replace(";", "/").split("/")
    what = parts[-1] or instruction.opcode
    layer = next((part for part in reversed(parts) if part in layers), None)
    if layer:
        return f"{layer}, {'backward' if 'transpose(' in instruction.op_name else 'forward'}: {what}"
    read = [computation.instructions[name] for name in instruction.operands]
    known = [one for one in read if one.opcode == "parameter" and one.number < len(arguments)]
    if not known:
        return what
    largest = max(known, key=lambda one: sum(array.num_bytes for array in one.arrays))
    return f"{arguments[largest.number]}: {what}"


def step_seconds(
    collectives: Sequence[Collective], bound: float, factor: float, duration: Callable[[float], float]
) -> float:
    """Returns the seconds of a step with its exchanges. Exchanges run one after the other.

    Args:
      collectives: of the step's schedule.
      bound: `Schedule.bound_seconds`.
      factor: actual time of everything except exchanges, divided by its bound.
      duration: takes the bytes of an exchange and returns its seconds.
    """
    events = [(one.start_seconds, False, i) for i, one in enumerate(collectives)]
    events += [(one.end_seconds, True, i) for i, one in enumerate(collectives)]
    clock = reached = free = 0.0
    ends: dict[int, float] = {}
    for moment, is_end, index in sorted(events):
        clock, reached = clock + factor * (moment - reached), moment
        if is_end:
            clock = max(clock, ends[index])
        else:
            one = collectives[index]
            free = ends[index] = max(clock, free) + one.times * duration(one.num_bytes)
    return clock + factor * (bound - reached)
