"""The message of a program whose packages are not installed: every install contains the code of all three programs.

Decides whether a failed import is that of a package in one of our extras. A missing module of our own, or of a person's
plug-in, is another error and is not handled here.
"""

from __future__ import annotations

import importlib.metadata
import re

_DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow"}
"""Distributions whose name differs from that of their module."""


def missing_extra(error: ImportError, program: str, extra: str) -> str:
    """Return what to install if ``error`` means that ``program`` lacks a package of ``extra``; else ""."""
    module = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or not module:
        return ""
    wanted = _DISTRIBUTIONS.get(module, module).replace("_", "-").lower()
    if wanted not in _named_in({extra}):
        return ""
    return f"{program} needs tinyfleet[{extra}], whose {wanted} is not there: pip install 'tinyfleet[{extra}]'"


def _named_in(extras: set[str]) -> set[str]:
    """Return the distributions required by ``extras`` and by the extras that these include."""
    try:
        lines = importlib.metadata.requires("tinyfleet") or []
    except importlib.metadata.PackageNotFoundError:  # run from a source tree that was never installed
        return set()
    found: set[str] = set()
    for extra in extras:
        for line in lines:
            if not re.search(rf"""extra == ["']{re.escape(extra)}["']""", line):
                continue
            name, inner = re.match(r"([\w.-]+)(?:\[([^\]]*)\])?", line).groups()  # type: ignore[union-attr]  # metadata
            found |= _named_in(set(inner.split(","))) if inner and name == "tinyfleet" else {name.lower()}
    return found
