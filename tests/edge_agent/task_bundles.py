"""Bundles of small ONNX models, one of each task, whose outputs are constants: answers are known in advance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edge_agent import decoders, tasks
from edge_agent.inference import drift_counters
from tests.edge_agent.inference.conftest import MANIFEST, SIDE, golden_npz
from wire.bundle import build_bundle
from wire.canonical import sha256_hex
from wire.manifest import Manifest, TensorSpec
from wire.reference import Context, Reference, write_reference

_GRID = np.full((6, 2, 2), -9.0)
_GRID[0, 0, 0], _GRID[1, 1, 1] = np.log(0.9 / 0.1), np.log(0.6 / 0.4)
_GRID[2:4], _GRID[4:] = 0.0, 2.0
"""Centres: class a with .9 in the upper left cell, b with .6 in the lower right one, each as large as a cell."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a model says: ``outputs``, without the batch. ``number``: the fitted one of its reference."""

    outputs: Sequence[float] | np.ndarray
    number: float = 1.0
    labels: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = ()
    decoder: str = ""
    smoothing: str = ""
    schema: int = 3
    pre: Mapping[str, object] = field(default_factory=dict)
    """Changes of the preprocessing."""


KNOWN = {
    "classification": Known(outputs=[0.5, 2.0, -1.0], labels=("a", "b", "c"), schema=1),
    "regression": Known(outputs=[412.3, -0.1], values=("power_w", "flow"), schema=1),
    "detection": Known(outputs=_GRID, number=0.5, labels=("a", "b"), decoder="centres", schema=6),
    "multi_label": Known(outputs=[0.5, 2.0, -1.0], labels=("a", "b", "c"), thresholds=(0.5, 0.9, 0.2)),
    "anomaly": Known(
        outputs=np.zeros(SIDE * SIDE), number=0.5, labels=("normal", "anomaly"), decoder="residual", schema=6
    ),
    "stream_events": Known(outputs=[0.0, 3.0], number=0.6, labels=("background", "bell"), smoothing="events", schema=4),
}


def _onnx(outputs: np.ndarray) -> bytes:
    """Return a model that gives ``outputs`` for every picture: zero weights and a bias."""
    shape = [-1, *outputs.shape]
    parts = {
        "w": np.zeros((SIDE * SIDE, outputs.size), np.float32),
        "b": outputs.reshape(-1).astype(np.float32),
        "shape": np.array(shape, np.int64),
    }
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["row"]),
        helper.make_node("Reshape", ["row", "shape"], ["logits"]),
    ]
    spec = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "known",
        [spec("input", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])],
        [spec("logits", TensorProto.FLOAT, ["N", *outputs.shape])],
        [numpy_helper.from_array(value, name) for name, value in parts.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def bundle_of(task: str, folder: Path, **changes: object) -> Path:
    """Write the bundle of ``task`` into ``folder`` and return its path; ``changes``: of what is ``KNOWN``."""
    known = replace(KNOWN[task], **changes)  # type: ignore[arg-type]
    outputs = np.asarray(known.outputs, np.float32)
    artifact = _onnx(outputs)
    manifest: Manifest = replace(
        MANIFEST,
        schema=known.schema,
        model=task,
        labels=known.labels,
        values=known.values,
        task="" if known.schema == 1 else task,
        thresholds=known.thresholds,
        decoder=known.decoder,
        decoder_options=decoders.complete(known.decoder, {}) if known.decoder else {},
        smoothing=known.smoothing,
        smoothing_options={"window": 1.0} if known.smoothing else {},
        outputs=(TensorSpec(name="logits", shape=(-1, *outputs.shape)),),
        preprocessing=replace(MANIFEST.preprocessing, **known.pre),
        artifact_sha256=sha256_hex(artifact),
    )
    made = tasks.make(task, tasks.outputs_of(manifest), known.thresholds)
    specs = drift_counters.stream_specs(made, has_embedding=False)
    edges = tuple(float(np.float32(value)) for value in np.linspace(0, 1, 15))
    table = (1,) + (0,) * (made.classes * 10 - 1) if made.classes else ()
    reference = Reference(
        artifact_sha256=sha256_hex(artifact),
        streams=specs,
        contexts=(Context(n=1, n_effective=1, counts=(0,) * 16 * len(specs)),),
        classes=made.classes,
        confidence_bins=10,
        table_right=table,
        table_seen=table,
        edges=(edges,) * len(specs),
        temperature=known.number,
    )
    entries = {"model.onnx": artifact, "reference.bin": write_reference(reference)}
    entries["golden.npz"] = golden_npz(manifest, artifact)
    path = folder / f"{task}-1.tfb"
    path.write_bytes(build_bundle(manifest, entries))
    return path
