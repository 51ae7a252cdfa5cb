"""Events that have begun and not ended, in a file that outlives the process: after a crash the next one ends them.

Written in place when an event begins, when its end has reached every sink, and at heartbeats while it lasts: some bytes
of the page cache, which outlive the process; a thread flushes them, so that inference does not wait for a disk. An end
may be sent twice, if the process ends after sinks had it and before that is noted: it has the same stream, label and
start.

Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from wire.canonical import canonical_bytes
from wire.codec import Json

FOLDER = "source"
_FILE = "open_events.json"
_VERSION = 1
_MOST_BYTES = 64 * 1024
Event: TypeAlias = Mapping[str, Json]
_Key: TypeAlias = tuple[Json, Json, Json]


class OpenEvents:
    """The file. Without a state directory, or if it can't be written, nothing is kept."""

    def __init__(self, state: Path | None) -> None:
        """Open the file below ``state``; ``left``: the events that a former process had begun and not ended."""
        self.left: list[Event] = []
        self._events: dict[_Key, Event] = {}
        self._descriptor = -1
        if state is None:
            return
        with contextlib.suppress(OSError):  # a read-only or full disk must not end serving
            (state / FOLDER).mkdir(mode=0o700, exist_ok=True)
            self._descriptor = os.open(state / FOLDER / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self.left = _read(os.pread(self._descriptor, _MOST_BYTES, 0))
            self._events = {_key(event): event for event in self.left}

    def begun(self, events: Iterable[Event]) -> None:
        """Keep events, or what is newer about them."""
        newer = {_key(event): event for event in events}
        if any(self._events.get(key) != event for key, event in newer.items()):
            added = bool(newer.keys() - self._events.keys())
            self._events |= newer
            self._write(flush=added)

    def ended(self, events: Iterable[Event]) -> None:
        """Forget events whose end every sink is through with."""
        gone = {_key(event) for event in events} & self._events.keys()
        if gone:
            self._events = {key: event for key, event in self._events.items() if key not in gone}
            self._write(flush=True)

    def _write(self, *, flush: bool) -> None:
        if self._descriptor < 0:
            return
        data = canonical_bytes({"version": _VERSION, "events": [dict(event) for event in self._events.values()]})
        with contextlib.suppress(OSError):  # the first write needs a disk block
            os.pwrite(self._descriptor, data + b"\n", 0)
            os.ftruncate(self._descriptor, len(data) + 1)
            if flush:
                threading.Thread(target=_flush, args=(self._descriptor,), name="events", daemon=True).start()


def _flush(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.fdatasync(descriptor)


def _key(event: Event) -> _Key:
    return event.get("stream", ""), event.get("label"), event.get("start_ms")


def _read(data: bytes) -> list[Event]:
    """Return the events in ``data``; none if a power cut tore it."""
    try:
        found = json.loads(data.partition(b"\n")[0])
    except ValueError:
        return []
    events = found.get("events") if isinstance(found, dict) and found.get("version") == _VERSION else None
    wanted = {"label": str, "start_ms": int, "end_ms": int, "confidence": float}
    return [
        event
        for event in (events if isinstance(events, list) else [])
        if isinstance(event, dict) and all(isinstance(event.get(key), kind) for key, kind in wanted.items())
    ]
