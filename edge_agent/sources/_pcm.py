"""Samples of 16 bits out of bytes that are raw PCM or WAV, as they arrive: a WAV's header is read, never heard.

Decides what is sound: bytes that begin with a header of a WAV are read by it, one WAV after another; other containers
are refused by their first bytes; everything else is raw PCM of the stated form. Standard library only.

Source: Multimedia Programming Interface and Data Specifications 1.0, IBM and Microsoft 1991 (RIFF, WAVE);
``WAVEFORMATEXTENSIBLE`` of Microsoft's mmreg.h (the true format is in the first two bytes of its GUID).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

HEAD_BYTES = 64 * 1024
"""A header with its other chunks is no longer; else it is no WAV that a recorder writes."""
_MAGIC_BYTES = 12
_LONGEST_REST = 1024 * 1024  # a header that states more behind the samples is wrong
_PCM, _EXTENSIBLE = 1, 0xFFFE
_STREAMED = frozenset({0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFF - 36, 0xFFFFFFFF - 44})
"""Lengths that a program writes which can't know it, because it writes to a pipe."""
_BYTE_OF_8 = bytes((level - 128) & 0xFF for level in range(256))
_OTHERS = {
    b"OggS": "Ogg", b"fLaC": "FLAC", b"ID3": "MP3", b"FORM": "AIFF", b".snd": "AU", b"RIFX": "RIFX", b"RF64": "RF64",
    b"caff": "CAF", b"\x1aE\xdf\xa3": "Matroska",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PcmForm:
    """How samples are stored. ``width``: bytes of a sample, 2 (signed, little-endian) or 1 (unsigned)."""

    rate_hz: int
    channels: int
    width: int = 2

    def __str__(self) -> str:
        """Return it as people say it."""
        return f"{self.rate_hz} Hz, {8 * self.width} bits, {self.channels} channel{'s' * (self.channels > 1)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WavHead:
    """The header of a WAV. In bytes: where its samples begin, of the samples (None: to the end), and after them."""

    form: PcmForm
    start: int
    size: int | None
    rest: int = 0


def other_container(data: bytes) -> str:
    """Return the name of the container that begins with ``data`` and is neither WAV nor PCM; "" if it is none."""
    if data[4:8] == b"ftyp":
        return "MP4"
    return next((name for magic, name in _OTHERS.items() if data.startswith(magic)), "")


def is_wav(data: bytes) -> bool:
    """Return whether ``data`` begins as a WAV does."""
    return data[:4] == b"RIFF" and data[8:_MAGIC_BYTES] == b"WAVE"


def wav_head(data: bytes) -> WavHead | None:
    """Return the header of the WAV that begins with ``data``; None if more of it is needed.

    Raises:
        ValueError: If it is no PCM of 8 or 16 bits; the text says what it is.
    """
    form, at = None, _MAGIC_BYTES
    while len(data) >= at + 8:
        name, size = data[at : at + 4], int(struct.unpack_from("<I", data, at + 4)[0])
        if name == b"data":
            if form is None:
                raise ValueError("samples before their format")
            whole = 8 + int(struct.unpack_from("<I", data, 4)[0])
            streamed = size in _STREAMED
            rest = 0 if streamed or whole > _LONGEST_REST + at + size else max(0, whole - at - 8 - size)
            return WavHead(form=form, start=at + 8, size=None if streamed else size, rest=rest)
        if name == b"fmt ":
            if len(data) < at + 8 + min(size, 26):
                return None
            form = _form(data[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
        if at > HEAD_BYTES:
            raise ValueError(f"no samples within {HEAD_BYTES} bytes")
    return None


def _form(chunk: bytes) -> PcmForm:
    if len(chunk) < 16:  # noqa: PLR2004 - of WAVEFORMAT with its bits
        raise ValueError("a header that is cut off")
    kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if kind == _EXTENSIBLE and len(chunk) >= 26:  # noqa: PLR2004 - up to the first bytes of the GUID
        kind = struct.unpack_from("<H", chunk, 24)[0]
    if kind != _PCM or bits not in {8, 16} or not channels or not rate:
        raise ValueError(f"format {kind} of {bits} bits and {channels} channels")
    return PcmForm(rate_hz=rate, channels=channels, width=bits // 8)


class _Arriving:
    """Bytes that arrive in chunks; ``held``: what came and was not used."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self.held = chunks, b""

    def more(self) -> bool:
        """Wait for more; return False at the end."""
        data = next(self._chunks, None)
        self.held += data or b""
        return data is not None

    def taken(self, size: int | None) -> Iterator[bytes]:
        """Yield the next ``size`` bytes as they arrive; None: all."""
        while size is None or size > 0:
            if not self.held and not self.more():
                return
            part = self.held[:size]
            self.held = self.held[len(part) :]
            size = None if size is None else size - len(part)
            yield part


def sounds_in(
    chunks: Iterator[bytes], raw: Callable[[], PcmForm], check: Callable[[PcmForm], str], refuse: Callable[[str], None]
) -> Iterator[tuple[PcmForm, bytes, bool]]:
    """Yield the form of samples, the samples (16 bits), and whether another sound begins with them.

    Args:
        chunks: The bytes of one connection.
        raw: Returns the form of bytes that have no header.
        check: Returns why sound of a header's form is not used; "" if it is.
        refuse: Gets why sound is passed over.
    """
    arriving = _Arriving(chunks)
    while arriving.held or arriving.more():
        try:
            head = _head_in(arriving)
            reason = other_container(arriving.held) if head is None else check(head.form)
        except ValueError as error:
            head, reason = None, f"a WAV with {error}"
        if reason:
            refuse(reason)
        for _ in arriving.taken(head.start if head else 0):
            pass
        begins = True
        for part in arriving.taken(head.size if head else None):
            if not reason:
                form = head.form if head else raw()
                yield form, part if form.width > 1 else _widened(part), begins
                begins = False
        for _ in arriving.taken(head.rest if head else 0):
            pass


def _head_in(arriving: _Arriving) -> WavHead | None:
    """Return the header of the WAV that begins here; None if none does, or it has no end.

    Raises:
        ValueError: If it is no PCM of 8 or 16 bits.
    """
    while True:
        held = arriving.held
        if held[:4] != b"RIFF"[: len(held)] or held[8:_MAGIC_BYTES] != b"WAVE"[: max(0, len(held) - 8)]:
            return None
        head = wav_head(held)
        if head is not None or not arriving.more():
            return head


def _widened(samples: bytes) -> bytes:
    """Return unsigned samples of 8 bits as signed ones of 16."""
    wide = bytearray(2 * len(samples))
    wide[1::2] = samples.translate(_BYTE_OF_8)
    return bytes(wide)
