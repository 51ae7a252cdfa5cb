"""The frame of step ``clean``: what is said, what is compared, and what is undone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from compressor.clean import mending
from compressor.clean._answers import ROUNDING
from compressor.clean.given import PARITY
from compressor.clean.mending import Mend, clean
from tests.compressor.clean.files import classifier, given, logits, network


def scaled(by: float, name: str = "scaling", allowed: float = ROUNDING) -> Mend:
    """Return a mend that multiplies the weights of the last layer."""

    def apply(model: onnx.ModelProto, known: object) -> str:
        del known
        tensor = next(one for one in model.graph.initializer if one.name == "fw")
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(by), "fw"))
        return "weights scaled"

    return Mend(name=name, apply=apply, allowed=allowed)


@pytest.mark.parametrize(("by", "kept"), [(1 + 1e-6, True), (1.01, False)])
def test_a_mend_that_changes_answers_by_more_than_rounding_is_undone(
    monkeypatch: pytest.MonkeyPatch, by: float, *, kept: bool
) -> None:
    """The file is as before it, and the line says by how much the answers would differ."""
    data = network(*classifier()).SerializeToString()
    monkeypatch.setattr(mending, "MENDS", (mending.NAMES, scaled(by)))
    model, notes = clean(data, given())
    if kept:
        assert notes["scaling"] == "weights scaled"
        assert notes[PARITY].startswith("largest difference ")
    else:
        assert "the answers would differ by" in notes["scaling"]
        assert np.array_equal(logits(model, given().rows), logits(data, given().rows))


@pytest.mark.parametrize(("by", "kept"), [(1 + 1e-6, True), (1.001, False)])
def test_what_follows_a_change_of_precision_is_compared_with_it(
    monkeypatch: pytest.MonkeyPatch, by: float, *, kept: bool
) -> None:
    """From float16 to float32 answers move by 2^-8; the mends after it are still held to rounding."""
    wider = scaled(1.004, "float16", allowed=2.0**-7)
    monkeypatch.setattr(mending, "MENDS", (mending.NAMES, wider, scaled(by)))
    _, notes = clean(network(*classifier()).SerializeToString(), given())
    assert notes["float16"] == "weights scaled"
    assert (notes["scaling"] == "weights scaled") == kept
    assert ("; then largest difference" in notes[PARITY]) == kept


def test_a_mend_that_raises_leaves_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign error in the middle of a change takes nothing of it over."""

    def apply(model: onnx.ModelProto, known: object) -> str:
        del known
        del model.graph.node[:]
        raise ValueError("no such axis")

    monkeypatch.setattr(mending, "MENDS", (Mend(name="breaking", apply=apply),))
    data = network(*classifier()).SerializeToString()
    assert clean(data, given()) == (data, {"breaking": "left as it is: no such axis"})


def test_a_mend_whose_file_does_not_run_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Onnxruntime is asked after every mend that touches the computation."""

    def apply(model: onnx.ModelProto, known: object) -> str:
        del known
        model.graph.node[0].op_type = "NoSuchOperator"
        return "renamed"

    monkeypatch.setattr(mending, "MENDS", (Mend(name="breaking", apply=apply),))
    data = network(*classifier()).SerializeToString()
    model, notes = clean(data, given())
    assert model == data
    assert notes["breaking"].startswith("left as it is: ")


def test_what_only_quantizers_need_is_left_without_steps() -> None:
    """The file of ``compress = []`` keeps its opset, its batch and its weights as they are."""
    nodes, weights = classifier(bias=(1, 3))
    for number, node in enumerate(nodes):
        node.name = f"n{number}"
    data = network(nodes, weights, opset=11, batch=1).SerializeToString()
    assert clean(data, given(compressed=False)) == (data, {})
    _, notes = clean(data, given())
    assert {"opset", "batch", "biases"} <= notes.keys()


def test_nodes_are_sorted_and_named_without_any_steps() -> None:
    """A session needs both; the same bytes come out each time."""
    nodes, weights = classifier()
    nodes.reverse()
    nodes[0].name = nodes[1].name = "same"
    data = network(nodes, weights).SerializeToString()
    model, notes = clean(data, given(compressed=False))
    read = onnx.load_from_string(model)
    onnx.checker.check_model(read)
    names = [node.name for node in read.graph.node]
    assert len(set(names)) == len(names) == 5
    assert "same" in names
    assert notes.keys() == {"order", "names"}
    assert clean(data, given(compressed=False)) == (model, notes)


def test_answers_of_three_rows_are_compared_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is right for one row and wrong for three is not taken."""

    def apply(model: onnx.ModelProto, known: object) -> str:
        del known
        mean = helper.make_node("ReduceMean", ["l"], ["m"], axes=[0], keepdims=1)
        model.graph.node[-1].output[0] = "l"
        model.graph.node.extend([mean, helper.make_node("Expand", ["m", "size"], ["logits"])])
        model.graph.node.insert(0, helper.make_node("Shape", ["x"], ["size4"]))
        model.graph.initializer.extend(
            onnx.numpy_helper.from_array(np.array(value, np.int64), name)
            for name, value in (("zero", [0]), ("one", [1]), ("classes", [3]))
        )
        model.graph.node.insert(1, helper.make_node("Slice", ["size4", "zero", "one"], ["batch"]))
        model.graph.node.insert(2, helper.make_node("Concat", ["batch", "classes"], ["size"], axis=0))
        return "mean over the batch"

    monkeypatch.setattr(mending, "MENDS", (Mend(name="mixing", apply=apply),))
    data = network(*classifier()).SerializeToString()
    model, notes = clean(data, given())
    assert model == data
    assert "the answers would differ" in notes["mixing"]
