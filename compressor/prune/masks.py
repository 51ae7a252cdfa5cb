"""Zeros in the weights, unstructured or N of M, increased along the cubic schedule and kept exactly while fine-tuning.

Masks convolutions and linear layers. Depthwise convolutions hold few weights and stay dense; so does, with N:M, a layer
whose inputs don't divide by M. Zeros make the file compress better; onnxruntime and LiteRT still multiply by them, and
the notes say so. Does not change shapes.
Sources: Zhu & Gupta, To Prune, or Not to Prune, 2017, equation 1 (schedule); Mishra et al., Accelerating Sparse Deep
Neural Networks, 2021 (N:M).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from compressor.errors import PruneError
from compressor.prune.judging import fine_tune, judged
from compressor.prune.settings import n_of_m
from compressor.steps._base import Applied, Bench

if TYPE_CHECKING:
    from compressor.prune.settings import SparsifySettings

Masks = Mapping[str, torch.Tensor]
_NO_SPEED = "none: onnxruntime and LiteRT kernels run dense, zeros only make the download smaller"


def sparsify(network: nn.Module, bench: Bench, settings: SparsifySettings) -> Applied:
    """Return ``network`` with zeros as set in ``settings``, in place, with the effects as notes.

    Args:
        network: Returns (logits, embedding) of float32 (N, C, H, W).
        bench: ``train`` for fine-tuning, ``search`` to judge.
        settings: Settings of the step.

    Raises:
        PruneError: If no layer can be masked as requested, or there are no rows to judge with.
        TrainError: If fine-tuning diverges.
    """
    notes: dict[str, Any] = {
        "pattern": settings.pattern,
        **judged(network, bench.search, "{}_before"),
        "weights_zlib_bytes_before": compressed_bytes(network),
    }
    masks: Masks = {}
    zeros = _zeros(network)
    for number in range(1, settings.rounds + 1):
        bench.tell(f"sparsifying, round {number} of {settings.rounds}")
        masks = make_masks(network, settings, cubic(number, settings.rounds))
        last = number == settings.rounds
        with held(network, masks):
            fine_tune(network, bench, settings.fine_tune_epochs if last else min(1, settings.fine_tune_epochs))
        notes[f"round_{number}_sparsity"] = sparsity(network, masks)
        notes |= judged(network, bench.search, f"round_{number}_{{}}")
    notes |= {
        **judged(network, bench.search, "{}_after"),
        "sparsity_of_masked_layers": sparsity(network, masks),
        "sparsity_of_all_parameters": _share_of_zeros(list(network.parameters())),
        "layers_left_dense": ", ".join(
            name for name, module in network.named_modules() if _maskable(module, 1) and name not in masks
        ),
        "weights_zlib_bytes_after": compressed_bytes(network),
        "speed_gain": _NO_SPEED,
    }
    return Applied(network=network, notes=notes, nothing="" if _zeros(network) > zeros else "no weight became zero")


def cubic(number: int, rounds: int) -> float:
    """Return the share (0..1) of the final sparsity at round ``number`` (from 1) of ``rounds``.

    Source: Zhu & Gupta 2017, equation 1, with initial sparsity 0.
    """
    return 1 - (1 - number / rounds) ** 3


def make_masks(network: nn.Module, settings: SparsifySettings, progress: float = 1.0) -> dict[str, torch.Tensor]:
    """Return a bool mask in the shape of each masked layer's weight, by the layer's name; True is kept.

    Args:
        network: Not changed. Its smallest weights are masked, so zeros stay zero from round to round.
        settings: ``pattern`` and ``sparsity``.
        progress: Share (0..1) of the final sparsity.

    Raises:
        PruneError: If no layer can be masked.
    """
    n, m = n_of_m(settings.pattern)
    weights = {name: module.weight for name, module in network.named_modules() if _maskable(module, m)}
    if not weights:
        message = f"Expected a layer whose inputs divide by {m}, got none: use pattern = 'unstructured'"
        raise PruneError(message)
    masks: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        if m == 1:
            for name, weight in weights.items():
                mask = torch.ones(weight.numel(), dtype=torch.bool)
                off = round(settings.sparsity * progress * weight.numel())
                mask[weight.abs().flatten().argsort(stable=True)[:off]] = False
                masks[name] = mask.reshape(weight.shape)
            return masks
        return {name: _n_of_m_on(weight, m, round((m - n) * progress)) for name, weight in weights.items()}


def _maskable(module: nn.Module, m: int) -> bool:
    if not isinstance(module, nn.Conv2d | nn.Linear) or getattr(module, "groups", 1) != 1:
        return False
    return module.weight.shape[1] % m == 0


def _n_of_m_on(weight: torch.Tensor, m: int, off: int) -> torch.Tensor:
    """Return the mask that is False for the ``off`` smallest of each ``m`` neighbouring inputs (dimension 1)."""
    by_input = weight.abs().movedim(1, -1)
    blocks = by_input.reshape(-1, m)
    mask = torch.ones_like(blocks, dtype=torch.bool)
    mask.scatter_(1, blocks.argsort(dim=1, stable=True)[:, :off], value=False)
    return mask.reshape(by_input.shape).movedim(-1, 1).contiguous()


class _Masked(nn.Module):
    """A weight that is zero where the mask is False, whatever the optimizer does."""

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.where(self.get_buffer("mask"), weight, 0.0)  # a product could give -0.0, which has other bytes


@contextmanager
def held(network: nn.Module, masks: Masks) -> Iterator[None]:
    """Keep the zeros of ``masks`` while the block trains ``network`` in place; afterwards the weights contain them.

    The network's parameters and names are restored afterwards, even if the block raises.
    """
    modules = dict(network.named_modules())
    for name, mask in masks.items():
        parametrize.register_parametrization(modules[name], "weight", _Masked(mask))
    try:
        yield
    finally:
        for name in masks:
            module = modules[name]
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
            bias = module.bias  # removing put the weight last in the state dict: move the bias behind it again
            del module.bias
            module.register_parameter("bias", bias if isinstance(bias, nn.Parameter) else None)


def sparsity(network: nn.Module, masks: Masks) -> float:
    """Return the share (0..1) of exact zeros among the weights of the layers in ``masks``."""
    modules = dict(network.named_modules())
    return _share_of_zeros([modules[name].get_parameter("weight") for name in masks])


def _zeros(network: nn.Module) -> int:
    return sum(int((weight == 0).sum()) for weight in network.parameters())


def _share_of_zeros(weights: list[torch.nn.Parameter]) -> float:
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return round(zeros / max(1, sum(weight.numel() for weight in weights)), 4)


def compressed_bytes(network: nn.Module) -> int:
    """Return the size in bytes of all float32 parameters compressed by zlib at level 9, an estimate of the download."""
    raw = b"".join(parameter.detach().numpy().tobytes() for parameter in network.parameters())
    return len(zlib.compress(raw, 9))
