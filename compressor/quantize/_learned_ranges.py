"""Maps learned ranges to the tensors of an exported file, matched by value because exporters rename and reorder.

The same few probe rows run through the network, node by node, and through the float export, tensor by tensor; a tensor
belongs to the node with the same values, in the same order, channels last, or flattened. Where sums cancel before a
ReLU6 (a training that nearly diverged: sums of 10,000 clipped at 6), two exact computations differ by more than the
tolerance in a few values: such a node gets the nearest unassigned tensor if it is close overall. Decides which tensor
has which range. Neither quantizes nor runs a TFLite file: its tensors are passed in as arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compressor.errors import QuantizeError
from compressor.evaluating import evaluating

if TYPE_CHECKING:
    from torch import nn

Floats = npt.NDArray[np.float32]
Range = tuple[float, float]
_IMAGE_AXES = 4
_NAMED = 10
_SMALLEST = 1e-30
_NEAR_ON_THE_WHOLE = 1e-2
"""Norm of the difference over the norm; unrelated tensors of a network differ by about 1."""


def place(
    ranges_by_node: Mapping[str, Range],
    activations_by_node: Mapping[str, Floats],
    tensors: Mapping[str, Floats],
    *,
    tolerance: float = 1e-3,
) -> dict[str, Range]:
    """Return (low, high) by tensor of an exported file.

    Every tensor with a node's values gets the node's range: both a pooled tensor and its flattened copy do. A tensor
    that matches several nodes belongs to the nearest one, and if equally near to one that has no tensor yet.

    Args:
        ranges_by_node: Learned (low, high) by FX node.
        activations_by_node: Values of the nodes for the probe, float32, (N, C, H, W) or (N, D).
        tensors: Values of the file's float tensors for the same probe, in any shape and axis order.
        tolerance: Largest difference of a value, as a share of the node's largest magnitude.

    Raises:
        QuantizeError: If a node has no activations or some that are not finite, or no tensor matches; the message names
            all such nodes, with the nearest tensor and its distance.
    """
    silent = [name for name in ranges_by_node if name not in activations_by_node]
    if silent:
        raise QuantizeError(_unmatched(silent, "activations of every node with a range"))
    wild = [name for name in ranges_by_node if not np.isfinite(activations_by_node[name]).all()]
    if wild:
        said = f"Expected finite activations of every node with a range, got others at {', '.join(wild[:_NAMED])}"
        raise QuantizeError(f"{said}: the training of step qat diverged: lower its learning_rate")
    near = {name: _distances(activations_by_node[name], tensors, tolerance) for name in ranges_by_node}
    owners: dict[str, str] = {}
    for tensor in tensors:
        found = {node: distances[tensor] for node, distances in near.items() if tensor in distances}
        if found:
            taken = set(owners.values())
            owners[tensor] = min(found, key=lambda node: (found[node], node in taken))
    lost = []
    for name in [name for name in ranges_by_node if name not in owners.values()]:
        free = {tensor: value for tensor, value in tensors.items() if tensor not in owners}
        tensor, off = _nearest(activations_by_node[name], free)
        if off <= _NEAR_ON_THE_WHOLE:
            owners[tensor] = name
        else:
            lost.append(f"{name} (the nearest, {tensor}, is off by {100 * off:.2g} %)" if tensor else name)
    if lost:
        raise QuantizeError(_unmatched(lost, "a tensor with the values of every node with a range"))
    return {tensor: ranges_by_node[node] for tensor, node in owners.items()}


def activations(network: nn.Module, probe: Floats) -> dict[str, Floats]:
    """Return the float values of every FX node of ``network`` for ``probe``, float32 (N, C, H, W).

    Raises:
        QuantizeError: If the network can't be traced.
    """
    import torch  # noqa: PLC0415 - takes seconds to import, and quantizing ONNX does not need it
    from torch import fx  # noqa: PLC0415 - likewise

    from compressor.qat.graph import trace  # noqa: PLC0415 - likewise

    held: dict[str, Floats] = {}

    class _Keep(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - any node's value
            value = super().run_node(n)
            if n.op != "output" and isinstance(value, torch.Tensor) and value.is_floating_point():
                held[n.name] = value.detach().numpy().copy()  # an in-place operator may overwrite it
            return value

    with torch.no_grad(), evaluating(network):
        _Keep(trace(network)).run(torch.from_numpy(np.array(probe, dtype=np.float32)))
    return held


def onnx_tensors(model: bytes, probe: Floats) -> dict[str, Floats]:
    """Return the values of the input and of every float tensor of a float ONNX ``model`` for ``probe``, (N, C, H, W).

    Raises:
        QuantizeError: If the file is not an ONNX model or does not run on the probe.
    """
    import onnx  # noqa: PLC0415 - needed only to quantize ONNX

    from compressor.quantize._calibrator import _float_tensors, _input  # noqa: PLC0415 - likewise
    from compressor.quantize._running import run  # noqa: PLC0415 - likewise

    try:
        loaded = onnx.shape_inference.infer_shapes(onnx.load_from_string(model))
    except Exception as error:  # protobuf's and onnx's own errors derive from Exception alone
        message = f"Expected a float ONNX model, got {len(model)} bytes: {str(error)[:300]}"
        raise QuantizeError(message) from error
    names, feed = _float_tensors(loaded), _input(loaded)
    ((batch, values),) = run(loaded, names, lambda: [probe], together=True)
    return {feed: batch, **dict(zip(names, values, strict=True))}


def _distances(held: Floats, tensors: Mapping[str, Floats], tolerance: float) -> dict[str, float]:
    """Return the distance of each tensor from a node's values, for tensors within ``tolerance``."""
    orders = _orders(held)
    limit = tolerance * max(float(np.abs(held).max(initial=0)), _SMALLEST)
    found = {}
    for name, tensor in tensors.items():
        if tensor.size == held.size:
            distance = min(float(np.abs(order - tensor.ravel()).max(initial=0)) for order in orders)
            if distance <= limit:
                found[name] = distance
    return found


def _nearest(held: Floats, tensors: Mapping[str, Floats]) -> tuple[str, float]:
    """Return the same-sized tensor with the smallest relative distance to ``held``, and that distance."""
    size = max(float(np.linalg.norm(held)), _SMALLEST)
    offs = {
        name: min(float(np.linalg.norm(order - tensor.ravel())) for order in _orders(held)) / size
        for name, tensor in tensors.items()
        if tensor.size == held.size
    }
    name = min(offs, key=lambda found: offs[found], default="")
    return name, offs.get(name, float("inf"))


def _orders(held: Floats) -> list[Floats]:
    """Return the values of a node flattened, in their own order and channels last."""
    return [held.ravel(), *([held.transpose(0, 2, 3, 1).ravel()] if held.ndim == _IMAGE_AXES else [])]


def _unmatched(nodes: list[str], what: str) -> str:
    more = f" and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else ""
    next_step = "export from the network that step qat returned, and probe both with the same real rows"
    return f"Expected {what}, got none for {', '.join(nodes[:_NAMED])}{more}: {next_step}"
