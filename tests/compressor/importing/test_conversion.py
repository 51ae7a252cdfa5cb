"""Whole networks, exported here by torch, become networks again: exact, with every weight trained."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import fx, nn
from torch.nn import functional

from compressor.errors import ConversionError, OperatorError
from compressor.importing import conversion
from compressor.importing.conversion import converted, module_of
from compressor.importing.network import ImportedNetwork, Value
from compressor.importing.operators import TRANSLATORS
from compressor.importing.parity import compared
from compressor.importing.reading import OnnxSource, read

from .conftest import NETWORKS, SHAPE

Exported = Callable[..., bytes]


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("name", NETWORKS)
def test_computes_what_the_file_does(name: str, opset: int, norms: bool, exported: Exported) -> None:  # noqa: FBT001
    """Two rows, three and one give onnxruntime's outputs to 1e-5; a plain export holds as many weights as torch's."""
    made = converted(exported(name, opset, norms=norms))
    assert made.apart <= 1e-5
    network = NETWORKS[name]()
    floats = sum(value.numel() for value in network.parameters()) + 144 * (name == "masked")
    assert made.weights == floats or (not norms and made.weights < floats)  # folded norms


@pytest.mark.parametrize("name", NETWORKS)
def test_trains_every_weight(name: str, exported: Exported) -> None:
    """A step of training reaches every parameter: none is a constant by mistake."""
    torch.manual_seed(0)
    network = module_of(exported(name, norms=True)).train()
    loss = functional.cross_entropy(network(torch.randn(16, *SHAPE) * 2), torch.arange(16) % 5)
    loss.backward()
    assert [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_gives_layers_the_names_and_classes_they_had(exported: Exported) -> None:
    """Norms are norms, hard-swish is one layer, and a layer is called as in the network it was exported from."""
    network = module_of(exported("hard_swish", norms=True))
    kinds = {name: type(module) for name, module in network.named_children()}
    assert kinds["stem_0"] is nn.Conv2d
    assert kinds["stem_1"] is nn.BatchNorm2d
    assert sum(kind is nn.Hardswish for kind in kinds.values()) == 3
    assert kinds["head"] is nn.Linear


@pytest.mark.parametrize("name", ["training", "_modules", "forward", "_calls", "T_destination", "class"])
def test_takes_names_that_a_network_has_of_its_own(name: str, file: Callable[..., bytes]) -> None:
    """A node or weight may be called as an attribute of torch's modules, or of ours; it is named otherwise here."""
    weights = {name: np.ones((2, 2, 1, 1), np.float32), "scale": np.ones((1, 2, 1, 1), np.float32)}
    nodes = [
        onnx.helper.make_node("Conv", ["x", name], ["a"], name=f"{name}/Conv"),
        onnx.helper.make_node("Relu", ["a"], ["b"], name=name),
        onnx.helper.make_node("Mul", ["b", "scale"], ["y"], name=name + "_"),
    ]
    network = module_of(file(nodes, weights))
    assert network.training is False
    assert network(torch.ones(1, 2, 6, 6)).flatten()[0] == 2


def test_keeps_a_layer_that_runs_twice_as_one(exported: Exported) -> None:
    """Weights that two nodes share are one layer, so that training moves both."""
    network = module_of(exported("shared"))
    assert sum(isinstance(module, nn.Conv2d) for module in network.modules()) == 2


def test_equal_tensors_that_an_exporter_wrote_once_are_one_parameter(file: Callable[..., bytes]) -> None:
    """A bias of zeros that is another layer's scale: it was refused as a weight in two forms."""
    weights = {"w": np.ones((2, 2, 1, 1), np.float32), "same": np.array([0.5, 0.25], np.float32)}
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w", "same"], ["a"]),
        onnx.helper.make_node("Transpose", ["a"], ["b"], perm=[0, 2, 3, 1]),
        onnx.helper.make_node("Mul", ["b", "same"], ["c"]),
        onnx.helper.make_node("LayerNormalization", ["c", "same", "same"], ["y"], axis=-1),
    ]
    network = module_of(file(nodes, weights))
    assert sum(value.numel() for value in network.parameters()) == 6


@pytest.mark.parametrize("name", NETWORKS)
def test_is_an_ordinary_network(name: str, exported: Exported) -> None:
    """It can be traced by torch.fx, copied, and loaded from its own weights; all give the same outputs."""
    data = exported(name)
    network, again, x = module_of(data), module_of(data), torch.randn(3, *SHAPE)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
        again.load_state_dict(network.state_dict())
        wanted = network(x)
        for other in (fx.symbolic_trace(network), copy.deepcopy(network), again):
            assert torch.equal(other(x), wanted)


def test_opens_a_batch_that_the_export_fixed(exported: Exported) -> None:
    """A file of one row becomes a network of any number, if nothing in it depends on the one."""
    assert module_of(exported("residual", batch=False))(torch.zeros(4, *SHAPE)).shape == (4, 5)


def test_refuses_a_fixed_batch_that_a_reshape_holds(file: Callable[..., bytes]) -> None:
    """A reshape to one row fails with two: the message says how to export."""
    nodes = [onnx.helper.make_node("Reshape", ["x", "shape"], ["y"], name="flat")]
    with pytest.raises(ConversionError, match="open batch"):
        module_of(file(nodes, {"shape": np.array([1, 72])}, shape=(1, 2, 6, 6)))


def test_names_the_first_node_that_differs(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """A translator that computes something else is found at its node, not at the end."""
    table = {**TRANSLATORS, "Clip": lambda op: op.run(torch.clamp, op.tensor(), 0, 0.1)}
    monkeypatch.setattr(conversion, "TRANSLATORS", table)
    with pytest.raises(ConversionError, match=r"Clip at '/Clip'.* the first node that differs"):
        module_of(exported("padded"))


def amplified(file: Callable[..., bytes]) -> bytes:
    """Return a file that amplifies rounding: the difference of two layers that are nearly the same, a thousandfold."""
    ramp = np.linspace(0.5, 1.5, 8, dtype=np.float32).reshape(2, 2, 2, 1)
    weights = {"one": ramp, "other": ramp * np.float32(1.001), "gain": np.full((1, 2, 1, 1), 1000, np.float32)}
    nodes = [
        onnx.helper.make_node("Conv", ["x", "one"], ["a"], name="first"),
        onnx.helper.make_node("Conv", ["x", "other"], ["b"], name="second"),
        onnx.helper.make_node("Sub", ["b", "a"], ["d"], name="difference"),
        onnx.helper.make_node("Mul", ["d", "gain"], ["y"], name="grown"),
    ]
    return file(nodes, weights)


def test_rounding_that_a_network_amplifies_is_no_wrong_node(file: Callable[..., bytes]) -> None:
    """A layer that is right to 5e-6, as other processors compute it, changes this output by .005 of it."""
    source, network, places = opened(amplified(file))
    network.get_parameter("first.weight").data *= 1 + 5e-6
    assert 1e-3 < compared(network, source, places) / float(np.abs(source.values["y"]).max()) < 0.02


def test_an_output_far_away_is_refused_though_each_node_is_right(file: Callable[..., bytes]) -> None:
    """An amplification of ten thousand leaves nothing to train."""
    source, network, places = opened(amplified(file))
    network.get_parameter("first.weight").data *= 1 + 8e-5
    with pytest.raises(ConversionError, match="'y' with two rows"):
        compared(network, source, places)


def test_other_rows_may_not_differ_much_more_than_those_compared(file: Callable[..., bytes]) -> None:
    """Where nothing is amplified, 1 % in an output of three rows is no rounding."""
    nodes = [onnx.helper.make_node("Relu", ["x"], ["y"])]
    source, network, places = opened(file(nodes, {}))
    rows, values = source.others
    for factor, wrong in ((1.00005, False), (1.01, True)):
        other = replace(source, others=(rows, {**values, "y": values["y"] * np.float32(factor)}))
        with pytest.raises(ConversionError, match="'y' with three rows") if wrong else nullcontext():
            compared(network, other, places)


def test_a_wrong_node_behind_an_amplifier_is_named(file: Callable[..., bytes]) -> None:
    """Each node is compared on onnxruntime's values: the first one's difference does not hide behind the others'."""
    source, network, places = opened(amplified(file))
    network.get_parameter("second.weight").data *= 1 + 5e-4
    with pytest.raises(ConversionError, match="Conv at 'second'"):
        compared(network, source, places)


def test_scores_near_zero_are_those_of_a_sigmoid(file: Callable[..., bytes]) -> None:
    """Onnxruntime's is off by 1e-7 of 1, which is much of the 1e-4 that a detector says where nothing is."""
    weights = {"w": np.full((2, 2, 1, 1), 0.1, np.float32), "b": np.full(2, -9, np.float32)}
    nodes = [onnx.helper.make_node("Conv", ["x", "w", "b"], ["a"]), onnx.helper.make_node("Sigmoid", ["a"], ["y"])]
    source, network, places = opened(file(nodes, weights))
    wanted = source.values["y"]
    source = replace(source, values={**source.values, "y": wanted + np.float32(3e-7)})
    assert compared(network, source, places) < 5e-7
    source = replace(source, values={**source.values, "y": wanted + np.float32(2e-6)})
    with pytest.raises(ConversionError, match="Sigmoid"):
        compared(network, source, places)


@pytest.mark.parametrize("operator", ["TopK", "NonZero"])
def test_a_file_that_chooses_boxes_inside_is_refused_with_what_to_export(
    file: Callable[..., bytes], operator: str
) -> None:
    """A suppression, or the surest boxes: no network has that."""
    nodes = {
        "TopK": [onnx.helper.make_node("TopK", ["x", "k"], ["y", "at"], name="chosen", axis=3)],
        "NonZero": [
            onnx.helper.make_node("NonZero", ["x"], ["at"], name="chosen"),
            onnx.helper.make_node("Cast", ["at"], ["y"], to=onnx.TensorProto.FLOAT),
        ],
    }[operator]
    with pytest.raises(OperatorError, match=f"{operator} at 'chosen', which chooses.*nms=False and end2end=False"):
        module_of(file(nodes, {"k": np.array([2])} if operator == "TopK" else {}))


def opened(data: bytes) -> tuple[OnnxSource, ImportedNetwork, dict[str, Value]]:
    """Return a file, the network made of it, and where that computes each value."""
    source = read(data)
    made, nodes = conversion.translated(source)
    network = conversion.built(made, [made.places[name] for name in source.outputs])
    return source, network, {name: made.places[name] for node in nodes for name in node.outputs}


def test_refuses_a_weight_that_would_not_train(monkeypatch: pytest.MonkeyPatch) -> None:
    """A translator that takes a weight for a fixed number is found by counting."""

    def frozen(op: object) -> object:
        weight = torch.from_numpy(op.static(1).copy())  # type: ignore[attr-defined]
        return op.run(lambda x: x @ weight, op.tensor())  # type: ignore[attr-defined]

    monkeypatch.setattr(conversion, "TRANSLATORS", {**TRANSLATORS, "MatMul": frozen})
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            nodes, "g", [onnx.helper.make_tensor_value_info("x", 1, ("N", 4))],
            [onnx.helper.make_tensor_value_info("y", 1, ("N", 3))],
            [onnx.numpy_helper.from_array(np.ones((4, 3), np.float32), "w")],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    with pytest.raises(ConversionError, match="every weight to be trained, got w"):
        module_of(model.SerializeToString())


def test_holds_no_value_longer_than_it_is_read(exported: Exported) -> None:
    """Memory does not grow with the depth: each value is dropped after its last reader."""
    network = module_of(exported("residual"))
    dropped = [index for call in network._calls for index in call.frees]
    assert len(dropped) == len(set(dropped)) == len(network._calls) - 1
    assert isinstance(network, ImportedNetwork)
