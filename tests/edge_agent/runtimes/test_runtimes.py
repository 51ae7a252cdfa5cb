"""Runtimes: one conformance suite for all that are installed, then onnxruntime's own."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_agent import declarations, runtimes
from edge_agent.errors import InputShapeError, RuntimeLoadError, RuntimeMissingError, RuntimeSeamError
from edge_agent.runtimes import memory
from wire.manifest import Manifest, TensorSpec

MATRIX = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
MANIFEST = Manifest(
    model="m", version=1, runtime="onnx", inputs=(TensorSpec(name="x", shape=(-1, 6)),),
    outputs=(TensorSpec(name="logits", shape=(-1, 3)), TensorSpec(name="embedding", shape=(-1, 6))),
)  # fmt: skip


def _onnx(batch: str | int = "N") -> bytes:
    nodes = [helper.make_node("Relu", ["x"], ["embedding"]), helper.make_node("MatMul", ["embedding", "w"], ["logits"])]
    spec = helper.make_tensor_value_info
    outputs = [spec("embedding", TensorProto.FLOAT, [batch, 6]), spec("logits", TensorProto.FLOAT, [batch, 3])]
    weights = [numpy_helper.from_array(MATRIX, "w")]
    graph = helper.make_graph(nodes, "g", [spec("x", TensorProto.FLOAT, [batch, 6])], outputs, weights)
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString())


def _memory() -> bytes:
    return memory.register("relu", lambda x: (np.maximum(x, 0) @ MATRIX, np.maximum(x, 0)))


def _litert(request: pytest.FixtureRequest) -> bytes:
    convert = request.getfixturevalue("dense_tflite")
    return bytes(convert(MATRIX))


ARTIFACTS: dict[str, Callable[[pytest.FixtureRequest], bytes]] = {
    "onnx": lambda _: _onnx(), "memory": lambda _: _memory(), "litert": _litert,
}  # fmt: skip


@pytest.fixture(params=[one.name for one in declarations.runtimes() if one.installed and one.name in ARTIFACTS])
def runtime(request: pytest.FixtureRequest) -> runtimes.Runtime:
    """The same small model in each runtime."""
    return runtimes.load(replace(MANIFEST, runtime=request.param), ARTIFACTS[request.param](request))


def test_a_runtime_leaves_the_arithmetic_of_its_program_as_it_was(runtime: runtimes.Runtime) -> None:
    """A processor mode that treats denormal numbers as zero would affect all later code of the thread."""
    smallest = np.nextafter(0.0, 1.0)
    runtime.run(np.ones((2, 6), np.float32))
    assert smallest * 1.0 > 0.0


def test_onnxruntime_itself_works_without_denormals() -> None:
    """They make an untrained or saturated network seven times slower."""
    opened = runtimes.load(replace(MANIFEST, runtime="onnx"), _onnx())
    assert not opened.run(np.full((1, 6), 1e-39, np.float32))[0].any()


def test_every_runtime_of_the_folder_has_a_model_in_this_suite() -> None:
    """A new runtime file without a model here is not tested; this test then fails."""
    assert {one.name for one in declarations.runtimes()} == set(ARTIFACTS)


def test_conformance_gives_the_outputs_in_the_manifests_order(runtime: runtimes.Runtime) -> None:
    """Logits, then embedding, for one row and for many, whatever the order in the model."""
    for count in (1, 5):
        batch = np.random.default_rng(count).normal(size=(count, 6)).astype(np.float32)
        logits, embedding = runtime.run(batch)
        assert np.array_equal(embedding, np.maximum(batch, 0))
        assert np.allclose(logits, np.maximum(batch, 0) @ MATRIX, atol=1e-5)


@pytest.mark.parametrize("batch", [np.zeros((1, 7), np.float32), np.zeros(6, np.float32), np.zeros((1, 6))])
def test_conformance_refuses_another_shape_or_type(runtime: runtimes.Runtime, batch: np.ndarray) -> None:
    """The error names the expected and the actual value."""
    with pytest.raises(InputShapeError, match=r"Expected input 'x' as float32 \(-1, 6\), got float"):
        runtime.run(batch)


def test_conformance_a_closed_runtime_says_so(runtime: runtimes.Runtime) -> None:
    """After ``close`` a run is an error of the seam, not a crash."""
    runtime.close()
    with pytest.raises(RuntimeSeamError, match="got a closed one"):
        runtime.run(np.zeros((1, 6), np.float32))


def test_an_unknown_runtime_is_missing_by_name() -> None:
    """A name that is not a file of the folder causes no import."""
    for name in ("tvm", "_base", "os", "../onnx", ""):
        with pytest.raises(RuntimeMissingError, match="Expected a runtime of litert, memory, onnx") as raised:
            runtimes.load(replace(MANIFEST, runtime=name), b"")
        assert raised.value.code == "runtime_missing"


def test_a_missing_package_is_named() -> None:
    """Without onnxruntime the error names the package to install."""
    code = "import sys\nsys.modules['onnxruntime'] = None\nfrom edge_agent import runtimes\n"
    code += "from wire.manifest import Manifest\ntry: runtimes.load(Manifest(), b'')\n"
    code += "except Exception as error: print(error.code, error)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.startswith("runtime_missing Expected onnxruntime")
    assert "pip install tinyfleet[onnx]" in result.stdout


def test_memory_runs_only_what_this_process_registered() -> None:
    """An artifact is a name, never code."""
    with pytest.raises(RuntimeLoadError, match="Expected the name of a registered function"):
        runtimes.load(replace(MANIFEST, runtime="memory"), b"os.system")


@pytest.mark.parametrize("artifact", [b"", b"garbage", _onnx()[:-40]])
def test_onnx_refuses_bytes_that_are_no_model(artifact: bytes) -> None:
    """Empty, garbage and cut off are one coded error."""
    with pytest.raises(RuntimeLoadError, match="Expected an ONNX model") as raised:
        runtimes.load(MANIFEST, artifact)
    assert raised.value.code == "bundle_invalid"


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": (TensorSpec(name="x", shape=(-1, 7)),)},
        {"inputs": (TensorSpec(name="y", shape=(-1, 6)),)},
        {"inputs": ()},
        {"inputs": (TensorSpec(name="x", shape=(-1, 6), dtype="uint8"),)},
        {"outputs": (TensorSpec(name="probabilities", shape=(-1, 3)),)},
    ],
)
def test_onnx_refuses_a_model_that_is_not_its_manifests(change: dict) -> None:
    """Another input shape, name or type, or a missing output, is reported when the model is loaded."""
    with pytest.raises(RuntimeLoadError, match="Expected"):
        runtimes.load(replace(MANIFEST, **change), _onnx())


def test_onnx_serves_any_batch_of_a_model_of_fixed_batch() -> None:
    """A model exported for two rows at a time runs one, two and five."""
    runtime = runtimes.load(MANIFEST, _onnx(2))
    for count in (1, 2, 5):
        batch = np.random.default_rng(count).normal(size=(count, 6)).astype(np.float32)
        assert np.allclose(runtime.run(batch)[0], np.maximum(batch, 0) @ MATRIX, atol=1e-5)


def test_onnx_phones_nobody(tmp_path: Path) -> None:
    """After a run there is no collector thread and no file in the home folder."""
    model = tmp_path / "m.onnx"
    model.write_bytes(_onnx())
    home = tmp_path / "home"
    home.mkdir()
    code = """
import os, pathlib, time, sys, numpy as np
from edge_agent import declarations, runtimes
from wire.manifest import Manifest, TensorSpec
manifest = Manifest(inputs=(TensorSpec(name="x", shape=(-1, 6)),), outputs=(TensorSpec(name="logits", shape=(-1, 3)),))
runtime = runtimes.load(manifest, pathlib.Path(sys.argv[1]).read_bytes())
runtime.run(np.zeros((1, 6), np.float32))
time.sleep(1)
print(sorted(pathlib.Path(f"/proc/self/task/{t}/comm").read_text().strip() for t in os.listdir("/proc/self/task")))
"""
    names = {"HOME": str(home), "XDG_CACHE_HOME": str(home), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ORT_")} | names
    command = [sys.executable, "-c", code, str(model)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment)
    assert len(result.stdout.split(",")) == 1, result.stdout
    assert not list(home.rglob("*"))
