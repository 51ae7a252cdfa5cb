"""Latency of a network relative to another, in onnxruntime on this host: one thread, one row at a time.

Decides how the ratio is measured. Does not decide how far to prune.
"""

from __future__ import annotations

from torch import nn

from compressor.export.onnx import INPUT_NAME, OUTPUT_NAMES, export_onnx
from compressor.measurement import predictions
from compressor.prune.groups import Shape
from compressor.steps._base import Floats
from wire.manifest import Manifest, TensorSpec


def latency_ratio(network: nn.Module, unpruned: nn.Module, inputs: Floats) -> float:
    """Return the median latency of ``network`` over that of ``unpruned``, both exported to float ONNX.

    They take turns on the same real ``inputs``, float32 (N, C, H, W), so that a busy machine affects both alike.

    Raises:
        ExportError: If one does not export.
        MeasureError: If one can't be run.
    """
    _, channels, height, width = inputs.shape
    candidates = {
        name: _candidate(module, (channels, height, width))
        for name, module in (("pruned", network), ("unpruned", unpruned))
    }
    measured = predictions.latency(candidates, inputs)
    return measured["pruned"].p50_ms / max(measured["unpruned"].p50_ms, 1e-6)


def _candidate(network: nn.Module, shape: Shape) -> predictions.Candidate:
    artifact = export_onnx(network, *shape)
    outputs = tuple(TensorSpec(name=name, shape=(-1, -1)) for name in OUTPUT_NAMES)
    manifest = Manifest(inputs=(TensorSpec(name=INPUT_NAME, shape=(-1, *shape)),), outputs=outputs)
    return predictions.Candidate(manifest, artifact)
