"""Files that appear in a folder: taken in the order of their names, deleted after serving.

Takes files with a suffix that the served release reads (``.png``, ``.wav``, ...) or that the setting ``suffixes`` adds.
Others, hidden names, and names that end in ``.tmp`` or ``.part`` are left alone.

A file is complete at once if it was renamed into the folder or to its name; otherwise when no process has it open for
writing and its size and time have not changed for ``settle_s`` (four times that if the file system can't tell whether
it is open). A file that can't be decoded is tried once more after a rest; then it moves to ``bad`` in the state
directory (``_bad_inputs``), or stays if it can't be moved. It is never deleted. Files that stay are identified by size
and time, not only by name: a camera may write every picture under one name.

An unreadable file is tried again, and a missing folder is searched for again; both are reported, as are folders and
links in the folder, which are left alone.

If more than ``backlog`` files wait, the oldest are deleted unserved (or left with ``keep``) and counted; the number is
reported at once and then once an hour: a device that can't keep up serves the present, not last week.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from edge_agent.device.clock import Clock
from edge_agent.device.disk import place_advice
from edge_agent.errors import SourceError
from edge_agent.sources import SOURCE_UNREAD, Capture, InStream, Surroundings, readable
from edge_agent.sources._bad_inputs import BadInputs, Skipped
from edge_agent.sources._misfits import step_for
from edge_agent.sources._placement import check_placement
from edge_agent.sources._region import check_region
from wire.errors import SettingsError
from wire.messages import UnreadInputs
from wire.settings import Bound, OneOf

if TYPE_CHECKING:
    from edge_agent.sources._folder_events import FolderEvents

AUTO, FILE = "auto", "file"
STREAMS = (AUTO, FILE, "folder")
MAX_FILE_BYTES = 32 * 1024 * 1024
_UNKNOWN_WRITER = 4  # factor if it is unknown whether a file is still open for writing
_RETRY_S = 2.0
_RESCAN_S = 1.0
_AT_ONCE_S = 0.1  # with news, a folder is scanned at once unless its scans take long
_UNREADABLE_S = 30.0  # between two tries of an unreadable file: its permissions may be set later
_DROPPED_S = 3600.0  # interval of reports of dropped files
_AWAY_S = 10.0  # a folder that is missing for this long (a card, a mount) is reported
_SCAN_SHARE = 20  # scanning a folder full of other files takes at most a twentieth of the time
_UNFINISHED = (".tmp", ".part")
_NAMED = 3  # files that are left alone and named


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``[source]`` of ``kind = "directory"``: files that appear in a folder, deleted after serving."""

    path: Path | None = None  # the folder, which holds nothing else; without one STATE/inbox
    suffixes: str = ""  # more suffixes to take, as ".dat .raw", besides those that the served release reads
    settle_s: Annotated[float, Bound(0, 31_622_400)] = (
        0.5  # a file written in place is complete when unchanged for this long
    )
    keep: bool = False  # served files stay in the folder
    stream: Annotated[str, OneOf(STREAMS)] = AUTO  # what is smoothed together; auto: a file of sound, else the folder
    region: tuple[float, ...] = ()  # of pictures: x, y, width, height, as shares of the picture: [0.25, 0, 0.5, 1]
    resize: tuple[int, ...] = ()  # of pictures: width and height in pixels, after the region
    backlog: Annotated[int, Bound(1, 1_000_000)] = (
        1000  # when more files wait, the oldest are not served: the newest matter most
    )

    def __post_init__(self) -> None:
        """Reject invalid suffixes, and a region outside of the picture."""
        suffixes_in(self.suffixes)
        check_region(self.region, self.resize)


def suffixes_in(text: str) -> frozenset[str]:
    """Return the suffixes that ``text`` lists, such as ``".dat .raw"``, in lower case.

    Raises:
        SettingsError: If one has no dot or is not a suffix.
    """
    found = frozenset(part.lower() for part in text.replace(",", " ").split())
    wrong = sorted(part for part in found if not part.startswith(".") or "/" in part or len(part) == 1)
    if wrong:
        message = f'Expected suffixes as ".dat .raw", each with its dot, got {wrong[0]!r}'
        raise SettingsError(message)
    return found


def cut_of(settings: Settings) -> Callable[[bytes], bytes] | None:
    """Return what makes the input of a picture by ``region`` and ``resize``; None if the whole file is the input."""
    if not settings.region and not settings.resize:
        return None
    from edge_agent.inference.preprocess import cropped  # noqa: PLC0415 - numpy, which the control process lacks

    return partial(cropped, region=settings.region, resize=settings.resize)


def place_of(settings: Settings, name: str, *, sound: bool, changed_ms: int | None) -> InStream:
    """Return where the file ``name``, which was last changed at ``changed_ms``, stands in a stream.

    A sound is a stream of its own, which ended when the file was last changed; the pictures or windows of a folder
    follow each other, as those of a camera do.
    """
    alone = sound if settings.stream == AUTO else settings.stream == FILE
    return InStream(name=name if alone else "", at_ms=changed_ms if sound else None, last=alone)


def check_place(settings: Settings, state: Path) -> None:
    """Check that the folder, created if missing, may be consumed by an agent with the state directory ``state``.

    Raises:
        SourceError: If it would consume files of the agent or of a person.
    """
    folder = settings.path
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if folder.exists():
            message = f"Expected a folder in [source] path, got {folder}, which is none: name a folder"
            raise SourceError(message) from error
        return  # a card that is not mounted yet: the child checks again at each start, and reports it
    check_placement(folder, state)


def open_source(settings: Settings, clock: Clock, surroundings: Surroundings) -> DirectorySource:
    """Return the source for the folder of ``settings``, created if missing.

    Raises:
        SourceError: If the folder can't be created or read, or must not be consumed.
    """
    folder = settings.path
    if folder is None:
        raise SourceError("Expected a path of the folder that images appear in, got none: set path in [source]")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.scandir(folder).close()
        check_placement(folder, surroundings.state)
    except OSError as error:
        message = f"Expected a folder that can be made or read at {folder}, got: {error.strerror}"
        raise SourceError(f"{message}: {place_advice(error)}") from error
    from edge_agent.sources._folder_events import FolderEvents  # noqa: PLC0415 - of the child alone: 1 MB

    source = DirectorySource(folder, clock, settings, surroundings)
    source.events = FolderEvents(folder, surroundings.wake)
    return source


@dataclass(slots=True, kw_only=True)
class _Seen:
    """A file as last seen. ``rested_s``: since when it is unchanged; ``refused``: it was tried once."""

    size: int
    mtime_ns: int
    rested_s: float
    refused: bool = False


class DirectorySource:
    """Serves files that appear in a folder."""

    def __init__(self, folder: Path, clock: Clock, settings: Settings, surroundings: Surroundings) -> None:
        """Watch ``folder``; nothing is read yet."""
        self._folder, self._clock, self._settings, self._surroundings = folder, clock, settings, surroundings
        self._more_suffixes = suffixes_in(settings.suffixes)
        self._bad, self._skipped = BadInputs(surroundings.state), Skipped(surroundings.state)
        self._waiting: deque[str] = deque()
        self._seen: dict[str, _Seen] = {}
        self._unfinished: set[int] = set()  # inodes under hidden or unfinished names: a rename completes them
        self._held: dict[str, _Seen] = {}  # by id: returned, and neither done nor refused yet
        self._kept: dict[str, tuple[int, int]] = {}  # names of files that stay where they are, with size and time
        self._told: set[str] = set()
        self._others = UnreadInputs()  # files of other suffixes, folders and links, at the last scan
        self._unreadable: dict[str, str] = {}  # by name, why the file can't be opened
        self._served: set[str] = set()  # suffixes of served files, under any release
        self._here_s = clock.monotonic_s()
        self._dropped = self._dropped_untold = 0
        self._dropped_due_s = float("-inf")
        self._scanned_s, self._pause_s = float("-inf"), 0.0
        self._moved: set[str] = set()  # names of files that were moved in since the last scan: they are whole
        self._resting = False
        self.events: FolderEvents | None = None

    def take(self) -> Capture | None:
        """Return the next file, or None if there is none."""
        now_s = self._clock.monotonic_s()
        moved = self.events.take() if self.events is not None else None
        if moved is not None:
            self._moved |= moved
            self._pause_s = self._pause_s if self._pause_s > _AT_ONCE_S else 0.0
        if now_s - self._scanned_s >= (_RESCAN_S if self._waiting else self._pause_s):
            self._scan(now_s)
            self._moved.clear()
            self._scanned_s = now_s
            self._pause_s = min(_RESCAN_S, _SCAN_SHARE * (self._clock.monotonic_s() - now_s))
        while self._waiting:
            name = self._waiting.popleft()
            data = self._read(name, now_s)
            if data is not None:
                capture = self._captured(name, data)
                self._held[capture.id] = self._seen[name]
                return capture
        return None

    def _captured(self, name: str, data: bytes) -> Capture:
        cut = cut_of(self._settings)
        if cut is not None and self._surroundings.options():
            text = "Expected pictures for region and resize, got a release that reads another sensor's files"
            self._tell_once("source_region", f"{text}: they are not applied; remove both from [source]")
            cut = None
        seen, sound = self._seen[name], "clip_s" in self._surroundings.options()
        place = place_of(self._settings, name, sound=sound, changed_ms=seen.mtime_ns // 1_000_000)
        return Capture(name, data, _id(name, seen), prepare=cut, place=place)

    def _scan(self, now_s: float) -> None:
        suffixes = self._surroundings.suffixes() | self._more_suffixes
        found: list[str] = []
        unfinished: set[int] = set()
        present: dict[str, _Seen] = {}
        ignored: dict[str, str] = {}  # by suffix
        no_file = ""
        others: deque[str] = deque(maxlen=_NAMED)
        count = 0
        self._resting = False
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    name = entry.name
                    if not entry.is_file(follow_symlinks=False):
                        shown = name[0] != "." and name != "lost+found"
                        no_file = name if shown else no_file
                        others.extend([name] * shown)
                        count += shown
                    elif name[0] == "." or name.lower().endswith(_UNFINISHED):
                        unfinished.add(entry.inode())
                    elif (suffix := os.path.splitext(name)[1].lower()) not in suffixes:  # noqa: PTH122 - 20 times faster
                        ignored[suffix] = name
                        others.append(name)
                        count += 1
                    elif self._whole(entry, now_s, present):
                        found.append(name)
            self._here_s = now_s
            self._told.discard("source_missing")
            self._kept = {name: was for name, was in self._kept.items() if name in present}
            self._unreadable = {name: why for name, why in self._unreadable.items() if name in present}
        except OSError as error:  # the folder is missing for a moment (a card, a mount): nothing waits
            found = []
            if now_s - self._here_s >= _AWAY_S:
                text = f"Expected a folder that can be read at {self._folder}, got: {error.strerror}"
                self._tell_once("source_missing", f"{text}: nothing is served before it is there again")
        self._unfinished, self._seen = unfinished, present
        self._waiting = deque(sorted(found))
        while len(self._waiting) > self._settings.backlog:
            self._dropped += 1
            self._dropped_untold += 1
            self._forget(self._waiting.popleft())
        self._tell_dropped(now_s)
        expected = f"Expected files ending in {' '.join(sorted(suffixes))} in {self._folder}"
        self._tell_ignored(ignored, expected, suffixes)
        if no_file:
            text = f"Expected files in {self._folder}, got {no_file!r} too, which is a folder, a link or the like"
            self._tell_once("source_no_file", f"{text}: it is left alone; put the files themselves here")
        example = next(iter(ignored.values()), "")
        step = step_for(example, suffixes) if example else "put the files themselves here, no folders and no links"
        self._others = UnreadInputs(ignored=count, names=tuple(sorted(others)), text=f"{expected}: {step}")

    @property
    def left_alone(self) -> UnreadInputs:
        """The files that the release does not read, and those that can't be opened."""
        others, unreadable = self._others, self._unreadable
        if not unreadable:
            return replace(others, names=tuple(readable(name) for name in others.names))
        names = (*unreadable, *others.names)[:_NAMED]
        text = others.text if others.ignored else f"{next(iter(unreadable.values()))}: let the agent's user read them"
        return replace(others, unreadable=len(unreadable), names=tuple(readable(name) for name in names), text=text)

    def _tell_ignored(self, ignored: Mapping[str, str], expected: str, suffixes: frozenset[str]) -> None:
        """Report what is left alone, and separately what an earlier release read."""
        for name in list(ignored.values())[:1]:
            text = f"{expected}, got {name!r} too"
            self._tell_once("source_ignored", f"{text}: others are left alone: {step_for(name, suffixes)}")
        unread = [name for suffix, name in ignored.items() if suffix in self._served]
        if unread:
            text = f"{expected}, got {unread[0]!r}: an earlier release read it, this one does not"
            self._tell_once(SOURCE_UNREAD, f"{text}: {step_for(unread[0], suffixes)}")
        else:
            self._told.discard(SOURCE_UNREAD)

    def _tell_dropped(self, now_s: float) -> None:
        if self._dropped_untold and now_s >= self._dropped_due_s:
            end = "passed over" if self._settings.keep else "deleted"
            text = f"Expected at most {self._settings.backlog} files to wait in {self._folder}, got more"
            advice = "raise [source] backlog, or write fewer"
            self._surroundings.tell(
                "source_dropped", f"{text}: the {self._dropped_untold} oldest were {end} unserved: {advice}"
            )
            self._dropped_untold, self._dropped_due_s = 0, now_s + _DROPPED_S

    def _tell_once(self, code: str, text: str) -> None:
        if code not in self._told:
            self._told.add(code)
            self._surroundings.tell(code, text)

    def _whole(self, entry: os.DirEntry[str], now_s: float, present: dict[str, _Seen]) -> bool:
        """Return whether a file looks complete; ``_read`` checks whether it is still open for writing."""
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            return False
        seen = self._seen.get(entry.name)
        if seen is None or (seen.size, seen.mtime_ns) != (status.st_size, status.st_mtime_ns):
            # another change after the last write: a rename, or a finished copy that keeps the original's time
            renamed = entry.inode() in self._unfinished or status.st_ctime_ns > status.st_mtime_ns
            whole_since_s = now_s - self._settings.settle_s * _UNKNOWN_WRITER if renamed and status.st_size else now_s
            seen = _Seen(size=status.st_size, mtime_ns=status.st_mtime_ns, rested_s=whole_since_s)
        if entry.name in self._moved and status.st_size and not seen.refused:
            seen.rested_s = now_s - self._settings.settle_s * _UNKNOWN_WRITER
        present[entry.name] = seen
        if self._kept.get(entry.name) == (seen.size, seen.mtime_ns) or _id(entry.name, seen) in self._held:
            return False
        if self._skipped and self._key(entry.name, seen) in self._skipped:
            return False
        whole = now_s - seen.rested_s >= (
            max(_RETRY_S, self._settings.settle_s) if seen.refused else self._settings.settle_s
        )
        self._resting |= not whole
        return whole

    def _read(self, name: str, now_s: float) -> bytes | None:
        seen = self._seen[name]
        try:
            descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:  # removed by another program; a new file may appear under its name
            return None
        except OSError as error:
            seen.rested_s = now_s + _UNREADABLE_S
            text = f"Expected a file that can be read at {self._folder / name}, got: {error.strerror}"
            self._unreadable[name] = text
            self._tell_once("source_unreadable", f"{text}: let the agent's user read it; it is tried again")
            return None
        with open(descriptor, "rb") as file:  # noqa: PTH123 - of a descriptor
            written = _open_for_writing(descriptor)
            if written or (written is None and now_s - seen.rested_s < self._settings.settle_s * _UNKNOWN_WRITER):
                return None
            try:
                data = file.read(MAX_FILE_BYTES + 1)  # one byte more than allowed, so that decoding reports "too large"
                status = os.fstat(descriptor)
            except OSError as error:  # a faulty card: the file stays, for a person to read
                self._keep(name)
                text = f"Expected to read {self._folder / name}, got: {error.strerror}"
                self._unreadable[name] = text
                self._tell_once("source_unreadable", f"{text}: it stays where it is")
                return None
        if (status.st_size, status.st_mtime_ns) != (seen.size, seen.mtime_ns):
            return None  # it grew in the meantime
        self._unreadable.pop(name, None)
        return data

    def done(self, capture: Capture) -> None:
        """Delete the image's file, or remember it if files are kept."""
        self._served.add(Path(capture.name).suffix.lower())
        self._forget(capture.name, self._held.pop(capture.id, None))

    def refuse(self, capture: Capture, code: str, *, final: bool = False) -> bool:
        """Retry the file once after a rest, then set it aside; ``final``: it crashed a child; never try it again."""
        self._held.pop(capture.id, None)
        seen = self._seen.get(capture.name)
        if not final and seen is not None and not seen.refused:
            seen.refused, seen.rested_s = True, self._clock.monotonic_s()
            return False
        if self._settings.keep or not self._bad.move_in(self._folder / capture.name, code):
            kept = self._keep(capture.name, seen)
            if final and kept is not None:
                self._skipped.add(self._key(capture.name, kept))
        return True

    def _keep(self, name: str, seen: _Seen | None = None) -> _Seen | None:
        """Leave a file where it is, remember its size and time (of ``seen``, or as found), and return them."""
        if seen is None:
            try:
                status = (self._folder / name).lstat()
            except OSError:  # it is gone: a file under its name is a new one
                return None
            seen = _Seen(size=status.st_size, mtime_ns=status.st_mtime_ns, rested_s=0.0)
        self._kept[name] = (seen.size, seen.mtime_ns)
        return seen

    def _key(self, name: str, seen: _Seen) -> str:
        """Return the key that distinguishes this content of the file from a later one with the same name."""
        return f"{self._folder / name} {seen.size} {seen.mtime_ns}"

    def _forget(self, name: str, served: _Seen | None = None) -> None:
        """Delete a file, or remember it; ``served``: as it was when it was returned, if another may be there now."""
        seen = self._seen.get(name)
        if served is None or (seen is not None and (seen.size, seen.mtime_ns) == (served.size, served.mtime_ns)):
            self._seen.pop(name, None)
        else:
            seen = served
        if self._settings.keep:
            self._keep(name, seen)
            return
        path = self._folder / name
        try:
            status = path.lstat()
            if seen is None or (status.st_size, status.st_mtime_ns) == (seen.size, seen.mtime_ns):
                path.unlink()  # otherwise a new file has appeared under its name, which is to be served too
        except FileNotFoundError:
            return
        except OSError:  # a read-only folder: remember instead
            self._keep(name, seen)

    @property
    def wakes(self) -> bool:
        """Whether the next file wakes the loop: not while one rests that is not known to be whole."""
        return self.events is not None and self.events.works and not self._resting

    def close(self) -> None:
        """Watch the folder no longer."""
        if self.events is not None:
            self.events.close()

    def take_dropped(self) -> int:
        """Return how many images were dropped since the last call."""
        dropped, self._dropped = self._dropped, 0
        return dropped


def _id(name: str, seen: _Seen) -> str:
    """Return the id of a file with this name and time of its last change."""
    return f"{name}@{seen.mtime_ns}"


def _open_for_writing(descriptor: int) -> bool | None:
    """Return whether any process has the file open for writing; None if file system or permissions can't tell.

    Source: fcntl(2), F_SETLEASE: a read lease can't be placed on a file that is open for writing. A process that opens
    it for writing in the microsecond while the lease is held waits for it, and this process gets SIGIO, which by
    default terminates it: leases are only used if the signal is ignored.
    """
    if signal.getsignal(signal.SIGIO) is not signal.SIG_IGN:
        return None
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return None
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
