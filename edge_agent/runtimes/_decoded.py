"""A runtime whose first output is the boxes of a decoder."""

from __future__ import annotations

from edge_agent.decoders import Decoder
from edge_agent.runtimes._base import Array, Runtime


class Decoded:
    """Runs a model and decodes its outputs; the decoder's time counts as the run's."""

    def __init__(self, runtime: Runtime, decoder: Decoder) -> None:
        """Use both."""
        self._runtime, self._decoder = runtime, decoder

    def run(self, batch: Array) -> tuple[Array, ...]:
        """Return the boxes, float32 (N, 6 * K), and the model's further outputs.

        Raises:
            DecoderError: If the outputs don't fit the decoder.
            InputShapeError: If ``batch`` has another shape or type than the manifest's input.
            RuntimeSeamError: If the runtime itself fails.
        """
        outputs = self._runtime.run(batch)
        return (self._decoder.boxes(outputs), *outputs[1:])

    def close(self) -> None:
        """Release the model's memory; calling ``run`` afterwards is an error."""
        self._runtime.close()
