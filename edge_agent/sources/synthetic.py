"""Replays a folder or zip of images at a steady rate, in a seeded random order, repeatedly; never deletes anything.

Images that are due but not taken are dropped beyond one second's worth: a replay has no backlog to catch up with.
"""

from __future__ import annotations

import logging
import random
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from edge_agent.device.clock import Clock
from edge_agent.errors import SourceError
from edge_agent.sources import Capture, InStream, Surroundings
from edge_agent.sources._bad_inputs import Skipped
from wire.settings import Bound

_LOG = logging.getLogger(__name__)
MAX_IMAGES = 100_000
MAX_IMAGE_BYTES = 32 * 1024 * 1024
_LATE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``[source]`` of ``kind = "synthetic"``: replay of a folder or zip at a steady rate; nothing is deleted."""

    path: Path | None = None  # the folder, searched recursively, or the zip; without one STATE/inbox
    interval_s: Annotated[float, Bound(0, 31_622_400)] = (
        0.2  # 5 a second: a Cortex-A53 with a ResNet8 and room to spare
    )
    rate_hz: Annotated[float, Bound(0, 10_000)] = 0.0  # a rate that overrides interval_s; 0: interval_s applies
    repeat: bool = True  # the replay starts again at its end
    seed: Annotated[int, Bound(0, 2**53)] = 0  # of the order, which differs in each round


def open_source(settings: Settings, clock: Clock, surroundings: Surroundings) -> SyntheticSource:
    """Return the replay of the folder or zip of ``settings``.

    Raises:
        SourceError: If there are no images to replay.
    """
    path, suffixes = settings.path, surroundings.suffixes()
    if path is None:
        raise SourceError("Expected a folder or zip of images to replay, got none: set path in [source]")
    names, read = _zip(path, suffixes) if path.is_file() else _folder(path, suffixes)
    if not names:
        message = f"Expected inputs of the release ({', '.join(sorted(suffixes))}) in {path}, got none"
        raise SourceError(
            f"{message}: set [source] path to a folder of them, or assign a release that reads what is there"
        )
    return SyntheticSource(
        Images(names, read, Skipped(surroundings.state)), clock,
        interval_s=1 / settings.rate_hz if settings.rate_hz else settings.interval_s,
        repeat=settings.repeat,
        seed=settings.seed,
    )  # fmt: skip


def _folder(path: Path, suffixes: frozenset[str]) -> tuple[list[str], Callable[[str], bytes]]:
    found = sorted(str(item.relative_to(path)) for item in path.rglob("*") if item.suffix.lower() in suffixes)
    return _within(found, path), lambda name: (path / name).read_bytes()


def _zip(path: Path, suffixes: frozenset[str]) -> tuple[list[str], Callable[[str], bytes]]:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        message = f"Expected a folder or a zip of images at {path}, got: {error}"
        raise SourceError(message) from error
    infos = [info for info in archive.infolist() if Path(info.filename).suffix.lower() in suffixes]
    found = sorted(info.filename for info in infos if info.file_size <= MAX_IMAGE_BYTES)
    if len(found) < len(infos):
        _LOG.warning("Left out images above %s bytes. path=%s count=%s", MAX_IMAGE_BYTES, path, len(infos) - len(found))
    return _within(found, path), archive.read


def _within(found: list[str], path: Path) -> list[str]:
    """Return the first ``MAX_IMAGES`` names; log how many others were left out."""
    if len(found) > MAX_IMAGES:
        _LOG.warning("Left out images beyond the first %s. path=%s count=%s", MAX_IMAGES, path, len(found) - MAX_IMAGES)
    return found[:MAX_IMAGES]


@dataclass(frozen=True, slots=True)
class Images:
    """Images to replay: their names, how to read one, and which are skipped."""

    names: list[str]
    read: Callable[[str], bytes]
    skipped: Skipped


class SyntheticSource:
    """Replays a folder or zip of images at a steady rate."""

    def __init__(
        self,
        images: Images,
        clock: Clock,
        *,
        interval_s: float,
        repeat: bool,
        seed: int,
    ) -> None:
        """Start the replay now."""
        self._names, self._read, self._skipped = list(images.names), images.read, images.skipped
        self._clock = clock
        self._interval_s, self._repeat = interval_s, repeat
        self._random = random.Random(seed)  # noqa: S311 - the order of a replay is no secret
        self._position = len(self._names)
        self._rounds = 0
        self._dropped = 0
        self._due_s = clock.monotonic_s()

    def take(self) -> Capture | None:
        """Return the next image, or None if none is due."""
        now_s = self._clock.monotonic_s()
        name = self._next_name() if now_s >= self._due_s else None
        if name is None:
            return None
        if self._interval_s > 0 and now_s - self._due_s > _LATE_S:
            late = int((now_s - self._due_s) / self._interval_s)
            self._dropped += late
            self._due_s += late * self._interval_s
        self._due_s += self._interval_s
        place = InStream(name=name, last=True)  # in random order none follows another
        try:
            return Capture(name, self._read(name), place=place)
        except (OSError, zipfile.BadZipFile, RuntimeError):  # decoding empty data reports the error and counts it
            return Capture(name, b"", place=place)

    def _next_name(self) -> str | None:
        for _ in range(len(self._names)):
            if self._position == len(self._names):
                if self._rounds and not self._repeat:
                    return None
                self._rounds += 1
                self._position = 0
                self._random.shuffle(self._names)
            self._position += 1
            name = self._names[self._position - 1]
            if name not in self._skipped:
                return name
        return None

    def done(self, capture: Capture) -> None:
        """Do nothing: a replay keeps its images."""

    def refuse(self, capture: Capture, code: str, *, final: bool = False) -> bool:
        """Leave the image where it is; ``final``: it crashed a child, so it is never replayed again."""
        del code
        if final:
            self._skipped.add(capture.name)
        return True

    def take_dropped(self) -> int:
        """Return how many images were dropped since the last call."""
        dropped, self._dropped = self._dropped, 0
        return dropped
