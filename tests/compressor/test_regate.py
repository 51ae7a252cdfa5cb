"""Golden vectors compared again, vectors that never agree, and graphs read again in every format."""

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from compressor import formats
from compressor.export.tflite import export_tflite
from compressor.gates.certificate import Certificate, write_certificate
from compressor.gates.evidence import GateRecipe
from compressor.measurement.predictions import Candidate, predict
from compressor.release.package import Golden, write_golden
from compressor.release.regate import agrees, gate_again
from wire.bundle import build_bundle
from wire.manifest import Budgets, Manifest, Preprocessing, TensorSpec

BUDGETS = Budgets(golden_max_abs=0.5, golden_max_flips=1)
SIDE, CLASSES = 4, 2


@pytest.mark.parametrize(
    ("difference", "flips", "expected"), [(0.5, 1, True), (0.6, 0, False), (0.0, 2, False), (math.nan, 0, False)]
)
def test_agrees_only_within_both_budgets(difference: float, flips: int, *, expected: bool) -> None:
    """At the limit is within; a difference that is not a number is not."""
    assert agrees(difference, flips, BUDGETS) is expected


class Linear(nn.Module):
    """One layer, two outputs."""

    def __init__(self) -> None:
        """Make the layer, seeded."""
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(3 * SIDE * SIDE, CLASSES)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (logits, embedding)."""
        embedding = x.flatten(1)
        return self.head(embedding), embedding * 1.0


def float_onnx() -> bytes:
    """Return one matrix product in float32."""
    tensor = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Flatten", ["input"], ["flat"])
    head = onnx.helper.make_node("MatMul", ["flat", "w"], ["logits"])
    weights = np.random.default_rng(0).normal(size=(3 * SIDE * SIDE, CLASSES)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [node, head], "g", [tensor("input", 1, ["n", 3, SIDE, SIDE])], [tensor("logits", 1, ["n", CLASSES])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def int8_bundle(path: Path, artifact: bytes, runtime: str, suffix: str) -> Path:
    """Write a bundle of ``artifact`` whose certificate states that all of it runs in int8."""
    layout, shape = ("NHWC", (SIDE, SIDE, 3)) if runtime == "litert" else ("NCHW", (3, SIDE, SIDE))
    outputs = (
        TensorSpec(name="logits", shape=(-1, CLASSES)),
        TensorSpec(name="embedding", shape=(-1, 3 * SIDE * SIDE)),
    )
    manifest = Manifest(
        model="m", version=1, target="host", runtime=runtime, artifact=f"model.{suffix}",
        opset=17 if runtime == "onnx" else 0, labels=("a", "b"),
        inputs=(TensorSpec(name="input", shape=(-1, *shape), dtype="float32", layout=layout),),
        outputs=outputs if runtime == "litert" else outputs[:1], hardware=("none",),
        preprocessing=Preprocessing(width=SIDE, height=SIDE, layout=layout),
    )  # fmt: skip
    x = np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32)
    golden = Golden(x, predict(Candidate(manifest, artifact), x).logits, np.zeros(3, np.int64))
    rules, figures = (GateRecipe(name="int8_macs_ratio", min=0.95),), {"int8_macs_ratio": 1.0}
    said = Certificate(verdict="pass", model="m", version=1, target="host", rules=rules, figures=figures)
    files = {manifest.artifact: artifact, "golden.npz": write_golden(golden), "gate.json": write_certificate(said)}
    path.write_bytes(build_bundle(manifest, files))
    return path


@pytest.mark.slow
def test_a_tflite_file_that_is_not_int8_fails_when_judged_again(tmp_path: Path) -> None:
    """Its graph is read again, whatever the certificate states."""
    path = int8_bundle(tmp_path / "m.tfb", export_tflite(Linear(), 3, SIDE, SIDE), "litert", "tflite")
    again = gate_again(path)
    assert (again.verdict, again.figures["int8_macs_ratio"]) == ("fail", 0.0)


def test_an_onnx_file_that_is_not_int8_fails_when_judged_again(tmp_path: Path) -> None:
    """As with TFLite."""
    again = gate_again(int8_bundle(tmp_path / "m.tfb", float_onnx(), "onnx", "onnx"))
    assert (again.verdict, again.figures["int8_macs_ratio"]) == ("fail", 0.0)


def test_ort_format_keeps_what_was_read_before_it_was_written(tmp_path: Path) -> None:
    """Its graph can't be read back: size and golden vectors are measured, the share stays as the build host saw it."""
    artifact = formats.named("onnx").saved_as(float_onnx(), "ort")
    again = gate_again(int8_bundle(tmp_path / "m.tfb", artifact, "onnx", "ort"))
    assert (again.verdict, again.figures["size_bytes"]) == ("pass", float(len(artifact)))
