"""Bias correction: what rounding shifts the mean of an output channel by is taken back from the channel's bias.

Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019, section 4.2, with
the means measured on calibration data.

All layers are corrected at once, from one pass; then again, because a correction shifts the layers behind it. The
round with the best logits is kept, which may be none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from compressor.quantize.running import Batches, logits, run
from compressor.quantize.sensitivity import sqnr_db

Doubles = npt.NDArray[np.float64]
Placing = Callable[[onnx.ModelProto], onnx.ModelProto]

ROUNDS = 3
_WITH_BIAS = frozenset({"Conv", "ConvTranspose", "Gemm"})
_BIAS = 2  # the input of a node that holds its bias


def corrected(
    prepared: onnx.ModelProto, placing: Placing, batches: Batches, *, rounds: int = ROUNDS
) -> onnx.ModelProto:
    """Return ``prepared`` with the biases under which its quantized form is nearest to it.

    Args:
        prepared: Float ONNX as ``layers.prepare`` makes it; left as it is.
        placing: Quantizes a float model, keeping the names of its nodes.
        batches: Starts the calibration data anew.
        rounds: How often all layers are corrected.

    Raises:
        QuantizeError: If a model does not quantize or run, or there is no data.
    """
    names = _correctable(prepared)
    want, means = logits(prepared, batches), _means(prepared, names, batches)
    candidate = best = prepared
    best_db = sqnr_db(want, logits(placing(prepared), batches))
    for _ in range(rounds):
        now = _means(placing(candidate), names, batches)
        candidate = _shifted(candidate, {name: means[name] - now[name] for name in names})
        db = sqnr_db(want, logits(placing(candidate), batches))
        if db > best_db:
            best, best_db = candidate, db
    return best


def _correctable(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the names of the layers whose bias is a constant of their own, or that have none."""
    constants = {tensor.name for tensor in model.graph.initializer}
    uses = [name for node in model.graph.node for name in node.input]
    return tuple(
        node.name
        for node in model.graph.node
        if node.op_type in _WITH_BIAS
        and (_bias(node) is None or (_bias(node) in constants and uses.count(node.input[_BIAS]) == 1))
    )


def _bias(node: onnx.NodeProto) -> str | None:
    return node.input[_BIAS] if len(node.input) > _BIAS and node.input[_BIAS] else None


def _means(model: onnx.ModelProto, names: Sequence[str], batches: Batches) -> Mapping[str, Doubles]:
    """Return the mean of every output channel of the layers ``names``: float64 (channels,) each."""
    made = {node.name: node.output[0] for node in model.graph.node}
    sums: dict[str, Doubles] = {}
    samples = 0
    for batch, values in run(model, [made[name] for name in names], batches):
        samples += len(batch)
        for name, value in zip(names, values, strict=True):
            mean = value.reshape(*value.shape[:2], -1).mean(axis=2, dtype=np.float64).sum(axis=0)
            sums[name] = sums.get(name, 0) + mean
    return {name: total / samples for name, total in sums.items()}


def _shifted(model: onnx.ModelProto, shifts: Mapping[str, Doubles]) -> onnx.ModelProto:
    """Return ``model`` with ``shifts`` added to the biases of its layers, by the name of the layer."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in changed.graph.initializer}
    for node in changed.graph.node:
        if node.name in shifts:
            bias = _bias(node)
            before = onnx.numpy_helper.to_array(constants[bias]) if bias else np.zeros(len(shifts[node.name]))
            name = bias or f"{node.name}_bias"
            tensor = onnx.numpy_helper.from_array((before + shifts[node.name]).astype(np.float32), name)
            if bias:
                constants[bias].CopyFrom(tensor)
            else:
                node.input[:] = [*node.input[:_BIAS], name]
                changed.graph.initializer.append(tensor)
    return changed
