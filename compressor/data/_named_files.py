"""Finds the file in an archive that an annotation tool names by its own path or address."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from compressor.errors import DataError

_LOCAL = "d"  # Label Studio: /data/local-files/?d=folder/name.jpg
_MAX_ADDRESS = 4096


class NamedFiles:
    """The files of an archive, by their names; ``where`` is the archive, for messages."""

    def __init__(self, names: Iterable[str], where: str) -> None:
        """Index ``names``, relative paths with forward slashes."""
        self._where = where
        self._by_name: dict[str, list[tuple[str, ...]]] = {}
        for name in names:
            parts = PurePosixPath(name).parts
            self._by_name.setdefault(parts[-1], []).append(parts)

    def find(self, address: str, said_in: str) -> str:
        """Return the file that ``address`` means: the one of that name whose folders agree with it the furthest.

        ``address``: a path (also of Windows), ``/data/upload/1/a.jpg``, ``/data/local-files/?d=b/a.jpg``, or an address
        with a scheme; nothing is fetched. ``said_in`` is where it stands, for messages. A file that is not there is
        returned as it is named: reading it says so.

        Raises:
            DataError: If several files agree equally far, or it names no file.
        """
        wanted = PurePosixPath(_path_of(address)).parts
        if not wanted or wanted[-1] in {"/", ".."}:
            message = f"Expected the name of a file in {said_in}, got {address[:100]!r}"
            raise DataError(message)
        found = self._by_name.get(wanted[-1], [])
        if not found:
            return wanted[-1]
        agreed = [_agreed(parts, wanted) for parts in found]
        best = [parts for parts, count in zip(found, agreed, strict=True) if count == max(agreed)]
        if len(best) > 1:
            both = " and ".join(repr("/".join(parts)[:100]) for parts in best[:2])
            message = f"Expected one file {address[:100]!r} of {said_in} in {self._where}, got {both}"
            raise DataError(f"{message}: leave one out")
        return "/".join(best[0])


def _path_of(address: str) -> str:
    plain = address[:_MAX_ADDRESS].replace("\\", "/")
    try:
        split = urlsplit(plain)
    except ValueError:  # brackets that are no address of a host
        return plain
    local = parse_qs(split.query).get(_LOCAL)
    if local:
        return local[0]
    return unquote(split.path) if split.scheme or plain.startswith("/") else plain


def _agreed(parts: tuple[str, ...], wanted: tuple[str, ...]) -> int:
    """Return how many parts from the end are equal."""
    count = 0
    for one, other in zip(reversed(parts), reversed(wanted), strict=False):
        if one != other:
            break
        count += 1
    return count


def folder_sources(paths: Iterable[str], labels: Iterable[str]) -> list[str]:
    """Return the folder of each of ``paths`` as its source, or empty texts if folders don't look like recordings.

    They don't if there is only one, or if each holds a single class: then they are classes, and not recordings.
    """
    folders = [str(PurePosixPath(path).parent) for path in paths]
    classes: dict[str, set[str]] = {}
    for folder, label in zip(folders, labels, strict=True):
        classes.setdefault(folder, set()).add(label)
    mixed = any(len(own) > 1 for own in classes.values())
    return folders if len(classes) > 1 and mixed else [""] * len(folders)
