"""What a runtime is: something that runs an artifact on a batch. One runtime is one file beside this one.

A runtime's module has ``load(manifest, artifact, *, threads) -> Runtime``. The folder is the
registry: a new file is a new runtime.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import InputShapeError
from wire.manifest import Manifest, TensorSpec

Array: TypeAlias = "NDArray[Any]"


class Runtime(Protocol):
    """A loaded model. Not safe for use by two threads at once unless a runtime says so."""

    def run(self, batch: Array) -> tuple[Array, ...]:
        """Return the outputs for ``batch``, shape (N, …), in the order of ``manifest.outputs``.

        Raises:
            InputShapeError: If ``batch`` has another shape or type than the manifest's input.
            RuntimeSeamError: If the runtime itself fails.
        """

    def close(self) -> None:
        """Give the model's memory back; calling ``run`` afterwards is an error."""


class RuntimeModule(Protocol):
    """What a file in this folder offers."""

    def load(self, manifest: Manifest, artifact: bytes, *, threads: int) -> Runtime:
        """Return the model in ``artifact``, ready to run."""


def shape_matches(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Return whether ``shape`` is ``expected``, where -1 stands for any size."""
    return len(shape) == len(expected) and all(want in {-1, size} for size, want in zip(shape, expected, strict=True))


def check_batch(batch: Array, spec: TensorSpec) -> None:
    """Refuse a batch that the model's input can't take; the batch dimension is free.

    Raises:
        InputShapeError: If shape or type differ.
    """
    expected = (-1, *spec.shape[1:])
    if not shape_matches(batch.shape, expected) or batch.dtype != np.dtype(spec.dtype):
        wanted = f"{spec.dtype} {expected}"
        message = f"Expected input {spec.name!r} as {wanted}, got {batch.dtype} {batch.shape}: check preprocessing"
        raise InputShapeError(message)
