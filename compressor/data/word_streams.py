"""Long recordings made of short clips and noise: events at known times, from the clips that ``spoken`` reads.

A recording has one speaker, each clip is in one recording, at a random level, with pauses between clips and noise under
all of them. The first ``keywords`` labels are events; clips of the other labels are speech that must not be taken for
one. What the recordings lack: rooms, overlapping voices and every sound that is not in the clips; recordings of the
place where a model will hear show more (``sound_events``).

``[data] options``, beside those of ``sound_events``: ``recording_s``, ``pause_s`` (mean), ``noise_db`` (the loudest,
against full scale), ``keywords`` (0: all labels), ``seed``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt

from compressor.data import spoken
from compressor.data._event_windows import EventWindows, Recording, SoundEvent, ranged_windows, settings, tabled
from compressor.data._event_windows import front_end as shared_front_end
from compressor.data._front_end import Ranged, SensorSample
from compressor.data._table import Table, sort_classes
from compressor.data.sound_events import pcm
from compressor.errors import DataError
from compressor.recipe.model import DataRecipe
from wire.settings import Bound

READS = frozenset({"path", "front_end", "options"})
_FULL = 32_767
_QUIETEST_DB = -75.0
_SHORTEST_PAUSE_S = 0.4
_LEVEL_DB = (-24.0, -9.0)
_SILENT_RATIO = 0.02
Sound = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed(EventWindows):
    """``[data] options`` of the data set, beside those of the front end."""

    recording_s: Annotated[float, Bound(2, 36_000)] = 60.0
    pause_s: Annotated[float, Bound(0.5, 3600)] = 3.0  # from one clip to the next, in the mean
    noise_db: Annotated[float, Bound(-70, 0)] = -35.0  # the loudest noise, re full scale
    keywords: Annotated[int, Bound(0, 1000)] = 0  # so many labels are events, in their order; 0: all
    seed: Annotated[int, Bound(0, 2**31)] = 0


def front_end(data: DataRecipe) -> tuple[str, dict[str, float]]:
    """Return the front end's name and all its options, as in the manifest.

    Raises:
        DataError: If the front end is missing or unknown, or an option is unknown or out of range.
    """
    return shared_front_end(data, Composed)


def load(data: DataRecipe, root: Path | None = None) -> Table:
    """Return the pictures of all windows of recordings made of the clips in ``data.path`` (a zip or a folder).

    Raises:
        ArchiveError: If the archive can't be opened, has unsafe paths, too many or too large entries, or no WAV.
        DataError: If a clip's name does not have three parts, it is cut off or of another rate, there are fewer labels
            than keywords, or an option is unknown or out of range.
    """
    ends, wanted = front_end(data), settings(data, Composed)
    return tabled(_made(data, root, wanted, int(ends[1]["sample_rate_hz"])), ends, wanted)


def raw(data: DataRecipe, root: Path | None = None) -> list[Ranged]:
    """Return decibels (``log_mel``) or coefficients (``mfcc``) before conversion to 8 bits, to fit ranges.

    Raises:
        ArchiveError: As in ``load``.
        DataError: As in ``load``.
        SensorError: If the front end can't read a window.
    """
    ends = front_end(data)
    return ranged_windows(_made(data, root, settings(data, Composed), int(ends[1]["sample_rate_hz"])), ends)


def _made(data: DataRecipe, root: Path | None, wanted: Composed, rate_hz: int) -> Iterator[Recording]:
    """Return the recordings of the clips in ``data.path``."""
    clips = list(spoken.samples((root or Path()) / data.path))
    labels = sort_classes({clip.label for clip in clips})
    if wanted.keywords > len(labels):
        message = f"Expected at most {len(labels)} keywords, the labels of the clips, got {wanted.keywords}"
        raise DataError(f"{message}: write fewer into [data] options")
    keywords = frozenset(labels[: wanted.keywords] if wanted.keywords else labels)
    return composed(clips, keywords, wanted, rate_hz)


def composed(
    clips: Sequence[SensorSample], keywords: frozenset[str], wanted: Composed, rate_hz: int
) -> Iterator[Recording]:
    """Yield the recordings of each speaker; the last one of each is cut where its clips end."""
    for number, speaker in enumerate(sorted({clip.slice for clip in clips})):
        rng = np.random.default_rng([wanted.seed, number])
        own = [clip for clip in clips if clip.slice == speaker]
        left = [own[place] for place in rng.permutation(len(own)).tolist()]
        part = 0
        while left:
            yield _recording(f"{speaker}-{part:03d}", left, keywords, wanted, (rate_hz, rng))
            part += 1


def _recording(
    name: str, left: list[SensorSample], keywords: frozenset[str], wanted: Composed,
    made_with: tuple[int, np.random.Generator],
) -> Recording:  # fmt: skip
    """Return one recording, made of clips that are taken from the end of ``left``."""
    rate_hz, rng = made_with
    sound = _noise(round(wanted.recording_s * rate_hz), rng, wanted.noise_db)
    events: list[SoundEvent] = []
    at = _pause(wanted, rng, rate_hz)
    while left:
        clip = left[-1]
        heard = _trimmed(pcm(clip.data, clip.name, rate_hz) / _FULL)
        end = at + len(heard)
        if 2 * len(heard) > len(sound):
            message = f"Expected clips of at most half of recording_s = {wanted.recording_s:g}, got {clip.name}"
            raise DataError(f"{message} of {len(heard) / rate_hz:.3g} s: write longer recordings into [data] options")
        if end + round(_SHORTEST_PAUSE_S * rate_hz) > len(sound):
            break
        left.pop()
        sound[at:end] += heard * 10 ** (rng.uniform(*_LEVEL_DB) / 20) / max(float(np.abs(heard).max()), 1e-6)
        if clip.label in keywords:
            events.append(SoundEvent(at / rate_hz, end / rate_hz, clip.label))
        at = end + _pause(wanted, rng, rate_hz)
    whole = np.clip(np.round(sound * _FULL), -_FULL, _FULL).astype(np.int16)
    return Recording(name=name, sound=whole, events=events, slice=name.rpartition("-")[0])


def _pause(wanted: Composed, rng: np.random.Generator, rate_hz: int) -> int:
    """Return the samples of one pause: never shorter than ``_SHORTEST_PAUSE_S``, exponential beyond."""
    beyond_s = rng.exponential(max(0.0, wanted.pause_s - _SHORTEST_PAUSE_S))
    return round((_SHORTEST_PAUSE_S + min(beyond_s, wanted.recording_s / 4)) * rate_hz)


def _trimmed(clip: Sound) -> Sound:
    """Return ``clip`` without silence at both ends: an event lasts as long as it is heard."""
    loud = np.flatnonzero(np.abs(clip) > _SILENT_RATIO * np.abs(clip).max(initial=0.0))
    return clip[loud[0] : loud[-1] + 1] if len(loud) else clip


def _noise(samples: int, rng: np.random.Generator, loudest_db: float) -> Sound:
    """Return noise of a random level and colour (white to brown), which swells and falls, and some clicks."""
    spectrum = np.fft.rfft(rng.normal(size=samples))
    spectrum *= np.maximum(np.arange(len(spectrum)), 20.0) ** -rng.uniform(0.0, 1.0)
    coloured = np.fft.irfft(spectrum, samples)
    coloured /= np.sqrt(np.mean(coloured**2))
    level = 10 ** (rng.uniform(_QUIETEST_DB, loudest_db) / 20)
    swell = 1 + 0.7 * np.sin(np.linspace(0, rng.uniform(2, 40) * np.pi, samples) + rng.uniform(0, 6))
    found: Sound = level * swell * coloured
    for at in rng.integers(0, samples, rng.poisson(samples / 40_000)).tolist():
        part = found[at : at + 40]
        part += rng.uniform(0.02, 0.3) * rng.normal(size=len(part)) * np.exp(-np.arange(len(part)) / 8)
    return found
