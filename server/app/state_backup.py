"""Copies a state directory, so that a server restored from the copy keeps its identity towards devices.

Everything except scratch files is copied; a list of what to copy would miss what is added later. The database is
copied first: bundles and metadata that are published meanwhile are then in the copy but not in the database, which
the server repairs when it starts; the other way round they would be missing. ``timestamp.json`` is copied before the
files that it names, for the same reason, and ``server.toml`` when everything else is on the disk.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import sqlalchemy as sa

from server.app.state_directory import StateDirectory
from server.errors import StateDirectoryError
from server.store.backup import back_up_sqlite, sqlite_file, sync_tree
from server.trust.repository import mark_copy
from wire.durable import sync_folder, write_atomically

_SCRATCH = frozenset({"broker", "run", "backups", "server.lock"})
_TIMESTAMP = Path("tuf", "timestamp.json")


def back_up_state(state: StateDirectory, engine: sa.Engine, target: Path, now_ms: int) -> None:
    """Copy ``state`` with its SQLite database to the new directory ``target``; the server may run meanwhile.

    The copy is marked with ``now_ms``, UTC: a server that starts on it signs versions above those that devices saw.

    Raises:
        StateDirectoryError: If ``target`` exists, or lies in the state directory.
        OSError: If it can't be written. A partial copy stays, without ``server.toml``, so that no server runs on it.
        sqlite3.Error: If the database is damaged.
    """
    inside = state.path in (target.resolve(), *target.resolve().parents)
    if target.exists() or inside:
        message = f"Expected a new directory outside {state.path} for the backup, got {target}"
        raise StateDirectoryError(message)
    target.mkdir(mode=0o700, parents=True)
    database = sqlite_file(engine)
    if database is not None:
        back_up_sqlite(database, target / "fleet.db")
    if (state.path / _TIMESTAMP).exists():
        (target / "tuf").mkdir(mode=0o700)
        shutil.copy2(state.path / _TIMESTAMP, target / _TIMESTAMP)
    left_out = {*_SCRATCH, state.config.name}
    for entry in state.path.iterdir():
        if entry.name in left_out or (database is not None and entry.name.startswith(database.name)):
            continue
        if entry.is_dir():
            shutil.copytree(entry, target / entry.name, dirs_exist_ok=True, ignore=_partial_files)
        elif not entry.name.startswith("."):
            shutil.copy2(entry, target / entry.name)
    if (target / _TIMESTAMP).exists():
        mark_copy(target, now_ms)
    sync_tree(target)
    write_atomically(target / state.config.name, state.config.read_bytes())
    sync_folder(target.parent)


def _partial_files(folder: str, names: list[str]) -> set[str]:
    """Return the names not to copy: files being written, and the timestamp, which is copied already."""
    done = {"timestamp.json"} if Path(folder).name == "tuf" else set()
    return done & set(names) | {name for name in names if name.startswith(".")}
