"""Events that have begun and not ended, in a file that outlives the process: after a crash the next one ends them.

An event that has ended is kept with its end for the sinks that have not had it yet: the next process sends it to these
alone. Written in place when an event begins or ends, when a sink has had an end, and at heartbeats as long as it is
open: some bytes of the page cache, which outlive the process; a thread flushes them, so that inference waits for no
disk. An end may be sent twice, if the process is killed after a sink had it and before that is noted: it has the same
stream, label and start.

Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from wire.canonical import canonical_bytes
from wire.codec import Json

FOLDER = "source"
_FILE = "open_events.json"
_VERSION = 1
_MOST_BYTES = 64 * 1024
_MOST_OWED = 100  # ends that wait for a sink that is away; the newest are kept
Event: TypeAlias = Mapping[str, Json]
Owed: TypeAlias = tuple[Event, tuple[str, ...]]
"""An event that has ended, and the names of the sinks that have not had its end."""
_Key: TypeAlias = tuple[Json, Json, Json]


class OpenEvents:
    """The file. Without a state directory, or if it can't be written, nothing is kept."""

    def __init__(self, state: Path | None) -> None:
        """Open the file below ``state``.

        ``left``: the events that a former process had begun and not ended; ``left_owed``: ends that sinks lack.
        """
        self.left: list[Event] = []
        self.left_owed: list[Owed] = []
        self._events: dict[_Key, Event] = {}
        self._owed: list[Owed] = []
        self._descriptor = -1
        if state is None:
            return
        with contextlib.suppress(OSError):  # a read-only or full disk must not end serving
            (state / FOLDER).mkdir(mode=0o700, exist_ok=True)
            self._descriptor = os.open(state / FOLDER / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self.left, self.left_owed = _read(os.pread(self._descriptor, _MOST_BYTES, 0))
            self._owed = self.left_owed
            self._events = {_key(event): event for event in self.left}

    def begun(self, events: Iterable[Event]) -> None:
        """Keep events, or what is newer about them."""
        newer = {_key(event): event for event in events}
        if any(self._events.get(key) != event for key, event in newer.items()):
            added = bool(newer.keys() - self._events.keys())
            self._events |= newer
            self._write(flush=added)

    def ended(self, owed: Sequence[Owed], events: Iterable[Event] = ()) -> None:
        """Keep ``owed`` as all the ends that sinks lack, and take ``events``, which have ended, for open no longer."""
        gone = {_key(event) for event in events} & self._events.keys()
        kept = list(owed[-_MOST_OWED:])
        if gone or kept != self._owed:
            self._events = {key: event for key, event in self._events.items() if key not in gone}
            self._owed = kept
            self._write(flush=True)

    def _write(self, *, flush: bool) -> None:
        if self._descriptor < 0:
            return
        data = self._document(self._owed)
        if len(data) >= _MOST_BYTES:
            data = self._document(())
        with contextlib.suppress(OSError):  # the first write needs a disk block
            os.pwrite(self._descriptor, data + b"\n", 0)
            os.ftruncate(self._descriptor, len(data) + 1)
            if flush:
                threading.Thread(target=_flush, args=(self._descriptor,), name="events", daemon=True).start()

    def _document(self, owed: Sequence[Owed]) -> bytes:
        events: list[Json] = [dict(event) for event in self._events.values()]
        ends: list[Json] = [{"event": dict(event), "sinks": list(sinks)} for event, sinks in owed]
        return canonical_bytes({"version": _VERSION, "events": events, "owed": ends})


def _flush(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.fdatasync(descriptor)


def _key(event: Event) -> _Key:
    return event.get("stream", ""), event.get("label"), event.get("start_ms")


def _read(data: bytes) -> tuple[list[Event], list[Owed]]:
    """Return the events in ``data`` that are open, and the ends that sinks lack; none if a power cut tore it."""
    try:
        found = json.loads(data.partition(b"\n")[0])
    except ValueError:
        return [], []
    if not isinstance(found, dict) or found.get("version") != _VERSION:
        return [], []
    owed = []
    for one in _objects(found.get("owed")):  # files of agents before 2026-12 have none
        event, sinks = one.get("event"), one.get("sinks")
        if _is_event(event) and isinstance(sinks, list) and all(isinstance(name, str) for name in sinks):
            owed.append((event, tuple(sinks)))
    return [event for event in _objects(found.get("events")) if _is_event(event)], owed


def _objects(found: Any) -> list[Any]:  # noqa: ANN401 - whatever is in the file
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _is_event(event: Any) -> bool:  # noqa: ANN401 - whatever is in the file
    wanted = {"label": str, "start_ms": int, "end_ms": int, "confidence": float}
    return isinstance(event, dict) and all(isinstance(event.get(key), kind) for key, kind in wanted.items())
