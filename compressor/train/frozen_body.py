"""Fine-tuning of the head alone: which layers stay as they are. The body is what the embedding depends on.

Frozen layers keep weights and running statistics bit by bit, so that their int8 weights in the next release are those
of the release before, and a patch between the two is small.
"""

from __future__ import annotations

import torch
from torch import nn

from compressor.errors import TrainError
from compressor.train.lazy_tensor import LazyTensor

_ROWS = 2


def freeze_body(network: nn.Module, x: torch.Tensor | LazyTensor) -> tuple[nn.Module, ...]:
    """Stop the gradients of the body of ``network``; return its modules, which must stay in evaluation mode.

    Args:
        network: Returns (logits, embedding).
        x: Inputs, float32, (N, C, H, W); a few are enough.

    Raises:
        TrainError: If no layer comes after the embedding, or none before it.
    """
    parameters = dict(network.named_parameters())
    was_training = network.training
    _, embedding = network.eval()(x[:_ROWS])
    reached: tuple[torch.Tensor | None, ...] = (None,) * len(parameters)
    if embedding.requires_grad:
        reached = torch.autograd.grad(embedding.sum(), list(parameters.values()), allow_unused=True)
    network.train(was_training)
    body = {name for name, gradient in zip(parameters, reached, strict=True) if gradient is not None}
    if not body or len(body) == len(parameters):
        where = "after" if body else "before"
        message = f"Expected a network with layers {where} its embedding, got none"
        raise TrainError(f'{message}: set fine_tune_layers = "all" in [train]')
    for name in body:
        parameters[name].requires_grad_(False)
    frozen = []
    for module in network.modules():
        tensors = [*module.parameters(), *module.buffers()]  # a module without any (dropout) may belong to the head
        if tensors and not any(tensor.requires_grad for tensor in tensors):
            frozen.append(module)
    return tuple(frozen)
