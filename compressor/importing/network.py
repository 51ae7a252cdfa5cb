"""The network that an ONNX file becomes: an ordinary ``torch.nn.Module`` that runs a list of calls.

Its layers are torch's own, so that tracing by torch.fx, pruning, quantization-aware training and both exporters meet
what they know. The list holds functions of torch and of this package, never code from the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Slot:
    """A value that an earlier call made; 0 is the network's input."""

    index: int


@dataclass(frozen=True, slots=True)
class HeldTensor:
    """A parameter or buffer of the network, by name."""

    name: str


@dataclass(frozen=True, slots=True)
class RowCount:
    """The number of rows of the network's input."""


Value: TypeAlias = Slot | HeldTensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One step: ``layer`` (the name of a module) or ``function`` applied to ``args``; the result is value ``slot``.

    ``frees``: the values that no later call reads.
    """

    slot: int
    args: tuple[Any, ...]
    layer: str = ""
    function: Callable[..., Any] | None = None
    frees: tuple[int, ...] = ()


class ImportedNetwork(nn.Module):
    """Runs ``calls`` on float32 (N, C, H, W); returns one tensor, or a tuple if there are several ``outputs``."""

    def __init__(
        self,
        calls: Iterable[Call],
        outputs: Iterable[Value],
        layers: Mapping[str, nn.Module],
        held: Mapping[str, nn.Parameter | torch.Tensor],
    ) -> None:
        """Store the calls; register ``layers``, and ``held`` as parameters or buffers."""
        super().__init__()
        self._calls = tuple(calls)
        self._outputs = tuple(outputs)
        for name, layer in layers.items():
            self.add_module(name, layer)
        for name, value in held.items():
            if isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
            else:
                self.register_buffer(name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Return the outputs for ``x``, float32 (N, C, H, W)."""
        values: dict[int, Any] = {0: x}
        for call in self._calls:
            self._called(call, values, x)
        found = tuple(self._given(values, output, x) for output in self._outputs)
        return found[0] if len(found) == 1 else found

    def steps(self, x: torch.Tensor, known: Callable[[int, Any], Any]) -> Iterator[tuple[Call, Callable[[], Any]]]:
        """Yield every call with what computes its value for ``x``, to compare them one by one with another run.

        Each must be computed before the next is asked for. Later calls read ``known(slot, value)`` in the place of a
        value, that of the other run: each call is then compared on equal arguments.
        """
        values: dict[int, Any] = {0: x}
        for call in self._calls:
            yield call, partial(self._called, call, values, x)
            values[call.slot] = known(call.slot, values[call.slot])

    def _called(self, call: Call, values: dict[int, Any], x: torch.Tensor) -> Any:  # noqa: ANN401 - a layer may return tuples
        """Return the value of ``call``, put it among ``values``, and drop those that nothing reads later."""
        args = [self._given(values, item, x) for item in call.args]
        function: Callable[..., Any] | None = getattr(self, call.layer) if call.layer else call.function
        value = values[call.slot] = function(*args) if function is not None else None
        for index in call.frees:
            del values[index]
        return value

    def _given(self, values: Mapping[int, Any], item: Any, x: torch.Tensor) -> Any:  # noqa: ANN401 - any argument
        if isinstance(item, Slot):
            return values[item.index]
        if isinstance(item, HeldTensor):
            return getattr(self, item.name)
        if isinstance(item, RowCount):
            return x.shape[0]
        return [self._given(values, one, x) for one in item] if isinstance(item, list) else item
