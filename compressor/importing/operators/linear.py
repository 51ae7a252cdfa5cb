"""Products of matrices: with constant weights a linear layer, else a call."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from compressor.importing.network import Value
from compressor.importing.operation import Operation, Table
from compressor.importing.reading import Array

_MATRIX = 2


def _row(op: Operation, index: int, width: int, factor: float = 1.0) -> nn.Parameter:
    """Return a bias (n), (1, n) or of one element as a parameter (n).

    Raises:
        OperatorError: If the bias has another shape.
    """
    shape = op.counts(index)
    if int(np.prod(shape)) not in {1, width} or (shape and shape[-1] not in {1, width}):
        raise op.refused(f"a bias of shape {shape} for {width} outputs")
    form = f"row {width} {factor}"
    if (op.node.inputs[index], form) not in op.made.parameters:
        op.made.repeated += width - int(np.prod(shape))

    def change(value: Array) -> Array:
        return np.broadcast_to(value.reshape(-1) * np.float32(factor), (width,))

    return op.weight(index, form, change)


def _linear(weight: nn.Parameter, bias: nn.Parameter | None) -> nn.Module:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = weight
    layer.bias = bias  # type: ignore[assignment]
    return layer


def gemm(op: Operation) -> Value:
    """Gemm with constant weights: a linear layer, its factors multiplied into the weights.

    Raises:
        OperatorError: If its input is transposed.
    """
    alpha, beta = float(op.attribute("alpha", 1.0)), float(op.attribute("beta", 1.0))
    if op.constant(1) is None:
        return _computed_gemm(op, alpha, beta)
    if op.attribute("transA", 0):
        raise op.refused("a transposed input")
    turned = not op.attribute("transB", 0)
    form = "rows" if not turned and alpha == 1 else f"rows {turned} {alpha}"
    weight = op.weight(1, form, lambda value: (value.T if turned else value) * np.float32(alpha))
    bias = _row(op, 2, weight.shape[0], beta) if op.has(2) and beta else None
    return op.weighted("", lambda: _linear(weight, bias), op.tensor())


def _computed_gemm(op: Operation, alpha: float, beta: float) -> Value:
    a, b = op.tensor(0), op.tensor(1)
    a = op.run(torch.t, a) if op.attribute("transA", 0) else a
    b = op.run(torch.t, b) if op.attribute("transB", 0) else b
    made: Value = op.run(torch.matmul, a, b)
    made = made if alpha == 1 else op.run(torch.mul, made, alpha)
    if not op.has(2) or not beta:
        return made
    added = op.operand(2)
    return op.run(torch.add, made, added if beta == 1 else op.run(torch.mul, added, beta))


def matmul(op: Operation) -> Value:
    """MatMul: a linear layer if the right side is a constant matrix; else a product."""
    constant = op.constant(1)
    if constant is None or constant.value.ndim != _MATRIX or op.constant(0) is not None or constant.axis >= 0:
        return op.run(torch.matmul, op.tensor(0), op.tensor(1))
    weight = op.weight(1, "rows True 1.0", lambda value: value.T)
    bias = _row(op, 2, weight.shape[0]) if op.has(2) else None
    return op.weighted("", lambda: _linear(weight, bias), op.tensor())


def einsum(op: Operation) -> Value:
    """Einsum: torch's own, whose equation has the same letters."""
    given = [op.tensor(index) for index in range(len(op.node.inputs))]
    return op.run(torch.einsum, str(op.attribute("equation")), *given)


TABLE: Table = {"Einsum": einsum, "Gemm": gemm, "MatMul": matmul}
