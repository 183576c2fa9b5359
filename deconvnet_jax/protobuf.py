"""Reads the wire format of Protocol Buffers (protobuf.dev/programming-guides/encoding) without copying the content.

Google's library would copy a file of 1 GB twice. Damaged and hostile files are safe to read: lengths are checked before
they are used, and the number of fields is limited.
"""

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
MAX_FIELDS = 300_000  # per message; a caffemodel with a thousand layers has about 30,000 in all messages together
_SIZES = {FIXED64: 8, FIXED32: 4}


class WireError(ValueError):
    """Error in a message; its text names the position in bytes."""


class Field(NamedTuple):
    """Field of a message.

    Attributes:
      number: the field number, which the message's definition maps to a meaning.
      wire_type: VARINT, FIXED64, BYTES or FIXED32.
      start: index of the field's first byte; for a VARINT the value itself.
      end: index after the field's last byte.
    """

    number: int
    wire_type: int
    start: int
    end: int


def fields(data: memoryview, start: int, end: int) -> Iterator[Field]:
    """Yields the fields of the message in data[start:end], in their order.

    Args:
      data: the whole file.
      start: index of the message's first byte.
      end: index after the message's last byte; may lie beyond the data if the caller stops before it.

    Raises:
      WireError: for bytes that are no valid field, and for more than `MAX_FIELDS` fields.
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
            raise WireError(f"a field of {length:,} bytes where only {left:,} are left (truncated?) at byte {begin:,}")
        position += length
        yield Field(number, wire_type, position - length, position)


def varint(data: memoryview, position: int, end: int) -> tuple[int, int]:
    """Reads a number of variable length.

    Args:
      data: the whole file.
      position: index of the number's first byte.
      end: index after the last byte that may belong to the number.

    Returns:
      The number, 0 to 2**64 - 1, and the index after its last byte.

    Raises:
      WireError: if the number is cut off or longer than 10 bytes.
    """
    value = 0
    for i in range(10):
        if position >= end:
            raise WireError(f"an incomplete number (truncated?) at byte {position:,}")
        byte = data[position]
        position += 1
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value & 2**64 - 1, position
    raise WireError(f"a number of more than 10 bytes at byte {position:,}")
