"""The probe: measurements of a bundle on the device before it switches."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edge_agent.inference.probe import ProbeVerdict, judge, probe
from edge_agent.updater.children import ChildProber
from wire.bundle import build_bundle, parse_bundle
from wire.manifest import Budgets
from wire.reference import write_reference


def test_a_good_bundle_passes_in_a_fresh_process(bundle: Callable) -> None:
    """One JSON line with latencies, memory and exact logits; exit code 0."""
    command = [sys.executable, "-m", "edge_agent.inference.probe", str(bundle())]
    result = subprocess.run(command, capture_output=True, timeout=60, check=True)
    verdict = json.loads(result.stdout)
    assert (verdict["ok"], verdict["code"], verdict["flips"], verdict["max_abs"]) == (True, "", 0, 0.0)
    assert 0 < verdict["latency_p50_ms"] <= verdict["latency_p95_ms"]
    assert 10e6 < verdict["peak_memory_bytes"] < 200e6


def test_a_missing_bundle_is_one_coded_line_and_exit_code_1() -> None:
    """No traceback reaches the control process."""
    command = [sys.executable, "-m", "edge_agent.inference.probe", "/nonexistent.tfb"]
    result = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert (result.returncode, json.loads(result.stdout)["code"], result.stderr) == (1, "bundle_invalid", b"")


def test_refuses_logits_that_differ_from_the_golden_ones(bundle: Callable) -> None:
    """A model that computes other outputs here than on the build host is refused."""
    buffer = io.BytesIO()
    np.savez(buffer, inputs=np.zeros((2, 1, 8, 8), np.float32), logits=np.ones((2, 3), np.float32))
    assert probe(bundle(golden_npz=buffer.getvalue())).code == "golden_mismatch"


def test_refuses_golden_vectors_that_are_none(bundle: Callable) -> None:
    """Garbage, pickled objects and missing arrays are a damaged bundle, never run."""
    pickled, partial = io.BytesIO(), io.BytesIO()
    np.savez(pickled, inputs=np.array([{}], object), logits=np.zeros((1, 3)))
    np.savez(partial, inputs=np.zeros((1, 1, 8, 8), np.float32))
    for data in (b"garbage", pickled.getvalue(), partial.getvalue()):
        verdict = probe(bundle(golden_npz=data))
        assert (verdict.ok, verdict.code) == (False, "bundle_invalid")


def test_refuses_an_artifact_that_is_no_model(bundle: Callable, tiny: dict) -> None:
    """A reference that belongs to the bytes does not make them a model."""
    verdict = probe(_with_artifact(bundle(), tiny, b"not a model"))
    assert verdict.code == "bundle_invalid"
    assert "Expected an ONNX model" in verdict.text


def _with_artifact(path: Path, tiny: dict, artifact: bytes) -> Path:
    files = dict(parse_bundle(path.read_bytes()).files)
    files |= {"model.onnx": artifact, "reference.bin": write_reference(tiny["reference"](artifact))}
    path.write_bytes(build_bundle(tiny["manifest"], files))
    return path


def test_budgets_are_limits_and_zero_is_none() -> None:
    """Latency and memory over budget have their own codes."""
    figures = ProbeVerdict(ok=False, latency_p95_ms=5.0, peak_memory_bytes=100)
    assert judge(figures, Budgets()).ok
    assert judge(figures, Budgets(latency_p95_ms=5.0, peak_memory_bytes=100)).ok
    assert judge(figures, Budgets(latency_p95_ms=4.9)).code == "latency_over_budget"
    assert judge(figures, Budgets(peak_memory_bytes=99)).code == "memory_over_budget"
    assert judge(ProbeVerdict(ok=False, max_abs=float("nan")), Budgets()).code == "golden_mismatch"
    assert judge(ProbeVerdict(ok=False, flips=1), Budgets()).code == "golden_mismatch"


def _huge_onnx(artifact: bytes) -> bytes:
    """Return ``artifact`` with a detour through a tensor of 6.4 GB, which the file's size does not show."""
    model = onnx.load_from_string(artifact)
    side = numpy_helper.from_array(np.array([1, 1, 40_000, 40_000], np.int64), "side")
    model.graph.initializer.append(side)
    model.graph.node[-1].output[0] = "small"
    model.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=1),
            helper.make_node("Expand", ["mean", "side"], ["huge"]),
            helper.make_node("ReduceMean", ["huge"], ["one"], keepdims=0),
            helper.make_node("Add", ["small", "one"], ["logits"]),
        ]
    )
    return bytes(model.SerializeToString())


def test_a_model_of_six_gigabytes_is_ended_by_the_ceiling_not_by_the_deadline(bundle: Callable, tiny: dict) -> None:
    """The allocation fails where it happens and is named, long before 60 s are over."""
    huge = _huge_onnx(tiny["onnx"]())
    path = bundle(model_onnx=huge, reference_bin=write_reference(tiny["reference"](huge)))
    result = ChildProber(limit_s=60.0, max_memory_bytes=512 * 1024 * 1024).probe(path)
    assert (result.ok, result.code) == (False, "out_of_memory")
