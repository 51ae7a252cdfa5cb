"""Quantizers. The folder is the registry: a scheme is one file.

A scheme has ``quantize(model, batches, settings) -> bytes`` and ``READS``, the settings that it reads: a recipe that
sets others is rejected. Without ``READS`` it may read all. A frozen dataclass ``Settings`` declares keys of its own,
with their ranges; the scheme finds them in ``settings.own``. ``SEARCHED`` declares what `compressor search` tries with
the scheme. Modules that begin with ``_`` are helpers of schemes.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from compressor import plugins
from compressor.errors import PluginError
from compressor.formats import Batches, Ranges
from compressor.steps.quantize import Settings

__all__ = [
    "Batches", "Ranges", "Searched", "own_settings", "quantize", "reads", "resolve", "schemes", "searched",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """What a search tries with a scheme, besides the scheme itself.

    ``integer``: it gives an integer form, neither float32 nor float16. ``calibrations``: the form depends on the
    calibration. ``equalized``: its weights can profit from equalized channels. ``trained``: quantization-aware training
    fits its grid. ``onnx``: onnxruntime has kernels for it; without them it is tried only for other runtimes.
    """

    integer: bool = True
    calibrations: bool = False
    equalized: bool = False
    trained: bool = False
    onnx: bool = True


def schemes() -> tuple[str, ...]:
    """Return the names of the schemes in this folder."""
    return plugins.names(__name__)


def reads(scheme: str) -> frozenset[str] | None:
    """Return the keys that the file of ``scheme`` reads, as its ``READS`` says.

    None if it says nothing, or is a person's own that is not here: it may read all.

    Raises:
        PluginError: If a package that the scheme needs is missing.
    """
    try:
        found: frozenset[str] | None = _declared(scheme, "READS")
    except PluginError:
        if scheme in schemes():
            raise
        return None
    return found


def resolve(scheme: str) -> Callable[..., object]:
    """Return the function of ``scheme``.

    Raises:
        PluginError: If there is none, its module fails to import, or a package that it needs is missing.
    """
    return plugins.resolve(__name__, scheme, "quantize", known=schemes())


def _declared(scheme: str, name: str) -> Any:  # noqa: ANN401 - any declaration
    """Return the object ``name`` beside the function of ``scheme``; None if its module has none."""
    return getattr(sys.modules[resolve(scheme).__module__], name, None)


def own_settings(scheme: str) -> type[Any] | None:
    """Return the class of the scheme's own keys; None if it declares none.

    Raises:
        PluginError: If there is no such scheme, or a package that it needs is missing.
    """
    found: type[Any] | None = _declared(scheme, "Settings")
    return None if found is Settings else found  # a scheme may import the step's class by that name


def searched(scheme: str) -> Searched:
    """Return what a search tries with ``scheme``: its own ``SEARCHED``; the scheme alone if it declares none.

    A scheme that does not exist here, or whose package is missing, may exist on another host of the search.
    """
    try:
        found = _declared(scheme, "SEARCHED")
    except PluginError:
        return Searched()
    return found if isinstance(found, Searched) else Searched()


def quantize(model: bytes, batches: Batches, settings: Settings, *, ranges: Ranges | None = None) -> bytes:
    """Return ``model`` quantized by ``settings.scheme``; ``batches()`` restarts the calibration data.

    ``ranges``: learned (low, high) by tensor; passed only to schemes that accept them.

    Raises:
        PluginError: If there is no such scheme.
        QuantizeError: If the model can't be quantized.
    """
    scheme = resolve(settings.scheme)
    learnt = {"ranges": ranges} if ranges and "ranges" in inspect.signature(scheme).parameters else {}
    quantized = scheme(model, batches, settings, **learnt)
    if not isinstance(quantized, bytes):
        message = f"Expected {settings.scheme!r} to return bytes, got {type(quantized).__name__}"
        raise PluginError(message)
    return quantized
