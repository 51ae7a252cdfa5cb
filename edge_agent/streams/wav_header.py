"""The header of a WAV, as recorders and converters write it: lengths that are unknown, and the extensible form.

``wav_of`` writes a plain one.

Decides which WAV is read, for sound that arrives (``sources``) and for whole files (``front_ends``, ``recordings``)
alike. Standard library only.

Source: Multimedia Programming Interface and Data Specifications 1.0, IBM and Microsoft 1991 (RIFF, WAVE);
``WAVEFORMATEXTENSIBLE`` of Microsoft's mmreg.h (the true format is in the first two bytes of its GUID).
"""

from __future__ import annotations

import io
import struct
import wave
from dataclasses import dataclass

HEAD_BYTES = 64 * 1024
"""A header with its other chunks is no longer; else it is no WAV that a recorder writes."""
_MAGIC_BYTES = 12
_LONGEST_REST = 1024 * 1024  # a header that states more behind the samples is wrong
_PCM, _EXTENSIBLE = 1, 0xFFFE
_STREAMED = frozenset({0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFF - 36, 0xFFFFFFFF - 44})
"""Lengths that a program writes which can't know it, because it writes to a pipe."""
MOST_CHANNELS = 2
"""That a front end mixes."""


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
    """The header of a WAV. In bytes: where its samples begin, of the samples (None: to the end), and after them.

    ``extensible``: it has the longer form, which Python's ``wave`` does not read before 3.12.
    """

    form: PcmForm
    start: int
    size: int | None
    rest: int = 0
    extensible: bool = False


def is_wav(data: bytes) -> bool:
    """Return whether ``data`` begins as a WAV does."""
    return data[:4] == b"RIFF" and data[8:_MAGIC_BYTES] == b"WAVE"


def wav_head(data: bytes) -> WavHead | None:
    """Return the header of the WAV that begins with ``data``; None if more of it is needed.

    Raises:
        ValueError: If it is no PCM of 8 or 16 bits; the text says what it is.
    """
    form, extensible, at = None, False, _MAGIC_BYTES
    while len(data) >= at + 8:
        name, size = data[at : at + 4], int(struct.unpack_from("<I", data, at + 4)[0])
        if name == b"data":
            if form is None:
                raise ValueError("samples before their format")
            whole = 8 + int(struct.unpack_from("<I", data, 4)[0])
            streamed = size in _STREAMED
            rest = 0 if streamed or whole > _LONGEST_REST + at + size else max(0, whole - at - 8 - size)
            return WavHead(form=form, start=at + 8, size=None if streamed else size, rest=rest, extensible=extensible)
        if name == b"fmt ":
            if len(data) < at + 8 + min(size, 26):
                return None
            form = _form(data[at + 8 : at + 8 + size])
            extensible = data[at + 8 : at + 10] == _EXTENSIBLE.to_bytes(2, "little")
        at += 8 + size + size % 2
        if at > HEAD_BYTES:
            raise ValueError(f"no samples within {HEAD_BYTES} bytes")
    return None


def frames_of(data: bytes) -> int | None:
    """Return how many frames the header of the WAV in ``data`` states; None: it states none, or is none."""
    try:
        head = wav_head(data) if is_wav(data) else None
    except ValueError:
        return None
    return None if head is None or head.size is None else head.size // (head.form.width * head.form.channels)


def plain_wav(data: bytes) -> bytes:
    """Return a WAV of unknown length, or with an extensible header, as ``wave`` reads it; anything else as it is."""
    try:
        head = wav_head(data) if is_wav(data) else None
    except ValueError:
        return data
    if head is None or head.form.channels > MOST_CHANNELS or not (head.size is None or head.extensible):
        return data
    form, frame = head.form, head.form.width * head.form.channels
    left = len(data) - head.start
    size = left - left % frame if head.size is None else head.size  # one that is cut off is left to its reader
    body = data[head.start : head.start + size]
    numbers = (form.channels, form.rate_hz, (form.rate_hz * frame) & 0xFFFFFFFF, frame, 8 * form.width)
    chunk = struct.pack("<HHIIHH", _PCM, *numbers)
    begin = b"WAVEfmt " + struct.pack("<I", len(chunk)) + chunk + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", len(begin) + len(body)) + begin + body


def wav_of(samples: bytes, form: PcmForm) -> bytes:
    """Return a WAV of ``samples``, which are stored as ``form`` says."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(form.channels)
        file.setsampwidth(form.width)
        file.setframerate(form.rate_hz)
        file.writeframes(samples)
    return buffer.getvalue()


def _form(chunk: bytes) -> PcmForm:
    if len(chunk) < 16:  # noqa: PLR2004 - of WAVEFORMAT with its bits
        raise ValueError("a header that is cut off")
    kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if kind == _EXTENSIBLE and len(chunk) >= 26:  # noqa: PLR2004 - up to the first bytes of the GUID
        kind = struct.unpack_from("<H", chunk, 24)[0]
    if kind != _PCM or bits not in {8, 16} or not channels or not rate:
        raise ValueError(f"format {kind} of {bits} bits and {channels} channels")
    return PcmForm(rate_hz=rate, channels=channels, width=bits // 8)
