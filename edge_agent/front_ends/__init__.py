"""Front ends: from a sensor's bytes to a small picture of numbers. The folder is the registry.

A front end's module has ``Settings`` (a frozen dataclass of numbers: the ``[data] options`` of a recipe, each with
default and range), ``SUFFIXES`` (of the files it reads) and ``decode(data: bytes, settings: Settings) -> uint8 (H, W,
3)`` with equal channels. From that picture on, preprocessing, drift monitor and runtimes work as for a camera's. The
compressor calls the same function, so that training and device get equal numbers. A manifest holds every setting as a
number by name. One that reads tables with a header also has ``decode_named(data, settings, columns)``, which reads
them by name and returns the picture and a sentence on what it did. Uses only numpy and the standard library; a module
is imported when named.

Source for the idea (8-bit features as the model's picture): TensorFlow Lite Micro, ``micro_speech`` example.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

from edge_agent.errors import SensorError
from edge_agent.front_ends._base import FrontEnd, Pixels, as_options, settings_from
from wire import plugins

__all__ = ["Pixels", "complete", "decode", "names", "settings_from", "settings_of", "suffixes"]


def names() -> tuple[str, ...]:
    """Return the names of the front ends in this folder."""
    return plugins.names(__name__)


def decode(name: str, data: bytes, options: Mapping[str, float]) -> Pixels:
    """Return the picture that the front end ``name`` makes of ``data``: uint8, (H, W, 3), equal channels.

    Raises:
        SensorError: If the front end is unknown, it can't read ``data``, or an option is unknown or out of range.
    """
    return _load(name).decode(data, _settings(name, tuple(options.items())))


def decode_named(name: str, data: bytes, options: Mapping[str, float], columns: Sequence[str]) -> tuple[Pixels, str]:
    """Return the picture as ``decode`` does, and a sentence on what was done to read it; empty: nothing to say.

    ``columns``: the names of the columns of numbers, as in a manifest; a table with a header is read by them.

    Raises:
        SensorError: If the front end is unknown, it can't read ``data``, it has other columns, or an option is unknown
            or out of range.
    """
    named = getattr(_load(name), "decode_named", None) if columns else None
    if named is None:
        return decode(name, data, options), ""
    return cast("tuple[Pixels, str]", named(data, _settings(name, tuple(options.items())), columns))


def complete(name: str, options: Mapping[str, float]) -> dict[str, float]:
    """Return ``options`` with all defaults of the front end ``name`` filled in, as in a manifest.

    Raises:
        SensorError: If the front end is unknown, or an option is unknown or out of range.
    """
    return as_options(settings_from(_load(name).Settings, options))


def suffixes(name: str) -> frozenset[str]:
    """Return the suffixes of the files that the front end ``name`` reads, lower case, with dot.

    Raises:
        SensorError: If the front end is unknown.
    """
    return _load(name).SUFFIXES


def settings_of(name: str) -> type:
    """Return the ``Settings`` of the front end ``name``.

    Raises:
        SensorError: If the front end is unknown.
    """
    return _load(name).Settings


@lru_cache(maxsize=8)
def _settings(name: str, options: tuple[tuple[str, float], ...]) -> Any:  # noqa: ANN401 - the Settings of its module
    """Return the settings in ``options``; kept, because a device has the same ones for every input."""
    return settings_from(_load(name).Settings, dict(options))


def _load(name: str) -> FrontEnd:
    if name not in names():
        message = f"Expected a front end of {', '.join(names())}, got {name!r}: update the agent"
        raise SensorError(message)
    return cast("FrontEnd", importlib.import_module(f"{__name__}.{name}"))
