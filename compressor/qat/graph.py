"""The traced network: its weighted layers, their batch norms folded, and the nodes whose output the back-ends quantize.

Follows onnxruntime's QDQ quantizer and ai-edge-quantizer: a ReLU or ReLU6 after a convolution, a linear layer, an
addition or another computing operator is fused into it, so that only its output is quantized; operators that only move
or select values (flatten, max pooling) keep the grid of their input.

Folding keeps the module structure: the layer's weights take the norm's scale, the norm becomes an exact identity that
keeps the bias (weight 1, mean 0, variance 1 - eps), so that the network's keys and classes do not change and it can be
exported as before.
Source of folding: Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference, 2018, equation 14.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from compressor.errors import QuantizeError

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
CEILINGS = {"relu": float("inf"), "relu6": 6.0}
"""The largest output of each activation that the runtimes fuse."""
_MOVES = frozenset(
    {
        "identity", "dropout", "dropout1d", "dropout2d", "flatten", "reshape", "view", "squeeze", "unsqueeze",
        "permute", "transpose", "contiguous", "getitem", "chunk", "split", "size", "getattr", "max_pool2d", "maxpool2d",
        "unflatten", "select", "expand",
        "max_pool1d", "maxpool1d", "adaptive_max_pool2d", "adaptivemaxpool2d", "stochasticdepth", "channelshuffle",
    }
)  # fmt: skip
_PRODUCTS = frozenset({"matmul", "bmm", "einsum"})
"""Of two activations, as in attention, they have no weights: both inputs and the output are quantized as elsewhere."""
_UNSEEN = _PRODUCTS | {"conv1d", "conv2d", "conv3d", "conv_transpose2d", "convtranspose2d", "linear"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedLayer:
    """A convolution or linear layer: FX ``node`` and module path ``target``.

    ``norm`` is the module path of the batch norm that follows directly and alone reads the layer's output, or empty;
    ``output`` is the FX node of the norm, or ``node`` itself.
    """

    node: str
    target: str
    norm: str
    output: str


@dataclass(frozen=True, slots=True)
class QuantizedNode:
    """An FX node whose output is quantized; ``ceiling`` is finite after ReLU6, ``positive`` after ReLU and ReLU6."""

    node: str
    positive: bool = False
    ceiling: float = float("inf")


def trace(network: nn.Module) -> fx.GraphModule:
    """Return ``network`` traced by torch.fx; weights are shared, not copied.

    Raises:
        QuantizeError: If its control flow depends on values.
    """
    try:
        return fx.symbolic_trace(network)
    except Exception as error:  # tracing runs the author's forward, which may raise anything
        message = (
            f"Expected a network that torch.fx can trace, got: {str(error)[:300]}: take value-dependent branches out"
        )
        raise QuantizeError(message) from error


def operation(traced: fx.GraphModule, node: fx.Node) -> str:
    """Return the operation of ``node`` as one lower-case word: the name of a module's class, a function or a method."""
    if node.op == "call_module":
        return type(traced.get_submodule(str(node.target))).__name__.lower()
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return name.strip("_") if node.op in {"call_function", "call_method"} else node.op


def layers(traced: fx.GraphModule) -> tuple[TracedLayer, ...]:
    """Return the weighted layers in the order in which they run.

    Raises:
        QuantizeError: If weights are used in a way that is not simulated: by a function instead of a module, in a
            transposed convolution, in a module that runs twice.
    """
    calls = Counter(str(node.target) for node in traced.graph.nodes if node.op == "call_module")
    found, reached = [], set[fx.Node]()
    for node in traced.graph.nodes:
        weighted = node.op == "call_module" and isinstance(traced.get_submodule(str(node.target)), WEIGHTED)
        if node.op == "placeholder" or not reached.isdisjoint(node.all_input_nodes):
            reached.add(node)
        product = operation(traced, node) in _PRODUCTS and reached.issuperset(node.all_input_nodes)
        if not weighted and not product and operation(traced, node) in _UNSEEN:
            message = (
                f"Expected weights in nn.Conv1d, nn.Conv2d or nn.Linear, got {operation(traced, node)} at {node.name}"
            )
            raise QuantizeError(f"{message}: make it one of these modules")
        if weighted and calls[str(node.target)] > 1:
            message = f"Expected each layer to run once, got {node.target} {calls[str(node.target)]} times"
            raise QuantizeError(f"{message}: give each place its own layer")
        if weighted:
            norm = _norm_after(traced, node, calls)
            found.append(
                TracedLayer(
                    node=node.name,
                    target=str(node.target),
                    norm=str(norm.target) if norm else "",
                    output=norm.name if norm else node.name,
                )
            )
    return tuple(found)


def points(traced: fx.GraphModule, floats: Iterable[str]) -> tuple[QuantizedNode, ...]:
    """Return the nodes whose activations are quantized; ``floats`` are the nodes whose output is a float tensor."""
    inside = {layer.node for layer in layers(traced) if layer.norm}
    known = set(floats) - inside
    found = []
    for node in traced.graph.nodes:
        if node.name not in known or operation(traced, node) in _MOVES:
            continue
        users = list(node.users)
        if node.op != "placeholder" and len(users) == 1 and operation(traced, users[0]) in CEILINGS:
            continue  # a ReLU is its only reader, so that runtimes fuse the two
        ceiling = CEILINGS.get(operation(traced, node))
        found.append(
            QuantizedNode(node.name) if ceiling is None else QuantizedNode(node.name, positive=True, ceiling=ceiling)
        )
    return tuple(found)


def _norm_after(traced: fx.GraphModule, node: fx.Node, calls: Counter[str]) -> fx.Node | None:
    """Return the batch norm that can be folded into ``node``, or None."""
    users = list(node.users)
    if len(users) != 1 or users[0].op != "call_module" or calls[str(users[0].target)] != 1:
        return None
    norm = traced.get_submodule(str(users[0].target))
    foldable = isinstance(norm, NORMS) and norm.affine and norm.track_running_stats
    return users[0] if foldable else None


def fold(network: nn.Module) -> tuple[TracedLayer, ...]:
    """Fold every batch norm that directly follows a layer, in place; return the layers in the order in which they run.

    The network is left in evaluation mode, and its outputs in evaluation mode do not change. Folding twice has no
    further effect.

    Raises:
        QuantizeError: If the network can't be traced or has weights outside of modules.
    """
    network.eval()
    found = layers(trace(network))
    with torch.no_grad():
        for one in found:
            if not one.norm:
                continue
            layer: Any = network.get_submodule(one.target)
            norm: Any = network.get_submodule(one.norm)
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            bias = norm.bias - norm.running_mean * scale
            if layer.bias is not None:
                bias = bias + layer.bias * scale
                layer.bias.zero_()
            layer.weight.mul_(scale.reshape(-1, *[1] * (layer.weight.ndim - 1)))
            norm.weight.fill_(1)
            norm.bias.copy_(bias)
            norm.running_mean.zero_()
            norm.running_var.fill_(1 - norm.eps)
    return found


def bias_of(network: nn.Module, layer: TracedLayer) -> nn.Parameter | None:
    """Return the parameter that holds the bias of a folded ``layer``: the norm's, the layer's own, or None."""
    bias = network.get_submodule(layer.norm or layer.target).bias
    return bias if isinstance(bias, nn.Parameter) else None


def weight_of(network: nn.Module, layer: TracedLayer) -> nn.Parameter:
    """Return the weights of ``layer``: (out, in / groups, ...) of a convolution, (out, in) of a linear layer.

    Raises:
        TypeError: If the weight is not a plain parameter (but a parametrization).
    """
    weight = network.get_submodule(layer.target).weight
    if not isinstance(weight, nn.Parameter):
        message = f"Expected a plain weight in {layer.target}, got {type(weight).__name__}: remove its parametrization"
        raise TypeError(message)
    return weight
