"""Formats: the build host's half of a runtime. The folder is the registry: a file has the runtime's name.

Decides which format a runtime has. Code outside this folder never compares with a runtime's or a format's name: it uses
the format's functions. What the device needs of a runtime stands in ``edge_agent/runtimes``, under the same name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from compressor import plugins
from compressor.closure import plugin
from compressor.errors import PluginError
from compressor.formats._base import Batches, FileWords, Floats, ModelFormat, Ranges, Tensors
from compressor.steps.quantize import Settings
from edge_agent import declarations
from edge_agent.declarations import RuntimeFile
from edge_agent.errors import RuntimeMissingError
from wire.settings import is_given, nearest

if TYPE_CHECKING:
    from compressor.recipe.model import ModelRecipe

__all__ = [
    "BASELINE", "KEYS", "Batches", "FileWords", "Floats", "ModelFormat", "Ranges", "Tensors", "code", "imported",
    "known", "model_keys", "named", "or_plain", "runtimes", "unread",
]  # fmt: skip

BASELINE = "onnx"
"""The runtime of the float model that every target is compared with: it loads any network of this project, fast."""


KEYS = (
    "calibration", "percentile", "reduce_range", "per_channel", "bias_correction", "float_layers", "float_layers_auto",
    "integer_io",
)  # fmt: skip
"""The keys of a step's settings that a scheme may read."""


def known() -> tuple[str, ...]:
    """Return the runtimes that this folder has a format for."""
    return plugins.names(__name__)


def code(runtime: str) -> str:
    """Return the module of the format of ``runtime``: no import statement names it."""
    return plugin(__name__, runtime)


def named(runtime: str) -> ModelFormat:
    """Return the format of ``runtime``.

    Raises:
        PluginError: If the folder has none, its file or a package that it needs does not import, or has no ``Format``.
    """
    if runtime not in (there := known()):
        message = f"Expected a runtime of {', '.join(there)} to export to, got {runtime!r}"
        raise PluginError(message + nearest(runtime, there))
    return cast("type[ModelFormat]", plugins.resolve(__name__, runtime, "Format", known=there))(runtime)


def runtimes() -> tuple[RuntimeFile, ...]:
    """Return what the device parts of all runtimes declare.

    Raises:
        PluginError: If a file declares something else than literals.
    """
    try:
        return declarations.runtimes()
    except RuntimeMissingError as error:
        raise PluginError(str(error)) from error


def or_plain(runtime: str) -> ModelFormat:
    """Return the format of ``runtime``; if it is unknown, one that can nothing: ``preflight`` names it later."""
    return named(runtime) if runtime in known() else ModelFormat(runtime)


def model_keys() -> tuple[str, ...]:
    """Return the keys of ``[model]`` that name an exported file, one for each format that can be imported."""
    return tuple(sorted(key for key in (named(name).model_key for name in known()) if key))


def imported(model: ModelRecipe) -> ModelFormat | None:
    """Return the format of the exported file that ``[model]`` gives; None if it gives none."""
    found = (one for one in map(named, known()) if one.model_key and getattr(model, one.model_key))
    return next(found, None)


def unread(settings: Settings, runtimes: Iterable[str]) -> tuple[str, ...]:
    """Return the keys that ``settings`` set but that the scheme reads for none of ``runtimes``.

    A step with a rescue may end with any scheme, so all of its keys may be read.

    Raises:
        PluginError: If a package that the scheme needs is missing.
    """
    told = [or_plain(runtime).reads(settings.scheme) for runtime in runtimes]
    if settings.rescue or None in told:
        return ()
    read = frozenset[str]().union(*(item or () for item in told))
    return tuple(key for key in KEYS if key not in read and is_given(settings, key))
