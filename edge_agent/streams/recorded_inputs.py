"""Inputs of any source, where a recording of sound that is longer than an input becomes a stream of windows.

Decides what is heard of a long WAV. A release that was judged on windows of streams (``stream_interval_ms``) gets the
windows that its gates were judged on, in their order, each with its time: the file, message or push is one stream; a
sound that is shorter than a window is refused, because its gates judged none. Any other release hears the middle, as
its front end takes it, and that is reported.

The windows of a recording are one input for the source: it is done when the last one is, and refused with any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from edge_agent import sources
from edge_agent.device.clock import Clock
from edge_agent.errors import SensorError
from edge_agent.sources import Capture, InStream, Source
from edge_agent.streams.recordings import as_wav, read_sound, window_starts, windows
from edge_agent.streams.wav_header import frames_of
from wire.manifest import Manifest
from wire.messages import UnreadInputs

UNHEARD = "source_unheard"
EVENTS = "events"  # the smoother of a release for events in streams
_LONG = 2  # clips: a recorder's cut is never exact
_SECOND_MS = 1000


@dataclass(slots=True, kw_only=True, eq=False)
class _Whole:
    """A recording that is served in windows."""

    capture: Capture
    left: int
    refused: bool = False


@dataclass(frozen=True, slots=True)
class _Window(Capture):
    whole: _Whole | None = field(default=None, compare=False, kw_only=True)


class RecordedInputs:
    """The inputs of ``inner``."""

    def __init__(
        self, inner: Source, manifest: Callable[[], Manifest], clock: Clock, tell: Callable[[str, str], None]
    ) -> None:
        """Cut for the release that ``manifest`` returns."""
        self.inner = inner
        self._manifest, self._clock, self._tell = manifest, clock, tell
        self._waiting: Iterator[_Window] = iter(())
        self._next: _Window | None = None
        self._told = False

    def take(self) -> Capture | None:
        """Return the next input, or None if there is none. Never waits."""
        if self._next is None:
            capture = self.inner.take()
            if capture is None:
                return None
            cut = self._cut(capture)
            if cut is not None:
                return cut
        found, self._next = self._next, next(self._waiting, None)
        return found

    @property
    def waiting(self) -> bool:
        """Whether windows of a recording are left."""
        return self._next is not None

    def done(self, capture: Capture) -> None:
        """Record that ``capture`` was served: a recording is done with its last window."""
        whole = capture.whole if isinstance(capture, _Window) else None
        if whole is None:
            self.inner.done(capture)
            return
        whole.left -= 1
        if not whole.left and not whole.refused:
            self.inner.done(whole.capture)

    def refuse(self, capture: Capture, code: str, *, final: bool = False) -> bool:
        """Set ``capture`` aside, with what is left of its recording."""
        whole = capture.whole if isinstance(capture, _Window) else None
        if whole is None:
            return self.inner.refuse(capture, code, final=final)
        whole.refused = True
        self._waiting, self._next = iter(()), None
        return self.inner.refuse(whole.capture, code, final=final)

    def take_dropped(self) -> int:
        """Return how many inputs were dropped since the last call."""
        return self.inner.take_dropped()

    @property
    def wakes(self) -> bool:
        """Whether the source wakes the loop for every input."""
        return getattr(self.inner, "wakes", False) is True

    @property
    def left_alone(self) -> UnreadInputs:
        """What lies unread in the source now."""
        return sources.left_alone(self.inner)

    def close(self) -> None:
        """End what the source started."""
        sources.close(self.inner)

    def _cut(self, capture: Capture) -> Capture | None:
        """Begin to return the windows of a recording longer than an input; return what is none, to be served."""
        manifest = self._manifest()
        options = manifest.preprocessing.front_end_options
        rate, clip_s = int(options.get("sample_rate_hz", 0)), options.get("clip_s", 0.0)
        clip = round(rate * clip_s)
        if not clip or capture.prepare is not None or frames_of(capture.data) == clip:  # the usual clip
            return capture
        stride = round(rate * manifest.stream_interval_ms / _SECOND_MS)
        sound = read_sound(capture.data)
        if sound is None or sound.rate_hz != rate or len(sound.samples) == clip:
            return capture
        if not stride:
            self._tell_unheard(capture, manifest, len(sound.samples) / rate, clip_s)
            return capture
        if len(sound.samples) < clip:
            return replace(capture, prepare=_too_short(len(sound.samples) / rate, clip_s))
        count = len(window_starts(len(sound.samples), clip, stride))
        whole = _Whole(capture=capture, left=count)
        end_ms = capture.place.taken_ms(self._clock.now_ms())

        def parts() -> Iterator[_Window]:
            for number, (start, samples) in enumerate(windows(sound.samples, clip, stride), 1):
                last = number == count
                late_ms = round(_SECOND_MS * (len(sound.samples) - start - clip) / rate)
                place = InStream(name=capture.place.name, at_ms=end_ms - late_ms, last=last and capture.place.last)
                own = f"{capture.id}#{round(_SECOND_MS * start / rate)}" if capture.id and not last else capture.id
                yield _Window(capture.name, as_wav(samples, rate), own, place=place, whole=whole)

        self._waiting = parts()
        self._next = next(self._waiting)
        return None

    def _tell_unheard(self, capture: Capture, manifest: Manifest, lasts_s: float, clip_s: float) -> None:
        if not self._told and lasts_s >= _LONG * clip_s:
            self._told = True
            text = f"Expected sounds of {clip_s:g} s, as long as an input of the release, got {lasts_s:.3g} s in"
            self._tell(UNHEARD, f"{text} {capture.name}: only the middle is heard; {_instead(manifest)}")


def _instead(manifest: Manifest) -> str:
    """Return what to do so that a release without ``stream_interval_ms`` hears the whole of a long sound."""
    if manifest.smoothing == EVENTS:
        return (
            "rebuild the release (compressor run of its recipe): its manifest then has stream_interval_ms, by which a "
            "recording is cut into the windows that its gates judged"
        )
    return 'cut it, or use kind = "microphone" with its path; a release for events in streams hears all of a recording'


def unheard(manifest: Manifest, data: bytes) -> str:
    """Return what is not heard of the input ``data`` where it is asked for alone, a sentence; "" if all of it is."""
    options = manifest.preprocessing.front_end_options
    clip_s, sound = options.get("clip_s", 0.0), read_sound(data) if "clip_s" in options else None
    if sound is None or not sound.rate_hz or len(sound.samples) <= round(clip_s * sound.rate_hz):
        return ""
    lasts_s = len(sound.samples) / sound.rate_hz
    heard = f"only the middle {clip_s:g} s of {lasts_s:.3g} s were heard"
    if manifest.stream_interval_ms:
        return f"{heard}: push it (POST /v1/inputs) to have an answer for each window"
    return f"{heard}: send a sound as long as an input of the release"


def _too_short(lasts_s: float, clip_s: float) -> Callable[[bytes], bytes]:
    """Return what refuses a sound, in place of making an input of it."""

    def refuse(_data: bytes) -> bytes:
        message = f"Expected {clip_s:g} s of sound or more, a window of the release, got {lasts_s:.6g} s"
        raise SensorError(f"{message}: send longer pieces, and leave clip_s out of [source]")

    return refuse
