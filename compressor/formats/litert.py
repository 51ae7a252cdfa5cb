"""TFLite files for LiteRT.

Decides which of ``compressor.tflite`` makes and reads a file; each is loaded where it is used, because it needs the
extra ``tflite``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.errors import QuantizeError
from compressor.formats._base import WEIGHT_AXES, Batches, FileWords, Floats, ModelFormat, Ranges, Tensors, Weight
from compressor.steps.quantize import Settings

if TYPE_CHECKING:
    from torch import nn

    from compressor.measurement.onnx_graph import GraphFigures


class Format(ModelFormat):
    """TFLite for LiteRT: layout NHWC, a batch of 1, weights of 8 bits whatever ``reduce_range`` says."""

    title = "TFLite"
    modules = ("ai_edge_litert", "litert_torch", "ai_edge_quantizer")
    install = "./scripts/setup tflite, or pip install tinyfleet[tflite]"
    exported_with = ("torch", "litert-torch")
    quantized_with = ("ai-edge-quantizer", "ai-edge-litert")
    made_with = ("torch", "litert-torch", "ai-edge-quantizer")
    model_key = "tflite"
    finished = True
    grid = ("per_channel",)
    instead = {"static_int8": "dynamic_int8", "static_int8_16": "dynamic_int8"}  # noqa: RUF012 - a ClassVar of the base

    def export(self, network: nn.Module, channels: int, height: int, width: int) -> bytes:
        """Return ``network`` as TFLite, converted without TensorFlow."""
        from compressor.export.tflite import export_tflite  # noqa: PLC0415 - loads torch

        return export_tflite(network, channels, height, width)

    def stated(self, model: bytes) -> Tensors:
        """Return the file's own tensors: integers have scales that the device needs."""
        return self.tensors(model)

    def schemes(self) -> tuple[str, ...]:
        """Return the schemes of our TFLite quantizer."""
        from compressor.tflite.quantizing import READS  # noqa: PLC0415 - loads the ONNX calibrator

        return tuple(sorted(READS))

    def reads(self, scheme: str) -> frozenset[str] | None:
        """Return what the TFLite quantizer reads for ``scheme``."""
        from compressor.tflite.quantizing import READS  # noqa: PLC0415 - loads the ONNX calibrator

        return READS.get(scheme)

    def quantize(self, model: bytes, batches: Batches, settings: Settings, ranges: Ranges | None) -> bytes:
        """Return ``model`` quantized with our ranges, or with learned ones."""
        from compressor.tflite.quantizing import quantize_by  # noqa: PLC0415 - loads LiteRT

        return quantize_by(model, batches, settings, ranges=ranges)

    def activations(self, model: bytes, rows: Floats) -> Mapping[str, Floats]:
        """Return the float tensors of a run that keeps them all."""
        from compressor.tflite.quantizing import tensors  # noqa: PLC0415 - loads LiteRT

        return tensors(model, rows)

    def last_layers(self, model: bytes) -> tuple[str, ...]:
        """Return the operators with weights that no other follows."""
        from compressor.tflite.quantizing import last_layers  # noqa: PLC0415 - loads LiteRT

        return last_layers(model)

    def end_layers(self, model: bytes) -> tuple[str, ...]:
        """Return the operators from the last with weights on."""
        from compressor.tflite.quantizing import end_layers  # noqa: PLC0415 - loads LiteRT

        return end_layers(model)

    def weights(self, model: bytes) -> Iterator[Weight]:
        """Yield the constants of all graphs."""
        from compressor.tflite import flatbuffer  # noqa: PLC0415 - loads LiteRT
        from compressor.tflite.packages import required  # noqa: PLC0415 - likewise

        types = required("ai_edge_litert.schema_py_generated").TensorType
        indices = {types.INT32, types.INT64, types.BOOL}
        tree = flatbuffer.read(model, QuantizeError)
        for tensor in (tensor for graph in tree.subgraphs for tensor in graph.tensors):
            data = tree.buffers[tensor.buffer].data
            shape = tensor.shape if tensor.shape is not None else ()
            if data is not None and len(data) and len(shape) >= WEIGHT_AXES and tensor.type not in indices:
                name = tensor.name.decode(errors="replace") if isinstance(tensor.name, bytes) else tensor.name
                yield name, math.prod(int(size) for size in shape), tensor.type == types.FLOAT32

    def run(self, model: bytes, rows: Floats) -> None:
        """Run ``rows`` in LiteRT, which aborts on scales that are not finite; an integer input is quantized."""
        from compressor.tflite.packages import required  # noqa: PLC0415 - loads LiteRT

        interpreter: Any = required("ai_edge_litert.interpreter").Interpreter(model_content=model, num_threads=1)
        interpreter.allocate_tensors()
        entry = interpreter.get_input_details()[0]
        scale, zero_point = entry["quantization"]
        for row in rows:
            given = row[None]
            if scale:
                limits = np.iinfo(entry["dtype"])
                given = np.clip(np.rint(given / scale) + zero_point, limits.min, limits.max)
            interpreter.set_tensor(entry["index"], given.astype(entry["dtype"]))
            interpreter.invoke()

    def figures(self, model: bytes, options: Mapping[str, str], threads: int) -> GraphFigures:
        """Return the figures of the file as it is: LiteRT runs its operators unchanged."""
        from compressor.tflite.graph import inspect  # noqa: PLC0415 - loads LiteRT

        del options, threads
        return inspect(model)

    def tensors(self, model: bytes) -> Tensors:
        """Return the tensors of the first graph, with scales and zero points."""
        from compressor.tflite.contract import contract  # noqa: PLC0415 - loads LiteRT

        return contract(model)

    def words(self, model: bytes) -> FileWords:
        """Return the labels and the normalisation of the file's metadata."""
        from compressor.tflite.metadata import words_of  # noqa: PLC0415 - loads LiteRT

        return words_of(model)
