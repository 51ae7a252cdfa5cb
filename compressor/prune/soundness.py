"""Whether a network stays right when groups of its channels are removed: tried out, not believed.

The dependency graph guesses how reshapes, splits and views move channels, and a network may have widths in its code
(``view(-1, 32, 4, 4)``, ``chunk(2, 1)``). So groups are narrowed on a copy, and the copy must run, load into a fresh
network from its state dict, export, and answer as the network does in which the layers that read the removed channels
have zeros for them. The trial has weights of its own, drawn by a fixed seed: channels that died in training would hide
a wrong mapping, and what is asked is a property of the structure. Norms over all channels (layer norm, a group norm of
one group) can't answer the same with fewer; for this comparison alone they only scale and shift.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from textwrap import shorten

import numpy as np
import torch
from torch import nn

from compressor.errors import CompressorError, ExportError
from compressor.export.onnx import export_onnx
from compressor.prune.groups import ChannelGroup, FoundGroups, find_groups, narrow
from compressor.prune.tracing import CONVOLUTIONS, Shape, graph_of, group_of, traceable
from compressor.train.checkpoint import fit

Removed = Mapping[str, Sequence[int]]
_BATCHES = (2, 3)
_OF_EFFECT, _OF_SCALE = 1e-3, 5e-6
"""Largest difference of the outputs: a share of what the removal changes, and the rounding of float32."""


def sound_groups(network: nn.Module, shape: Shape, protected: Collection[str] = (), round_to: int = 1) -> FoundGroups:
    """Return the groups of ``network`` that may be narrowed, after trying them; others are left alone by name.

    Args:
        network: Returns (logits, embedding) of float32 (N, C, H, W); not changed.
        shape: (C, H, W) of its input.
        protected: Layers whose groups are not touched.
        round_to: Widths are tried at multiples of it, as they will be narrowed.

    Raises:
        PruneError: If no channels of the network can be followed.
    """
    found = find_groups(network, shape, protected)
    halves = {group.root: _halves(group, round_to) for group in found.groups}
    fault = partial(_fault, network, shape, exports=_exports(network, shape))

    def tried(groups: Sequence[ChannelGroup]) -> str:
        return next(filter(None, (fault({one.root: halves[one.root][n] for one in groups}) for n in (0, 1))), "")

    return _without_faults(found, tried)


def _without_faults(found: FoundGroups, tried: Callable[[Sequence[ChannelGroup]], str]) -> FoundGroups:
    """Return ``found`` without the groups that ``tried`` finds a fault with, alone or beside the others."""
    if not found.groups or not tried(found.groups):
        return found
    sound: list[ChannelGroup] = []
    left = dict(found.left_alone)
    alone = {group.root: tried([group]) for group in found.groups}
    rest = [group for group in found.groups if not alone[group.root]]
    together = not tried(rest)
    for group in found.groups:
        why = alone[group.root] or ("" if together else tried([*sound, group]))
        if why:
            left[group.layers] = why
        else:
            sound.append(group)
    return replace(found, groups=tuple(sound), left_alone=left)


def without_faults_of(network: nn.Module, shape: Shape, found: FoundGroups, removed: Removed) -> FoundGroups:
    """Return ``found`` without the groups that make ``network`` wrong if exactly the channels ``removed`` go."""

    def tried(groups: Sequence[ChannelGroup]) -> str:
        return _fault(network, shape, {one.root: removed[one.root] for one in groups if removed.get(one.root)})

    return _without_faults(found, tried)


def _halves(group: ChannelGroup, round_to: int) -> tuple[list[int], list[int]]:
    """Return two halves of the channels that ``round_to`` allows to remove: the first ones, and any by a fixed seed."""
    step = group.step(round_to)
    kept = -(-group.channels // (2 * step)) * step
    blocks = max(0, group.channels - kept) // group.block
    drawn = np.random.default_rng(group.channels).permutation(len(group.blocks))
    first, mixed = list(group.blocks[:blocks]), [group.blocks[number] for number in drawn[:blocks]]
    return [channel for block in first for channel in block], [channel for block in mixed for channel in block]


def _exports(network: nn.Module, shape: Shape) -> bool:
    """Return whether ``network`` itself exports; if it does not, that is no fault of a removal."""
    try:
        export_onnx(copy.deepcopy(network), *shape)
    except CompressorError:
        return False
    return True


def _fault(network: nn.Module, shape: Shape, removed: Removed, *, exports: bool = False) -> str:
    """Return what is wrong with ``network`` without the channels ``removed``, as text; "" if nothing is."""
    try:
        return _difference(network, shape, removed, exports=exports)
    except ExportError as error:
        return f"without its channels the network does not export ({error})"
    except CompressorError:  # such as: a layer would lose all its inputs
        return "what is read of its channels can't be told"
    except Exception as error:  # noqa: BLE001 - the author's forward may have any width in its code
        said = shorten(str(error) or type(error).__name__, 110, placeholder=" …")
        return f"the network does not run without its channels ({said})"


def _difference(network: nn.Module, shape: Shape, removed: Removed, *, exports: bool) -> str:
    drawn = _drawn_anew(copy.deepcopy(network))
    narrowed = narrow(copy.deepcopy(drawn), shape, removed)
    loaded = fit(copy.deepcopy(drawn), narrowed.state_dict())
    masked = _masked(copy.deepcopy(drawn), shape, removed)
    for rows in _BATCHES:
        x = torch.randn(rows, *shape, generator=torch.Generator().manual_seed(rows))
        wanted, got, again = (_logits(one, x) for one in (drawn, narrowed, loaded))
        if len(got) != rows:
            return f"without its channels {rows} inputs give {len(got)} outputs"
        if got.shape != wanted.shape:
            return f"its channels are outputs of the network, {wanted.shape[1]} of them"
        if not torch.allclose(got, again, rtol=1e-4, atol=1e-5):
            return "its narrower form can't be loaded from weights"
    if exports:
        export_onnx(copy.deepcopy(loaded), *shape)
    for one in (drawn, narrowed, masked):
        _scale_and_shift(one)
    before, got, wanted = (_logits(one, x) for one in (drawn, narrowed, masked))
    allowed = _OF_EFFECT * (before - wanted).abs().max() + _OF_SCALE * wanted.abs().max()
    return "" if bool((got - wanted).abs().max() <= allowed) else "without its channels the others get mixed up"


def _logits(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the fused kernel would pass the norms that only scale by
    try:
        with torch.no_grad():
            logits: torch.Tensor = network.eval()(x)[0]
            return logits
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _drawn_anew(network: nn.Module) -> nn.Module:
    """Return ``network`` with weights by a fixed seed, in place, so that every channel has an effect."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                fan_in = max(1, weight.numel() // weight.shape[0])
                weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
            else:
                weight.uniform_(0.5, 1.5, generator=generator)
        for module in network.modules():
            if isinstance(variance := getattr(module, "running_var", None), torch.Tensor):
                variance.uniform_(0.5, 1.5, generator=generator)
    return network


def _masked(network: nn.Module, shape: Shape, removed: Removed) -> nn.Module:
    """Return ``network`` with zeros, in place, in the weights that read the channels ``removed``."""
    with traceable(network), torch.no_grad():
        graph, modules = graph_of(network, shape), dict(network.named_modules())
        for root, channels in removed.items():
            for dependency, idxs in group_of(graph, modules[root], channels) if channels else ():
                layer, reads = dependency.target.module, graph.is_in_channel_pruning_fn(dependency.handler)
                if not reads or graph.is_out_channel_pruning_fn(dependency.handler):
                    continue  # it narrows its outputs, or the same channels of both, as a depthwise convolution
                if isinstance(layer, (*CONVOLUTIONS, nn.Linear)):
                    layer.weight.index_fill_(0 if getattr(layer, "transposed", False) else 1, torch.tensor(idxs), 0)
    return network


def _scale_and_shift(network: nn.Module) -> None:
    """Let the norms over all channels of ``network`` only multiply by their weight and add their bias, in place."""
    for module in network.modules():
        if isinstance(module, nn.LayerNorm):
            module.forward = partial(_affine, module, -1)  # type: ignore[method-assign]
        elif isinstance(module, nn.GroupNorm) and module.num_groups == 1:
            module.forward = partial(_affine, module, 1)  # type: ignore[method-assign]


def _affine(module: nn.Module, axis: int, x: torch.Tensor) -> torch.Tensor:
    for name, join in (("weight", torch.mul), ("bias", torch.add)):
        values = getattr(module, name)
        if values is not None:
            x = join(x, values if axis < 0 else values.reshape(-1, *[1] * (x.ndim - 2)))
    return x
