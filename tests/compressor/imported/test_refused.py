"""A model file that does not fit, as a person meets it: one coded line, exit code 4, no bundle."""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from compressor.errors import MeasureError
from compressor.tflite import flatbuffer

if TYPE_CHECKING:
    from conftest import Run

pytestmark = pytest.mark.slow


def foreign(own: onnx.ModelProto) -> None:
    """Leave the file with an operator of another domain at its head."""
    own.graph.node.insert(0, helper.make_node("Normalize", ["raw"], ["pixels"], domain="ai.vendor"))
    own.graph.input[0].name = "raw"
    own.opset_import.append(helper.make_opsetid("ai.vendor", 1))


def foreign_in_a_branch(own: onnx.ModelProto) -> None:
    """Leave the file with the foreign operator where only one branch of an If runs it."""
    inner = helper.make_node("Normalize", ["raw"], ["other"], domain="ai.vendor")
    same = helper.make_node("Identity", ["raw"], ["equal"])
    branches = [
        helper.make_graph([node], "branch", [], [helper.make_tensor_value_info(node.output[0], 1, None)])
        for node in (same, inner)
    ]
    node = helper.make_node("If", ["yes"], ["pixels"], then_branch=branches[0], else_branch=branches[1])
    own.graph.initializer.append(numpy_helper.from_array(np.array(1e9, np.float32), "limit"))
    condition = helper.make_node("ReduceMax", ["raw"], ["most"], keepdims=0)
    for at, one in enumerate((condition, helper.make_node("Less", ["most", "limit"], ["yes"]), node)):
        own.graph.node.insert(at, one)
    own.graph.input[0].name = "raw"
    own.opset_import.append(helper.make_opsetid("ai.vendor", 1))


def two_inputs(own: onnx.ModelProto) -> None:
    """Leave the file with an input more."""
    own.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))


def embedding_only(own: onnx.ModelProto) -> None:
    """Leave the file without its logits."""
    own.graph.output.pop(0)


def twice(own: onnx.ModelProto) -> None:
    """Leave the file with two outputs that could be the logits."""
    del own.graph.output[:]
    for name, operator in (("scores", "Identity"), ("shares", "Softmax")):
        own.graph.node.append(helper.make_node(operator, ["logits"], [name]))
        own.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 10]))


def weights_beside(own: onnx.ModelProto) -> None:
    """Leave the file with one weight in a file beside it."""
    tensor = own.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "weights.bin")
    tensor.ClearField("raw_data")


def too_new(own: onnx.ModelProto) -> None:
    """Write the file with an opset that no runtime supports yet."""
    own.opset_import[0].version = 99


def flat(own: onnx.ModelProto) -> None:
    """Leave the file with an input without rows and columns."""
    own.graph.node.insert(0, helper.make_node("Reshape", ["raw", "sizes"], ["pixels"]))
    own.graph.initializer.append(numpy_helper.from_array(np.array([-1, 3, 32, 32]), "sizes"))
    own.graph.input[0].CopyFrom(helper.make_tensor_value_info("raw", TensorProto.FLOAT, ["batch", 3072]))


def without_input(own: onnx.ModelProto) -> None:
    """Leave the file with its input as a constant."""
    own.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 3, 32, 32), np.float32), "pixels"))


def not_a_number(own: onnx.ModelProto) -> None:
    """Write the file with a weight that is NaN."""
    first = own.graph.initializer[0]
    first.CopyFrom(numpy_helper.from_array(np.full(tuple(first.dims), np.nan, np.float32), first.name))


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (foreign, "model_operators", "got ai.vendor.Normalize: replace them by standard operators"),
        (foreign_in_a_branch, "model_operators", "got ai.vendor.Normalize: replace them by standard operators"),
        (two_inputs, "model_signature", "Expected one float32 input, got pixels, mask: set the others in [model]"),
        (embedding_only, "model_signature", "Expected one output with logits (N, 10), got embedding"),
        (twice, "model_signature", "name one of them 'logits'"),
        (weights_beside, "model_external_data", "put the file there, beside the ONNX file"),
        (too_new, "model_operators", "or lower, got 99: export with opset_version=17"),
        (flat, "model_signature", "Expected input (-1, 3, 32, 32) (NCHW, as [data] says), got 'raw' (-1, 3072)"),
        (without_input, "model_signature", "Expected one float32 input, got none"),
        (not_a_number, "measure_failed", "Expected finite logits"),
    ],
)
def test_an_onnx_file_that_does_not_fit_is_said(
    change: Callable[[onnx.ModelProto], object], error: str, said: str, run: Run, home: Path, model: onnx.ModelProto
) -> None:
    """One line has a code of its own, the fault and the next step, and there is no bundle."""
    change(model)
    code, line = run("--onnx", model)
    assert code == 4
    assert line.startswith(f"error [{error}]: ")
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
    old: str, new: str, said: str, run: Run, model: onnx.ModelProto
) -> None:
    """Both sides are named, the recipe's and the file's."""
    code, line = run("--onnx", model, edits={old: new})
    assert code == 4
    assert said in line


@pytest.mark.parametrize("content", [b"", b"no model at all", bytes(range(256)) * 40])
def test_a_file_that_is_no_onnx_is_said(content: bytes, run: Run) -> None:
    """Whatever the parser meets is one coded line."""
    code, line = run("--onnx", content)
    assert (code, line[:23]) == (4, "error [model_invalid]: ")


def test_half_an_onnx_file_is_said(run: Run, model: onnx.ModelProto) -> None:
    """A download that broke off is not run."""
    data = model.SerializeToString()
    code, line = run("--onnx", data[: len(data) // 2])
    assert (code, line[:23]) == (4, "error [model_invalid]: ")
    assert "export the model again" in line


def test_a_file_of_sizes_that_are_left_open_is_run_as_the_recipe_says(run: Run, model: onnx.ModelProto) -> None:
    """Height and width of such a file are those of [data]; a network that needs others fails with an error."""
    for dim, name in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], ("height", "width"), strict=True):
        dim.dim_param = name
    assert run("--onnx", model, recipe="float")[0] == 0


def test_a_file_that_is_too_large_is_not_read(run: Run, tmp_path: Path) -> None:
    """600 megabytes of nothing are refused by their size."""
    (tmp_path / "mine.onnx").touch()
    os.truncate(tmp_path / "mine.onnx", 600 * 1024 * 1024)
    code, line = run("--onnx", tmp_path / "mine.onnx")
    assert (code, line[:27]) == (4, "error [checkpoint_invalid]:")
    assert "Expected [model] onnx of at most 536870912 bytes, got 629145600" in line


@pytest.mark.parametrize(("option", "recipe"), [("--onnx", "int8"), ("--tflite", "tflite"), ("--checkpoint", "int8")])
def test_a_misfit_is_said_before_any_data_is_read(option: str, recipe: str, run: Run) -> None:
    """If the data is missing too, the file is reported first."""
    edits = {'dataset = "digits"': 'dataset = "labelled_images"\npath = "none.zip"'}
    code, line = run(option, b"none", recipe=recipe, edits=edits)
    assert code == 4
    assert line.startswith(("error [model_invalid]: ", "error [checkpoint_invalid]: "))


class Evil:
    """The code that a malicious checkpoint would run when it is read."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        """Return the call that unpickling would make."""
        return os.system, ("touch /tmp/tinyfleet-evil",)


NOT_FINITE = {"stem.weight": torch.full((1,), float("nan"))}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (Evil(), "a file of torch with other objects than tensors"),
        (torch.nn.Linear(2, 2), "a file of torch with other objects than tensors"),
        ({}, "got an empty state dict"),
        ([1, 2], "Expected a state dict"),
        ({"a": 1}, "Expected a state dict"),
        ({"other.weight": torch.zeros(3)}, "1 unknown keys (other.weight): check [model] network"),
        (NOT_FINITE, "got NaN or infinity in 'stem.weight'"),
    ],
)
def test_a_checkpoint_that_holds_anything_else_is_said(state: object, said: str, run: Run, tmp_path: Path) -> None:
    """Pickled code does not run, and the content is named."""
    Path("/tmp/tinyfleet-evil").unlink(missing_ok=True)
    torch.save(state, tmp_path / "mine.pt")
    code, line = run("--checkpoint", tmp_path / "mine.pt")
    assert (code, line[:27]) == (4, "error [checkpoint_invalid]:")
    assert said in line
    assert "/tmp/tinyfleet-" not in line
    assert not Path("/tmp/tinyfleet-evil").exists()


def test_a_checkpoint_of_another_network_is_said_before_any_data_is_read(run: Run, home: Path) -> None:
    """With the labels in the recipe the network is known without data."""
    labels = {"security_floor = 3": f"labels = {[str(i) for i in range(10)]}"}
    missing = {'dataset = "digits"': 'dataset = "labelled_images"\npath = "none.zip"'}
    wide = {"filters = 4": "filters = 3"}
    code, line = run("--checkpoint", home / "mine.pt", edits={**labels, **missing, **wide})
    assert (code, line[:27]) == (4, "error [checkpoint_invalid]:")
    code, line = run("--checkpoint", home / "mine.pt", edits={**labels, **missing})
    assert (code, line[:24]) == (4, "error [archive_refused]:")


def test_half_a_checkpoint_is_said(run: Run, home: Path) -> None:
    """A copy that broke off is not read."""
    data = (home / "mine.pt").read_bytes()
    code, line = run("--checkpoint", data[: len(data) // 2])
    assert (code, line[:27]) == (4, "error [checkpoint_invalid]:")


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
    ("change", "error", "said"),
    [
        (add_custom, "model_invalid", "got the custom operator 'VendorNormalize'"),
        (add_input, "model_signature", "Expected one float32 input, got input, embedding"),
    ],
)
def test_a_tflite_file_that_the_runtime_rejects_is_said(
    change: Callable[[Any], None], error: str, said: str, run: Run, home: Path, tflite: bytes
) -> None:
    """The operator is named with the next step, and there is no bundle."""
    tree = flatbuffer.read(tflite, MeasureError)
    change(tree)
    code, line = run("--tflite", flatbuffer.write(tree), recipe="tflite")
    assert code == 4
    assert line.startswith(f"error [{error}]: ")
    assert said in line
    assert not list((home / "out").glob("*.tfb"))


def test_a_tflite_file_of_another_size_is_said(run: Run, tflite: bytes) -> None:
    """Both shapes are in the line."""
    code, line = run("--tflite", tflite, recipe="tflite", edits={"[data]\n": "[data]\nwidth = 16\n"})
    assert code == 4
    assert "Expected input (-1, 32, 16, 3) (NHWC, as [data] says), got 'input' (-1, 32, 32, 3)" in line


@pytest.mark.parametrize("keep", [0, 7, 100, 5000])
def test_a_tflite_file_that_broke_off_is_said(keep: int, run: Run, tflite: bytes) -> None:
    """However much of it is left, the error is one line with a code."""
    code, line = run("--tflite", tflite[:keep], recipe="tflite")
    assert (code, line[:23]) == (4, "error [model_invalid]: ")


def test_a_tflite_file_of_other_classes_is_said(run: Run, tflite: bytes) -> None:
    """Both widths are in the line."""
    edits = {"security_floor = 3": f"labels = {[str(i) for i in range(12)]}"}
    code, line = run("--tflite", tflite, recipe="tflite", edits=edits)
    assert code == 4
    assert "Expected one output with logits (N, 12), got logits float32 (-1, 10)" in line


def export_training(network: torch.nn.Module) -> bytes:
    """Export a copy of ``network`` as it trains."""
    buffer = io.BytesIO()
    torch.onnx.export(
        copy.deepcopy(network).train(), (torch.randn(2, 3, 32, 32),), buffer,  # type: ignore[arg-type]
        dynamo=False, input_names=["input"], output_names=["logits", "embedding"],
        training=torch.onnx.TrainingMode.TRAINING,
        dynamic_axes={name: {0: "batch"} for name in ("input", "logits", "embedding")},
    )  # fmt: skip
    return buffer.getvalue()


def test_a_file_in_training_mode_is_refused(run: Run, network: torch.nn.Module) -> None:
    """Its batch norm depends on the whole batch: the gates would judge other answers than a device gets."""
    own = onnx.load_from_string(export_training(network))
    code, line = run("--onnx", own)
    assert code == 4
    assert "Expected the same logits for a row alone and among others" in line
    assert "model.eval()" in line


def test_two_models_at_once_are_refused(run: Run, home: Path, model: onnx.ModelProto) -> None:
    """Which one was meant can't be guessed."""
    code, line = run("--onnx", model, "--checkpoint", home / "mine.pt")
    assert code == 4
    assert "Expected in [model] one of checkpoint, onnx, tflite, got checkpoint, onnx" in line


@pytest.mark.parametrize("recipe", ["int8", "tflite"])
def test_a_network_that_can_not_be_made_is_said_before_any_data_is_read(
    recipe: str, run: Run, model: onnx.ModelProto
) -> None:
    """A step or another runtime needs the network: the operator that has no translation is named, with the remedy."""
    first = model.graph.node[0]
    model.graph.node.insert(0, onnx.helper.make_node("DequantizeLinear", ["q", "s"], ["zero"], "odd"))
    model.graph.node.insert(0, onnx.helper.make_node("QuantizeLinear", ["pixels", "s"], ["q"], "first"))
    first.input[0] = "zero"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.01), "s"))
    edits = {"[[compress]]": '[[compress]]\nstep = "prune"\n[[compress]]'} if recipe == "int8" else {}
    code, line = run("--onnx", model, recipe=recipe, edits=edits | {'"digits"': '"labelled_images"\npath = "no.zip"'})
    assert code == 4
    assert line.startswith("error [operator_unsupported]: Expected a float model, got QuantizeLinear at 'first'")


def test_a_teacher_that_nothing_learns_from_is_refused(run: Run, home: Path) -> None:
    """The key would have no effect: the steps that read it are named."""
    code, line = run(edits={"[data]": f'teacher = "{home / "mine.pt"}"\n[data]'})
    assert (code, line[:24]) == (4, "error [recipe_invalid]: ")
    assert "teacher" in line
    assert "without a step distill, or qat with distill above 0" in line


def test_a_teacher_that_is_no_onnx_file_is_said_before_any_data_is_read(run: Run, home: Path) -> None:
    """The person's weights are no exported network."""
    step = '[[compress]]\nstep = "distill"\n[[compress]]'
    code, line = run(edits={"[data]": f'teacher = "{home / "mine.pt"}"\n[data]', "[[compress]]": step})
    assert code == 4
    assert line.startswith("error [")
    assert "ONNX" in line


def test_a_network_from_a_file_is_trained_by_one_process(run: Run, model: onnx.ModelProto) -> None:
    """The processes of a distributed training build a network by its name, and a file has none."""
    edits = {"[[compress]]": '[[compress]]\nstep = "prune"\n[[compress]]', "epochs = 1": "epochs = 1\nprocesses = 2"}
    code, line = run("--onnx", model, edits=edits)
    assert (code, line[:24]) == (4, "error [recipe_invalid]: ")
    assert "Expected [train] processes = 1 with [model] onnx, got 2" in line


@pytest.mark.parametrize("step", ["fine_tune", "prune", "distill"])
def test_a_step_that_needs_a_network_is_refused_with_a_tflite_file(step: str, run: Run, tflite: bytes) -> None:
    """The error suggests a checkpoint."""
    edits = {"compress = []\n": "", "[targets.host]": f'[[compress]]\nstep = "{step}"\n[targets.host]'}
    code, line = run("--tflite", tflite, recipe="tflite", edits=edits)
    assert code == 4
    assert line.startswith("error [recipe_invalid]: ")
    assert f"Expected no step '{step}'" in line
    assert "give checkpoint and network" in line


def test_a_tflite_file_is_not_quantized_again(run: Run, tflite: bytes) -> None:
    """It is gated as it is; a step for it is refused before anything runs."""
    code, line = run("--tflite", tflite, edits={'runtime = "onnx"': 'runtime = "litert"'})
    assert (code, line[:24]) == (4, "error [recipe_invalid]: ")
    assert "Expected no step 'quantize' with [model] tflite" in line
