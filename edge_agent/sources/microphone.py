"""Clips of a microphone (ALSA, by the program ``arecord``), or of PCM or WAV from a FIFO, device or file.

Each clip is an input: a WAV of 16 bits, as the front ends ``log_mel`` and ``mfcc`` read it. Rate, length and the time
from one clip to the next are those of the release unless set; the latter is the one at which its gates hold. A
microphone that is unplugged or silent on its line is opened again without end (``_stream``). Of a file every clip is
answered, and its end is the end of the source. Clips have the time of their samples, not of their reading: those of a
file end when it was last changed, those of a live stream are counted from its begin (``_sample_clock``).

Name an ALSA device that converts (``default``, ``plughw:1,0``): ``hw:1,0`` records at the nearest rate it has.

Source: arecord(1): -t raw, -f S16_LE; ALSA's plug-in "file" stands for a microphone in tests.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

from edge_agent.device.clock import Clock
from edge_agent.errors import SourceError
from edge_agent.sources import InStream, Surroundings
from edge_agent.sources._descriptors import arriving
from edge_agent.sources._pcm import other_container, sounds_in
from edge_agent.sources._process import check_program, output_of
from edge_agent.sources._sample_clock import SampleClock
from edge_agent.sources._stream import Pace, StreamInput, StreamSource
from edge_agent.streams.wav_header import HEAD_BYTES, MOST_CHANNELS, PcmForm, is_wav, wav_head, wav_of
from wire.settings import Bound

INTERVAL = "source_interval"
FORMAT = "source_format"
_RAW_WIDTH = 2  # bytes of a sample, whatever the width in its file
_READ_BYTES = 65536
Times: TypeAlias = Callable[[float, float], InStream]
"""From the seconds at which a clip ends in its stream, and the hop in seconds, to its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``[source]`` of ``kind = "microphone"``: an ALSA device (needs arecord of alsa-utils), PCM or WAV."""

    path: str = "default"  # an ALSA device, or the whole path of a FIFO, device or file of 16-bit PCM or WAV
    rate_hz: Annotated[int, Bound(0, 192_000)] = 0  # 0: that of the release's front end
    clip_s: Annotated[float, Bound(0, 60)] = 0.0  # length of an input; 0: that of the release's front end
    hop_s: Annotated[float, Bound(0, 3600)] = 0.0  # from input to input; 0: that of the release, else a clip
    channels: Annotated[int, Bound(1, 8)] = 1  # the front end mixes several
    backlog: Annotated[int, Bound(1, 1000)] = 2  # newest clips that wait for the model
    stall_s: Annotated[float, Bound(0.1, 3600)] = 10.0  # without sound data for this long it is opened again
    retry_s: Annotated[float, Bound(0.01, 3600)] = 1.0  # pause before it is opened again; doubled up to 30 s


def open_source(settings: Settings, clock: Clock, surroundings: Surroundings) -> StreamSource:
    """Return the source; a microphone that is away is waited for.

    Raises:
        SourceError: If arecord or a file is missing, a file holds no such sound, or neither settings nor release state
            rate and length.
    """
    if not settings.path.startswith("/"):
        check_program("arecord", "alsa-utils")
    elif not Path(settings.path).exists():
        message = f"Expected a FIFO, device or file of PCM at {settings.path}, got none: correct path in [source]"
        raise SourceError(message)
    clips = _Clips(settings, surroundings, clock)
    clips.cut()
    if clips.is_file:
        clips.recorded()
    pace = Pace(backlog=settings.backlog, retry_s=settings.retry_s, waits=clips.is_file, lost=_lost(settings))
    return StreamSource(settings.path, clips.read, pace, clock, surroundings)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ClipCut:
    """How a stream is cut: its rate, and the frames of a clip and of a hop."""

    rate_hz: int
    clip: int
    hop: int


class _Clips:
    """The clips of a stream, over all reconnections. For one thread."""

    def __init__(self, settings: Settings, surroundings: Surroundings, clock: Clock) -> None:
        self._settings, self._around, self._clock = settings, surroundings, clock
        self._path = Path(settings.path) if settings.path.startswith("/") else None
        self._told: set[str] = set()
        self.is_file = self._path is not None and self._path.is_file()

    def cut(self) -> _ClipCut:
        """Return how the stream is cut for the release that is served now.

        Raises:
            SourceError: If rate or length are unknown.
        """
        settings, options = self._settings, self._around.options()
        rate = settings.rate_hz or int(options.get("sample_rate_hz", 0))
        clip = round(rate * (settings.clip_s or options.get("clip_s", 0.0)))
        if clip < 1:
            message = "Expected rate_hz and clip_s in [source], or a release for sounds, got neither: set both"
            raise SourceError(message)
        judged = round(rate * self._around.interval_ms() / 1000)
        hop = round(rate * settings.hop_s) or judged or clip
        if judged and hop != judged:
            text = f"Expected hop_s = {judged / rate:g}, at which the release was judged, got {settings.hop_s:g}"
            advice = "events are missed or found twice that its gates counted: leave hop_s out of [source]"
            self._tell_once(INTERVAL, f"{text}: {advice}")
        return _ClipCut(rate_hz=rate, clip=clip, hop=hop)

    def recorded(self) -> tuple[PcmForm, int]:
        """Return the form of the sound in the file, and its frames.

        Raises:
            SourceError: If it is a WAV that the release does not hear, no PCM, or shorter than a clip.
            OSError: If it can't be read.
        """
        with Path(self._settings.path).open("rb") as file:
            data, size = file.read(HEAD_BYTES), os.fstat(file.fileno()).st_size
        try:
            head = wav_head(data) if is_wav(data) else None
        except ValueError as error:
            raise SourceError(self._misfit(f"a WAV with {error}")) from error
        form = self._raw() if head is None else head.form
        other = "a WAV whose header is cut off" if head is None and is_wav(data) else other_container(data)
        if reason := other or self._check(form):
            raise SourceError(self._misfit(reason))
        if head is not None:
            size = min(size - head.start, size if head.size is None else head.size)
        frames, cut = size // (form.width * form.channels), self.cut()
        if frames < cut.clip:
            message = f"Expected {cut.clip / cut.rate_hz:g} s of sound or more, an input, in {self._settings.path}"
            raise SourceError(f"{message}, got {frames / cut.rate_hz:.6g} s: record a longer one")
        return form, frames

    def read(self, stop: threading.Event) -> Iterator[StreamInput]:
        """Yield the clips of one connection.

        Raises:
            SourceError: If it ends with an error, or the release that is served now has another rate.
            OSError: If it can't be opened or read.
        """
        when = self._recording_times() if self.is_file else self._live_times()
        held, skip, passed = bytearray(), 0, 0  # in frames: until the next clip begins, and those that are gone
        for form, samples, begins in sounds_in(self._chunks(stop), self._raw, self._check, self._refused):
            frame_bytes = _RAW_WIDTH * form.channels
            if begins:
                passed, skip = passed + len(held) // frame_bytes, 0
                held.clear()
            held += samples
            cut = self.cut()
            while len(held) >= (skip + cut.clip) * frame_bytes:
                clip = bytes(held[skip * frame_bytes : (skip + cut.clip) * frame_bytes])
                place = when((passed + skip + cut.clip) / form.rate_hz, cut.hop / form.rate_hz)
                yield StreamInput(wav_of(clip, PcmForm(rate_hz=form.rate_hz, channels=form.channels)), place)
                skip += cut.hop
            gone = min(skip, len(held) // frame_bytes)
            del held[: gone * frame_bytes]
            skip, passed = skip - gone, passed + gone

    def _chunks(self, stop: threading.Event) -> Iterator[bytes]:
        settings, begun_hz = self._settings, self.cut().rate_hz
        if self._path is not None:
            yield from _contents(self._path) if self.is_file else arriving(self._path, stop)
            return
        raw = ["-t", "raw", "-f", "S16_LE", "-r", str(begun_hz), "-c", str(settings.channels)]
        for chunk in output_of(["arecord", "-q", "-D", settings.path, *raw], stop, settings.stall_s):
            if self.cut().rate_hz != begun_hz:
                raise SourceError(f"a release for another rate than {begun_hz} Hz: it is opened again")
            yield chunk

    def _recording_times(self) -> Times:
        """Return the times in a file: its last sample was taken when it was last changed."""
        form, frames = self.recorded()
        end_ms, lasts_s = Path(self._settings.path).stat().st_mtime_ns // 1_000_000, frames / form.rate_hz

        def when(end_s: float, hop_s: float) -> InStream:
            at_ms = end_ms - round(1000 * (lasts_s - end_s))
            return InStream(at_ms=at_ms, last=end_s + hop_s > lasts_s)

        return when

    def _live_times(self) -> Times:
        timed = SampleClock(self._clock, may_lead=self._path is not None)
        return lambda end_s, _hop_s: InStream(at_ms=timed.at_ms(end_s))

    def _raw(self) -> PcmForm:
        return PcmForm(rate_hz=self.cut().rate_hz, channels=self._settings.channels)

    def _check(self, form: PcmForm) -> str:
        fits = form.rate_hz == self.cut().rate_hz and form.channels <= max(MOST_CHANNELS, self._settings.channels)
        return "" if fits else f"a WAV of {form}"

    def _misfit(self, reason: str) -> str:
        rate = self.cut().rate_hz
        text = f"Expected PCM, or a WAV of 8 or 16 bits at {rate} Hz with one or two channels, in {self._settings.path}"
        return f"{text}, got {reason}: convert it (ffmpeg -i FILE -ar {rate} -ac 1 -c:a pcm_s16le NEW.wav)"

    def _refused(self, reason: str) -> None:
        if self.is_file:
            raise SourceError(self._misfit(reason))
        self._tell_once(FORMAT, f"{self._misfit(reason)}; it is passed over")

    def _tell_once(self, code: str, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._around.tell(code, text)


def _lost(settings: Settings) -> str:
    message = f"Expected the model to be through with {settings.backlog} clips before the next came from"
    advice = "set a larger backlog (up to 1000) in [source] for sound that comes in pieces or faster than it is played"
    return f"{message} {settings.path}, got more: the oldest are dropped and never heard: {advice}"


def _contents(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            yield data
