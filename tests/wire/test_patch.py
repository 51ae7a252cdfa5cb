"""Patches: the format by value, and hostile ones."""

import io
import lzma
import random
import tracemalloc

import pytest

from wire.errors import PatchError
from wire.leb128 import encode
from wire.patch import DICTIONARY_BYTES, MAGIC, MAX_SEGMENTS, apply_patch, lzma_filter

BASE = random.Random(1).randbytes(200_000)  # noqa: S311 - seeded bytes, no secret


def packed(content: bytes, settings: int = 0) -> bytes:
    """Return a patch with this stream."""
    return MAGIC + bytes([settings]) + lzma.compress(content, lzma.FORMAT_RAW, filters=[lzma_filter(settings)])


def result(patch: bytes, length_bytes: int, base: bytes = BASE) -> bytes:
    """Return what ``patch`` makes."""
    made = io.BytesIO()
    apply_patch(io.BytesIO(base), io.BytesIO(patch), made.write, length_bytes)
    return made.getvalue()


def test_copies_adds_and_inserts_by_the_numbers_of_the_format() -> None:
    """Two segments: 3 bytes from 1 on plus (1, 255, 0) and one new byte, then, back at 0, 2 bytes as they are."""
    numbers = encode([2, 2 * 1, 2 * 5 - 1, 3, 2, 1, 0])
    assert (
        result(packed(numbers + b"!" + bytes([1, 255, 0, 0, 0])), 6, b"\x00\xff\x00\x07\x09")
        == b"\x00\xff\x07!\x00\xff"
    )


@pytest.mark.parametrize("settings", [0, 4, 93])
def test_long_segments_are_added_piece_by_piece(settings: int) -> None:
    """Every byte value plus every other, over more than two pieces."""
    difference = random.Random(2).randbytes(len(BASE))  # noqa: S311 - seeded bytes, no secret
    expected = bytes((old + new) % 256 for old, new in zip(BASE, difference, strict=True))
    assert result(packed(encode([1, 0, len(BASE), 0]) + difference, settings), len(BASE)) == expected


GOOD = packed(encode([1, 0, 5, 1]) + b"!" + bytes(5))


@pytest.mark.parametrize(
    ("patch", "length", "why"),
    [
        (b"", 6, "format 1"),
        (b"TFP2" + GOOD[4:], 6, "format 1"),
        (GOOD[:4] + b"\xff" + GOOD[5:], 6, "settings"),
        (GOOD[:-1], 6, "too early"),
        (GOOD[:9], 6, "too early"),
        (GOOD + b"x", 6, "behind it"),
        (packed(encode([1, 0, 5, 1]) + b"!" + bytes(6)), 6, "more than its segments"),
        (packed(encode([1, 0, 5, 1]) + b"!" + bytes(4)), 6, "too early"),
        (GOOD, 5, "makes 5 bytes, got one of 6"),
        (GOOD, 7, "makes 7 bytes"),
        (packed(encode([1, 1, 5, 0]) + bytes(5)), 5, "within the 200000 bytes"),
        (packed(encode([1, 2 * 199_996, 5, 0]) + bytes(5)), 5, "within the 200000 bytes"),
        (packed(encode([MAX_SEGMENTS + 1]) + bytes(9)), 5, "segments, got 32769"),
        (packed(encode([1 << 40])), 5, "longer one"),
    ],
)  # fmt: skip
def test_refuses_a_hostile_patch(patch: bytes, length: int, why: str) -> None:
    """Cut off, with bytes behind it, out of the base's range, of another length than signed."""
    with pytest.raises(PatchError, match=why):
        result(patch, length)


def test_a_bomb_is_refused_in_bounded_memory() -> None:
    """A gigabyte of zeros in 150 KB: as many bytes as were signed are made, and two decoders' dictionaries are held."""
    bomb = packed(encode([1, 0, 0, 1 << 26]) + bytes(1 << 26))
    tracemalloc.start()
    with pytest.raises(PatchError, match="makes 1000 bytes"):
        result(bomb, 1000)
    assert tracemalloc.get_traced_memory()[1] < 8 * DICTIONARY_BYTES
    tracemalloc.stop()


def test_the_longest_piece_at_the_end_of_the_base() -> None:
    """A copy may reach the last byte of the base, and no further."""
    assert result(packed(encode([1, 2 * 199_995, 5, 0]) + bytes(5)), 5) == BASE[-5:]
