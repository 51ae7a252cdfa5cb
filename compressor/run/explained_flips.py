"""The stage that explains flips: saliency of both models on the flipped inputs, cached by its inputs.

Decides the inputs of its cache key. ``saliency`` computes the maps.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compressor.cache import Stage
from compressor.closure import plugin
from compressor.data._table import Table
from compressor.measurement import predictions
from compressor.measurement.predictions import Candidate
from compressor.measurement.saliency import Explained, Flip, Predict, saliency
from compressor.run.stages import Run, table_digest, versions
from wire.canonical import canonical_bytes, sha256_hex
from wire.codec import to_document

Floats = NDArray[np.float32]

_PATCHES = 6  # along the longer side: 50 inputs per picture, so that twelve flips take about a second


def explained(
    run: Run, found: Sequence[Flip], rows: Table, before: Candidate, after: Candidate
) -> tuple[Explained, ...]:
    """Return the flips ``found`` with the saliency of ``before`` and ``after``.

    ``rows`` are their inputs, one per flip and in their order.

    Raises:
        MeasureError: If a model can't be run, or its outputs are not finite.
        PackageError: If the result can't be stored.
    """
    inputs = {
        "before": sha256_hex(before.artifact), "after": sha256_hex(after.artifact), "flips": repr(tuple(found)),
        "manifests": sha256_hex(canonical_bytes([to_document(before.manifest), to_document(after.manifest)])),
        "data": table_digest(rows), "patches": str(_PATCHES), **versions("numpy", "scipy", "pillow"),
    }  # fmt: skip

    def make() -> bytes:
        said = _predict(before), _predict(after)
        maps: list[Floats] = []
        with run.progress.stage("explain", max(len(found), 1), "flip") as stage:
            for flip, given in zip(found, run.inputs(rows) if len(found) else (), strict=True):
                maps += [
                    saliency(predict, given, answer, patches=_PATCHES)
                    for predict, answer in zip(said, (flip.before, flip.after), strict=True)
                ]
                stage.advance()
        return _pack(maps)

    runtimes = sorted({before.manifest.runtime, after.manifest.runtime})
    stage = Stage(
        name="explain", inputs=inputs, make=make, uses=tuple(plugin("edge_agent.runtimes", name) for name in runtimes)
    )
    kept = _unpack(run.cache.result(stage).data)
    return tuple(Explained(flip, *pair) for flip, pair in zip(found, kept, strict=True))


def _predict(candidate: Candidate) -> Predict:
    """Return a function from inputs float32 (N, C, H, W) to logits (N, classes)."""
    last = candidate.manifest.preprocessing.layout == "NHWC"

    def said(inputs: Floats) -> Floats:
        given = np.ascontiguousarray(inputs.transpose(0, 2, 3, 1)) if last else inputs
        return predictions.predict(candidate, given).logits

    return said


def _pack(maps: Sequence[Floats]) -> bytes:
    """Return the bytes of 2 N maps, float32 (H, W) of one size: for each flip before, then after."""
    buffer = io.BytesIO()
    stacked = np.stack(maps).reshape(-1, 2, *maps[0].shape) if maps else np.zeros((0, 2, 1, 1), np.float32)
    np.lib.format.write_array(buffer, stacked, allow_pickle=False)
    return buffer.getvalue()


def _unpack(data: bytes) -> Floats:
    kept: Floats = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    return kept
