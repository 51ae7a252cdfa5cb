"""A model file that does not fit, as a person meets it: one coded line, exit code 4, no bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from compressor import networks
from compressor.cli import main
from compressor.errors import MeasureError
from compressor.export.onnx import export_onnx
from compressor.tflite import flatbuffer

pytestmark = pytest.mark.slow
RECIPE = Path(__file__).with_name("pipeline_recipe.toml")
QUANTIZED = '[[compress]]\nstep = "quantize"\nreduce_range = true\n'
FLOAT_RECIPE = RECIPE.read_text().replace(QUANTIZED, "").replace("int8_macs_ratio = {min = 0.9}", "")
FLOAT_RECIPE = "compress = []\n" + FLOAT_RECIPE
TFLITE_RECIPE = FLOAT_RECIPE.replace('runtime = "onnx"', 'runtime = "litert"')
Run = Callable[..., tuple[int, str]]


def build() -> torch.nn.Module:
    """Return the network of the tiny recipe."""
    return networks.build("resnet8", 10, 3, 32, 32, {"filters": 4, "stem_stride": 2})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose ``out/cache`` is shared: the data are read once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """An untrained network as a user's ONNX file: input ``pixels``, not our names."""
    model = onnx.load_from_string(export_onnx(build(), 3, 32, 32))
    rename(model, {"input": "pixels"})
    return model


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """``run(*arguments, recipe=text)`` gives exit code and stderr of ``compressor run``."""

    def call(*arguments: object, recipe: str = "") -> tuple[int, str]:
        path = home / "recipe.toml"
        path.write_text(recipe or RECIPE.read_text())
        (home / "out" / "tiny-1-host.tfb").unlink(missing_ok=True)
        with pytest.raises(SystemExit) as stop:
            main(["run", str(path), "--out", str(home / "out"), *map(str, arguments)])
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert isinstance(stop.value.code, int)
        return stop.value.code, said.strip().splitlines()[-1]

    return call


def rename(model: onnx.ModelProto, names: dict[str, str]) -> None:
    """Give inputs and outputs of ``model`` other names."""
    for value in [*model.graph.input, *model.graph.output]:
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy that a test may change."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def saved(folder: Path, model: onnx.ModelProto) -> Path:
    """Write ``model`` as ``mine.onnx``."""
    (folder / "mine.onnx").write_bytes(model.SerializeToString())
    return folder / "mine.onnx"


def foreign(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` with an operator of another domain at its head."""
    own = copied(model)
    own.graph.node.insert(0, helper.make_node("Normalize", ["raw"], ["pixels"], domain="ai.vendor"))
    own.graph.input[0].name = "raw"
    own.opset_import.append(helper.make_opsetid("ai.vendor", 1))
    return own


def foreign_in_a_branch(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` with the foreign operator where only one branch of an If runs it."""
    own = copied(model)
    inner = helper.make_node("Normalize", ["raw"], ["other"], domain="ai.vendor")
    same = helper.make_node("Identity", ["raw"], ["equal"])
    branches = [
        helper.make_graph([node], "branch", [], [helper.make_tensor_value_info(node.output[0], 1, None)])
        for node in (same, inner)
    ]
    node = helper.make_node("If", ["yes"], ["pixels"], then_branch=branches[0], else_branch=branches[1])
    own.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    own.graph.node.insert(0, node)
    own.graph.input[0].name = "raw"
    own.opset_import.append(helper.make_opsetid("ai.vendor", 1))
    return own


def two_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` with an input more."""
    own = copied(model)
    own.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))
    return own


def whole_numbers(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` with an input of bytes."""
    own = copied(model)
    own.graph.node.insert(0, helper.make_node("Cast", ["raw"], ["pixels"], to=TensorProto.FLOAT))
    own.graph.input[0].name = "raw"
    own.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    return own


def embedding_only(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` without its logits."""
    own = copied(model)
    own.graph.output.pop(0)
    return own


def twice(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` with two outputs that could be the logits."""
    own = copied(model)
    rename(own, {"logits": "scores"})
    own.graph.node.append(helper.make_node("Softmax", ["scores"], ["shares"], axis=1))
    own.graph.output.append(helper.make_tensor_value_info("shares", TensorProto.FLOAT, ["batch", 10]))
    return own


def channels_last(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` with input (N, H, W, C), as TensorFlow's converter makes it."""
    own = copied(model)
    own.graph.node.insert(0, helper.make_node("Transpose", ["raw"], ["pixels"], perm=[0, 3, 1, 2]))
    own.graph.input[0].CopyFrom(helper.make_tensor_value_info("raw", TensorProto.FLOAT, ["batch", 32, 32, 3]))
    return own


def weights_beside(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` with one weight in a file beside it."""
    own = copied(model)
    tensor = own.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "weights.bin")
    tensor.ClearField("raw_data")
    return own


def not_a_number(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` with a weight that is no number."""
    own = copied(model)
    first = own.graph.initializer[0]
    first.CopyFrom(numpy_helper.from_array(np.full(tuple(first.dims), np.nan, np.float32), first.name))
    return own


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (foreign, "got ai.vendor.Normalize: replace them by standard operators"),
        (foreign_in_a_branch, "got ai.vendor.Normalize: replace them by standard operators"),
        (two_inputs, "Expected one float32 input, got pixels, mask"),
        (whole_numbers, "got 'raw' uint8: export with a float32 input"),
        (embedding_only, "Expected one output with logits (N, 10), got embedding"),
        (twice, "name one of them 'logits'"),
        (channels_last, "export in layout NCHW"),
        (weights_beside, "save it with onnx.save"),
        (not_a_number, "Expected finite logits"),
    ],
)
def test_an_onnx_file_that_does_not_fit_is_said(
    change: Callable[[onnx.ModelProto], onnx.ModelProto],
    said: str,
    run: Run,
    home: Path,
    tmp_path: Path,
    model: onnx.ModelProto,
) -> None:
    """What is wrong and what to do are in one line, and no bundle appears."""
    code, line = run("--onnx", saved(tmp_path, change(model)))
    assert code == 4
    assert line.startswith("error [measure_failed]: ")
    assert said in line
    assert not list((home / "out").glob("*.tfb"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[data]\n", "[data]\nwidth = 16\n", "Expected input (-1, 3, 32, 16) (NCHW, as [data] says), got 'pixels'"),
        ("[data]\n", '[data]\ncolour = "grey"\n', "Expected input (-1, 1, 32, 32)"),
        (
            "security_floor = 3",
            'labels = ["0","1","2","3","4","5","6","7","8","9","none"]',
            "Expected one output with logits (N, 11), got logits float32 (-1, 10)",
        ),
    ],
)
def test_a_recipe_that_the_file_does_not_fit_is_said(
    old: str, new: str, said: str, run: Run, tmp_path: Path, model: onnx.ModelProto
) -> None:
    """Both sides are named, the recipe's and the file's."""
    code, line = run("--onnx", saved(tmp_path, model), recipe=RECIPE.read_text().replace(old, new))
    assert code == 4
    assert said in line


@pytest.mark.parametrize("content", [b"", b"no model at all", bytes(range(256)) * 40])
def test_a_file_that_is_no_onnx_is_said(content: bytes, run: Run, tmp_path: Path) -> None:
    """Whatever the parser meets is one coded line."""
    (tmp_path / "mine.onnx").write_bytes(content)
    code, line = run("--onnx", tmp_path / "mine.onnx")
    assert (code, line[:24]) == (4, "error [measure_failed]: ")


def test_half_an_onnx_file_is_said(run: Run, tmp_path: Path, model: onnx.ModelProto) -> None:
    """A download that broke off is not run."""
    data = model.SerializeToString()
    (tmp_path / "mine.onnx").write_bytes(data[: len(data) // 2])
    code, line = run("--onnx", tmp_path / "mine.onnx")
    assert (code, line[:24]) == (4, "error [measure_failed]: ")
    assert "export the model again" in line


@pytest.fixture(scope="module")
def tflite() -> bytes:
    """An untrained network as a user's TFLite file; conversion takes seconds."""
    pytest.importorskip("litert_torch")
    from compressor.export.tflite import export_tflite  # noqa: PLC0415 - an optional extra

    return export_tflite(build(), 3, 32, 32)


def changed(model: bytes, change: Callable[[Any], None]) -> bytes:
    """Return a TFLite file with ``change`` done to its tree."""
    tree = flatbuffer.read(model, MeasureError)
    change(tree)
    return flatbuffer.write(tree)


def add_custom(tree: Any) -> None:  # noqa: ANN401 - generated, untyped
    """Make the first operator a custom one."""
    code = tree.operatorCodes[tree.subgraphs[0].operators[0].opcodeIndex]
    code.builtinCode = code.deprecatedBuiltinCode = 32  # BuiltinOperator.CUSTOM
    code.customCode = b"VendorNormalize"


def add_input(tree: Any) -> None:  # noqa: ANN401 - generated, untyped
    """State a second input."""
    graph = tree.subgraphs[0]
    graph.inputs = [*graph.inputs, graph.outputs[1]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (add_custom, "got the custom operator 'VendorNormalize'"),
        (add_input, "Expected one float32 input, got input, embedding"),
    ],
)
def test_a_tflite_file_that_the_runtime_rejects_is_said(
    change: Callable[[Any], None], said: str, run: Run, home: Path, tmp_path: Path, tflite: bytes
) -> None:
    """The operator is named with what to do, and no bundle appears."""
    (tmp_path / "mine.tflite").write_bytes(changed(tflite, change))
    code, line = run("--tflite", tmp_path / "mine.tflite", recipe=TFLITE_RECIPE)
    assert code == 4
    assert line.startswith("error [measure_failed]: ")
    assert said in line
    assert not list((home / "out").glob("*.tfb"))


@pytest.mark.parametrize("keep", [0, 7, 100, 5000])
def test_a_tflite_file_that_broke_off_is_said(keep: int, run: Run, tmp_path: Path, tflite: bytes) -> None:
    """Whatever is left of it, it is one coded line."""
    (tmp_path / "mine.tflite").write_bytes(tflite[:keep])
    code, line = run("--tflite", tmp_path / "mine.tflite", recipe=TFLITE_RECIPE)
    assert (code, line[:24]) == (4, "error [measure_failed]: ")


def test_a_tflite_file_of_other_classes_is_said(run: Run, tmp_path: Path, tflite: bytes) -> None:
    """Both widths are in the line."""
    (tmp_path / "mine.tflite").write_bytes(tflite)
    text = TFLITE_RECIPE.replace("security_floor = 3", f"labels = {[str(i) for i in range(12)]}")
    code, line = run("--tflite", tmp_path / "mine.tflite", recipe=text)
    assert code == 4
    assert "Expected one output with logits (N, 12), got logits float32 (-1, 10)" in line
