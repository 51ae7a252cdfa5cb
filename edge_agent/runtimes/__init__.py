"""The runtimes: the folder is the registry, modules are loaded when a manifest names them."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from typing import cast

from edge_agent.errors import RuntimeMissingError
from edge_agent.runtimes._base import Array, Runtime, RuntimeModule
from wire.manifest import Manifest

__all__ = ["Array", "Runtime", "available", "load", "names"]


def names() -> tuple[str, ...]:
    """Return the names of the runtimes in this folder, installed or not."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def available() -> tuple[str, ...]:
    """Return the names of the runtimes whose packages can be found; nothing heavy is imported."""
    return tuple(name for name in names() if _installed(name))


def _installed(name: str) -> bool:
    packages = _PACKAGES.get(name, ())
    return not packages or any(importlib.util.find_spec(package) for package in packages)


# any one of them will do
_PACKAGES = {"onnx": ("onnxruntime",), "litert": ("ai_edge_litert", "tflite_runtime")}


def load(manifest: Manifest, artifact: bytes, *, threads: int | None = None) -> Runtime:
    """Return the model in ``artifact``, run by the runtime that ``manifest`` names.

    ``threads`` overrides the manifest's number.

    Raises:
        RuntimeMissingError: If the runtime is unknown or its package is not installed.
        RuntimeLoadError: If the artifact can't be opened or contradicts the manifest.
    """
    if manifest.runtime not in names():
        message = f"Expected a runtime of {', '.join(names())}, got {manifest.runtime!r}: update the agent"
        raise RuntimeMissingError(message)
    try:
        module = cast("RuntimeModule", importlib.import_module(f"{__name__}.{manifest.runtime}"))
    except ImportError as error:
        message = f"Expected {error.name or 'a package'} for runtime {manifest.runtime!r}, got nothing: pip install "
        raise RuntimeMissingError(f"{message}tinyfleet[{manifest.runtime}]") from error
    return module.load(manifest, artifact, threads=threads or manifest.threads or 1)
