"""What a compiled program does in its order: operations, bytes, and when its all-reduces start and end.

Times are bounds: an instruction takes its operations at the peak rate or its bytes at the memory's bandwidth,
whichever is longer. The program itself is slower.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .hlo import Computation, Instruction, Module

# Names of the fusions between which libtpu runs an exchange in parts, inside the fusions that compute.
PARTS_START, PARTS_DONE = "async-collective-start", "async-collective-done"
LATE = 0.9  # share of the backward pass's products after which an all-reduce is late
SHOWN = 10  # instructions that move the most bytes


class Rates(NamedTuple):
    """Peak floating-point operations per second, and bytes per second of the memory."""

    flops: float
    bandwidth: float


@dataclass(frozen=True)
class Collective:
    """A sum over devices, or another exchange between them."""

    name: str  # of the instruction
    kind: str  # e.g. "all-reduce"
    num_bytes: int  # of its results on each device
    times: int  # how often it runs: more than once inside a loop
    asynchronous: bool  # whether other instructions can run between its start and its end
    start_product: int  # convolutions and matrix products of the backward pass that run before its start
    end_product: int  # those that run before its end
    before_backward_end: bool  # whether products of the backward pass run after its start
    flops_between: int  # operations of what runs between its start and its end
    start_seconds: float  # bound of the time of all instructions before its start, exchanges left out
    end_seconds: float  # the same before its end


@dataclass(frozen=True)
class Schedule:
    """What a program does on one device; exchanges with other devices are left out of bytes and seconds."""

    flops: int  # of convolutions and matrix products, two per multiply-add; none for padding
    num_bytes: int  # moved from and to the device's memory
    backward_products: int  # convolutions and matrix products of the backward pass
    arithmetic_seconds: float  # `flops` at the peak rate
    memory_seconds: float  # `num_bytes` at the memory's bandwidth
    bound_seconds: float  # the bounds of all instructions, one after the other; a TPU's prefetches run beside others
    exchanged_bytes: int  # that every device exchanges with others
    early_share: float  # of those, the share whose exchange starts before the last tenth of the backward products
    collectives: tuple[Collective, ...]  # in the order of their starts
    largest: tuple[dict[str, Any], ...]  # the instructions that move most: "name", "opcode", "layer", "bytes", "times"


def read_schedule(text: str, rates: Rates, layers: Sequence[str] = (), arguments: Sequence[str] = ()) -> Schedule:
    """Returns what a compiled program does on one device.

    Args:
      text: of the scheduled HLO module.
      rates: of the device.
      layers: names to look for in the origin of an instruction.
      arguments: names of the program's arguments, in their order.
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
    """An instruction, the computation that it is in, and how often it runs."""

    instruction: Instruction
    computation: Computation
    times: int


def _steps(module: Module, computation: Computation, times: int) -> Iterator[_Step]:
    """All instructions in the order in which they run; those of a loop once, with its number of turns."""
    for instruction in computation.instructions.values():
        inner = module.called(instruction)
        if inner and instruction.opcode in ("while", "call"):
            yield from _steps(module, inner, times * instruction.trip_count)
        else:
            yield _Step(instruction, computation, times)


def _starts_and_ends(instruction: Instruction) -> tuple[bool, bool]:
    """Whether an instruction with an exchange starts it, and whether it ends it."""
    if instruction.opcode == "fusion" and instruction.name.startswith((PARTS_START, PARTS_DONE)):
        return instruction.name.startswith(PARTS_START), instruction.name.startswith(PARTS_DONE)
    return not instruction.opcode.endswith("-done"), not instruction.opcode.endswith("-start")


@dataclass
class _Clock:
    """What has run so far."""

    module: Module
    rates: Rates
    flops: int = 0
    num_bytes: int = 0
    products: int = 0  # of the backward pass
    seconds: float = 0.0
    # By name, for each exchange: kind, times, whether asynchronous, `now` at its start; bytes, `now` at its end.
    begun: dict[str, tuple[str, int, bool, tuple[int, int, float]]] = field(default_factory=dict)
    ended: dict[str, tuple[int, tuple[int, int, float]]] = field(default_factory=dict)

    @property
    def now(self) -> tuple[int, int, float]:
        """Products of the backward pass, operations and seconds so far."""
        return self.products, self.flops, self.seconds

    def run(self, step: _Step) -> None:
        """Advances by one instruction."""
        instruction, computation, times = step
        kind = self.module.exchange(instruction)
        if kind or (instruction.opcode == "async-done" and instruction.operands[0] in self.begun):
            starts, ends = _starts_and_ends(instruction)
            computes = instruction.opcode == "fusion" and starts and ends
            in_parts = any(name.startswith(PARTS_START) for name in self.begun.keys() - self.ended.keys())
            if not (computes and in_parts):  # otherwise one of the parts
                self._exchange(instruction, times, kind or "")
            if not computes:
                return
        num_bytes = self.module.traffic(computation, instruction)
        self.num_bytes += times * num_bytes
        products = list(self.module.products(computation, instruction))
        flops = sum(count for _, count in products)
        self.flops += times * flops
        self.products += times * sum("transpose(" in product.op_name for product, _ in products)
        if not instruction.opcode.endswith(("-start", "-done")):  # a prefetch runs beside other instructions
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
        """The exchanges, after the last instruction."""
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
    """The instructions that move the most bytes; what the end of a pair writes is its start's."""
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
    """The layer that an instruction belongs to and whether it is of its backward pass, or the arguments it reads."""
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
    """Returns the time of a step with its exchanges, one of which is on its way at a time.

    Args:
      collectives: of the step's schedule.
      bound: `Schedule.bound_seconds`.
      factor: by how much everything but exchanges takes longer than its bound.
      duration: seconds of an exchange, by its bytes.
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
