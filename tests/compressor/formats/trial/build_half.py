"""The build host's half of the trial runtime: exports two linear layers, and rounds their weights to int8."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from compressor.errors import QuantizeError
from compressor.formats import Batches, ModelFormat, Ranges
from compressor.steps.quantize import Settings


class Format(ModelFormat):
    """npz; ``format = "zip"`` packs it."""

    title = "npz"
    modules = ("numpy",)

    def export(self, network: Any, channels: int, height: int, width: int) -> bytes:  # noqa: ANN401 - its own class
        """Return the weights of ``network``, the first layer's turned to NHWC."""
        arrays = {name: value.detach().numpy() for name, value in network.state_dict().items()}
        first = arrays["first.weight"].reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
        one = np.ones(1, np.float32)
        return written(
            w0=first.reshape(len(first), -1), b0=arrays["first.bias"], s0=one,
            w1=arrays["head.weight"], b1=arrays["head.bias"], s1=one,
        )  # fmt: skip

    def saved_as(self, model: bytes, kind: str) -> bytes:
        """Return the same arrays, packed."""
        assert kind == "zip"
        return written(packed=True, **read(model))

    def schemes(self) -> tuple[str, ...]:
        """Return what ``quantize`` does."""
        return ("none", "weight_int8")

    def reads(self, scheme: str) -> frozenset[str]:
        """Return nothing: it has no settings."""
        del scheme
        return frozenset()

    def quantize(self, model: bytes, batches: Batches, settings: Settings, ranges: Ranges | None) -> bytes:
        """Return ``model`` with weights of int8."""
        if settings.scheme != "weight_int8":
            return super().quantize(model, batches, settings, ranges)
        arrays = read(model)
        for i in (0, 1):
            scale = np.float32(np.abs(arrays[f"w{i}"]).max() / 127)
            arrays |= {f"w{i}": np.rint(arrays[f"w{i}"] / scale).astype(np.int8), f"s{i}": scale.reshape(1)}
        return written(**arrays)

    def weights(self, model: bytes) -> Iterator[tuple[str, int, bool]]:
        """Yield both matrices."""
        for name, array in read(model).items():
            if array.ndim > 1:
                yield name, math.prod(array.shape), array.dtype == np.float32


def written(*, packed: bool = False, **arrays: np.ndarray) -> bytes:
    """Return the file of ``arrays``; no time of its making is in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as file:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            file.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue(), zipfile.ZIP_DEFLATED if packed else None)
    return buffer.getvalue()


def read(model: bytes) -> dict[str, Any]:
    """Return the arrays of a file."""
    try:
        with np.load(io.BytesIO(model), allow_pickle=False) as held:
            return {name: held[name] for name in held.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise QuantizeError(f"Expected an npz file, got: {error}") from error
