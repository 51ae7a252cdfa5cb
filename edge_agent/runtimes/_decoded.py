"""A runtime whose first output is what a decoder makes of it: boxes, or scores against the input."""

from __future__ import annotations

import numpy as np

from edge_agent.decoders import Decoder, Scorer, decoded, is_scorer
from edge_agent.runtimes._base import Array, Runtime, dequantize
from wire.manifest import Manifest

_BATCHED = 3


class Decoded:
    """Runs a model and decodes its outputs; the decoder's time counts as the run's."""

    def __init__(self, runtime: Runtime, decoder: Decoder | Scorer, manifest: Manifest) -> None:
        """Use both; boxes in a list without an axis for the input, (D, 4), are computed input by input."""
        self._runtime, self._decoder, self._given = runtime, decoder, manifest.inputs[0]
        self._alone = not is_scorer(decoder) and len(manifest.outputs[0].shape) < _BATCHED

    def run(self, batch: Array) -> tuple[Array, ...]:
        """Return boxes, float32 (N, 6 * K), or scores, and the model's further outputs, if these have an axis for N.

        Raises:
            DecoderError: If the outputs don't fit the decoder.
            InputShapeError: If ``batch`` has another shape or type than the manifest's input.
            RuntimeSeamError: If the runtime itself fails.
        """
        if self._alone:
            return (np.concatenate([decoded(self._decoder, row, self._runtime.run(row[None])) for row in batch]),)
        outputs = self._runtime.run(batch)
        inputs = batch if batch.dtype == "float32" else dequantize(batch, self._given)
        return (decoded(self._decoder, inputs, outputs), *outputs[1:])

    def close(self) -> None:
        """Release the model's memory; calling ``run`` afterwards is an error."""
        self._runtime.close()
