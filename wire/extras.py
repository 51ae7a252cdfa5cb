"""What a program says that is on the path without its packages: every install has all three programs.

Decides whether a failed import is that of a package which an extra of ours names. A missing module of our own, or of
somebody's plug-in, is another fault and stays one.
"""

from __future__ import annotations

import importlib.metadata
import re

_DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow"}
"""The distributions of those modules that have another name than theirs."""


def missing_extra(error: ImportError, program: str, extra: str) -> str:
    """Return what to install where ``error`` is the lack of a package of ``extra``, for ``program``; else ""."""
    module = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or not module:
        return ""
    wanted = _DISTRIBUTIONS.get(module, module).replace("_", "-").lower()
    if wanted not in _named_in({extra}):
        return ""
    return f"{program} needs tinyfleet[{extra}], whose {wanted} is not there: pip install 'tinyfleet[{extra}]'"


def _named_in(extras: set[str]) -> set[str]:
    """Return the distributions that ``extras`` and the extras in them name."""
    try:
        lines = importlib.metadata.requires("tinyfleet") or []
    except importlib.metadata.PackageNotFoundError:  # run from a tree that was never installed
        return set()
    found: set[str] = set()
    for extra in extras:
        for line in lines:
            if not re.search(rf"""extra == ["']{re.escape(extra)}["']""", line):
                continue
            name, inner = re.match(r"([\w.-]+)(?:\[([^\]]*)\])?", line).groups()  # type: ignore[union-attr]  # metadata
            found |= _named_in(set(inner.split(","))) if inner and name == "tinyfleet" else {name.lower()}
    return found
