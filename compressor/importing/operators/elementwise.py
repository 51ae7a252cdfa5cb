"""Arithmetic, comparisons and functions of single elements."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnx
import torch

from compressor.importing.network import Slot, Value
from compressor.importing.operation import Operand, Operation, Table, Translator

_TYPES = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.BOOL: torch.bool,
}


def _two(function: Callable[..., Any]) -> Translator:
    """Return the translator of a function of two tensors."""

    def translate(op: Operation) -> Value:
        first, second = op.operand(0), op.operand(1)
        first = first if isinstance(first, Slot) or isinstance(second, Slot) else op.tensor(0)
        return op.run(function, first, second)

    return translate


def _one(function: Callable[..., Any]) -> Translator:
    """Return the translator of a function of one tensor."""
    return lambda op: op.run(function, op.tensor())


def add(a: Any, b: Any) -> Any:  # noqa: ANN401 - tensors or numbers
    """Return a + b."""
    return torch.add(a, b) if isinstance(a, torch.Tensor) or not isinstance(a, float | int) else torch.add(b, a)


def multiply(a: Any, b: Any) -> Any:  # noqa: ANN401 - as above
    """Return a * b."""
    return torch.mul(b, a) if isinstance(a, float | int) else torch.mul(a, b)


def subtract(a: Any, b: Any) -> Any:  # noqa: ANN401 - as above
    """Return a - b."""
    return torch.rsub(b, a) if isinstance(a, float | int) else torch.sub(a, b)


def power(a: Any, b: Any) -> Any:  # noqa: ANN401 - as above
    """Return a ** b; a square as a product, which both runtimes have as one fast operator."""
    return torch.mul(a, a) if isinstance(b, float | int) and b == 2 else torch.pow(a, b)  # noqa: PLR2004 - a square


def divide(op: Operation) -> Value:
    """Div: of integers towards zero, as ONNX has it."""
    whole = op.source.values[op.node.outputs[0]].dtype.kind in "iu"
    first, second = op.operand(0), op.operand(1)
    if whole:
        return op.run(_divide_whole, op.tensor(0), second)
    return op.run(_reciprocal_of, first, second) if isinstance(first, float | int) else op.run(torch.div, first, second)


def _divide_whole(a: torch.Tensor, b: Any) -> torch.Tensor:  # noqa: ANN401 - a tensor or a number
    return torch.div(a, b, rounding_mode="trunc")


def _reciprocal_of(a: float, b: torch.Tensor) -> torch.Tensor:
    return torch.reciprocal(b) if a == 1 else torch.mul(torch.reciprocal(b), a)


def _extreme(function: Callable[..., Any], limit: str) -> Translator:
    """Return the translator of Min or Max of any number of tensors.

    Raises:
        OperatorError: If all operands are constant.
    """

    def translate(op: Operation) -> Operand:
        made: Operand = op.operand(0)
        for index in range(1, len(op.node.inputs)):
            other = op.operand(index)
            if isinstance(made, float | int) and isinstance(other, float | int):
                raise op.refused("two constants")
            if isinstance(made, float | int):
                made, other = other, made
            if isinstance(other, float | int):
                made = op.run(_at_most if limit == "max" else _at_least, made, other)
            else:
                made = op.run(function, made, other)
        return made

    return translate


def _at_most(x: torch.Tensor, limit: float) -> torch.Tensor:
    return torch.clamp(x, max=limit)


def _at_least(x: torch.Tensor, limit: float) -> torch.Tensor:
    return torch.clamp(x, min=limit)


def total(op: Operation) -> Operand:
    """Sum of any number of tensors."""
    made: Operand = op.operand(0)
    for index in range(1, len(op.node.inputs)):
        made = op.run(add, made, op.operand(index))
    return made


def where(op: Operation) -> Value:
    """Where: a choice between two tensors or numbers."""
    return op.run(torch.where, op.tensor(0), op.operand(1), op.operand(2))


def cast(op: Operation) -> Value:
    """Cast: nothing between equal types.

    Raises:
        OperatorError: If torch has no such element type here.
    """
    kind = op.attribute("to")
    if kind not in _TYPES:
        raise op.refused(f"element type {kind}")
    given, made = op.source.values[op.node.inputs[0]].dtype, op.source.values[op.node.outputs[0]].dtype
    return op.tensor() if given == made else op.run(_of_type, op.tensor(), _TYPES[kind])


def _of_type(x: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    return x.to(kind)


def gelu_by_tanh(x: torch.Tensor) -> torch.Tensor:
    """Return the Gaussian error linear unit by its approximation.

    Source: Hendrycks and Gimpel, Gaussian Error Linear Units, 2016, section 2.
    """
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


TABLE: Table = {
    "Abs": _one(torch.abs),
    "Add": _two(add),
    "And": _two(torch.logical_and),
    "Cast": cast,
    "Ceil": _one(torch.ceil),
    "Cos": _one(torch.cos),
    "Div": divide,
    "Equal": _two(torch.eq),
    "Erf": _one(torch.erf),
    "Exp": _one(torch.exp),
    "Floor": _one(torch.floor),
    "Greater": _two(torch.gt),
    "GreaterOrEqual": _two(torch.ge),
    "Less": _two(torch.lt),
    "LessOrEqual": _two(torch.le),
    "Log": _one(torch.log),
    "Max": _extreme(torch.maximum, "min"),
    "Min": _extreme(torch.minimum, "max"),
    "Mul": _two(multiply),
    "Neg": _one(torch.neg),
    "Not": _one(torch.logical_not),
    "Or": _two(torch.logical_or),
    "Pow": _two(power),
    "Reciprocal": _one(torch.reciprocal),
    "Round": _one(torch.round),
    "Sign": _one(torch.sign),
    "Sin": _one(torch.sin),
    "Sqrt": _one(torch.sqrt),
    "Sub": _two(subtract),
    "Sum": total,
    "Where": where,
}
