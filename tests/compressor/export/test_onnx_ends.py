"""Other ends of ONNX files: the numbers are those of the file, what is not needed is gone."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from compressor.errors import ModelSignatureError
from compressor.export import onnx_ends
from tests.compressor import foreign_scores as foreign

ROWS = np.random.default_rng(0).random((3, 1, 16, 16), np.float32)


def said(data: bytes, rows: np.ndarray = ROWS) -> dict[str, np.ndarray]:
    """Return the outputs of a file by name."""
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(None, {"x": rows}), strict=True))


@pytest.mark.parametrize("flat", [False, True])
def test_a_picture_with_channels_last_becomes_a_matrix_with_channels_first(flat: bool) -> None:  # noqa: FBT001
    """Whether the file's own is an image or flat: the order of rows, columns and channels is the same."""
    data, rows = foreign.auto_encoder(last=True, flat=flat, channels=2), np.random.default_rng(0).random((3, 16, 16, 2))
    made, name = onnx_ends.as_matrix(data, "said", (16, 16, 2), channels_last=True)
    own = said(data, rows.astype(np.float32))["said"].reshape(3, 16, 16, 2)
    assert said(made, rows.astype(np.float32))[name] == pytest.approx(
        own.transpose(0, 3, 1, 2).reshape(3, -1), abs=1e-6
    )


@pytest.mark.parametrize(("convolutional", "width"), [(False, 12), (True, 6)])
def test_what_goes_into_the_last_layer_is_the_embedding(convolutional: bool, width: int) -> None:  # noqa: FBT001
    """Of an image its mean; the last layer itself is gone."""
    made, name = onnx_ends.before_last(foreign.classifier(convolutional=convolutional), "logits")
    found = said(made)
    assert {one: value.shape for one, value in found.items()} == {name: (3, width)}
    assert (found[name] >= 0).all()  # behind the ReLU
    assert "head" not in {tensor.name for tensor in onnx.load_from_string(made).graph.initializer}


def test_weights_behind_a_transpose_are_those_of_the_last_layer() -> None:
    """As a file that nothing has folded has them: the layer before it is another embedding."""
    model = onnx.load_from_string(foreign.classifier())
    head = next(tensor for tensor in model.graph.initializer if tensor.name == "head")
    turned = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(head).T.copy(), "turned")
    head.CopyFrom(turned)
    model.graph.node.insert(0, onnx.helper.make_node("Transpose", ["turned"], ["head"], perm=[1, 0]))
    made, name = onnx_ends.before_last(model.SerializeToString(), "logits")
    assert said(made)[name].shape == (3, 12)
    assert said(made)[name] == pytest.approx(said(foreign.classifier(embedding=True))["embedding"])


def test_a_file_without_a_layer_has_no_embedding_before_it() -> None:
    """The error says what to export instead."""
    nodes = [
        onnx.helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        onnx.helper.make_node("Flatten", ["p"], ["said"]),
    ]
    data = foreign._file(nodes, {}, (1, 16, 16), {"said": (1,)})
    with pytest.raises(ModelSignatureError, match="outputs = 'embedding'"):
        onnx_ends.before_last(data, "said")


def test_a_linear_layer_behind_an_output_keeps_the_output() -> None:
    """Under the name by which drift counters know it, also if a tensor of the file has the layer's name."""
    weights, offsets = np.arange(24, dtype=np.float32).reshape(12, 2), np.array([1, -1], np.float32)
    data = foreign.classifier(embedding=True)
    made, names = onnx_ends.with_linear(data, "embedding", weights, offsets)
    found = said(made)
    assert tuple(found) == names == ("deviations", "embedding")
    assert found["deviations"] == pytest.approx(said(data)["embedding"] @ weights + offsets, rel=1e-5)
    again, names = onnx_ends.with_linear(made, "deviations", np.eye(2, dtype=np.float32), np.zeros(2, np.float32))
    assert names == ("deviations_", "embedding_")
    assert said(again)["deviations_"] == pytest.approx(found["deviations"])


def test_old_files_list_weights_as_inputs() -> None:
    """A weight that goes is no input that somebody would have to give."""
    model = onnx.load_from_string(foreign.classifier())
    for tensor in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    made, _ = onnx_ends.before_last(model.SerializeToString(), "logits")
    assert [one.name for one in onnx.load_from_string(made).graph.input] == ["x", "down"]
