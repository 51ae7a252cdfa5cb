"""A user's model through the command line: a suitable one becomes a gated bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from compressor.errors import MeasureError
from compressor.tflite import flatbuffer
from edge_agent import runtimes
from tests.compressor.tflite.test_metadata import described, metadata
from wire.bundle import Bundle, read_bundle
from wire.canonical import sha256_hex
from wire.manifest import TensorSpec

if TYPE_CHECKING:
    from conftest import Run

pytestmark = pytest.mark.slow


def bundle_of(home: Path) -> Bundle:
    """Return the bundle of the last run."""
    return read_bundle(home / "out" / "tiny-1-host.tfb")


def figure(home: Path, name: str) -> float:
    """Return a figure of the last run's certificate."""
    return float(json.loads((home / "out" / "gate.json").read_bytes())["figures"][name])


def test_an_onnx_file_becomes_a_quantized_bundle_with_its_own_names(
    run: Run, home: Path, model: onnx.ModelProto
) -> None:
    """The manifest has the file's name of the input, and the gates measured int8."""
    code, _ = run("--onnx", model)
    assert code == 0
    bundle = bundle_of(home)
    assert bundle.manifest.inputs == (TensorSpec(name="pixels", shape=(-1, 3, 32, 32), dtype="float32", layout="NCHW"),)
    assert [output.name for output in bundle.manifest.outputs] == ["logits", "embedding"]
    assert len(bundle.artifact) < len(model.SerializeToString())
    assert figure(home, "int8_macs_ratio") > 0.9


def test_a_file_of_fixed_batch_and_other_output_names_in_another_order_passes(
    run: Run, home: Path, model: onnx.ModelProto, renamed: Callable[..., None]
) -> None:
    """The device reads the manifest's first output as logits: the one for the recipe's classes, at any position."""
    renamed(model, {"logits": "scores", "embedding": "features"})
    model.graph.output.reverse()
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 3
    assert run("--onnx", model)[0] == 0
    assert bundle_of(home).manifest.outputs == (TensorSpec(name="scores", shape=(-1, 10), dtype="float32"),)


def test_the_order_of_outputs_changes_no_byte_of_what_was_corrected_by_them(
    run: Run, home: Path, model: onnx.ModelProto, renamed: Callable[..., None]
) -> None:
    """Bias correction and sensitivity compare logits, not the first output of the file."""
    helped = "reduce_range = true\nbias_correction = true\nfloat_layers_auto = 1"
    edits = {"reduce_range = true": helped, "int8_macs_ratio = {min = 0.9}": ""}
    renamed(model, {"logits": "scores", "embedding": "features"})
    assert run("--onnx", model, edits=edits)[0] == 0
    first = bundle_of(home).artifact
    model.graph.output.reverse()
    assert run("--onnx", model, edits=edits)[0] == 0
    assert bundle_of(home).artifact == first


def padded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` with a padding of nothing before it, its amounts computed in the graph, as old exporters do."""
    made = onnx.ModelProto.FromString(model.SerializeToString())
    name, first = made.graph.input[0].name, made.graph.node[0]
    first.input[:] = ["padded" if one == name else one for one in first.input]
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(8, np.int64), "ones"))
    made.graph.node.insert(0, helper.make_node("Mod", ["ones", "ones"], ["pads"], "none"))
    made.graph.node.insert(1, helper.make_node("Pad", [name, "pads"], ["padded"], "pad"))
    return made


def test_what_can_not_be_counted_is_unknown_and_the_bundle_is_made(
    run: Run, home: Path, model: onnx.ModelProto
) -> None:
    """A padded network passes the gates that ask for no count of multiplications."""
    assert run("--onnx", padded(model), recipe="float")[0] == 0
    said = json.loads((home / "out" / "gate.json").read_bytes())
    assert set(said["unknown"]) == {"macs", "int8_macs_ratio", "float_macs"}
    assert "Expected known shapes" in said["unknown"]["macs"]
    assert "macs" not in said["figures"]
    assert "unknown: Expected known shapes" in (home / "out" / "report.html").read_text()


def test_the_gate_of_what_can_not_be_counted_fails_with_the_reason(
    run: Run, home: Path, model: onnx.ModelProto
) -> None:
    """It alone: all other lines are there."""
    edits = {"[gates]": "[gates]\nint8_macs_ratio = {min = 0.0}"}
    assert run("--onnx", padded(model), recipe="float", edits=edits)[0] == 2
    lines = {line["name"]: line for line in json.loads((home / "out" / "gate.json").read_bytes())["gates"]}
    assert [name for name, line in lines.items() if line["verdict"] == "fail"] == ["int8_macs_ratio"]
    assert "got unknown (Expected known shapes" in lines["int8_macs_ratio"]["text"]


def test_the_manifest_has_the_opset_of_the_file(run: Run, home: Path, model: onnx.ModelProto) -> None:
    """A device with an older runtime must be able to refuse it."""
    own = onnx.version_converter.convert_version(model, 16)
    assert run("--onnx", own, recipe="float")[0] == 0
    assert bundle_of(home).manifest.opset == 16


def with_softmax(model: onnx.ModelProto) -> None:
    """Let ``model`` end in a softmax of its own, its only output."""
    del model.graph.output[:]
    model.graph.node.append(helper.make_node("Softmax", ["logits"], ["shares"], axis=1))
    model.graph.output.append(helper.make_tensor_value_info("shares", TensorProto.FLOAT, ["batch", 10]))


_STEPS = """[[compress]]
step = "prune"
macs_ratio = 0.7
rounds = 1
round_to = 2
fine_tune_epochs = 1
[[compress]]
step = "distill"
epochs = 1
weight = 1.0
[[compress]]
step = "qat"
reduce_range = true
epochs = 1
max_steps = 3
allow_unchanged = true
[[compress]]"""


_FINE_TUNED = '[[compress]]\nstep = "fine_tune"\nepochs = 1\n[[compress]]'


def test_the_network_in_an_onnx_file_is_pruned_and_trained(run: Run, home: Path, model: onnx.ModelProto) -> None:
    """It has the steps that a network of ours has, learns from the file itself, and is compared with it."""
    with_softmax(model)
    code, _ = run("--onnx", model, edits={"[[compress]]": _STEPS})
    assert code == 0
    bundle = bundle_of(home)
    assert [output.name for output in bundle.manifest.outputs] == ["logits", "embedding"]
    assert bundle.manifest.outputs[0].meaning == ""
    assert figure(home, "macs") < 0.8 * figure(home, "float_macs")
    assert json.loads((home / "out" / "gate.json").read_bytes())["baseline"] == "the file as it came"
    assert "largest difference" in (home / "out" / "report.html").read_text()


def with_sigmoid(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put a sigmoid behind the logits."""
    del model.graph.output[:]
    model.graph.node.append(helper.make_node("Sigmoid", ["logits"], ["scores"]))
    model.graph.output.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10]))
    return model


def test_scores_of_a_sigmoid_are_asked_about(run: Run, model: onnx.ModelProto) -> None:
    """Taken as logits, their softmax would be nearly flat; a file of logits is not asked about."""
    code, said = run("--onnx", with_sigmoid(model), recipe="float")
    assert code == 4
    assert said.startswith(
        "error [model_outputs]: Expected logits, or probabilities that sum to 1, got outputs of 0 to 1"
    )
    assert "outputs = 'probabilities'" in said


def test_a_label_beside_the_scores_is_no_part_of_the_network(run: Run, home: Path, model: onnx.ModelProto) -> None:
    """A classifier of scikit-learn also gives the label itself, of operators that no network has."""
    with_softmax(model)
    names = onnx.numpy_helper.from_array(np.arange(10), "classes")
    model.graph.initializer.append(names)
    model.graph.node.append(helper.make_node("ArgMax", ["shares"], ["best"], axis=1, keepdims=0))
    model.graph.node.append(helper.make_node("Gather", ["classes", "best"], ["label"]))
    model.graph.output.insert(0, helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]))
    assert run("--onnx", model, edits={"[[compress]]": _FINE_TUNED})[0] == 0
    assert [output.name for output in bundle_of(home).manifest.outputs] == ["logits", "embedding"]


def test_an_onnx_file_teaches_a_network_of_another_architecture(run: Run, home: Path, model: onnx.ModelProto) -> None:
    """The step learns from the file, whose digest stands in the lineage; another file is another stage."""
    path = home / "teacher.onnx"
    path.write_bytes(model.SerializeToString())
    step = '[[compress]]\nstep = "distill"\nepochs = 1\nweight = 1.0\n[[compress]]'
    edits = {"[[compress]]": step, "filters = 4": "filters = 2", "epochs = 1": "epochs = 2"}
    assert run(recipe="int8", edits={**edits, "[data]": f'teacher = "{path}"\n[data]'})[0] == 0
    assert "teacher agreement after" in (home / "out" / "report.html").read_text()
    assert bundle_of(home).manifest.lineage["teacher"] == sha256_hex(path.read_bytes())


def test_an_onnx_file_becomes_a_tflite_bundle(run: Run, home: Path, model: onnx.ModelProto) -> None:
    """A target of the other runtime is made from the network in the file; logits of both formats are compared."""
    pytest.importorskip("litert_torch")
    assert run("--onnx", model, recipe="tflite")[0] == 0
    bundle = bundle_of(home)
    assert (bundle.manifest.runtime, bundle.manifest.inputs[0].layout) == ("litert", "NHWC")
    assert figure(home, "parity_max_abs") < 1e-4


@pytest.mark.parametrize("recipe", ["float", "int8"])
def test_a_softmax_at_the_end_changes_no_figure_of_confidence(
    recipe: str, run: Run, home: Path, model: onnx.ModelProto
) -> None:
    """Probabilities are recognised: the calibration error is that of the logits."""
    assert run("--onnx", model, recipe=recipe)[0] == 0
    plain = [figure(home, name) for name in ("accuracy", "calibration_error")]
    with_softmax(model)
    assert run("--onnx", model, recipe=recipe)[0] == 0
    assert [figure(home, name) for name in ("accuracy", "calibration_error")] == pytest.approx(plain, abs=0.01)
    assert bundle_of(home).manifest.outputs[0].meaning == "probability"


def test_a_device_gets_logits_of_a_file_that_gives_probabilities(run: Run, home: Path, model: onnx.ModelProto) -> None:
    """Their softmax is the file's answer again, so that confidence and drift mean the same on every device."""
    with_softmax(model)
    assert run("--onnx", model, recipe="float")[0] == 0
    bundle = bundle_of(home)
    logits = runtimes.load(bundle.manifest, bundle.artifact).run(np.zeros((1, 3, 32, 32), np.float32))[0]
    assert logits.min() < 0
    assert np.exp(logits).sum() == pytest.approx(1, abs=1e-4)


def test_a_checkpoint_skips_training(run: Run, home: Path) -> None:
    """No epoch runs, and the float weights of the run are the user's."""
    assert run("--checkpoint", home / "mine.pt", edits={"epochs = 1": "epochs = 5000"})[0] == 0
    assert (home / "out" / "float.pt").read_bytes() == (home / "mine.pt").read_bytes()


def as_it_is(tree: Any) -> None:  # noqa: ANN401 - generated, untyped
    """Change nothing."""
    del tree


def reverse_outputs(tree: Any) -> None:  # noqa: ANN401 - generated, untyped
    """Turn the order of the graph's outputs round."""
    graph = tree.subgraphs[0]
    graph.outputs = list(graph.outputs)[::-1]


@pytest.mark.parametrize("change", [as_it_is, reverse_outputs])
def test_a_tflite_file_becomes_a_gated_bundle(
    change: Callable[[Any], None], run: Run, home: Path, tflite: bytes
) -> None:
    """The artifact is the file, and its logits come first in the manifest whatever the order of its graph."""
    tree = flatbuffer.read(tflite, MeasureError)
    change(tree)
    data = flatbuffer.write(tree)
    assert run("--tflite", data, recipe="tflite")[0] == 0
    bundle = bundle_of(home)
    assert bundle.artifact == data
    assert bundle.manifest.inputs == (TensorSpec(name="input", shape=(-1, 32, 32, 3), dtype="float32", layout="NHWC"),)
    assert [output.name for output in bundle.manifest.outputs] == ["logits", "embedding"]
    assert figure(home, "accuracy") > 0.5


def test_compared_with_itself_stands_in_gate_json_and_in_the_card(run: Run, home: Path, tflite: bytes) -> None:
    """Wherever the verdict is shown; a file that was quantized does not get the remark."""
    words = "It was compared with itself: nothing was compressed"
    assert run("--tflite", tflite, recipe="tflite")[0] == 0
    assert words in " ".join(json.loads((home / "out" / "gate.json").read_bytes())["remarks"])
    files = bundle_of(home).files
    assert [name for name in files if words in files[name].decode(errors="replace")] == ["card.md", "gate.json"]


@pytest.mark.parametrize(
    ("edits", "gate", "said"),
    [
        (
            {"[data]\n": "[data]\nmean = 40.0\nstd = 0.25\n"},
            "better_than_constant",
            "look at training, [model] labels and",
        ),
        ({"security_floor = 3": f"labels = {[str(i) for i in (1, 0, *range(2, 10))]}"}, "label_order", "'1' is '0'"),
    ],
)
def test_an_old_tflite_file_fails_with_a_wrong_mean_or_labels_in_another_order(
    run: Run, home: Path, tflite: bytes, edits: dict[str, str], gate: str, said: str
) -> None:
    """It agrees with itself on every row, so only a gate on the candidate alone detects it."""
    code, _ = run("--tflite", tflite, "--version", 2, recipe="tflite", edits=edits)
    assert code == 2
    judged = {line["name"]: line for line in json.loads((home / "out" / "gate.json").read_bytes())["gates"]}
    assert judged[gate]["verdict"] == "fail"
    assert said in judged[gate]["text"]
    assert not (home / "out" / "tiny-2-host.tfb").exists()


class Sure(torch.nn.Module):
    """A network with a softmax at its end."""

    def __init__(self, network: torch.nn.Module) -> None:
        """Wrap ``network``."""
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (probabilities, embedding)."""
        logits, embedding = self.network(x)
        return torch.softmax(logits, dim=1), embedding


def test_a_softmax_in_a_tflite_file_is_met_too(run: Run, home: Path, network: torch.nn.Module) -> None:
    """It is recognised in the file, whichever tool made it."""
    pytest.importorskip("litert_torch")
    from compressor.export.tflite import export_tflite  # noqa: PLC0415 - an optional extra

    assert run("--tflite", export_tflite(Sure(network).eval(), 3, 32, 32), recipe="tflite")[0] == 0
    assert bundle_of(home).manifest.outputs[0].meaning == "probability"


@pytest.mark.slow
def test_a_tflite_file_that_keeps_the_channels_first_is_taken_so(
    run: Run, home: Path, network: torch.nn.Module
) -> None:
    """As converters write it that change no layout; the device is told."""
    converter = pytest.importorskip("litert_torch")
    model = bytes(converter.convert(network.eval(), (torch.zeros(1, 3, 32, 32),)).model_content())
    assert run("--tflite", model, recipe="tflite")[0] == 0
    manifest = bundle_of(home).manifest
    assert (manifest.inputs[0].shape, manifest.inputs[0].layout) == ((-1, 3, 32, 32), "NCHW")
    assert manifest.preprocessing.layout == "NCHW"
    assert figure(home, "accuracy") == figure(home, "baseline_accuracy")


@pytest.mark.slow
def test_classes_in_another_order_than_the_file_says_are_an_error(
    run: Run, home: Path, tflite: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the line to write; the normalisation that the file names is said, and what would fit."""
    del capsys
    names = [str(digit) for digit in range(10)]
    other = described(tflite, metadata((127.5,), (127.5,)), "\n".join([*names[1:], names[0]]))
    code, said = run("--tflite", other, recipe="tflite")
    assert (code, 'set [model] labels = ["1", "2"' in said) == (4, True)
    assert "[model_signature]" in said
    same = described(tflite, metadata((0.0,), (255.0,)), "\n".join(names))
    assert run("--tflite", same, recipe="tflite")[0] == 0
    assert bundle_of(home).manifest.labels == tuple(names)


@pytest.mark.slow
def test_names_in_an_onnx_file_are_compared(run: Run, model: onnx.ModelProto) -> None:
    """As exporters of classifiers note them: a dictionary by number."""
    entry = model.metadata_props.add()
    entry.key, entry.value = "names", str({number: str(9 - number) for number in range(10)})
    code, said = run("--onnx", model)
    assert (code, "the order of the file's own labels" in said) == (4, True)
