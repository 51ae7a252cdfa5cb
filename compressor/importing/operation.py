"""A node being translated, and the network under construction.

A translator (``operators``) asks its ``Operation`` for operands, sizes and attributes and adds layers and function
calls. What it takes as a weight becomes a parameter; a weight that two nodes read becomes one parameter, and two nodes
with the same weights and attributes become one layer, so that shared layers stay tied. Constants of one element become
Python numbers: they are an exporter's factors, not weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from compressor.errors import OperatorError
from compressor.importing.network import Call, HeldTensor, ImportedNetwork, RowCount, Slot, Value
from compressor.importing.reading import Array, Constant, Node, OnnxSource, Size

ADVICE = "compress the ONNX file itself: leave the network steps out and take onnx targets"
"""What remains for a file that can't become a network."""

Operand: TypeAlias = Value | float | int | bool
Change: TypeAlias = Callable[[Array], Array]
_EMPTY = ImportedNetwork((), (), {}, {})
"""Has every attribute that a network has of its own, also those that its class lacks: ``training``, ``_modules``."""
_EXPORTED = "onnx::"


@dataclass(slots=True, eq=False, kw_only=True)
class Construction:
    """The network under construction: its calls, layers and parameters so far, and where each ONNX value is.

    ``read``: the constants that became parameters. ``repeated``: how many more numbers these have, where one element is
    the bias of all outputs. ``shared``: the layers with weights, by these.
    """

    source: OnnxSource
    calls: list[Call] = field(default_factory=list)
    layers: dict[str, nn.Module] = field(default_factory=dict)
    held: dict[str, nn.Parameter | torch.Tensor] = field(default_factory=dict)
    places: dict[str, Value] = field(default_factory=dict)
    parameters: dict[tuple[str, str], nn.Parameter] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)
    shared: dict[tuple[Any, ...], str] = field(default_factory=dict)
    slots: int = 1
    repeated: int = 0

    def add(self, args: Sequence[Any], *, layer: str = "", function: Callable[..., Any] | None = None) -> Slot:
        """Append a call, and return where its result is."""
        slot = Slot(self.slots)
        self.slots += 1
        self.calls.append(Call(slot=slot.index, args=tuple(args), layer=layer, function=function))
        return slot

    def unused(self, wanted: str) -> str:
        """Return a name for a layer or parameter, as near to ``wanted`` as a module allows."""
        name = re.sub(r"\W+", "_", wanted).strip("_") or "layer"
        name = f"n{name}" if name[0].isdigit() else name
        numbered = chain([name], (f"{name}_{number}" for number in count(2)))
        return next(
            one for one in numbered if one not in self.layers and one not in self.held and not hasattr(_EMPTY, one)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """A ``node`` being translated into the network that ``made`` holds."""

    node: Node
    made: Construction

    @property
    def source(self) -> OnnxSource:
        """The file."""
        return self.made.source

    def refused(self, what: str) -> OperatorError:
        """Return the error for a node with ``what`` that no translator can express."""
        message = f"Expected operators that a network can be made of, got {self.node.shown} with {what}"
        return OperatorError(f"{message}: {ADVICE}")

    def attribute(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - any type that an attribute has
        """Return an attribute of the node."""
        return self.node.attributes.get(name, default)

    def has(self, index: int) -> bool:
        """Return whether the node has this input."""
        return index < len(self.node.inputs) and bool(self.node.inputs[index])

    def sizes(self, index: int = 0) -> tuple[Size, ...]:
        """Return the sizes of an input."""
        return self.source.sizes[self.node.inputs[index]]

    def made_sizes(self, index: int = 0) -> tuple[Size, ...]:
        """Return the sizes of an output."""
        return self.source.sizes[self.node.outputs[index]]

    def counts(self, index: int = 0) -> tuple[int, ...]:
        """Return the sizes of an input for one row."""
        return tuple(size.count for size in self.sizes(index))

    def axis(self, default: int = 0, name: str = "axis") -> int:
        """Return an attribute that names an axis of the first input, counted from the front."""
        axis = int(self.attribute(name, default))
        return axis + len(self.sizes()) if axis < 0 else axis

    def constant(self, index: int) -> Constant | None:
        """Return an input if it is constant, None if it is computed or absent."""
        return self.source.constants.get(self.node.inputs[index]) if self.has(index) else None

    def static(self, index: int, attribute: str = "") -> Array | None:
        """Return a setting of the operator: a constant input, or ``attribute`` in earlier opsets; None if absent.

        Raises:
            OperatorError: If it is computed from the input.
        """
        if not self.has(index):
            given = self.node.attributes.get(attribute)
            return None if given is None else np.asarray(given)
        constant = self.constant(index)
        if constant is None or constant.axis >= 0:
            raise self.refused(f"input {self.node.inputs[index]!r} that changes from row to row")
        return constant.value

    def integers(self, index: int, attribute: str = "") -> list[int] | None:
        """Return ``static`` as a list of integers."""
        found = self.static(index, attribute)
        return None if found is None else [int(value) for value in np.atleast_1d(found)]

    def number(self, index: int, attribute: str = "", default: float | None = None) -> float | None:
        """Return ``static`` as one number.

        Raises:
            OperatorError: If it has several elements, or is computed from the input.
        """
        found = self.static(index, attribute)
        if found is None:
            return default
        if found.size != 1:
            raise self.refused(f"{found.size} values where one is expected")
        return float(found.reshape(()))

    def weight(self, index: int, form: str = "", change: Change | None = None) -> nn.Parameter:
        """Return a constant float input as a parameter; the same input in the same ``form`` is the same parameter.

        ``change`` brings it into the form that torch's layer has.

        Raises:
            OperatorError: If it is computed from the input, holds no floats, or is not finite.
        """
        name = self.node.inputs[index]
        if (name, form) not in self.made.parameters:
            constant = self.constant(index)
            if constant is None or constant.axis >= 0 or not constant.is_float:
                raise self.refused(f"weights {name!r} that are no constant floats")
            value = np.asarray(constant.value, np.float32)
            if not np.isfinite(value).all():
                raise self.refused(f"infinity or NaN in the constant {name!r}")
            value = np.array(value if change is None else change(value), np.float32, order="C")
            self.made.parameters[name, form] = self._parameter(name, value)
            self.made.read.add(name)
        return self.made.parameters[name, form]

    def _parameter(self, name: str, value: Array) -> nn.Parameter:
        """Return a parameter of ``value``: that of the constant ``name`` in another form, if it is the same.

        Exporters write equal tensors once, so that a bias may be a scale elsewhere.
        """
        others = [made for (other, _), made in self.made.parameters.items() if other == name]
        same = next((one for one in others if np.array_equal(one.detach().numpy(), value)), None)
        return nn.Parameter(torch.from_numpy(value)) if same is None else same

    def buffer(self, index: int) -> torch.Tensor:
        """Return a constant float input that is kept and not trained: the statistics of a norm."""
        parameter = self.weight(index, "statistics")
        return parameter.detach().clone()

    def operand(self, index: int = 0) -> Operand:
        """Return an input for a call: where it is computed, a parameter, or the number that a single element is.

        Raises:
            OperatorError: If it is a constant that is not finite.
        """
        name = self.node.inputs[index]
        constant = self.constant(index)
        if constant is None:
            return self._computed(name)
        value = constant.value
        if value.size == 1 and constant.axis < 0 and self._adds_no_axis(index):
            return value.reshape(()).item()  # type: ignore[no-any-return]
        return self.tensor(index)

    def _computed(self, name: str) -> Value:
        if name not in self.made.places:
            raise self.refused(f"input {name!r} that is computed from the number of rows")
        return self.made.places[name]

    def _adds_no_axis(self, index: int) -> bool:
        """Return whether another input has the rank of the result, so that this one need not be a tensor."""
        others = (
            len(self.sizes(other)) for other in range(len(self.node.inputs)) if other != index and self.has(other)
        )
        return max(others, default=0) == len(self.made_sizes())

    def tensor(self, index: int = 0) -> Value:
        """Return an input for a call that takes no number: where it is computed, or a parameter or buffer."""
        name, constant = self.node.inputs[index], self.constant(index)
        if constant is None or name in self.made.places:
            return self._computed(name)
        if constant.is_float:
            row = self._row(index, constant)
        else:
            row = self.hold(name, torch.from_numpy(np.array(constant.value, order="C")))
        if constant.axis >= 0:
            sizes = [RowCount() if axis == constant.axis else -1 for axis in range(constant.value.ndim)]
            self.made.places[name] = self.run(expanded, row, sizes)
        else:
            self.made.places[name] = row
        return self.made.places[name]

    def _row(self, index: int, constant: Constant) -> HeldTensor:
        name = self.node.inputs[index]
        value = np.asarray(constant.value, np.float32)
        if not np.isfinite(value).all():
            raise self.refused(f"infinity or NaN in the constant {name!r}")
        if (name, "") not in self.made.parameters:
            self.made.parameters[name, ""] = self._parameter(name, np.array(value, order="C"))
        self.made.read.add(name)
        return self.hold(name, self.made.parameters[name, ""])

    def hold(self, wanted: str, value: torch.Tensor) -> HeldTensor:
        """Register a parameter or buffer under a name like ``wanted``."""
        name = self.made.unused(f"constant_{wanted.removeprefix(_EXPORTED)}")
        self.made.held[name] = value
        return HeldTensor(name)

    def run(self, function: Callable[..., Any], *args: Any) -> Slot:  # noqa: ANN401 - whatever the function takes
        """Add a call of ``function``, and return where its result is."""
        return self.made.add(args, function=function)

    def layer(self, module: nn.Module, *args: Value) -> Slot:
        """Add a call of a layer without weights."""
        return self.made.add(args, layer=self._registered(module))

    def weighted(self, kind: str, make: Callable[[], nn.Module], *args: Any) -> Slot:  # noqa: ANN401 - of a layer
        """Add a call of the layer that ``make`` returns, or of that of an earlier node with the same weights.

        ``kind`` tells apart layers that one node has.
        """
        names = tuple(name for index, name in enumerate(self.node.inputs) if self.constant(index) is not None)
        key = (kind, self.node.operator, names, repr(sorted(self.node.attributes.items())))
        if key not in self.made.shared:
            self.made.shared[key] = self._registered(make())
        return self.made.add(args, layer=self.made.shared[key])

    def _registered(self, module: nn.Module) -> str:
        """Return the name under which ``module`` is registered: that of the layer it was exported from, if known."""
        weights = [name for name in self.node.inputs if name in self.source.weights and "." in name]
        exported = weights and not weights[0].startswith(_EXPORTED)
        path = [part for part in self.node.name.split("/") if part]
        wanted = weights[0].rpartition(".")[0] if exported else ".".join(path[:-1] if len(path) > 1 else path)
        name = self.made.unused(wanted)
        self.made.layers[name] = module
        return name


def expanded(x: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Return ``x`` repeated to ``sizes``; -1 keeps one."""
    return x.expand(*sizes)


Translator: TypeAlias = Callable[[Operation], Operand | Sequence[Operand]]
"""Adds the calls of an operation, and returns where its outputs are."""
Table: TypeAlias = Mapping[str, Translator]
