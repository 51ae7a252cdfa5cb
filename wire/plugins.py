"""Plug-in folders: the folder is the registry. Each public module of a package is a plug-in, and ``_name`` a helper."""

from __future__ import annotations

import importlib.util
import pkgutil


def names(package: str) -> tuple[str, ...]:
    """Return the plug-ins of ``package`` by name; neither it nor they are imported."""
    spec = importlib.util.find_spec(package)
    found = (module.name for module in pkgutil.iter_modules(spec.submodule_search_locations if spec else None))
    return tuple(sorted(name for name in found if not name.startswith("_")))
