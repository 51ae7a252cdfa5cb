"""Packs counts into few bits: their bit lengths are deflated, the bits below each leading one are packed.

Neighbouring counts have similar bit lengths, which deflate well; the lower bits are noise that does not compress, so
they are stored as they are. About a fifth shorter than LEB128 with zlib. Layout: LEB128 length of the deflated part,
that part (one byte per value), the bits, big-endian, with leading zeros.
Source: Elias, Universal codeword sets, IEEE Trans. Inf. Theory 21 (1975), the gamma code with its
unary part replaced.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from wire import leb128
from wire.errors import MessageError

_MAX_BITS = 63
_RAW_DEFLATE = -15
_POSSIBLE = bytes(range(_MAX_BITS + 1))
_BELOW_LEADING = len("0b1")
_SHORT = {format(low, f"0{bits}b"): 1 << bits | low for bits in range(1, 9) for low in range(1 << bits)}


def pack(values: Sequence[int]) -> bytes:
    """Return ``values`` (each 0 to 2^63 - 1), packed.

    Raises:
        MessageError: If a value is negative or too large.
    """
    if values and not 0 <= min(values) <= max(values) < 1 << _MAX_BITS:
        message = f"Expected counts from 0 to 2^63 - 1, got {min(values)} to {max(values)}"
        raise MessageError(message)
    lengths = bytes(map(int.bit_length, values))
    bits = "".join([bin(value)[_BELOW_LEADING:] for value in values])
    deflater = zlib.compressobj(9, zlib.DEFLATED, _RAW_DEFLATE, 9)
    head = deflater.compress(lengths) + deflater.flush()
    return leb128.encode([len(head)]) + head + int(bits or "0", 2).to_bytes((len(bits) + 7) // 8, "big")


def unpack(data: bytes, count: int) -> tuple[int, ...]:
    """Return the ``count`` values in ``data``.

    Raises:
        MessageError: If ``data`` does not hold exactly that many.
    """
    lengths, tail = split(data, count)
    bits = format(int.from_bytes(tail, "big"), f"0{8 * len(tail)}b")
    position = 8 * len(tail) - bits_below_leading(lengths)
    values = list(lengths)  # a value of at most one bit equals its bit length
    for index, length in enumerate(lengths):
        if length > 1:
            end = position + length - 1
            below = bits[position:end]
            values[index] = _SHORT.get(below) or int(f"1{below}", 2)
            position = end
    return tuple(values)


def split(data: bytes, count: int) -> tuple[bytes, bytes]:
    """Return the two parts of ``data``: ``count`` bit lengths, one byte each, and the packed bits, with leading zeros.

    For readers that unpack many messages at once; ``unpack`` combines the parts.

    Raises:
        MessageError: If ``data`` does not hold exactly that many.
    """
    (used,), start = leb128.decode(data, 1)
    lengths = inflate(data[start : start + used], count, wbits=_RAW_DEFLATE)
    tail, bits = data[start + used :], bits_below_leading(lengths)
    if len(lengths) != count or len(tail) != (bits + 7) // 8 or lengths.translate(None, _POSSIBLE):
        message = f"Expected {count} packed counts, got {len(lengths)} in {len(data)} bytes"
        raise MessageError(message)
    if bits % 8 and tail[0] >> bits % 8:
        raise MessageError("Expected zero bits before the packed counts, got others")
    return lengths, tail


def bits_below_leading(lengths: bytes) -> int:
    """Return how many bits are packed for values of ``lengths`` bits: all of each value except its leading one."""
    return sum(lengths) - len(lengths) + lengths.count(0)


def inflate(data: bytes, limit_bytes: int, *, wbits: int = zlib.MAX_WBITS) -> bytes:
    """Return ``data`` inflated; holds at most ``limit_bytes`` of output.

    Raises:
        MessageError: If it does not inflate, is not exactly one stream, or is longer.
    """
    inflater = zlib.decompressobj(wbits)
    try:
        body = inflater.decompress(data, limit_bytes + 1)
    except zlib.error as error:
        message = f"Expected deflated counters, got {len(data)} bytes that don't inflate"
        raise MessageError(message) from error
    if not inflater.eof or inflater.unused_data or len(body) > limit_bytes:
        message = f"Expected one whole deflated body of at most {limit_bytes} bytes, got {len(data)} that aren't"
        raise MessageError(message)
    return body
