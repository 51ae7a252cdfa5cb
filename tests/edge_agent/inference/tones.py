"""A release of events that hears two tones, without training: and recordings of tones in silence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edge_agent import front_ends, smoothers
from edge_agent.inference import drift_counters
from edge_agent.streams.recordings import Sound, as_wav
from edge_agent.tasks.stream_events import StreamEvents
from wire.bundle import build_bundle
from wire.canonical import sha256_hex
from wire.manifest import Manifest, Preprocessing, TensorSpec
from wire.reference import Context, Reference, write_reference

RATE, CLIP_S, HOP_S, SIDE, THRESHOLD = 8000, 0.25, 0.1, 8, 0.6
HERTZ = {"low": 300.0, "high": 2500.0}
LABELS = ("background", *HERTZ)
OPTIONS = front_ends.complete(
    "log_mel", {"sample_rate_hz": RATE, "clip_s": CLIP_S, "hop_ms": 31, "mels": SIDE, "low_hz": 100, "ceiling_db": -10}
)
SMOOTHING = {"events": {"window": 2.0, "refractory_ms": 300.0}, "mean": {"window": 2.0}}


def _onnx() -> bytes:
    """Return a linear model: the levels of the lower and of the upper bands against a constant."""
    bands = np.zeros((SIDE, SIDE, len(LABELS)), np.float32)  # rows are frames, columns bands
    bands[:, : SIDE // 2, 1] = bands[:, SIDE // 2 :, 2] = 1.0
    bands[:, : SIDE // 2, 2] = bands[:, SIDE // 2 :, 1] = -1.0
    weights = {"w": bands.reshape(-1, len(LABELS)), "b": np.array([6.0, 0.0, 0.0], np.float32)}
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"]),
    ]
    spec = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "tones", [spec("input", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])],
        [spec("logits", TensorProto.FLOAT, ["N", len(LABELS)])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )


def tones_bundle(path: Path, smoother: str = "events", interval_ms: int = round(1000 * HOP_S)) -> Path:
    """Write the bundle of a release; ``interval_ms`` 0: it was not judged on windows of a stream."""
    artifact, task = _onnx(), StreamEvents(len(LABELS))
    manifest = Manifest(
        model="tones", version=1, target="test", opset=17, labels=LABELS, task="stream_events",
        inputs=(TensorSpec(name="input", shape=(-1, 1, SIDE, SIDE), layout="NCHW"),),
        outputs=(TensorSpec(name="logits", shape=(-1, len(LABELS))),),
        preprocessing=Preprocessing(
            width=SIDE, height=SIDE, colour="grey", front_end="log_mel", front_end_options=OPTIONS
        ),
        smoothing=smoother, smoothing_options=smoothers.complete(smoother, SMOOTHING[smoother]),
        stream_interval_ms=interval_ms,
    )  # fmt: skip
    specs = drift_counters.stream_specs(task, has_embedding=False)
    edges = tuple(float(np.float32(value)) for value in np.linspace(0, 1, 15))
    fixed = {stream.name: stream.edges for stream in task.streams if stream.edges}
    reference = Reference(
        artifact_sha256=sha256_hex(artifact), streams=specs, temperature=float(np.float32(THRESHOLD)),
        contexts=(Context(n=1, n_effective=1, counts=(0,) * 16 * len(specs)),),
        edges=tuple(fixed.get(spec.name) or edges for spec in specs),
    )  # fmt: skip
    files = {"model.onnx": artifact, "reference.bin": write_reference(reference)}
    path.write_bytes(build_bundle(replace(manifest, schema=manifest.needed_schema), files))
    return path


def recording(seconds: float, *tones: tuple[float, float, str], seed: int = 0) -> Sound:
    """Return faint noise with ``tones``: from and to in seconds, and which."""
    rng = np.random.default_rng(seed)
    sound = rng.normal(size=round(seconds * RATE)) * 20
    for start_s, end_s, which in tones:
        rows = slice(round(start_s * RATE), round(end_s * RATE))
        sound[rows] += 12_000 * np.sin(2 * np.pi * HERTZ[which] * np.arange(rows.stop - rows.start) / RATE)
    return np.clip(np.round(sound), -32_768, 32_767).astype(np.int16)


WORDS = ((0.73, 1.21, "low"), (1.55, 1.9, "high"), (2.4, 2.95, "low"), (4.37, 4.8, "high"))
"""Four events within six seconds; read at once, the later ones fall into the refractory time of the first."""


def words(seed: int = 0) -> Sound:
    """Return six seconds with ``WORDS``."""
    return recording(6.13, *WORDS, seed=seed)


def wav(sound: Sound) -> bytes:
    """Return the sound as a file."""
    return as_wav(sound, RATE)
