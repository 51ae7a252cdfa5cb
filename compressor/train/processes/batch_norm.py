"""Batch normalisation over the whole batch when each process has a part of it.

Without it a network trained on two processes gets other weights than on one. torch's ``SyncBatchNorm`` supports only
GPUs; this is its counterpart for the CPU.
Source: Ioffe and Szegedy, Batch Normalization, 2015, algorithm 1 and the gradients of section 3; Chan et al., Updating
Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979, equation 2.1 (moments of parts combined).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from compressor.train.processes.world import World


def synchronized(network: nn.Module, world: World) -> nn.Module:
    """Return ``network`` with batch norms over the batch of all processes; names and weights stay."""
    if world.size == 1:
        return network
    if world.device.type == "cuda":
        synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return synced
    for module in network.modules():
        if type(module) in _SYNCED:
            module.__class__ = _SYNCED[type(module)]  # the same object, because a network may hold it under two names
    return network


class _Synced(nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the base of the three classes, public in no other way
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x``, (N, C, ...), normalised; in training with the moments of all processes' rows."""
        if not self.training:
            return super().forward(x)
        self._check_input_dim(x)  # type: ignore[no-untyped-call]
        mean, variance, count = _moments(x)
        running_mean, running_var, seen = self.running_mean, self.running_var, self.num_batches_tracked
        if running_mean is not None and running_var is not None and seen is not None:
            seen.add_(1)
            weight = 1 / int(seen) if self.momentum is None else self.momentum
            running_mean.lerp_(mean, weight)
            running_var.lerp_(variance * (count / (count - 1)), weight)
        moments = (mean, variance, count, self.eps)
        normalised: torch.Tensor = _Normalise.apply(x, self.weight, self.bias, moments)  # type: ignore[no-untyped-call]
        return normalised


class _Synced1d(_Synced, nn.BatchNorm1d):
    pass


class _Synced2d(_Synced, nn.BatchNorm2d):
    pass


class _Synced3d(_Synced, nn.BatchNorm3d):
    pass


_SYNCED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _Synced1d,
    nn.BatchNorm2d: _Synced2d,
    nn.BatchNorm3d: _Synced3d,
}


def _moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return mean and biased variance per channel over the rows of all processes, and the number of values."""
    with torch.no_grad():
        variance, mean = torch.var_mean(x, _axes(x), correction=0)
        own = torch.cat([mean, variance, mean.new_tensor([x.numel() / x.shape[1]])])
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own)
        gathered = torch.stack(parts)
        means, variances = gathered[:, :-1].chunk(2, dim=1)
        counts = gathered[:, -1:]
        share = counts / counts.sum()
        mean = (share * means).sum(0)
        variance = (share * (variances + (means - mean) ** 2)).sum(0)
    return mean, variance, float(counts.sum())


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch has no public type for it
        x: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        moments: tuple[torch.Tensor, torch.Tensor, float, float],
    ) -> torch.Tensor:
        mean, variance, count, eps = moments
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps))
        ctx.count = count
        return nn.functional.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401 - as above
        x, weight, mean, scale = ctx.saved_tensors
        shape = (1, -1, *(1 for _ in x.shape[2:]))
        centred = x - mean.view(shape)
        own = torch.stack([gradient.sum(_axes(x)), (gradient * centred).sum(_axes(x))])
        whole = own.clone()
        dist.all_reduce(whole)  # the mean and the variance depend on the rows of every process
        whole /= ctx.count
        inner = gradient - whole[0].view(shape) - centred * (whole[1] * scale**2).view(shape)
        steep = scale if weight is None else scale * weight
        affine = (None, None) if weight is None else (own[1] * scale, own[0])
        return inner * steep.view(shape), *affine, None


def _axes(x: torch.Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]
