"""Front ends: from a sensor's bytes to a small picture of numbers. The folder is the registry.

A front end's module has ``OPTIONS`` (each with default and limits), ``SUFFIXES`` (of the files it reads) and
``decode(data: bytes, options: Mapping[str, float]) -> uint8 (H, W, 3)`` with equal channels. From that picture on,
preprocessing, drift monitor and runtimes work as for a camera's. The compressor calls the same function, so that
training and device get equal numbers. Uses only numpy and the standard library; a module is imported when named.

Source for the idea (8-bit features as the model's picture): TensorFlow Lite Micro, ``micro_speech`` example.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import cast

from edge_agent.errors import SensorError
from edge_agent.front_ends._base import FrontEnd, Option, Pixels
from wire import plugins

__all__ = ["Option", "Pixels", "complete", "decode", "names", "options", "suffixes"]


def names() -> tuple[str, ...]:
    """Return the names of the front ends in this folder."""
    return plugins.names(__name__)


def decode(name: str, data: bytes, options: Mapping[str, float]) -> Pixels:
    """Return the picture that the front end ``name`` makes of ``data``: uint8, (H, W, 3), equal channels.

    Raises:
        SensorError: If the front end is unknown, it can't read ``data``, or an option is unknown or out of range.
    """
    return _load(name).decode(data, options)


def complete(name: str, options: Mapping[str, float]) -> dict[str, float]:
    """Return ``options`` with all defaults of the front end ``name`` filled in, as in a manifest.

    Raises:
        SensorError: If the front end is unknown, or an option is unknown or out of range.
    """
    return _load(name).complete(options)


def suffixes(name: str) -> frozenset[str]:
    """Return the suffixes of the files that the front end ``name`` reads, lower case, with dot.

    Raises:
        SensorError: If the front end is unknown.
    """
    return _load(name).SUFFIXES


def options(name: str) -> Mapping[str, Option]:
    """Return the options that the front end ``name`` declares, with default and limits.

    Raises:
        SensorError: If the front end is unknown.
    """
    return _load(name).OPTIONS


def _load(name: str) -> FrontEnd:
    if name not in names():
        message = f"Expected a front end of {', '.join(names())}, got {name!r}: update the agent"
        raise SensorError(message)
    return cast("FrontEnd", importlib.import_module(f"{__name__}.{name}"))
