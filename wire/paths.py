"""Paths in a configuration: a leading ``~`` or ``~user`` means a home directory, as in a shell.

``pathlib`` treats them as folder names, and a program that creates a missing folder would create one called ``~``. For
such a folder write ``./~``. A NUL character is rejected here: every path of a configuration is read by this module.
"""

from __future__ import annotations

import os
from pathlib import Path

from wire.errors import PathError


def typed_path(path: str) -> Path:
    """Return a path as a person typed it: a shell doesn't expand the tilde in ``--state=~/agent``.

    Raises:
        PathError: As ``without_tilde``, and for an empty path, which would be the current folder.
    """
    if not path:
        message = "Expected a path, got an empty one: is a variable of your shell not set?"
        raise PathError(message)
    return Path(without_tilde(path))


def without_tilde(path: str) -> str:
    """Return ``path`` with a leading ``~`` or ``~user`` replaced by the home directory.

    Raises:
        PathError: If the home directory is unknown, or the path has a NUL character, which no system accepts.
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
