"""The dependency graph of ``torch-pruning`` for networks that it can't follow everywhere.

Three things differ from its plain graph. Layers whose channels it would mix up (recurrent layers, attention, grouped
convolutions with other outputs than inputs) are traced as one opaque operation, so that a group that reaches one can be
told. Grouped convolutions and group norms lose whole groups, their inputs and outputs together. An operation whose
channels can't be mapped (a reshape to five dimensions) is marked instead of ending the analysis of all others.
Written for torch-pruning 1.6.1: https://github.com/VainF/Torch-Pruning/issues/9, /44 and /404 are its open limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch_pruning as tp
from torch import nn
from torch.utils import _pytree as pytree
from torch_pruning.dependency import index_mapping

from compressor.errors import PruneError
from compressor.evaluating import evaluating

Shape = tuple[int, int, int]
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_MAPPED = ("concat", "split", "reshape", "unbind", "expand", "slice")
"""The operations whose channels torch-pruning maps by a function ``update_*_index_mapping``."""


@contextmanager
def traceable(network: nn.Module) -> Iterator[None]:
    """Make ``network`` fit to be traced and narrowed inside the block, in evaluation mode; afterwards it is as before.

    Attention runs through its modules, not by the fused kernel that torch prefers without gradients.
    """
    opaque = {name: module for name, module in network.named_modules() if why_opaque(module)}
    grouped = [module for module in network.modules() if isinstance(module, nn.Conv2d) and in_groups(module)]
    fused, mapping = torch.backends.mha.get_fastpath_enabled(), _mapping_functions()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        for name, module in opaque.items():
            module.forward = _hidden(name, module.forward)
        for module in grouped:
            module.__class__ = _GroupedConv2d
        for name, update in mapping.items():
            setattr(index_mapping, name, _marking(update))
        with evaluating(network):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module in opaque.values():
            del module.forward
        for module in grouped:
            module.__class__ = nn.Conv2d
        for name, update in mapping.items():
            setattr(index_mapping, name, update)


def graph_of(network: nn.Module, shape: Shape) -> Any:  # noqa: ANN401 - torch-pruning has no types
    """Return the dependency graph of ``network``, inside ``traceable``; ``shape`` is (C, H, W) of its input.

    Raises:
        PruneError: If it can't be followed at all.
    """
    pruners = {_GroupedConv2d: _GroupedConvPruner(), nn.GroupNorm: _GroupNormPruner()}
    graph = tp.DependencyGraph()
    try:
        with torch.enable_grad():  # the graph is traced through autograd
            example = torch.zeros(1, *shape)
            return graph.build_dependency(network, example, customized_pruners=pruners, verbose=False)
    except Exception as error:  # it runs the author's forward, and assumes much about its operations
        message = f"Expected a network whose channels torch-pruning can follow, got {_short(error)}"
        raise PruneError(f"{message}: drop the step prune") from error


def group_of(graph: Any, root: nn.Module, channels: Sequence[int]) -> Any:  # noqa: ANN401 - torch-pruning has no types
    """Return what must be removed with the output ``channels`` of ``root``, inside ``traceable``.

    Raises:
        PruneError: If the channels can't be followed.
    """
    pruner = graph.get_pruner_of_module(root)
    try:
        return graph.get_pruning_group(root, pruner.prune_out_channels, sorted(channels))
    except Exception as error:  # IndexError, ZeroDivisionError and others where its assumptions fail
        message = f"torch-pruning can't follow its channels ({_short(error)})"
        raise PruneError(message) from error


def why_opaque(module: nn.Module) -> str:
    """Return why the inputs and outputs of ``module`` can't be narrowed, as text; "" if they can."""
    kind = type(module).__name__
    if isinstance(module, nn.RNNBase | nn.RNNCellBase | nn.MultiheadAttention | nn.Bilinear):
        return f"a {kind}, whose channels have places of their own"
    if isinstance(module, CONVOLUTIONS) and module.groups > 1 and not _channelwise(module):
        whole = type(module) in {nn.Conv2d, _GroupedConv2d} and module.in_channels == module.out_channels
        sizes = f"{module.in_channels} inputs and {module.out_channels} outputs in {module.groups} groups"
        return "" if whole else f"a {kind} with {sizes}"
    return ""


def in_groups(module: nn.Module) -> int:
    """Return the number of channels that ``module`` can only lose together; 0 if it can lose single ones."""
    if isinstance(module, nn.GroupNorm) and module.num_groups > 1:
        return module.num_channels // module.num_groups
    if isinstance(module, nn.Conv2d) and module.groups > 1 and not _channelwise(module) and not why_opaque(module):
        return module.out_channels // module.groups
    return 0


def fault_of(node: Any, names: dict[nn.Module, str]) -> str:  # noqa: ANN401 - a node of torch-pruning
    """Return why channels can't be followed through ``node`` of a graph, as text; "" if they can."""
    hidden = getattr(node.grad_fn, "hidden", "")
    if hidden:
        module = next(module for module, name in names.items() if name == hidden)
        return f"its channels reach {hidden}, {why_opaque(module)}"
    return getattr(node, "fault", "")


def _channelwise(module: Any) -> bool:  # noqa: ANN401 - several classes of convolutions
    return bool(module.groups == module.in_channels == module.out_channels)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


class _Hidden(torch.autograd.Function):
    """One operation from the inputs of a layer to its output, whatever the layer does inside."""

    @staticmethod
    def forward(ctx: Any, name: str, value: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        del inputs
        ctx.hidden = name
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:  # noqa: ANN401
        message = f"Expected no gradients through {ctx.hidden} while its network is traced, got {len(gradients)}"
        raise PruneError(message)


def _hidden(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - of any layer
        with torch.no_grad():
            outputs = forward(*args, **kwargs)
        given = [one for one in pytree.tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        leaf = torch.zeros((), requires_grad=True)  # so that the output is in the graph even if no input is

        def traced(value: Any) -> Any:  # noqa: ANN401 - a tensor or anything else
            tensor = isinstance(value, torch.Tensor) and value.is_floating_point()
            return _Hidden.apply(name, value, leaf, *given) if tensor else value  # type: ignore[no-untyped-call]

        return pytree.tree_map(traced, outputs) if torch.is_grad_enabled() else outputs

    return run


def _mapping_functions() -> dict[str, Callable[[Any, Any], None]]:
    names = [f"update_{operation}_index_mapping" for operation in _MAPPED]
    return {name: getattr(index_mapping, name) for name in names}


def _marking(update: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    def marked(graph: Any, node: Any) -> None:  # noqa: ANN401 - torch-pruning has no types
        try:
            update(graph, node)
        except Exception as error:  # noqa: BLE001 - it assumes much about shapes; the other nodes are unaffected
            what = type(node.module).__name__.strip("_").removesuffix("Op").lower()
            node.fault = f"torch-pruning can't follow its channels through a {what} ({_short(error)})"

    return marked


class _GroupedConv2d(nn.Conv2d):
    """The class of a grouped convolution while its network is traced, so that its own pruner is found."""


class _GroupedConvPruner(tp.pruner.function.ConvPruner):  # type: ignore[misc] # torch-pruning has no types
    """Removes whole groups of a convolution, inputs and outputs; the number of groups falls."""

    def prune_out_channels(self, layer: nn.Conv2d, idxs: list[int]) -> nn.Module:
        kept = _kept_in_groups(idxs, layer.out_channels, in_groups(layer))
        layer.groups = len(kept) * layer.groups // layer.out_channels
        layer.in_channels = layer.out_channels = len(kept)
        layer.weight = self._prune_parameter_and_grad(layer.weight, kept, 0)
        if layer.bias is not None:
            layer.bias = self._prune_parameter_and_grad(layer.bias, kept, 0)
        return layer

    prune_in_channels = prune_out_channels


class _GroupNormPruner(tp.pruner.function.GroupNormPruner):  # type: ignore[misc] # torch-pruning has no types
    """Removes whole groups of a norm, so that the statistics of the others stay; of a single group any channel."""

    def prune_out_channels(self, layer: nn.GroupNorm, idxs: list[int]) -> nn.Module:
        size = in_groups(layer)
        kept = _kept_in_groups(idxs, layer.num_channels, size or 1)
        layer.num_channels, layer.num_groups = len(kept), len(kept) // size if size else 1
        if layer.affine:
            layer.weight = self._prune_parameter_and_grad(layer.weight, kept, 0)
            layer.bias = self._prune_parameter_and_grad(layer.bias, kept, 0)
        return layer

    prune_in_channels = prune_out_channels


def _kept_in_groups(removed: Sequence[int], channels: int, size: int) -> list[int]:
    kept = sorted(set(range(channels)) - set(removed))
    broken = [channel for channel in kept if any(channel // size * size + i not in kept for i in range(size))]
    if broken:
        message = f"Expected whole groups of {size} channels to remove, got part of the group of channel {broken[0]}"
        raise PruneError(message)
    return kept
