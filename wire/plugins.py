"""Plug-in folders: the folder is the registry. Each public module of a package is a plug-in, and ``_name`` a helper."""

from __future__ import annotations

import importlib.util
from importlib.machinery import all_suffixes
from pathlib import Path


def names(package: str) -> tuple[str, ...]:
    """Return the plug-ins of ``package`` by name; neither it nor they are imported."""
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or ()
    # not pkgutil: it takes inspect into the device's control process, 0.6 MB
    found = {_module_of(path) for folder in folders for path in Path(folder).iterdir()}
    return tuple(sorted(name for name in found if name and not name.startswith("_")))


def _module_of(path: Path) -> str:
    """Return the name of the module that ``path`` holds, "" if none."""
    if path.is_dir():
        return path.name if (path / "__init__.py").exists() else ""
    return path.name.partition(".")[0] if path.name.endswith(tuple(all_suffixes())) else ""
