"""A zip or folder that is listed and read; the same limits and path checks as in ``labelled_images``."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from compressor.data.labelled_images import MAX_ENTRIES, packed_alone, safe_path
from compressor.errors import ArchiveError

T = TypeVar("T")


class Names(Protocol):
    """Lists and reads files; names are relative, with forward slashes."""

    def names(self) -> list[str]:
        """Return all file names, sorted."""

    def read(self, name: str, limit_bytes: int) -> bytes:
        """Return the file ``name``; raises ``ArchiveError`` if it exceeds the limit or does not exist."""


@contextmanager
def opened(path: Path) -> Iterator[Names]:
    """Yield the zip, the folder or the single file at ``path``; of a folder that has a zip alone, that zip.

    Raises:
        ArchiveError: If it can't be opened, has unsafe paths or too many entries.
    """
    path = packed_alone(path)
    if path.is_dir():
        yield _Folder(path)
    elif path.is_file() and not zipfile.is_zipfile(path):
        yield _Folder(path.parent, only=path.name)
    else:
        try:
            archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            message = f"Expected a zip, a folder or a file at {path}, got: {error}"
            raise ArchiveError(message) from error
        with archive:
            yield _Zip(archive)


class _Folder:
    """A folder, or one file in it."""

    def __init__(self, path: Path, only: str = "") -> None:
        self._path = path.resolve()
        self._names = [only] if only else None

    def names(self) -> list[str]:
        if self._names is None:  # once: a walk over all files
            found = (file.relative_to(self._path).as_posix() for file in self._path.rglob("*") if file.is_file())
            self._names = _counted(sorted(found))
        return self._names

    def read(self, name: str, limit_bytes: int) -> bytes:
        file = self._path / safe_path(name)
        if not file.is_file() or not file.resolve().is_relative_to(self._path):
            message = f"Expected {name[:200]!r} inside {self._path}, got nothing there or a link that leaves it"
            raise ArchiveError(message)
        return _within(file.read_bytes() if file.stat().st_size <= limit_bytes else None, name, limit_bytes)


class _Zip:
    """A zip. Sizes are checked before and while a file is decompressed."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        entries = _counted(archive.infolist())
        self._names = sorted(safe_path(entry.filename) for entry in entries if not entry.is_dir())
        self._archive = archive

    def names(self) -> list[str]:
        return self._names

    def read(self, name: str, limit_bytes: int) -> bytes:
        if name not in self._archive.NameToInfo:
            message = f"Expected {name[:200]!r} in the zip, got nothing of that name"
            raise ArchiveError(message)
        entry = self._archive.getinfo(name)
        if entry.file_size > limit_bytes:
            return _within(None, name, limit_bytes)
        try:
            with self._archive.open(entry) as file:
                data = file.read(limit_bytes + 1)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
            message = f"Expected {name[:200]!r} intact and not encrypted in the zip, got: {error}: copy the zip anew"
            raise ArchiveError(message) from error
        return _within(data if len(data) <= limit_bytes else None, name, limit_bytes)


def _counted(entries: list[T]) -> list[T]:
    if len(entries) > MAX_ENTRIES:
        message = f"Expected at most {MAX_ENTRIES} files, got {len(entries)}"
        raise ArchiveError(message)
    return entries


def _within(data: bytes | None, name: str, limit_bytes: int) -> bytes:
    if data is None:
        message = f"Expected {name[:200]!r} of at most {limit_bytes} bytes, got more"
        raise ArchiveError(message)
    return data
