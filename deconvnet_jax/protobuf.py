"""Protocol Buffers' wire format (protobuf.dev/programming-guides/encoding): the fields of a message, where they lie.

Google's library copies a file of 1 GB twice. Of a damaged or hostile file nothing is believed: lengths are checked
before they are followed, and the number of fields is limited.
"""

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
MAX_FIELDS = 300_000  # of a message; a caffemodel of a thousand layers has some 30,000 in all
_SIZES = {FIXED64: 8, FIXED32: 4}


class WireError(ValueError):
    """What is wrong at which byte."""


class Field(NamedTuple):
    """A field of a message.

    Attributes:
      number: of the field, which tells its meaning.
      wire_type: VARINT, ...
      start, end: where its bytes lie; of a varint, `start` is the value itself.
    """

    number: int
    wire_type: int
    start: int
    end: int


def fields(data: memoryview, start: int, end: int) -> Iterator[Field]:
    """Yields the fields of the message in data[start:end].

    Raises:
      WireError: for bytes that are no field.
    """
    position, count = start, 0
    while position < end:
        begin, count = position, count + 1
        if count > MAX_FIELDS:
            raise WireError(f"more than {MAX_FIELDS:,} fields, which no network has, at byte {begin:,}")
        tag, position = varint(data, position, end)
        number, wire_type = tag >> 3, tag & 7
        if not 0 < number < 2**29 or wire_type not in (VARINT, FIXED64, BYTES, FIXED32):
            raise WireError(f"field {number} of wire type {wire_type}, which Caffe never writes, at byte {begin:,}")
        if wire_type == VARINT:
            value, position = varint(data, position, end)
            yield Field(number, wire_type, value, position)
            continue
        length, position = (_SIZES[wire_type], position) if wire_type != BYTES else varint(data, position, end)
        left = end - position
        if length > left:
            raise WireError(f"{length:,} bytes announced where {left:,} are left (truncated?) at byte {begin:,}")
        position += length
        yield Field(number, wire_type, position - length, position)


def varint(data: memoryview, position: int, end: int) -> tuple[int, int]:
    """Returns the number at a position, below 2**64, and the position behind it."""
    value = 0
    for i in range(10):
        if position >= end:
            raise WireError(f"an unfinished number (truncated?) at byte {position:,}")
        byte = data[position]
        position += 1
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value & 2**64 - 1, position
    raise WireError(f"a number of more than 10 bytes at byte {position:,}")
