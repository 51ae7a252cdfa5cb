"""A trial runtime: two layers in an npz file, computed with numpy; weights of int8 have a scale each."""

from __future__ import annotations

import io
import zipfile

import numpy as np

from edge_agent.errors import RuntimeLoadError
from edge_agent.runtimes._base import Array, Runtime, model_input, real_output
from wire.manifest import Manifest

PACKAGES = {"numpy": "numpy"}
FORMATS = {"": "npz", "zip": "packed"}
LAYOUT = "NHWC"


def load(manifest: Manifest, artifact: bytes, *, threads: int) -> Runtime:
    """Return the two layers of ``artifact``.

    Raises:
        RuntimeLoadError: If it is no such file.
    """
    del threads
    try:
        with np.load(io.BytesIO(artifact), allow_pickle=False) as held:
            return Layers(manifest, {name: held[name] for name in held.files})
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise RuntimeLoadError(f"Expected two layers in an npz file, got: {error}") from error


class Layers:
    """The loaded model."""

    def __init__(self, manifest: Manifest, held: dict[str, Array]) -> None:
        """Restore the weights."""
        self._manifest = manifest
        self._weights = [held[f"w{i}"].astype(np.float32) * held[f"s{i}"] for i in (0, 1)]
        self._biases = [held["b0"], held["b1"]]

    def run(self, batch: Array) -> tuple[Array, ...]:
        """Return logits and embedding."""
        rows = model_input(batch, self._manifest.inputs[0]).reshape(len(batch), -1)
        hidden = np.maximum(rows @ self._weights[0].T + self._biases[0], 0)
        both = hidden @ self._weights[1].T + self._biases[1], hidden
        return tuple(real_output(*pair) for pair in zip(both, self._manifest.outputs, strict=False))

    def close(self) -> None:
        """Free nothing."""
