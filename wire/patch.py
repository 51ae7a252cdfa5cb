"""A patch: what a device needs to make a bundle from one that it has. Format 1.

``TFP1``, one byte with the settings of LZMA ((pb * 5 + lp) * 9 + lc), then one LZMA2 stream (the one inside ``.xz``
files, with a dictionary of 1 MiB) of:

1. LEB128 numbers: how many segments; for all of them, where each starts in the base, relative to where the one before
   ended plus its new bytes (2 n, or -2 n - 1 for n below 0); then how many bytes each copies; then how many new ones
   follow;
2. the new bytes of all segments;
3. the copied bytes of all segments, as the difference to the base, byte by byte modulo 256. Retrained int8 weights
   differ by little, so that most are 0.

``apply_patch`` needs memory for the segments' numbers, two pieces and two decoders, whatever is in the patch; it writes
at most the expected length and reads only within the base. It checks no digest: a patch names neither its base nor its
result, which are in the signed target (``wire.tuf_target``); the caller checks both. Patches are made by
``compressor.release.patches``.
"""

from __future__ import annotations

import lzma
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import BinaryIO

from wire.errors import PatchError

MAGIC = b"TFP1"
MAX_SEGMENTS = 1 << 15
DICTIONARY_BYTES = 1 << 20
_PIECE_BYTES = 64 * 1024
_MAX_NUMBER_BYTES = 5
_MAX_SETTINGS = 224  # (4 * 5 + 4) * 9 + 8
_LOW = int.from_bytes(b"\x7f" * _PIECE_BYTES, "little")
_HIGH = int.from_bytes(b"\x80" * _PIECE_BYTES, "little")


def lzma_filter(settings: int) -> dict[str, int]:
    """Return the filter of a patch's stream.

    Raises:
        PatchError: If there are no such settings.
    """
    rest, lc = divmod(settings, 9)
    pb, lp = divmod(rest, 5)
    if settings > _MAX_SETTINGS or lc + lp > 4:  # noqa: PLR2004 - the limit of LZMA2
        message = f"Expected settings of LZMA2 in a patch, got {settings}"
        raise PatchError(message)
    return {"id": lzma.FILTER_LZMA2, "dict_size": DICTIONARY_BYTES, "lc": lc, "lp": lp, "pb": pb}


def apply_patch(base: BinaryIO, patch: BinaryIO, write: Callable[[bytes], object], length_bytes: int) -> None:
    """Pass the result of ``patch`` on ``base`` to ``write``, piece by piece; it has ``length_bytes``.

    Args:
        base: The bundle from which the patch was made, seekable.
        patch: The patch, seekable.
        write: Gets the next piece of the result.
        length_bytes: Of the result.

    Raises:
        PatchError: If the patch is not intact, does not fit the base, or its result is shorter or longer.
        OSError: If a file can't be read or written.
    """
    base_bytes = base.seek(0, 2)
    added, copied = _Unpacked(patch), _Unpacked(patch)
    count = added.number()
    if count > MAX_SEGMENTS:
        message = f"Expected a patch of at most {MAX_SEGMENTS} segments, got {count}"
        raise PatchError(message)
    steps, copies, news = ([added.number() for _ in range(count)] for _ in range(3))
    total = sum(copies) + sum(news)
    if total != length_bytes:
        message = f"Expected a patch that makes {length_bytes} bytes, got one of {total}"
        raise PatchError(message)
    for size in _pieces(added.given_bytes + sum(news)):
        copied.read(size)
    end = 0
    for step, copy, new in zip(steps, copies, news, strict=True):
        start = end + (step >> 1 if step % 2 == 0 else -(step >> 1) - 1)
        if start < 0 or start + copy > base_bytes:
            message = f"Expected segments within the {base_bytes} bytes of the base, got {start} to {start + copy}"
            raise PatchError(message)
        base.seek(start)
        for size in _pieces(copy):
            write(_sums(base.read(size), copied.read(size)))
        for size in _pieces(new):
            write(added.read(size))
        end = start + copy + new
    copied.check_end()


def _sums(one: bytes, two: bytes) -> bytes:
    """Return the sums of the bytes modulo 256: of two long integers whose bytes carry nothing into the next."""
    size = len(two)
    unused = 8 * (_PIECE_BYTES - size)
    low, high = _LOW >> unused, _HIGH >> unused
    a, b = int.from_bytes(one, "little"), int.from_bytes(two, "little")
    return (((a & low) + (b & low)) ^ ((a ^ b) & high)).to_bytes(size, "little")


def _pieces(length: int) -> Iterator[int]:
    whole, rest = divmod(length, _PIECE_BYTES)
    return chain(repeat(_PIECE_BYTES, whole), [rest] if rest else [])


class _Unpacked:
    """The content of the stream from its start, never more of it in memory than was asked for.

    ``given_bytes``: how much of it was read.
    """

    def __init__(self, patch: BinaryIO) -> None:
        patch.seek(0)
        head = patch.read(len(MAGIC) + 1)
        if head[:-1] != MAGIC:
            raise PatchError("Expected a patch of format 1, got another file: publish it again")
        self._patch, self._at = patch, len(head)
        self.given_bytes = 0
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[lzma_filter(head[-1])])

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes."""
        pieces = bytearray()
        while len(pieces) < size:
            piece = self._more(size - len(pieces))
            if not piece:
                raise PatchError("Expected an intact patch, got its end too early: publish it again")
            pieces += piece
        self.given_bytes += size
        return bytes(pieces)

    def number(self) -> int:
        """Return the next LEB128 number."""
        value = 0
        for place in range(_MAX_NUMBER_BYTES):
            byte = self.read(1)[0]
            value |= (byte & 127) << (7 * place)
            if byte < 128:  # noqa: PLR2004 - the last byte of a number has no high bit
                return value
        raise PatchError("Expected numbers of at most 35 bits in a patch, got a longer one")

    def check_end(self) -> None:
        """Check that nothing follows: in the stream, and behind it."""
        if self._more(1):
            raise PatchError("Expected the end of the patch, got more than its segments name")
        self._patch.seek(self._at)
        if self._decoder.unused_data or self._patch.read(1):
            raise PatchError("Expected the end of the patch, got bytes behind it")

    def _more(self, size: int) -> bytes:
        """Return the next bytes, at most ``size``; none at the end of the stream, or of the file."""
        decoder, made = self._decoder, b""
        while not made and not decoder.eof:
            given = b""
            if decoder.needs_input:
                self._patch.seek(self._at)
                given = self._patch.read(_PIECE_BYTES)
                self._at += len(given)
                if not given:
                    raise PatchError("Expected an intact patch, got its end too early: publish it again")
            try:
                made = decoder.decompress(given, size)
            except lzma.LZMAError as error:
                message = f"Expected an intact patch, got: {error}: publish it again"
                raise PatchError(message) from error
        return made
