"""Keeps weights that a mask pruned at zero while a network is trained further."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def zeros_kept(network: nn.Module) -> Iterator[None]:
    """Keep weights of layers that are exactly zero at zero, whatever optimizer trains inside the block.

    With a gradient of zero from the first step on, AdamW and SGD (momentum, decay) leave a zero unchanged. A trained
    weight is zero only because of a mask; biases and scales are not affected.
    """
    weights = [weight for weight in network.parameters() if weight.ndim > 1 and bool((weight == 0).any())]
    handles = [
        weight.register_hook(_masked((weight != 0).to(weight.dtype)))  # type: ignore[no-untyped-call]
        for weight in weights
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _masked(mask: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda gradient: gradient * mask
