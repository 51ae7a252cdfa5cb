"""Images that appear in a folder: taken in the order of their names, deleted when dealt with.

The writer writes under a name that starts with a dot and renames: what has a dot is not there yet.
When more wait than ``backlog``, the oldest are dropped and counted: a device that can't keep up
looks at now, not at last week.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from edge_agent.clock import Clock
from edge_agent.errors import SourceError
from edge_agent.sources import Capture, setting
from wire.codec import Json

MAX_FILE_BYTES = 32 * 1024 * 1024
DEFAULT_BACKLOG = 1000
_RESCAN_S = 1.0


def open_source(settings: Mapping[str, Json], clock: Clock) -> DirectorySource:
    """Return the source for the folder ``path``, created if missing.

    Settings: ``path``; ``keep`` (false): leave files where they are, for trying things out; ``backlog``
    (1000 images).

    Raises:
        SourceError: If the folder can't be made or read.
    """
    folder = Path(setting(settings, "path", ""))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.scandir(folder).close()
    except OSError as error:
        message = f"Expected a folder that can be read at {folder}, got: {error.strerror}"
        raise SourceError(message) from error
    backlog = setting(settings, "backlog", DEFAULT_BACKLOG)
    return DirectorySource(folder, clock, keep=setting(settings, "keep", False), backlog=max(1, backlog))


class DirectorySource:
    """See the module."""

    def __init__(self, folder: Path, clock: Clock, *, keep: bool = False, backlog: int = DEFAULT_BACKLOG) -> None:
        """Watch ``folder``; nothing is read yet."""
        self._folder, self._clock, self._keep, self._backlog = folder, clock, keep, backlog
        self._waiting: deque[str] = deque()
        self._kept: set[str] = set()
        self._dropped = 0
        self._scanned_s = float("-inf")

    def take(self) -> Capture | None:
        """Return the next image, or None when none is there now."""
        now_s = self._clock.monotonic_s()
        if not self._waiting or now_s - self._scanned_s >= _RESCAN_S:
            self._scanned_s = now_s
            self._scan()
        while self._waiting:
            name = self._waiting.popleft()
            data = self._read(name)
            if data is not None:
                return Capture(name, data)
        return None

    def _scan(self) -> None:
        try:
            with os.scandir(self._folder) as entries:
                found = [entry.name for entry in entries if self._is_image(entry)]
        except OSError:  # the folder is away for a moment (a card, a mount): nothing waits
            found = []
        self._waiting = deque(sorted(found))
        while len(self._waiting) > self._backlog:
            self._dropped += 1
            self._forget(self._waiting.popleft())

    def _is_image(self, entry: os.DirEntry[str]) -> bool:
        return entry.name[0] != "." and entry.name not in self._kept and entry.is_file(follow_symlinks=False)

    def _read(self, name: str) -> bytes | None:
        try:
            with (self._folder / name).open("rb") as file:
                return file.read(MAX_FILE_BYTES + 1)  # one more than allowed, so that decoding says "too large"
        except OSError:  # taken away by somebody else, or not ours to read: not our image
            self._kept.add(name)
            return None

    def done(self, capture: Capture) -> None:
        """Delete the image's file, or remember it where files are kept."""
        self._forget(capture.name)

    def _forget(self, name: str) -> None:
        if self._keep:
            self._kept.add(name)
            return
        try:
            (self._folder / name).unlink(missing_ok=True)
        except OSError:  # a folder we may only read: remember instead
            self._kept.add(name)

    def take_dropped(self) -> int:
        """Return how many images were dropped since the last call."""
        dropped, self._dropped = self._dropped, 0
        return dropped
