"""Quantizers. The folder is the registry: a scheme is one file with ``quantize(model, batches, settings) -> bytes``.

What schemes are made with is no scheme: ``calibrator``, ``reach``, ``layers``, ``qdq``, ``compact``, ``bias``,
``sensitivity``, ``remedies``, ``running`` and ``placed``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt

from compressor import registry
from compressor.errors import PluginError
from compressor.steps.quantize import Settings

Batches = Callable[[], Iterable[npt.NDArray[np.float32]]]


def schemes() -> tuple[str, ...]:
    """Return the names of the schemes in this folder."""
    return tuple(name for name in registry.names(__name__) if name not in registry.PARTS[__name__])


def quantize(
    model: bytes, batches: Batches, settings: Settings, *, ranges: Mapping[str, tuple[float, float]] | None = None
) -> bytes:
    """Return ``model`` quantized by ``settings.scheme``; ``batches()`` starts the calibration data anew.

    ``ranges``: learnt (low, high) by tensor; a scheme that has no use for ranges of activations is not given them.

    Raises:
        PluginError: If there is no such scheme.
        QuantizeError: If the model can't be quantized.
    """
    scheme = registry.resolve(__name__, settings.scheme, "quantize", known=schemes())
    learnt = {"ranges": ranges} if ranges and "ranges" in inspect.signature(scheme).parameters else {}
    quantized = scheme(model, batches, settings, **learnt)
    if not isinstance(quantized, bytes):
        message = f"Expected {settings.scheme!r} to return bytes, got {type(quantized).__name__}"
        raise PluginError(message)
    return quantized
