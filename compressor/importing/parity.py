"""Compares a network with the ONNX file it was made from, node by node, and names the first that differs.

Each node is given onnxruntime's values, so that its own difference is seen: a deep network may amplify the rounding of
its first layers a thousandfold, in onnxruntime as much as in torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from compressor.errors import ConversionError
from compressor.importing.network import ImportedNetwork, Slot, Value
from compressor.importing.operation import ADVICE
from compressor.importing.reading import Array, OnnxSource

TOLERANCE = 1e-4
"""Largest difference of a node's value from equal inputs, as a share of the largest of its tensor.

Measured on exports of YOLOv8 and 11: 1e-6.
"""
OUTPUT_TOLERANCE = 0.02
"""The most of an output of the whole network, whose layers amplify rounding; that every node is right is known by then.

Measured on the same files: 3e-3 with random weights; 1e-5 on trained networks of 50 layers.
"""
_OTHER_ROWS = 30
"""Other rows than those compared node by node may amplify rounding so many times as much."""
_APPROXIMATION = 5e-7
"""Allowed of any value: onnxruntime's sigmoid is off by 1.2e-7, however small it is (measured: scores of 2e-4)."""
_FOREIGN = (RuntimeError, ValueError, TypeError, LookupError)


def compared(network: ImportedNetwork, source: OnnxSource, places: Mapping[str, Value]) -> float:
    """Return the largest difference of an output from onnxruntime's, for two rows, three, and one alone.

    Args:
        network: Made from ``source``, in evaluation mode.
        source: The file with onnxruntime's values.
        places: Where the network computes each value of the file.

    Raises:
        ConversionError: If a node does not run, its values differ by more than ``TOLERANCE``, or those of an output
            by more than ``OUTPUT_TOLERANCE``, or far more than for the rows that were compared node by node.
    """
    names: dict[int, list[str]] = {}
    for name, place in places.items():
        if isinstance(place, Slot):
            names.setdefault(place.index, []).append(name)
    makers = source.maker()

    def known(slot: int, value: Any) -> Any:  # noqa: ANN401 - a layer may return tuples
        """Return onnxruntime's value in the place of a tensor of the network."""
        name = next(iter(names.get(slot, ())), "")
        wanted = source.values[name] if name else None
        if wanted is None or not isinstance(value, torch.Tensor) or wanted.shape != tuple(value.shape):
            return value
        return torch.from_numpy(np.array(wanted)).to(value.dtype)

    with torch.no_grad():
        for call, compute in network.steps(torch.from_numpy(source.example), known):
            try:
                value = compute()
            except _FOREIGN as error:
                following = next((name for slot in sorted(names) if slot >= call.slot for name in names[slot]), "")
                shown = makers[following].shown if following in makers else "the input"
                message = f"Expected a network that runs, got at {shown}: {str(error)[:300]}"
                raise ConversionError(f"{message}: {ADVICE}") from error
            for name in names.get(call.slot, ()):
                _check(value, source.values[name], makers[name].shown)
        more, others = source.others
        same, whole, alone = (_outputs(network, rows) for rows in (source.example, more, source.example[:1]))
    apart = 0.0
    for name, known_rows, rows, row in zip(source.outputs, same, whole, alone, strict=True):
        rounding = _check(known_rows, source.values[name], f"output {name!r} with two rows", OUTPUT_TOLERANCE)
        scale = float(np.abs(source.values[name]).max(initial=0)) or 1.0
        allowed = min(OUTPUT_TOLERANCE, max(TOLERANCE, _OTHER_ROWS * rounding / scale))
        apart = max(apart, rounding, _check(rows, others[name], f"output {name!r} with three rows", allowed))
        if source.sizes[name] and source.sizes[name][0].grows:
            first = source.values[name][: source.sizes[name][0].count]
            apart = max(apart, _check(row, first, f"output {name!r} with one row", allowed))
    return apart


def _outputs(network: ImportedNetwork, rows: Array) -> list[Any]:
    made = network(torch.from_numpy(rows))
    return list(made) if isinstance(made, tuple) else [made]


def _check(value: Any, wanted: Array, shown: str, tolerance: float = TOLERANCE) -> float:  # noqa: ANN401 - a node's value
    """Return the largest difference of a value from onnxruntime's.

    Raises:
        ConversionError: If it has another shape, or is further away than rounding.
    """
    found = np.asarray(value.numpy() if isinstance(value, torch.Tensor) else value)
    if found.shape != wanted.shape:
        message = f"Expected {wanted.shape} at {shown}, as onnxruntime has it, got {found.shape}"
        raise ConversionError(f"{message}: {ADVICE}")
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    with np.errstate(invalid="ignore"):
        apart = np.abs(found - wanted)
    apart[(found == wanted) | (np.isnan(found) & np.isnan(wanted))] = 0
    largest, scale = float(apart.max(initial=0)), float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0))
    if not largest <= max(tolerance * scale, _APPROXIMATION):
        message = f"Expected the values of onnxruntime at {shown}, got some {largest:.3g} apart of {scale:.3g}"
        raise ConversionError(f"{message}, and this is the first node that differs: {ADVICE}")
    return largest
