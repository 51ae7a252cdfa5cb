"""The declarations of a runtime's file, read without importing it: packages, file formats, layout.

The control process reports which runtimes a device has, and the compressor checks a recipe, without numpy or a runtime
in the process. So these are literals at the top of the file, found in its source. Nothing else names a runtime's
package or format.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from typing import Any

from edge_agent.errors import RuntimeMissingError
from wire import plugins

_FOLDER = "edge_agent.runtimes"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeFile:
    """The declarations of one runtime, by the names of its constants in lower case.

    ``packages``: modules that it runs with, any one of which will do, and the distribution that each is in; none: it
    needs nothing but numpy. ``formats``: the ending of its model files by ``[targets.NAME] format``, "" for the plain
    one. ``layout``: of the images that its models take, ``NCHW`` or ``NHWC``. ``offered``: a server may send a device
    releases for it.
    """

    name: str
    packages: Mapping[str, str] = field(default_factory=dict)
    formats: Mapping[str, str] = field(default_factory=dict)
    layout: str = "NCHW"
    offered: bool = True

    @property
    def installed(self) -> bool:
        """Whether a package that it runs with can be found; none is imported."""
        return not self.packages or any(map(importlib.util.find_spec, self.packages))

    @property
    def distribution(self) -> str:
        """The first distribution of its packages that is installed, else the first, else ""."""
        found = (name for name in self.packages.values() if _version(name))
        return next(found, next(iter(self.packages.values()), ""))

    @property
    def version(self) -> str:
        """Distribution and version, as ``onnxruntime 1.22.0``; "" where none is installed."""
        version = _version(self.distribution) if self.distribution else ""
        return f"{self.distribution} {version}" if version else ""


def runtimes() -> tuple[RuntimeFile, ...]:
    """Return the runtimes of the folder, installed or not, by name.

    Raises:
        RuntimeMissingError: If a file declares something else than literals.
    """
    return tuple(map(_declared, plugins.names(_FOLDER)))


def runtime(name: str) -> RuntimeFile:
    """Return the declarations of the runtime ``name``.

    Raises:
        RuntimeMissingError: If the folder has no such file, or it declares something else than literals.
    """
    known = plugins.names(_FOLDER)
    if name not in known:
        raise RuntimeMissingError(f"Expected a runtime of {', '.join(known)}, got {name!r}: update the agent")
    return _declared(name)


def _declared(name: str) -> RuntimeFile:
    folder = importlib.util.find_spec(_FOLDER)  # its package is found, and not imported: it loads numpy
    spec = PathFinder.find_spec(name, folder.submodule_search_locations if folder else None)
    source = spec.loader.get_source(name) if spec and spec.loader else ""  # type: ignore[attr-defined]  # of a file
    wanted = {name.upper(): name for name in ("packages", "formats", "layout", "offered")}
    found: dict[str, Any] = {}
    try:
        for node in ast.parse(source or "").body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                if isinstance(target, ast.Name) and target.id in wanted:
                    found[wanted[target.id]] = ast.literal_eval(node.value)
    except (SyntaxError, ValueError) as error:  # the latter: computed, not a literal
        message = f"Expected {', '.join(wanted)} as literals in {name}.py of {_FOLDER}, got: {error}"
        raise RuntimeMissingError(f"{message}: correct or remove the file") from error
    return RuntimeFile(name=name, **found)


def _version(distribution: str) -> str:
    from importlib import metadata  # noqa: PLC0415 - 29 ms that only a measurement and the build host need

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
