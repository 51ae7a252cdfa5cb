"""The fake-quantized copy of a network: its graph with quantizers inserted, its weights shared with the network.

Training the copy trains the network. Folded norms are removed from the copy; the network keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from compressor.errors import QuantizeError
from compressor.portions import Inputs, portions
from compressor.qat.fake_quantize import ActivationQuantizer, Grid, QuantizedHardswish, QuantizedLayer
from compressor.qat.graph import TracedLayer, bias_of, fold, operation, points, trace, weight_of

_ROWS_AT_ONCE = 128
_COMPARED_ROWS = 32
"""Rows on which clips are compared: each layer runs once for every clip."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Simulation:
    """A fake-quantized ``copy`` of ``network``; ``quantizers`` by the network's FX node whose output they quantize."""

    network: nn.Module
    copy: fx.GraphModule
    layers: tuple[TracedLayer, ...]
    quantizers: Mapping[str, ActivationQuantizer]
    grid: Grid

    def weights(self) -> list[nn.Parameter]:
        """Return the trained weights and biases: norms that became identities keep their scale of 1."""
        held = [weight_of(self.network, layer) for layer in self.layers]
        biases = [bias_of(self.network, layer) for layer in self.layers]
        return held + [bias for bias in biases if bias is not None]

    def ends(self) -> list[nn.Parameter]:
        """Return the parameters of all learned ranges: of activations, and the clips of weights."""
        learned = [end for quantizer in self.quantizers.values() for end in quantizer.parameters()]
        return learned + [layer.log_clip for layer in self.quantized()]

    def named(self) -> dict[str, nn.Parameter]:
        """Return the parameters of ``weights`` and ``ends`` with a readable name for each."""
        named: dict[str, nn.Parameter] = {}
        for layer, quantized in zip(self.layers, self.quantized(), strict=True):
            bias = bias_of(self.network, layer)
            named[f"the weights of {layer.target}"] = weight_of(self.network, layer)
            named |= {f"the bias of {layer.target}": bias} if bias is not None else {}
            named[f"the clip of {layer.target}"] = quantized.log_clip
        for node, quantizer in self.quantizers.items():
            named |= {f"the range after {node}": end for end in quantizer.parameters()}
        return named

    def quantized(self) -> list[QuantizedLayer]:
        """Return the copy's layers, in the order of ``layers``."""
        found = [self.copy.get_submodule(layer.target) for layer in self.layers]
        return [layer for layer in found if isinstance(layer, QuantizedLayer)]

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Return the learned (low, high) by FX node of ``torch.fx.symbolic_trace(network)``."""
        return {name: quantizer.learned() for name, quantizer in self.quantizers.items()}

    def observe(self, inputs: Inputs) -> None:
        """Set every range to the minimum and maximum over ``inputs``, float32 (N, C, H, W), without quantization.

        Raises:
            QuantizeError: If there are no inputs, or an activation is not finite.
        """
        if not len(inputs):
            message = "Expected calibration rows to observe ranges on, got none: give the calibration split rows"
            raise QuantizeError(message)
        for quantizer in self.quantizers.values():
            quantizer.forget()
        self._run_float(inputs)
        wild = [name for name, quantizer in self.quantizers.items() if not quantizer.observed.isfinite().all()]
        if wild:
            message = f"Expected finite activations, got others at {', '.join(wild[:5])}: check weights and inputs"
            raise QuantizeError(message)

    def clip_weights(self, inputs: Inputs) -> None:
        """Clip each layer's weights where its float outputs on the first 32 of ``inputs`` change least.

        Weights that only ever multiply zeros (channels that died in training, whose folded norms made the weights
        large) do not affect the output, so clipping them leaves finer levels for the others.
        """
        for layer in self.quantized():
            layer.watch()
        self._run_float(inputs[:_COMPARED_ROWS])
        for layer in self.quantized():
            layer.choose()

    def keep_clips(self) -> int:
        """Clip the network's weights permanently, without rounding them; return how many changed."""
        moved = 0
        with torch.no_grad():
            for layer in self.quantized():
                clipped = torch.maximum(torch.minimum(layer.weight, layer.clip()), -layer.clip())
                moved += int((clipped != layer.weight).sum())
                layer.weight.copy_(clipped)
        return moved

    def state(self) -> dict[str, torch.Tensor]:
        """Return a copy of all weights, ranges and clips, for ``restore``."""
        return {name: value.detach().clone() for name, value in self.copy.state_dict().items()}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore what ``state`` returned, also in the network."""
        self.copy.load_state_dict(dict(state))

    def settle(self) -> None:
        """Round the network's weights to their grid permanently: what is exported is what was trained."""
        with torch.no_grad():
            for layer in self.quantized():
                layer.weight.copy_(layer.rounded())

    def _run_float(self, inputs: Inputs) -> None:
        self._switch(observing=True)
        with torch.no_grad():
            for rows in portions(inputs, most=_ROWS_AT_ONCE):
                self.copy(torch.from_numpy(np.ascontiguousarray(rows)))
        self._switch(observing=False)

    def _switch(self, *, observing: bool) -> None:
        for quantizer in self.quantizers.values():
            quantizer.observing = observing
        for layer in self.quantized():
            layer.rounding = not observing
        for module in self.copy.modules():
            if isinstance(module, QuantizedHardswish):
                module.rounding = not observing


def simulate(network: nn.Module, example: Inputs, grid: Grid) -> Simulation:
    """Fold the norms of ``network`` in place and return its fake-quantized copy, ranges not yet observed.

    Args:
        network: Any network that torch.fx traces.
        example: float32, (N, C, H, W), N >= 1: run once, to find the nodes that output float tensors.
        grid: The grid of the weights.

    Raises:
        QuantizeError: If it can't be traced or has weights outside of modules.
    """
    found = fold(network)
    copy = trace(network).eval()
    where = points(copy, float_nodes(copy, example[:1]))
    for layer in found:
        wrapped = QuantizedLayer(network.get_submodule(layer.target), bias_of(network, layer), grid)
        copy.set_submodule(layer.target, wrapped)
    for node in list(copy.graph.nodes):
        if operation(copy, node) == "hardswish":  # by one with a rounded gate; nodes keep their names
            name = f"hardswish_of_{node.name}"
            copy.add_submodule(name, QuantizedHardswish())
            node.op, node.target, node.args, node.kwargs = "call_module", name, node.args[:1], {}
    nodes = {node.name: node for node in copy.graph.nodes}
    quantizers: dict[str, ActivationQuantizer] = {}
    for point in where:
        quantizers[point.node] = ActivationQuantizer(positive=point.positive, ceiling=point.ceiling)
        copy.add_submodule(f"quantizer_of_{point.node}", quantizers[point.node])
        node = nodes[point.node]
        with copy.graph.inserting_after(node):
            inserted = copy.graph.call_module(f"quantizer_of_{point.node}", (node,))
        node.replace_all_uses_with(inserted, delete_user_cb=lambda user, new=inserted: user is not new)
    for layer in found:
        if layer.norm:  # folded: it does nothing more
            norm = nodes[layer.output]
            norm.replace_all_uses_with(norm.args[0])
            copy.graph.erase_node(norm)
    copy.graph.lint()
    copy.recompile()
    return Simulation(network=network, copy=copy, layers=found, quantizers=quantizers, grid=grid)


def float_nodes(traced: fx.GraphModule, example: npt.NDArray[np.float32]) -> list[str]:
    """Return the FX nodes of ``traced`` that output one float tensor, found by running ``example``, (N, C, H, W)."""
    names: list[str] = []

    class _FloatNodes(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - any node's value
            value = super().run_node(n)
            if n.op not in {"output", "get_attr"} and isinstance(value, torch.Tensor) and value.is_floating_point():
                names.append(n.name)
            return value

    with torch.no_grad():
        _FloatNodes(traced).run(torch.from_numpy(np.ascontiguousarray(example)))
    return names
