"""A small real ONNX model, its bundle, and a way to talk to a child."""

import io
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edge_agent import runtimes
from edge_agent.inference import drift_counters
from edge_agent.inference.preprocess import to_batch
from edge_agent.pipe_frames import Frame, encode_frame, read_frame
from edge_agent.tasks.classification import Classification
from wire.bundle import build_bundle
from wire.canonical import sha256_hex
from wire.manifest import Budgets, Manifest, Preprocessing, TensorSpec
from wire.reference import Context, Reference, write_reference

CLASSES, SIDE, EMBEDDING = 3, 8, 12
MANIFEST = Manifest(
    model="tiny", version=1, target="test", opset=17, labels=("a", "b", "c"),
    inputs=(TensorSpec(name="input", shape=(-1, 1, SIDE, SIDE), layout="NCHW"),),
    outputs=(TensorSpec(name="logits", shape=(-1, CLASSES)), TensorSpec(name="embedding", shape=(-1, EMBEDDING))),
    preprocessing=Preprocessing(width=SIDE, height=SIDE, colour="grey", mean=(0.5,), std=(0.25,)),
)  # fmt: skip


def tiny_onnx(seed: int = 0) -> bytes:
    """Return flatten, linear, ReLU (embedding), linear (logits)."""
    rng = np.random.default_rng(seed)
    weights = {"w": rng.normal(size=(SIDE * SIDE, EMBEDDING)), "v": rng.normal(size=(EMBEDDING, CLASSES))}
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["linear"]),
        helper.make_node("Relu", ["linear"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "v"], ["logits"]),
    ]
    spec = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "tiny",
        [spec("input", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])],
        [spec("logits", TensorProto.FLOAT, ["N", CLASSES]), spec("embedding", TensorProto.FLOAT, ["N", EMBEDDING])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def some_images(count: int, seed: int = 1) -> list[np.ndarray]:
    """Return random images, uint8 (10, 9, 3)."""
    return list(np.random.default_rng(seed).integers(0, 256, (count, 10, 9, 3), dtype=np.uint8))


def png(image: np.ndarray) -> bytes:
    """Return the image as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def reference_for(artifact: bytes) -> Reference:
    """Return a reference with edges from 0 to 1, for the streams of a model with an embedding."""
    specs = drift_counters.stream_specs(Classification(CLASSES), has_embedding=True)
    rows = np.linalg.qr(np.random.default_rng(2).normal(size=(EMBEDDING, 8)))[0].T
    edges = tuple(float(np.float32(value)) for value in np.linspace(0, 1, 15))
    return Reference(
        artifact_sha256=sha256_hex(artifact),
        streams=specs,
        contexts=(Context(n=1, n_effective=1, counts=(0,) * 16 * len(specs)),),
        classes=CLASSES,
        confidence_bins=10,
        table_right=(*(0,) * 29, 1),  # the one row had a label, and the model was right
        table_seen=(*(0,) * 29, 1),
        edges=(edges,) * len(specs),
        projection_mean=(0.0,) * EMBEDDING,
        projection=tuple(map(tuple, rows.tolist())),
        projection_scale=(1.0,) * 8,
    )


def golden_npz(manifest: Manifest, artifact: bytes, count: int = 4) -> bytes:
    """Return golden vectors made by running the artifact."""
    inputs = to_batch(some_images(count), manifest.preprocessing)
    buffer = io.BytesIO()
    np.savez(buffer, inputs=inputs, logits=runtimes.load(manifest, artifact).run(inputs)[0])
    return buffer.getvalue()


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Path]:
    """Write a bundle of the tiny model; ``files`` replaces entries."""

    def build(
        *,
        version: int = 1,
        budgets: Budgets | None = None,
        decoding: bool = False,
        smoothed: int = 0,
        temperature: float = 1.0,
        **files: bytes,
    ) -> Path:
        artifact = tiny_onnx(version)
        told = {"orientation": "exif", "decode": "reduced"} if decoding else {}
        pre = replace(MANIFEST.preprocessing, **told)
        manifest = replace(
            MANIFEST, schema=pre.schema, version=version, budgets=budgets or Budgets(), preprocessing=pre
        )
        if smoothed:
            manifest = replace(manifest, schema=4, smoothing="mean", smoothing_options={"window": float(smoothed)})
        entries = {
            "model.onnx": artifact,
            "reference.bin": write_reference(replace(reference_for(artifact), temperature=temperature)),
            "golden.npz": golden_npz(manifest, artifact),
        }
        entries |= {name.replace("_", "."): data for name, data in files.items()}
        path = tmp_path / f"tiny-{version}.tfb"
        path.write_bytes(build_bundle(manifest, entries))
        return path

    return build


@dataclass
class ChildProcess:
    """A real child on pipes."""

    process: subprocess.Popen[bytes]
    heard: list[Frame] = field(default_factory=list)

    def tell(self, **header: object) -> None:
        """Send a frame."""
        self.process.stdin.write(encode_frame(header))
        self.process.stdin.flush()

    def until(self, kind: str, wanted: Callable[[Frame], bool] = lambda _: True) -> Frame:
        """Read frames until one is of ``kind`` and ``wanted``; a child that ends first is an error."""
        while (frame := read_frame(self.process.stdout)) is not None:
            self.heard.append(frame)
            if frame.kind == kind and wanted(frame):
                return frame
        raise EOFError(f"the child ended before {kind}: {[(f.kind, dict(f.header)) for f in self.heard][-3:]}")

    def end(self) -> int:
        """Close its stdin, read the rest, return the exit code."""
        self.process.stdin.close()
        while (frame := read_frame(self.process.stdout)) is not None:
            self.heard.append(frame)
        return self.process.wait(20)


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Callable[..., ChildProcess]]:
    """Start children on the folder ``inbox``; killed at the end, and after 60 s in any case."""
    started: list[subprocess.Popen[bytes]] = []

    def start(
        bundle: Path,
        window_ms: int = 200,
        memory_bytes: int = 0,
        run: str = "",
        sinks: object = None,
        api: object = None,
        **settings: object,
    ) -> ChildProcess:
        beat_s = settings.pop("beat_s", 0.1)
        source = {"kind": "directory", "path": str(tmp_path / "inbox"), **settings}
        (tmp_path / "state").mkdir(exist_ok=True)
        arguments = ["--bundle", str(bundle), "--source", json.dumps(source), "--window-ms", str(window_ms)]
        arguments += ["--state", str(tmp_path / "state"), "--memory-bytes", str(memory_bytes), "--run", run]
        arguments += ["--sinks", json.dumps(sinks or {}), "--device", "cam-1", "--site", "north"]
        arguments += ["--api", json.dumps(api)] if api else []
        command = [sys.executable, "-m", "edge_agent.inference.child", *arguments, "--beat-s", str(beat_s)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        guard = threading.Timer(60, process.kill)
        guard.daemon = True
        guard.start()
        return ChildProcess(process)

    yield start
    for process in started:
        process.kill()
        process.wait(10)
        process.stdin.close()
        process.stdout.close()


@pytest.fixture
def drop(tmp_path: Path) -> Callable[..., None]:
    """Put images into the folder ``inbox`` as a camera does: written aside, then renamed."""
    inbox = tmp_path / "inbox"
    inbox.mkdir(exist_ok=True)

    def put(images: dict[str, bytes]) -> None:
        for name, data in images.items():
            (inbox / f".{name}").write_bytes(data)
            (inbox / f".{name}").rename(inbox / name)

    return put


@pytest.fixture
def tiny() -> dict[str, object]:
    """The parts, for tests that build their own."""
    return {"manifest": MANIFEST, "onnx": tiny_onnx, "reference": reference_for, "images": some_images, "png": png}
