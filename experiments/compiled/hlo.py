"""Reads the text of a compiled HLO module: instructions in the order of execution, shapes, operations and bytes.

The text is the result of `jax.stages.Compiled.as_text()`. Sizes include the padding to tiles on a TPU.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

COLLECTIVES = ("all-reduce", "reduce-scatter", "all-gather", "all-to-all", "collective-permute")
# Opcodes that move no bytes: they only rename arrays, or the computations that they call move the bytes.
FREE = (
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier", "add-dependency"),
    *("domain", "partition-id", "replica-id", "while", "call"),
)
SLICES = ("slice", "dynamic-slice", "gather")
_INSTRUCTION = re.compile(r"\s*(ROOT )?%(\S+) = ")
_COMPUTATION = re.compile(r"(ENTRY )?%(\S+) \(.*\{\s*$")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^{}]*)\})?")
_NAME = re.compile(r"%([^\s,()]+)")
_TILE = re.compile(r"T\(([\d,]+)\)")
_ON_CHIP = re.compile(r"S\([1-9]")  # memory spaces on the chip, into which a TPU prefetches


class Array(NamedTuple):
    """Array of a module.

    Attributes:
      dtype: as in HLO, such as "bf16".
      dims: sizes.
      layout: as in HLO: the order of the dimensions, the minor one first, then tiles and memory space.
    """

    dtype: str
    dims: tuple[int, ...]
    layout: str = ""

    @property
    def num_bytes(self) -> int:
        """The bytes in memory, with padding to the layout's tile."""
        digits, tile = re.search(r"\d+", self.dtype), _TILE.search(self.layout)
        bits = int(digits[0]) if digits else 8 * (self.dtype == "pred")  # A token has no bits.
        dims = list(self.dims)
        if tile and dims:
            order = [int(i) for i in self.layout.split(":")[0].split(",")]  # minor dimension first
            sides = [int(side) for side in tile[1].split(",")]
            for dim, side in zip(order, reversed(sides), strict=False):
                dims[dim] = -(-dims[dim] // side) * side
        return math.prod(dims) * bits // 8

    @property
    def traffic(self) -> int:
        """The bytes that reading or writing it moves from or to the device's memory; 0 for arrays on the chip."""
        return 0 if _ON_CHIP.search(self.layout) else self.num_bytes


class Instruction(NamedTuple):
    """Instruction of a computation.

    Attributes:
      name: unique in the module.
      arrays: of the result; several for a tuple.
      opcode: such as "fusion" or "all-reduce-start".
      operands: names of the instructions whose results it reads.
      attributes: the rest of its line.
      number: position of a parameter among its computation's parameters; 0 for other opcodes.
    """

    name: str
    arrays: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    number: int = 0

    def attribute(self, key: str) -> str | None:
        """Returns the value of an attribute: key=%NAME, key="TEXT", key={...} or key=WORD; None without it."""
        found = re.search(rf'\b{key}=(?:"([^"]*)"|\{{([^{{}}]*)\}}|%?([^\s,]+))', self.attributes)
        return next((group for group in found.groups() if group is not None), None) if found else None

    @property
    def op_name(self) -> str:
        """The origin in the traced program, such as "jit(f)/jvp(DeconvNet)/conv1_1/add"; "" if unknown."""
        return self.attribute("op_name") or ""

    @property
    def called(self) -> str | None:
        """The name of the computation that a fusion, call, loop or asynchronous start runs; None for other opcodes."""
        key = {"while": "body", "call": "to_apply"}.get(self.opcode, "calls")
        return self.attribute(key)

    @property
    def aliases(self) -> dict[int, int]:
        """The positions of results that are written into an operand, with the operand's position."""
        found = re.search(r"output_to_operand_aliasing=\{((?:\{\d*\}: \(\d+, \{\}\)(?:, )?)*)\}", self.attributes)
        pairs = re.findall(r"\{(\d*)\}: \((\d+),", found[1]) if found else ()
        return {int(result or 0): int(operand) for result, operand in pairs}

    @property
    def trip_count(self) -> int:
        """The number of iterations of a loop if XLA knows it, otherwise 1."""
        found = re.search(r'"known_trip_count":\{"n":"?(\d+)', self.attributes)
        return int(found[1]) if found else 1


@dataclass
class Computation:
    """Computation of a module.

    Attributes:
      instructions: by name, in the order of execution.
      root: name of the instruction whose result is the computation's.
    """

    instructions: dict[str, Instruction] = field(default_factory=dict)
    root: str = ""

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """The instructions that read each instruction's result, by its name."""
        users: dict[str, list[Instruction]] = {}
        for instruction in self.instructions.values():
            for name in dict.fromkeys(instruction.operands):
                users.setdefault(name, []).append(instruction)
        return users

    @cached_property
    def parameters(self) -> dict[int, str]:
        """The names of the parameters by number."""
        return {i.number: i.name for i in self.instructions.values() if i.opcode == "parameter"}


@dataclass
class Module:
    """Compiled HLO module.

    Attributes:
      computations: by name.
      entry: the computation that runs first.
    """

    computations: dict[str, Computation]
    entry: Computation

    @classmethod
    def parse(cls, text: str) -> "Module":
        """Returns the module in a text of scheduled HLO."""
        computations: dict[str, Computation] = {}
        entry = current = Computation()
        for line in text.splitlines():
            start = _INSTRUCTION.match(line)
            if start:
                instruction = _parse_instruction(start[2], line[start.end() :])
                current.instructions[instruction.name] = instruction
                current.root = instruction.name if start[1] else current.root
                continue
            head = _COMPUTATION.match(line)
            if head:
                current = computations[head[2]] = Computation()
                entry = current if head[1] else entry
        return cls(computations, entry)

    def called(self, instruction: Instruction) -> Computation | None:
        """Returns the computation that an instruction runs, or None."""
        return self.computations.get(instruction.called or "")

    def products(self, computation: Computation, instruction: Instruction) -> Iterator[tuple[Instruction, int]]:
        """Finds convolutions and matrix products in an instruction and in the computations that it calls, except loops.

        Args:
          computation: that contains the instruction.
          instruction: in which to look.

        Yields:
          The product's instruction and its floating-point operations.
        """
        inner = self.called(instruction)
        if inner and instruction.opcode != "while":
            for each in inner.instructions.values():
                yield from self.products(inner, each)
        count = flops(computation, instruction)
        if count:
            yield instruction, count

    def exchange(self, instruction: Instruction) -> str | None:
        """Returns the kind of exchange, such as "all-reduce", to which an instruction belongs; or None."""
        kind = instruction.opcode.removesuffix("-start").removesuffix("-done")
        if kind in COLLECTIVES:
            return kind
        inner = self.called(instruction) if kind in ("async", "fusion") else None
        kinds = (self.exchange(each) for each in inner.instructions.values()) if inner else ()
        return next((kind for kind in kinds if kind), None)

    def traffic(self, computation: Computation, instruction: Instruction) -> int:
        """Returns the bytes that an instruction reads from and writes to the device's memory.

        The start of an asynchronous pair counts the bytes read, the end those written. Of an operand that is only
        sliced, the slices count. Buffers that one part of a divided exchange passes to the next part do not count.

        Args:
          computation: that contains the instruction.
          instruction: whose bytes are counted.
        """
        opcode, inner = instruction.opcode, self.called(instruction)
        if opcode in FREE or instruction.attribute("custom_call_target") == "ConcatBitcast":
            return 0
        handed_on = instruction.aliases if opcode == "fusion" and self.exchange(instruction) else {}
        results = sum(array.traffic for i, array in enumerate(instruction.arrays) if i not in handed_on)
        if opcode.endswith("-done"):
            return results
        if opcode == "dynamic-update-slice":
            update = computation.instructions[instruction.operands[1]]
            return 2 * sum(array.traffic for array in update.arrays)
        read = 0
        for position, name in enumerate(instruction.operands):
            if position in handed_on.values():
                continue
            arrays = computation.instructions[name].arrays
            whole = sum(array.traffic for array in arrays)
            if opcode == "fusion" and inner:
                whole = min(whole, self._read(inner, inner.parameters[position], whole))
            elif whole and position == 0 and opcode in (*SLICES, "slice-start"):
                result = instruction.arrays[1] if opcode == "slice-start" else instruction.arrays[0]
                whole = min(whole, result.num_bytes)
            read += whole
        if opcode.endswith("-start"):
            return read
        return read + (self._written(inner, results) if opcode == "fusion" and inner else results)

    def _read(self, computation: Computation, name: str, whole: int) -> int:
        """Returns the bytes that a fusion reads of a parameter; less than `whole` if all its users take slices."""
        total = 0
        for user in computation.users.get(name, ()):
            inner, is_first = self.called(user), user.operands[0] == name
            if user.opcode == "bitcast":
                total += self._read(computation, user.name, whole)
            elif user.opcode == "fusion" and inner:
                positions = [i for i, operand in enumerate(user.operands) if operand == name]
                total += sum(self._read(inner, inner.parameters[i], whole) for i in positions)
            elif is_first and user.opcode in SLICES:
                total += user.arrays[0].num_bytes
            elif not (is_first and user.opcode == "dynamic-update-slice"):  # That operand is updated in place.
                return whole
        return total

    def _written(self, computation: Computation, results: int) -> int:
        """Returns the bytes that a fusion writes; only the update if it writes into an operand."""
        root = computation.instructions[computation.root]
        if root.opcode != "dynamic-update-slice":
            return results
        return min(results, sum(array.num_bytes for array in computation.instructions[root.operands[1]].arrays))


def _parse_instruction(name: str, text: str) -> Instruction:
    end = _closing(text, 0) if text.startswith("(") else text.index(" ")
    arrays = tuple(
        Array(dtype, tuple(int(dim) for dim in dims.split(",") if dim), layout)
        for dtype, dims, layout in _ARRAY.findall(text[:end])
    )
    rest = text[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    close = _closing(rest, len(opcode))
    inside = rest[len(opcode) + 1 : close - 1]
    operands = () if opcode == "constant" else tuple(_NAME.findall(inside))
    number = int(inside) if opcode == "parameter" else 0
    return Instruction(name, arrays, opcode, operands, rest[close:], number)


def _closing(text: str, start: int) -> int:
    """Returns the position after the bracket that closes the bracket at `start`."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, start):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return match.end()
    return len(text)


def flops(computation: Computation, instruction: Instruction) -> int:
    """Returns the floating-point operations of a convolution or matrix product; 0 for other instructions.

    A multiply-add counts as two operations; multiplications with padding do not count.

    Args:
      computation: that contains the instruction.
      instruction: to count.
    """
    target = instruction.attribute("custom_call_target") or ""
    is_convolution = instruction.opcode == "convolution" or target.startswith("__cudnn$conv")
    if not is_convolution and instruction.opcode != "dot" and not target.startswith("__cublas"):
        return 0
    result = instruction.arrays[0].dims
    left, right = (computation.instructions[name].arrays[0].dims for name in instruction.operands[:2])
    if not is_convolution:
        return 2 * math.prod(result) * math.prod(left[dim] for dim in _contracted(instruction))
    if target.startswith("__cudnn$convBackwardInput"):  # Its window is that of the forward convolution.
        return _convolution_flops(instruction, result, right, left)
    if target.startswith("__cudnn$convBackwardFilter"):
        return _convolution_flops(instruction, left, result, right)
    return _convolution_flops(instruction, left, right, result)


def _contracted(instruction: Instruction) -> list[int]:
    """Returns the dimensions of the first operand over which a matrix product sums."""
    found = instruction.attribute("lhs_contracting_dims")
    if found is None:  # in a call of cuBLAS
        of_call = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.attributes)
        found = of_call[1].replace('"', "") if of_call else ""
    return [int(dim) for dim in found.split(",") if dim]


def _convolution_flops(
    instruction: Instruction, left: tuple[int, ...], kernel: tuple[int, ...], result: tuple[int, ...]
) -> int:
    """Counts two operations per multiply-add with an input element; none for padding and the gaps of a dilation."""
    of_left, of_kernel, of_result = re.split("_|->", instruction.attribute("dim_labels") or "")
    window = dict(part.split("=") for part in (instruction.attribute("window") or "").split())
    count = 2 * result[of_result.index("b")] * result[of_result.index("f")] * kernel[of_kernel.index("i")]
    for axis, label in enumerate(label for label in of_left if label.isdigit()):
        of_axis = {key: value.split("x")[axis] for key, value in window.items()}
        count *= _pairs(of_axis, left[of_left.index(label)], result[of_result.index(label)])
    return count


def _pairs(window: dict[str, str], size: int, out: int) -> int:
    """Returns along one axis the number of pairs of output and window position that meet an input element."""
    side, stride = int(window.get("size", 1)), int(window.get("stride", 1))
    dilation, holes = int(window.get("rhs_dilate", 1)), int(window.get("lhs_dilate", 1))
    low = int(window.get("pad", "0_0").split("_")[0])
    places = np.arange(out)[:, None] * stride + np.arange(side) * dilation - low
    return int(np.count_nonzero((places >= 0) & (places <= (size - 1) * holes) & (places % holes == 0)))
