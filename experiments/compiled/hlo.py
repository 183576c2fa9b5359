"""Reads the text of a compiled HLO module: instructions in the order of execution, shapes, multiply-adds, bytes.

The text is what `jax.stages.Compiled.as_text()` returns. Sizes include the tiles to which a TPU pads arrays.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

# Opcodes that move nothing: other names for what is there already, or carried out by what they call.
COLLECTIVES = ("all-reduce", "reduce-scatter", "all-gather", "all-to-all", "collective-permute")
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
_ON_CHIP = re.compile(r"S\([1-9]")  # where a TPU prefetches to


class Array(NamedTuple):
    """Dtype and sizes of an array; its layout: dimensions, the minor one first, tiles and memory space, as in HLO."""

    dtype: str
    dims: tuple[int, ...]
    layout: str = ""

    @property
    def num_bytes(self) -> int:
        """Bytes in memory, with the padding of the layout's tile."""
        digits, tile = re.search(r"\d+", self.dtype), _TILE.search(self.layout)
        bits = int(digits[0]) if digits else 8 * (self.dtype == "pred")  # tokens have none
        dims = list(self.dims)
        if tile and dims:
            order = [int(i) for i in self.layout.split(":")[0].split(",")]  # minor dimension first
            sides = [int(side) for side in tile[1].split(",")]
            for dim, side in zip(order, reversed(sides), strict=False):
                dims[dim] = -(-dims[dim] // side) * side
        return math.prod(dims) * bits // 8

    @property
    def traffic(self) -> int:
        """Bytes that reading or writing it moves from or to the device's memory."""
        return 0 if _ON_CHIP.search(self.layout) else self.num_bytes


class Instruction(NamedTuple):
    """One instruction: result, opcode, names of operands, and the rest of its line."""

    name: str
    arrays: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    number: int = 0  # of a parameter

    def attribute(self, key: str) -> str | None:
        """The value of key=%NAME, key="TEXT", key={...} or key=WORD; None if there is none."""
        found = re.search(rf'\b{key}=(?:"([^"]*)"|\{{([^{{}}]*)\}}|%?([^\s,]+))', self.attributes)
        return next((group for group in found.groups() if group is not None), None) if found else None

    @property
    def op_name(self) -> str:
        """Where in the traced program it comes from, e.g. "jit(f)/jvp(DeconvNet)/conv1_1/add"."""
        return self.attribute("op_name") or ""

    @property
    def called(self) -> str | None:
        """The computation that a fusion, call, loop or asynchronous start runs."""
        key = {"while": "body", "call": "to_apply"}.get(self.opcode, "calls")
        return self.attribute(key)

    @property
    def aliases(self) -> dict[int, int]:
        """Which of its results are written into which operand."""
        found = re.search(r"output_to_operand_aliasing=\{((?:\{\d*\}: \(\d+, \{\}\)(?:, )?)*)\}", self.attributes)
        pairs = re.findall(r"\{(\d*)\}: \((\d+),", found[1]) if found else ()
        return {int(result or 0): int(operand) for result, operand in pairs}

    @property
    def trip_count(self) -> int:
        """How often a loop runs, if XLA knows; otherwise 1."""
        found = re.search(r'"known_trip_count":\{"n":"?(\d+)', self.attributes)
        return int(found[1]) if found else 1


@dataclass
class Computation:
    """Instructions of a computation in their order, by name."""

    instructions: dict[str, Instruction] = field(default_factory=dict)
    root: str = ""

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Who reads each instruction."""
        users: dict[str, list[Instruction]] = {}
        for instruction in self.instructions.values():
            for name in dict.fromkeys(instruction.operands):
                users.setdefault(name, []).append(instruction)
        return users

    @cached_property
    def parameters(self) -> dict[int, str]:
        """Names of its parameters by number."""
        return {i.number: i.name for i in self.instructions.values() if i.opcode == "parameter"}


@dataclass
class Module:
    """All computations of a module, and the one that runs first."""

    computations: dict[str, Computation]
    entry: Computation

    @classmethod
    def parse(cls, text: str) -> "Module":
        """Reads the text of a scheduled module."""
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
        """The computation that an instruction runs, if it does."""
        return self.computations.get(instruction.called or "")

    def products(self, computation: Computation, instruction: Instruction) -> Iterator[tuple[Instruction, int]]:
        """Convolutions and matrix products in an instruction and what it calls, with the floating-point operations."""
        inner = self.called(instruction)
        if inner and instruction.opcode != "while":
            for each in inner.instructions.values():
                yield from self.products(inner, each)
        count = flops(computation, instruction)
        if count:
            yield instruction, count

    def exchange(self, instruction: Instruction) -> str | None:
        """The kind of exchange between devices that an instruction is, starts, ends or has a part of; or None."""
        kind = instruction.opcode.removesuffix("-start").removesuffix("-done")
        if kind in COLLECTIVES:
            return kind
        inner = self.called(instruction) if kind in ("async", "fusion") else None
        kinds = (self.exchange(each) for each in inner.instructions.values()) if inner else ()
        return next((kind for kind in kinds if kind), None)

    def traffic(self, computation: Computation, instruction: Instruction) -> int:
        """Bytes that an instruction reads from and writes to the device's memory.

        Of an asynchronous pair the start reads and the end writes. What is only sliced is read in part. What a fusion
        that has a part of an exchange hands on to the next part is left out.
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
        """Bytes that a fusion reads of a parameter: less than all of it if all who use it take slices."""
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
            elif not (is_first and user.opcode == "dynamic-update-slice"):  # which is written in place
                return whole
        return total

    def _written(self, computation: Computation, results: int) -> int:
        """Bytes that a fusion writes: only the update if it writes into its operand."""
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
    """The position after the bracket that closes the one at `start`."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, start):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return match.end()
    return len(text)


def flops(computation: Computation, instruction: Instruction) -> int:
    """Floating-point operations of a convolution or matrix product, two per multiply-add; 0 of anything else."""
    target = instruction.attribute("custom_call_target") or ""
    is_convolution = instruction.opcode == "convolution" or target.startswith("__cudnn$conv")
    if not is_convolution and instruction.opcode != "dot" and not target.startswith("__cublas"):
        return 0
    result = instruction.arrays[0].dims
    left, right = (computation.instructions[name].arrays[0].dims for name in instruction.operands[:2])
    if not is_convolution:
        return 2 * math.prod(result) * math.prod(left[dim] for dim in _contracted(instruction))
    if target.startswith("__cudnn$convBackwardInput"):  # the window is that of the forward convolution
        return _convolution_flops(instruction, result, right, left)
    if target.startswith("__cudnn$convBackwardFilter"):
        return _convolution_flops(instruction, left, result, right)
    return _convolution_flops(instruction, left, right, result)


def _contracted(instruction: Instruction) -> list[int]:
    """The dimensions of the first operand that a matrix product sums over."""
    found = instruction.attribute("lhs_contracting_dims")
    if found is None:  # a call of cuBLAS
        of_call = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.attributes)
        found = of_call[1].replace('"', "") if of_call else ""
    return [int(dim) for dim in found.split(",") if dim]


def _convolution_flops(
    instruction: Instruction, left: tuple[int, ...], kernel: tuple[int, ...], result: tuple[int, ...]
) -> int:
    """Two operations per multiply-add with a real input; none for padding and for the holes of a dilation."""
    of_left, of_kernel, of_result = re.split("_|->", instruction.attribute("dim_labels") or "")
    window = dict(part.split("=") for part in (instruction.attribute("window") or "").split())
    count = 2 * result[of_result.index("b")] * result[of_result.index("f")] * kernel[of_kernel.index("i")]
    for axis, label in enumerate(label for label in of_left if label.isdigit()):
        of_axis = {key: value.split("x")[axis] for key, value in window.items()}
        count *= _pairs(of_axis, left[of_left.index(label)], result[of_result.index(label)])
    return count


def _pairs(window: dict[str, str], size: int, out: int) -> int:
    """Along one axis: how many pairs of output and place in the window meet an element of the input."""
    side, stride = int(window.get("size", 1)), int(window.get("stride", 1))
    dilation, holes = int(window.get("rhs_dilate", 1)), int(window.get("lhs_dilate", 1))
    low = int(window.get("pad", "0_0").split("_")[0])
    places = np.arange(out)[:, None] * stride + np.arange(side) * dilation - low
    return int(np.count_nonzero((places >= 0) & (places <= (size - 1) * holes) & (places % holes == 0)))
