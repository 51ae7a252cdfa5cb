"""Clips of a microphone (ALSA, by the program ``arecord``), or of raw PCM from a FIFO, device or file.

Each clip is an input: a WAV of 16 bits, as the front ends ``log_mel`` and ``mfcc`` read it. Rate and length are those
of the release unless set. A microphone that is unplugged or silent on its line is opened again without end
(``_stream``). Of a file every clip is answered, and its end is the end of the source.

Name an ALSA device that converts (``default``, ``plughw:1,0``): ``hw:1,0`` records at the nearest rate it has.

Source: arecord(1): -t raw, -f S16_LE; ALSA's plug-in "file" stands for a microphone in tests.
"""

from __future__ import annotations

import io
import threading
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from edge_agent.device.clock import Clock
from edge_agent.errors import SourceError
from edge_agent.sources import Surroundings
from edge_agent.sources._descriptors import arriving
from edge_agent.sources._process import check_program, output_of
from edge_agent.sources._stream import Pace, StreamSource
from wire.settings import Bound

_WIDTH_BYTES = 2
_READ_BYTES = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``[source]`` of ``kind = "microphone"``: an ALSA device (needs arecord of alsa-utils) or raw PCM."""

    path: str = "default"  # an ALSA device, or the whole path of a FIFO, device or file of 16-bit little-endian PCM
    rate_hz: Annotated[int, Bound(0, 192_000)] = 0  # 0: that of the release's front end
    clip_s: Annotated[float, Bound(0, 60)] = 0.0  # length of an input; 0: that of the release's front end
    hop_s: Annotated[float, Bound(0, 3600)] = 0.0  # from the start of one input to the next; 0: as long as a clip
    channels: Annotated[int, Bound(1, 8)] = 1  # the front end mixes several
    backlog: Annotated[int, Bound(1, 1000)] = 2  # newest clips that wait for the model
    stall_s: Annotated[float, Bound(0.1, 3600)] = 10.0  # without sound data for this long it is opened again
    retry_s: Annotated[float, Bound(0.01, 3600)] = 1.0  # pause before it is opened again; doubled up to 30 s


def open_source(settings: Settings, clock: Clock, surroundings: Surroundings) -> StreamSource:
    """Return the source; a microphone that is away is waited for.

    Raises:
        SourceError: If arecord or a file is missing, or neither settings nor release state rate and length.
    """
    if not settings.path.startswith("/"):
        check_program("arecord", "alsa-utils")
    elif not Path(settings.path).exists():
        message = f"Expected a FIFO, device or file of PCM at {settings.path}, got none: correct path in [source]"
        raise SourceError(message)
    _format(settings, surroundings)
    is_file = settings.path.startswith("/") and Path(settings.path).is_file()
    pace = Pace(backlog=settings.backlog, retry_s=settings.retry_s, waits=is_file)
    return StreamSource(settings.path, partial(_clips, settings, surroundings), pace, clock, surroundings)


def _format(settings: Settings, surroundings: Surroundings) -> tuple[int, int, int]:
    """Return the rate, and the frames of a clip and of a hop.

    Raises:
        SourceError: If rate or length are unknown.
    """
    options = surroundings.options()
    rate = settings.rate_hz or int(options.get("sample_rate_hz", 0))
    clip = round(rate * (settings.clip_s or options.get("clip_s", 0.0)))
    if clip < 1:
        message = "Expected rate_hz and clip_s in [source], or a release for sounds, got neither: set both"
        raise SourceError(message)
    return rate, clip, round(rate * settings.hop_s) or clip


def _clips(settings: Settings, surroundings: Surroundings, stop: threading.Event) -> Iterator[bytes]:
    """Yield the clips of one connection."""
    rate, clip, hop = _format(settings, surroundings)
    frame_bytes = _WIDTH_BYTES * settings.channels
    if not settings.path.startswith("/"):
        of_format = ["-t", "raw", "-f", "S16_LE", "-r", str(rate), "-c", str(settings.channels)]
        chunks = output_of(["arecord", "-q", "-D", settings.path, *of_format], stop, settings.stall_s)
    elif Path(settings.path).is_file():
        chunks = _contents(Path(settings.path))
    else:
        chunks = arriving(Path(settings.path), stop)
    held, skip = bytearray(), 0
    for chunk in chunks:
        held += chunk
        while len(held) >= skip + clip * frame_bytes:
            yield _wav(bytes(held[skip : skip + clip * frame_bytes]), rate, settings.channels)
            skip += hop * frame_bytes
        gone = min(skip, len(held))
        del held[:gone]
        skip -= gone


def _contents(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            yield data


def _wav(samples: bytes, rate: int, channels: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(_WIDTH_BYTES)
        file.setframerate(rate)
        file.writeframes(samples)
    return buffer.getvalue()
