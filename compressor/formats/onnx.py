"""ONNX files, and onnxruntime's own form of them.

Decides which of the packages below makes and reads a file; each is loaded where it is used.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compressor import quantize
from compressor.clean.given import Given
from compressor.errors import ExportError, QuantizeError
from compressor.export import EMBEDDING, OPSET
from compressor.formats._base import (
    WEIGHT_AXES,
    Batches,
    FileWords,
    Floats,
    Layers,
    ModelFormat,
    Ranges,
    Tensors,
    Weight,
)
from compressor.steps.quantize import Settings

if TYPE_CHECKING:
    from torch import nn

    from compressor.measurement.onnx_graph import GraphFigures

_ORT = "ort"
_STATIC = frozenset({"static_int8", "static_int8_16"})
_ERROR = 3
_ORT_IDENTIFIER = b"ORTM"  # onnxruntime core/flatbuffers/schema/ort.fbs, file_identifier: bytes 4 to 8


class Format(ModelFormat):
    """ONNX for onnxruntime; ``[targets.NAME] format = "ort"``: the form that small devices load without its parser."""

    title = "ONNX"
    modules = ("onnxruntime",)
    install = "pip install tinyfleet[compressor]"
    exported_with = ("torch", "onnx")
    cleaned_with = ("onnx", "onnxruntime", "numpy")
    quantized_with = ("onnx", "onnxruntime", "numpy")
    made_with = ("torch", "onnx")
    opset = OPSET
    model_key = "onnx"
    becomes_network = True
    own_schemes = True
    rescues = True
    compares_layers = True

    def export(self, network: nn.Module, channels: int, height: int, width: int) -> bytes:
        """Return ``network`` as ONNX; opset ``OPSET``, dynamic batch."""
        from compressor.export.onnx import export_onnx  # noqa: PLC0415 - loads torch

        return export_onnx(network, channels, height, width)

    def saved_as(self, model: bytes, kind: str) -> bytes:
        """Return ``model`` in ORT format, which small devices load without a protobuf parser and without an optimiser.

        The graph is optimised up to the level that is valid on every processor (``ORT_ENABLE_EXTENDED``): layouts for
        this host's kernels are excluded.

        Raises:
            ExportError: If ``kind`` is another one, or onnxruntime can't open or write the model.
        """
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime  # noqa: PLC0415 - telemetry must be off before the import

        if kind != _ORT:
            raise ExportError(f"Expected {_ORT!r} or no format of an ONNX target, got {kind!r}: leave it out")
        with tempfile.TemporaryDirectory(prefix="tinyfleet-") as folder:
            path = Path(folder) / "model.ort"
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
            options.optimized_model_filepath = str(path)
            options.log_severity_level = _ERROR
            options.add_session_config_entry("session.save_model_format", "ORT")
            try:
                onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
                return path.read_bytes()
            except Exception as error:  # onnxruntime raises many unrelated classes
                message = f"Expected a model that onnxruntime writes in its own format, got: {str(error)[:300]}"
                raise ExportError(message) from error

    def schemes(self) -> tuple[str, ...]:
        """Return all schemes but those without a kernel."""
        return tuple(name for name in quantize.schemes() if quantize.searched(name).onnx)

    def takes(self, scheme: str) -> bool:
        """Return whether it is one of them, or a person's own."""
        return ":" in scheme or scheme in self.schemes()

    def reads(self, scheme: str) -> frozenset[str] | None:
        """Return what the file of ``scheme`` declares."""
        return quantize.reads(scheme)

    def coarser(self, model: bytes, settings: Settings) -> tuple[str, ...]:
        """Return the names of grouped ConvTranspose layers that a static scheme quantizes."""
        if not settings.per_channel or settings.scheme not in _STATIC:
            return ()
        import onnx  # noqa: PLC0415 - only where a file is read

        from compressor.quantize._qdq import of_one_scale  # noqa: PLC0415 - loads onnxruntime's quantizer

        try:
            found = [node.name or node.output[0] for node in of_one_scale(onnx.load_from_string(model))]
        except Exception as error:  # protobuf's DecodeError derives from Exception alone
            raise QuantizeError(f"Expected an ONNX model to quantize, got {len(model)} bytes: {error}") from error
        return tuple(name for name in found if not any(map(name.startswith, settings.float_layers)))

    def quantize(self, model: bytes, batches: Batches, settings: Settings, ranges: Ranges | None) -> bytes:
        """Return ``model`` after the scheme's own file."""
        return quantize.quantize(model, batches, settings, ranges=ranges)

    def behind_layers(self, model: bytes) -> tuple[str, ...]:
        """Return the names of these nodes in the prepared file."""
        from compressor.quantize._model import behind_layers, prepare  # noqa: PLC0415 - loads onnx and onnxruntime

        return behind_layers(prepare(model))

    def activations(self, model: bytes, rows: Floats) -> Mapping[str, Floats]:
        """Return the tensors of a run without optimisation."""
        from compressor.quantize._learned_ranges import onnx_tensors  # noqa: PLC0415 - loads onnx and onnxruntime

        return onnx_tensors(model, rows)

    def last_layers(self, model: bytes) -> tuple[str, ...]:
        """Return the convolutions and products that no other follows."""
        from compressor.quantize import _joined, _model  # noqa: PLC0415 - loads onnx and onnxruntime

        read = _model.loaded(model)
        named = [layer.name for layer in _model.layers(read)]
        ends = [one.name for one in read.graph.output if one.name != EMBEDDING]
        return _joined.last_layers(_joined.onnx_nodes(read), ends, named)

    def weights(self, model: bytes) -> Iterator[Weight]:
        """Yield initializers and constants, each with the operator that reads it.

        Raises:
            QuantizeError: If it is not an ONNX file.
        """
        import onnx  # noqa: PLC0415 - only where a file is read

        try:
            graph = onnx.load_from_string(model).graph
        except Exception as error:  # protobuf's DecodeError derives from Exception alone
            message = f"Expected an ONNX model from a quantizer, got {len(model)} bytes: {error}"
            raise QuantizeError(message) from error
        constants = [
            (node.output[0], item.t) for node in graph.node if node.op_type == "Constant" for item in node.attribute
        ]
        indices = {onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.BOOL}
        readers = {name: node.op_type for node in reversed(graph.node) for name in node.input}
        for name, tensor in [*((one.name, one) for one in graph.initializer), *constants]:
            if len(tensor.dims) >= WEIGHT_AXES and tensor.data_type not in indices:
                of = f"{name!r} of {readers.get(name, 'no node')}"
                yield of, math.prod(tensor.dims), tensor.data_type == onnx.TensorProto.FLOAT

    def run(self, model: bytes, rows: Floats) -> None:
        """Run ``rows`` in onnxruntime on one thread."""
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime  # noqa: PLC0415 - telemetry must be off before the import

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, _ERROR
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        feed = session.get_inputs()[0]
        size = feed.shape[0] if isinstance(feed.shape[0], int) else 1
        for row in rows:
            session.run(None, {feed.name: np.repeat(row[None], size, axis=0)})

    def figures(self, model: bytes, options: Mapping[str, str], threads: int) -> GraphFigures:
        """Return the figures after onnxruntime's optimiser; those of ORT format are unknown."""
        from compressor.measurement import onnx_graph  # noqa: PLC0415 - loads onnx

        if model[4:8] == _ORT_IDENTIFIER:
            unknown = "Expected an ONNX file to count in, got one in ORT format, whose graph can't be read"
            return onnx_graph.GraphFigures(macs=None, int8_macs_ratio=None, operators={}, unknown=unknown)
        return onnx_graph.inspect(model, options, threads)

    def layers(self, reference: bytes, other: bytes, rows: Floats) -> Layers:
        """Return the paired tensors of two files, both run without optimisation."""
        from compressor.measurement.layers import onnx_layers  # noqa: PLC0415 - loads onnx

        return onnx_layers(reference, other, rows)

    def with_external(self, model: bytes, path: Path) -> bytes:
        """Return the file with its external weights inside."""
        from compressor.clean.external import with_external  # noqa: PLC0415 - loads onnx

        return with_external(model, path)

    def cleaned(self, model: bytes, given: Given) -> tuple[bytes, dict[str, str]]:
        """Return the file after the mends of ``compressor.clean``."""
        from compressor.clean.mending import clean  # noqa: PLC0415 - loads onnx and onnxruntime

        return clean(model, given)

    def words(self, model: bytes) -> FileWords:
        """Return what exporters of detectors and classifiers note."""
        from compressor.formats import _onnx_files as files  # noqa: PLC0415 - loads onnx

        return files.words(model)

    def tensors(self, model: bytes) -> Tensors:
        """Return the tensors of a complete file with operators of known domains."""
        from compressor.formats import _onnx_files as files  # noqa: PLC0415 - loads onnx

        return files.contract(model)

    def with_first(self, model: bytes, output: str) -> bytes:
        """Return the file with ``output`` first: quantizers compare the first output."""
        from compressor.formats import _onnx_files as files  # noqa: PLC0415 - loads onnx

        return files.logits_first(model, output)

    def opset_of(self, model: bytes) -> int:
        """Return the opset of ONNX's own operators."""
        from compressor.formats import _onnx_files as files  # noqa: PLC0415 - loads onnx

        return files.opset(model)

    def fixed_batch(self, model: bytes) -> int:
        """Return the first size of the first input that is not a weight."""
        from compressor.formats import _onnx_files as files  # noqa: PLC0415 - loads onnx

        return files.fixed_batch(model)
