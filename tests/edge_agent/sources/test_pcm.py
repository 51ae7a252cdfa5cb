"""Sound as bytes: a WAV's header is read and never heard, whatever the chunks it comes in."""

from __future__ import annotations

import io
import struct
import wave

import numpy as np
import pytest

from edge_agent.sources._pcm import sounds_in
from edge_agent.streams.wav_header import PcmForm, wav_head

SOUND = bytes(range(200))
RAW = PcmForm(rate_hz=8000, channels=1)


def wav(samples: bytes, rate: int = 8000, channels: int = 1, width: int = 2) -> bytes:
    """Return a WAV of ``samples``."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples)
    return buffer.getvalue()


def streamed(samples: bytes) -> bytes:
    """Return the WAV that a program writes to a pipe: its lengths are unknown, and it has another chunk."""
    head = struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16)
    return b"".join((
        b"RIFF", b"\xff" * 4, b"WAVE", b"fmt ", struct.pack("<I", 16), head, b"LIST", struct.pack("<I", 3), b"abc\0",
        b"data", b"\xff" * 4, samples,
    ))  # fmt: skip


def heard(data: bytes, seed: int = 0) -> tuple[list[tuple[PcmForm, bytes]], list[str]]:
    """Return the sounds in ``data``, which comes in chunks of random length, and why others were passed over."""
    rng, chunks, at = np.random.default_rng(seed), [], 0
    while at < len(data):
        size = int(rng.choice((1, 3, 40, 500)))
        chunks.append(data[at : at + size])
        at += size
    found: list[tuple[PcmForm, bytes]] = []
    refused: list[str] = []
    known = {8000: "", 16000: "another rate"}
    for form, samples, begins in sounds_in(iter(chunks), lambda: RAW, lambda form: known[form.rate_hz], refused.append):
        before = b"" if begins or not found else found.pop()[1]
        found.append((form, before + samples))
    return found, refused


@pytest.mark.parametrize("seed", range(5))
def test_samples_are_those_behind_the_header(seed: int) -> None:
    """Of one WAV, of several in a row with chunks behind the samples, of a pipe, and of bytes without any header."""
    assert heard(SOUND, seed) == ([(RAW, SOUND)], [])
    one = wav(SOUND)
    longer = one[:4] + struct.pack("<I", len(one) - 8 + 12) + one[8:] + b"LIST" + struct.pack("<I", 4) + b"name"
    assert heard(longer + wav(SOUND[:10], channels=2), seed) == (
        [(RAW, SOUND), (PcmForm(rate_hz=8000, channels=2), SOUND[:10])], []
    )  # fmt: skip
    assert heard(streamed(SOUND), seed) == ([(RAW, SOUND)], [])


def test_samples_of_8_bits_become_16() -> None:
    """Unsigned ones, 128 is silence."""
    found, _ = heard(wav(bytes((0, 128, 129, 255)), width=1))
    assert struct.unpack("<4h", found[0][1]) == (-32768, 0, 256, 32512)


def test_sound_of_another_form_is_passed_over_whole() -> None:
    """The sound after it is heard; another container has no end that could be told."""
    assert heard(wav(SOUND, rate=16000) + wav(SOUND)) == ([(RAW, SOUND)], ["another rate"])
    assert heard(b"OggS" + SOUND) == ([], ["Ogg"])
    wide = wav(SOUND, width=1).replace(struct.pack("<HH", 1, 8), struct.pack("<HH", 4, 32))
    assert heard(wide) == ([], ["a WAV with format 1 of 32 bits and 1 channels"])


def test_the_true_format_of_an_extensible_header_counts() -> None:
    """As some recorders write it for PCM."""
    chunk = struct.pack("<HHIIHHHHIH", 0xFFFE, 1, 8000, 16000, 2, 16, 22, 16, 4, 1) + bytes(14)
    head = b"RIFF" + bytes(4) + b"WAVEfmt " + struct.pack("<I", len(chunk)) + chunk + b"data" + bytes(4)
    found = wav_head(head)
    assert found is not None
    assert (found.form, found.start, found.size) == (RAW, len(head), None)
    assert wav_head(head[:-1]) is None
    with pytest.raises(ValueError, match="format 3"):
        wav_head(head.replace(struct.pack("<IH", 4, 1), struct.pack("<IH", 4, 3)))
