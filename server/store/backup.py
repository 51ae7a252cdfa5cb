"""Backs up an SQLite database, consistent even during writes. PostgreSQL has its own tools."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from wire.durable import sync_folder

_PARTIAL = ".partial"


def sqlite_file(engine: sa.Engine) -> Path | None:
    """Return the file of an SQLite database; None for another database, or one in memory."""
    name = engine.url.database or ""
    return Path(name) if engine.dialect.name == "sqlite" and name not in ("", ":memory:") else None


def back_up_sqlite(source: Path, target: Path) -> None:
    """Copy the database ``source`` to the new file ``target`` (0600), synced to disk on return.

    ``target`` is never partial: the copy has another name until it is complete.

    Raises:
        OSError: If ``target`` exists or can't be written.
        sqlite3.Error: If the source is damaged or the disk is full; then there is no ``target``.
    """
    target.parent.mkdir(mode=0o700, exist_ok=True)
    if target.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    for leftover in target.parent.glob(f".*{_PARTIAL}*"):  # left by a killed copy
        leftover.unlink()
    partial = target.with_name(f".{target.name}{_PARTIAL}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(partial)) as copy:
            original.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, complete without a -wal beside it
        os.fsync(descriptor)
        partial.rename(target)
    except BaseException:
        partial.unlink()
        raise
    finally:
        os.close(descriptor)
    sync_folder(target.parent)


def sync_tree(folder: Path) -> None:
    """Sync ``folder``, and every file and folder below it, so that they survive a power cut."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            sync_folder(path)
    sync_folder(folder)
