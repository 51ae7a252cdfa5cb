"""Deletes files of the state directory that no row names any more, such as a kill leaves between a file and its row.

A file is written before its row and deleted after it, so one without a row is rubbish or about to get one: only a file
that was not touched for long counts, and is checked against the database right before it is deleted. Measurements,
which have no rows, delete their own files (``fleet.measurements``).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import sqlalchemy as sa

from server.store.database import Database
from server.store.registry import released
from server.store.retraining import images_needed, jobs_known

_DAY_MS = 86_400_000
_AT_ONCE = 500

Known: TypeAlias = Callable[[sa.Connection, Collection[str]], set[str]]
"""Returns which of these names (files without their extensions) some row names."""


@dataclass(frozen=True, slots=True)
class RowFiles:
    """A folder whose files have the names of rows; ``known`` returns which, ``kept_ms``: how long others stay."""

    folder: Path
    known: Known
    kept_ms: int


@dataclass(slots=True, kw_only=True)
class OrphanFiles:
    """Looks through the folders once a day, some hundred files a turn."""

    database: Database
    folders: Sequence[RowFiles]
    _next_ms: int = 0
    _open: list[tuple[RowFiles, Iterator[os.DirEntry[str]]]] = field(default_factory=list)

    def turn(self, now_ms: int) -> None:
        """Check the next files of the folders; delete those that no row names."""
        if not self._open and now_ms >= self._next_ms:
            self._next_ms = now_ms + _DAY_MS
            self._open = [(one, os.scandir(one.folder)) for one in self.folders if one.folder.is_dir()]
        if not self._open:
            return
        of, entries = self._open[0]
        some = list(islice(entries, _AT_ONCE))
        if not some:
            self._open.pop(0)
            return
        old = {entry.path: entry.name.partition(".")[0] for entry in some if _untouched_ms(entry, now_ms) > of.kept_ms}
        if old:
            with self.database.begin() as connection:
                known = of.known(connection, set(old.values()))
            for path, name in old.items():
                if name not in known:
                    Path(path).unlink(missing_ok=True)


def _untouched_ms(entry: os.DirEntry[str], now_ms: int) -> float:
    """Return how long ago a file was written; 0 for anything else, and for what is gone."""
    with contextlib.suppress(OSError):
        if entry.is_file(follow_symlinks=False):
            return now_ms - entry.stat(follow_symlinks=False).st_mtime * 1000
    return 0.0


def orphan_files(
    database: Database, *, samples: Path, jobs: Path, blobs: Path, retention_days: float
) -> OrphanFiles:  # fmt: skip
    """Return the service for the folders of a server.

    A bundle that was uploaded and not published within the retention goes too; its build host sends it again.
    """
    folders = [
        RowFiles(samples, images_needed, 2 * _DAY_MS),
        RowFiles(jobs, jobs_known, 2 * _DAY_MS),
        RowFiles(blobs, released, int(max(retention_days, 2.0) * _DAY_MS)),
    ]
    return OrphanFiles(database=database, folders=folders)
