"""Copies a state directory, and restores it, so that the server keeps its identity towards devices.

Everything except scratch files is copied; a list of what to copy would miss what is added later. The database is
copied first: bundles and metadata that are published meanwhile are then in the copy but not in the database, which
the server repairs when it starts; the other way round they would be missing. ``timestamp.json`` is copied before the
files that it names, for the same reason, and ``server.toml`` when everything else is on the disk.

``backup.json`` of a copy has the digest of each of its files: a copy that lost a file, or a bit of one, is found before
anything is restored from it.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from server.app.state_directory import StateDirectory
from server.errors import StateDirectoryError
from server.store.backup import back_up_sqlite, sqlite_file, sync_tree
from server.trust.repository import mark_copy
from server.wording import listed
from wire import __version__
from wire.canonical import sha256_file, sha256_hex
from wire.durable import move, sync_folder, write_atomically

_LIST = "backup.json"
_SCRATCH = frozenset({"broker", "run", "backups", "server.lock", _LIST})
_DATABASE, _SETTINGS = "fleet.db", "server.toml"
_MAX_LIST_BYTES = 64 * 1024 * 1024
_NAMED = 5
_HEX = 64  # characters of a digest, which is the name of a bundle
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
        back_up_sqlite(database, target / _DATABASE)
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
    settings = state.config.read_bytes()
    files = {str(path.relative_to(target)): sha256_file(path) for path in sorted(target.rglob("*")) if path.is_file()}
    files[state.config.name] = sha256_hex(settings)
    document = {"made_ms": now_ms, "version": __version__, "files": files}
    (target / _LIST).write_text(json.dumps(document, indent=1), encoding="utf-8")
    sync_tree(target)
    write_atomically(target / state.config.name, settings)
    sync_folder(target.parent)


def _partial_files(folder: str, names: list[str]) -> set[str]:
    """Return the names not to copy: files being written, and the timestamp, which is copied already."""
    done = {"timestamp.json"} if Path(folder).name == "tuf" else set()
    return done & set(names) | {name for name in names if name.startswith(".")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A copy of a state directory that is whole: when it was made (UTC ms, 0: not known), and by which version."""

    path: Path
    made_ms: int = 0
    version: str = ""
    files: int = 0


def check_backup(path: Path) -> Copy:
    """Return the copy at ``path``; every file is read and compared with the digest that it had.

    A copy of an older version has no digests, and any copy may have no database of its own (PostgreSQL): then only
    what is there is checked.

    Raises:
        StateDirectoryError: If it is no copy, or not whole; names the files.
        OSError: If one can't be read.
    """
    if not (path / _SETTINGS).is_file():
        message = f"Expected a copy that fleet-server backup has finished in {path}, got a folder without {_SETTINGS}"
        raise StateDirectoryError(message)
    known = _listed(path / _LIST)
    files: Mapping[str, str] = known.get("files", {})
    bad = [name for name, digest in files.items() if not _is(path / name, digest)]
    bad += [one.name for one in (path / "blobs").rglob("*") if len(one.name) == _HEX and not _is(one, one.name)]
    if (path / _DATABASE).exists() and not bad:
        bad += [] if _is_sound(path / _DATABASE) else [_DATABASE]
    if bad:
        message = f"Expected the files that were copied, got lost or damaged ones in {path}: {listed(bad, _NAMED)}"
        raise StateDirectoryError(f"{message}: restore from another copy")
    return Copy(
        path=path, made_ms=int(known.get("made_ms", 0)), version=str(known.get("version", "")), files=len(files)
    )


def _listed(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        return {}
    message = f"Expected the digests of a copy's files in {path}, got something else: restore from another copy"
    if path.stat().st_size > _MAX_LIST_BYTES:
        raise StateDirectoryError(message)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StateDirectoryError(message) from error
    names = found.get("files") if isinstance(found, dict) else None
    if not isinstance(names, dict) or not all(map(_is_inside, names)) or not isinstance(found.get("made_ms"), int):
        raise StateDirectoryError(message)
    return dict(found)


def _is_inside(name: str) -> bool:
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and not path.is_symlink() and sha256_file(path) == digest


def _is_sound(database: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro&immutable=1", uri=True)) as connection:
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
    except sqlite3.Error:
        return False


def restore_state(copy: Copy, target: Path) -> None:
    """Make the state directory ``target`` from ``copy``: whole or not at all, even if the power fails.

    Raises:
        StateDirectoryError: If there is something at ``target``, or the copy holds links.
        OSError: If it can't be written; what was written beside ``target`` is removed.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        message = (
            f"Expected a new or empty directory to restore to, got {target}: move it away first, it is never replaced"
        )
        raise StateDirectoryError(message)
    links = [str(one.relative_to(copy.path)) for one in copy.path.rglob("*") if one.is_symlink()]
    if links:
        raise StateDirectoryError(f"Expected files and folders in {copy.path}, got links: {listed(links, _NAMED)}")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.restoring")
    shutil.rmtree(part, ignore_errors=True)  # left by a restore that was killed
    try:
        shutil.copytree(copy.path, part, ignore=shutil.ignore_patterns(_LIST))
        part.chmod(0o700)
        sync_tree(part)
        move(part, target)  # onto an empty folder, too
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
