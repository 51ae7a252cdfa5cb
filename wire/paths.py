"""A path in a configuration: ``~`` and ``~user`` at its start mean a home directory, as in a shell.

``pathlib`` takes them for the names of folders, and a program that makes a missing folder would make one called ``~``.
Who means such a folder writes ``./~``. A NUL character is refused here: every path of a configuration comes this way.
"""

from __future__ import annotations

import os

from wire.errors import PathError


def without_tilde(path: str) -> str:
    """Return ``path`` with ``~`` or ``~user`` at its start replaced by the home directory.

    Raises:
        PathError: If there is no such home directory, or the path has a NUL character, which no system opens.
    """
    if "\0" in path:
        message = f"Expected a path without a NUL character, got {path!r}: write the path anew"
        raise PathError(message)
    if not path.startswith("~"):
        return path
    expanded = os.path.expanduser(path)  # noqa: PTH111 - pathlib raises for some unknown homes and not for others
    if expanded.startswith("~"):
        first = path.split("/", 1)[0]
        message = f"Expected a home directory for {first} in the path {path}, got none: write the whole path"
        raise PathError(message)
    return expanded
