"""Recurrent layers: torch's LSTM, GRU and RNN with the file's weights, their gates in torch's order."""

from __future__ import annotations

import operator

import numpy as np
import torch
from torch import nn

from compressor.importing.network import Slot
from compressor.importing.operation import Change, Operation, Table
from compressor.importing.reading import Array

_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""Where torch's gates stand in ONNX's order: input, output, forget, cell; update, reset, hidden."""
_ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_LAYERS: dict[str, type[nn.LSTM | nn.GRU | nn.RNN]] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
_LENGTHS, _STATE, _CELL, _PEEPHOLES = 4, 5, 6, 7


def recurrent(op: Operation) -> list[Slot]:
    """LSTM, GRU or RNN, from a state of zeros, in one direction or both."""
    kind, hidden = op.node.operator, int(op.attribute("hidden_size"))
    directions = 2 if op.attribute("direction", "forward") == "bidirectional" else 1
    _check(op, kind, directions)

    def make() -> nn.Module:
        width = op.counts(1)[-1]
        layer = _LAYERS[kind](width, hidden, bias=op.has(3), bidirectional=directions > 1)
        for place, suffix in enumerate(("_l0", "_l0_reverse")[:directions]):
            for name, index in (("weight_ih", 1), ("weight_hh", 2)):
                setattr(layer, name + suffix, op.weight(index, f"{name}{suffix}", _part(kind, place)))
            if op.has(3):
                for half, name in enumerate(("bias_ih", "bias_hh")):
                    setattr(layer, name + suffix, op.weight(3, f"{name}{suffix}", _part(kind, place, half)))
        layer.flatten_parameters()
        return layer.eval()

    made = op.weighted("", make, op.tensor())
    sequence: Slot = op.run(operator.getitem, made, 0)  # (steps, N, directions * hidden)
    sequence = op.run(torch.unflatten, sequence, 2, [directions, hidden])
    outputs = [op.run(torch.transpose, sequence, 1, 2)]
    state = op.run(operator.getitem, made, 1)
    if kind == "LSTM":
        return [*outputs, op.run(operator.getitem, state, 0), op.run(operator.getitem, state, 1)]
    return [*outputs, state]


def _part(kind: str, direction: int, half: int | None = None) -> Change:
    """Return what takes one direction, and of a bias one half, and orders its gates as torch does."""

    def change(value: Array) -> Array:
        own = value[direction]
        own = own if half is None else own.reshape(2, -1)[half]
        gates = own.reshape(len(_GATES[kind]), -1, *own.shape[1:])
        ordered: Array = gates[list(_GATES[kind])].reshape(own.shape)
        return ordered

    return change


def _check(op: Operation, kind: str, directions: int) -> None:
    """Check that torch's layer computes what this node does.

    Raises:
        OperatorError: If it does not: peepholes, lengths, other activations, a clip, or a state that is not zero.
    """
    given = tuple(op.attribute("activations", _ACTIVATIONS[kind] * directions))
    given = tuple(item.decode() if isinstance(item, bytes) else item for item in given)
    if given != _ACTIVATIONS[kind] * directions or op.attribute("clip") or op.attribute("layout", 0):
        raise op.refused(f"activations {', '.join(given)}, a clip or layout = 1")
    if op.attribute("direction", "forward") == "reverse" or (kind == "LSTM" and op.attribute("input_forget", 0)):
        raise op.refused("direction 'reverse' or input_forget")
    if kind == "GRU" and not op.attribute("linear_before_reset", 0):
        raise op.refused("linear_before_reset = 0, which torch has not")
    steps = op.counts()[0]
    for index in (_STATE, _CELL, _PEEPHOLES):
        constant = op.constant(index)
        if op.has(index) and (constant is None or np.any(constant.value)):
            raise op.refused(f"an initial state or peepholes {op.node.inputs[index]!r} that are not zero")
    lengths = op.constant(_LENGTHS)
    if op.has(_LENGTHS) and (lengths is None or np.any(lengths.value != steps)):
        raise op.refused("sequence lengths")


TABLE: Table = dict.fromkeys(_LAYERS, recurrent)
