"""The runtimes: the folder is the registry, a module is imported when a manifest names it.

The declarations of a file (``PACKAGES``, ``FORMATS``, ...) are read without importing it: ``edge_agent.declarations``.
"""

from __future__ import annotations

import importlib
from typing import cast

from edge_agent import declarations, decoders
from edge_agent.errors import RuntimeMissingError
from edge_agent.runtimes._base import Array, Runtime, RuntimeModule
from edge_agent.runtimes._decoded import Decoded
from wire.installation import install_name
from wire.manifest import Manifest

__all__ = ["Array", "Runtime", "load"]


def load(manifest: Manifest, artifact: bytes, *, threads: int | None = None) -> Runtime:
    """Return the model in ``artifact``, loaded by the runtime that ``manifest`` names.

    ``threads`` overrides the manifest's number. With a decoder in the manifest the first output is its boxes or scores.

    Raises:
        DecoderError: If the manifest's decoder is unknown, or its options are out of range.
        RuntimeMissingError: If the runtime is unknown or its package is not installed.
        RuntimeLoadError: If the artifact can't be opened or contradicts the manifest.
    """
    name, decoder = declarations.runtime(manifest.runtime).name, decoders.of_manifest(manifest)
    try:
        module = cast("RuntimeModule", importlib.import_module(f"{__name__}.{name}"))
    except ImportError as error:
        message = f"Expected {error.name or 'a package'} for runtime {manifest.runtime!r}, got nothing: pip install "
        raise RuntimeMissingError(f"{message}{install_name()}[{manifest.runtime}]") from error
    loaded = module.load(manifest, artifact, threads=threads or manifest.threads or 1)
    return loaded if decoder is None else Decoded(loaded, decoder, manifest)
