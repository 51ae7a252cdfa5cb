"""Guards a folder that a person named for output: a command overwrites its own files and no others."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from compressor.errors import PackageError

CACHE = "cache"


def check_run_folder(out: Path, names: Iterable[str]) -> None:
    """Check that files of ``names`` in ``out`` come from an earlier run, whose cache or certificate is beside them.

    Raises:
        PackageError: If one does not.
    """
    if not (out / CACHE).is_dir() and not _has_keys(out / "gate.json", {"verdict", "gates"}):
        _refuse(out, names)


def check_report_folder(out: Path, names: Iterable[str], keys: frozenset[str]) -> None:
    """Check that files of ``names`` in ``out`` were written by this command: the first is JSON with ``keys``.

    Raises:
        PackageError: If one was not.
    """
    names = tuple(names)
    if not _has_keys(out / names[0], keys):
        _refuse(out, names)


def _refuse(out: Path, names: Iterable[str]) -> None:
    foreign = next((name for name in names if (out / name).exists()), "")
    if foreign:
        message = (
            f"Expected --out to be new or the folder of an earlier run, got {out} with a {foreign} of other origin"
        )
        raise PackageError(f"{message}, which would be overwritten: choose another --out, or move the file away")


def _has_keys(path: Path, keys: set[str] | frozenset[str]) -> bool:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and keys <= set(found)
