"""The declarations of a runtime's file, read without importing it: packages, file formats, layout.

The control process reports which runtimes a device has, and the compressor checks a recipe, without numpy or a runtime
in the process. So these are literals at the top of the file, found in its source. Nothing else names a runtime's
package or format.
"""

from __future__ import annotations

import ast
import importlib.util
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_agent.errors import RuntimeMissingError

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
    """Return the runtimes of the folder, installed or not, by name."""
    spec = importlib.util.find_spec(_FOLDER)  # its package is found, and not imported: it loads numpy
    folders = spec.submodule_search_locations if spec else None
    found = (module for module in pkgutil.iter_modules(folders) if not module.name.startswith("_"))
    return tuple(sorted((_declared(module) for module in found), key=lambda one: one.name))


def runtime(name: str) -> RuntimeFile:
    """Return the declarations of the runtime ``name``.

    Raises:
        RuntimeMissingError: If the folder has no such file.
    """
    found = next((one for one in runtimes() if one.name == name), None)
    if found is None:
        known = ", ".join(one.name for one in runtimes())
        raise RuntimeMissingError(f"Expected a runtime of {known}, got {name!r}: update the agent")
    return found


def _declared(module: pkgutil.ModuleInfo) -> RuntimeFile:
    spec = module.module_finder.find_spec(module.name, None)
    source = spec.loader.get_source(module.name) if spec and spec.loader else ""  # type: ignore[attr-defined]  # of a file
    wanted = {name.upper(): name for name in ("packages", "formats", "layout", "offered")}
    found: dict[str, Any] = {}
    for node in ast.parse(source or "").body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in wanted:
            found[wanted[node.targets[0].id]] = ast.literal_eval(node.value)
    return RuntimeFile(name=module.name, **found)


def _version(distribution: str) -> str:
    from importlib import metadata  # noqa: PLC0415 - 29 ms that only a measurement and the build host need

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
