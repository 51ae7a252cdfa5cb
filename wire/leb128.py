"""Unsigned LEB128: small numbers in one byte. Source: DWARF 5, section 7.6."""

from __future__ import annotations

from collections.abc import Iterable

from wire.errors import MessageError

_LIMIT_BITS = 63
_CONTINUED = 0x80  # the bit that means that another byte of the number follows


def encode(values: Iterable[int]) -> bytes:
    """Return ``values`` (each 0 to 2^63 - 1), concatenated.

    Raises:
        MessageError: If a value is negative or too large.
    """
    numbers = tuple(values)
    if not numbers or 0 <= min(numbers) <= max(numbers) < _CONTINUED:  # one byte each, as in most windows
        return bytes(numbers)
    out = bytearray()
    for value in numbers:
        if not 0 <= value < 1 << _LIMIT_BITS:
            message = f"Expected a count from 0 to 2^63 - 1, got {value}"
            raise MessageError(message)
        rest = value
        while rest >= _CONTINUED:
            out.append(rest & 0x7F | _CONTINUED)
            rest >>= 7
        out.append(rest)
    return bytes(out)


def decode(data: bytes, count: int) -> tuple[list[int], int]:
    """Return ``count`` values from the start of ``data`` and the number of bytes read.

    Raises:
        MessageError: If ``data`` ends early or a value exceeds 63 bits.
    """
    short = data[:count]
    if len(short) == count and short.isascii():  # no continuation bit is set
        return list(short), count
    values: list[int] = []
    position = 0
    for _ in range(count):
        value, shift = 0, 0
        while True:
            if position >= len(data) or shift >= _LIMIT_BITS:
                message = f"Expected {count} numbers, got only {len(values)} in {len(data)} bytes"
                raise MessageError(message)
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < _CONTINUED:
                break
        values.append(value)
    return values, position
