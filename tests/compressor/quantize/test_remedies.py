"""The sequence of remedies: the next one, when it stops, and that it really rescues a model."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
import pytest

from compressor import networks
from compressor.errors import QuantizeError
from compressor.export.onnx import export_onnx
from compressor.quantize._qdq import Sensitivity
from compressor.quantize._remedies import LADDER, TriedRung, applied, climb, following, started_from
from compressor.steps.quantize import Settings

SHAPE = (1, 12, 12)
RUNGS = {rung.name: rung for rung in LADDER}


def _tried(name: str, drop: float | None, settings: Settings | None = None) -> TriedRung:
    return TriedRung(rung=RUNGS[name], settings=settings or Settings(), drop=drop, seconds=0.0, why="", artifact=b"")


def test_the_first_rung_is_as_set_and_a_rung_that_is_enough_is_the_last() -> None:
    """After the first that passes, no other is tried."""
    assert following([], Settings(), 0.01) == RUNGS["as set"]
    assert following([_tried("as set", 0.01)], Settings(), 0.01) is None


def test_a_rung_that_was_set_already_is_not_tried_again() -> None:
    """With calibration set to percentile, the next remedy is MSE."""
    settings = Settings(calibration="percentile")
    assert following([_tried("as set", 0.2, settings)], settings, 0.01) == RUNGS["mse"]


def test_other_schemes_skip_what_only_helps_static_int8() -> None:
    """After dynamic int8 come the forms with float computation."""
    settings = Settings(scheme="dynamic_int8")
    assert following([_tried("as set", None, settings)], settings, 0.01) == RUNGS["weight_int8"]


def test_a_remedy_builds_on_the_best_before_it() -> None:
    """Bias correction keeps the calibration with the least drop; a new scheme starts over."""
    best = Settings(calibration="percentile")
    tried = [_tried("as set", 0.3), _tried("percentile", 0.1, best), _tried("mse", 0.2, Settings(calibration="mse"))]
    assert started_from(RUNGS["bias correction"], tried, Settings()) == best
    assert started_from(RUNGS["float16"], tried, Settings()) == Settings()


def test_mixed_precision_adds_the_most_sensitive_layers_by_name() -> None:
    """The settings that come out name the layers, so that they can be written into a recipe."""
    worst = [Sensitivity("b", 3.0, 1), Sensitivity("a", 9.0, 1), Sensitivity("c", 30.0, 1)]
    assert applied(RUNGS["2 float layers"], Settings(float_layers=("a",)), worst).float_layers == ("a", "b")


def test_float_is_always_last() -> None:
    """When nothing passes, the float model ends the climb, whatever its drop."""
    assert LADDER[-1].name == "float32"
    assert following([_tried("float16", 0.5)], Settings(), -1.0) == RUNGS["float32"]
    assert following([_tried("float32", 0.0)], Settings(), -1.0) is None


@functools.cache
def _unbalanced() -> bytes:
    """Return a DS-CNN whose first channels are tiny and scaled up again behind: one scale for all wrecks it."""
    model = onnx.load_from_string(export_onnx(networks.build("ds_cnn", 5, *SHAPE, {"filters": 16}), *SHAPE))
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    first, second = [node for node in model.graph.node if node.op_type == "Conv"][:2]
    factors = np.geomspace(1, 1e-4, 16).astype(np.float32)
    for name, by in ((first.input[1], factors), (first.input[2], factors), (second.input[1], 1 / factors)):
        value = onnx.numpy_helper.to_array(tensors[name])
        scaled = value * by.reshape(-1, *(1,) * (value.ndim - 1))
        tensors[name].CopyFrom(onnx.numpy_helper.from_array(scaled, name))
    return bytes(model.SerializeToString())


def _inputs() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((64, *SHAPE)).astype(np.float32)


def _batches() -> Iterator[np.ndarray]:
    yield _inputs()


def _logits(model: bytes) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"input": _inputs()})[0]


def _agreement(model: bytes) -> float:
    """Return how near the logits are to the float model's, as 1 less their relative squared error, at least 0."""
    want = _logits(_unbalanced())
    want = want - want.mean(axis=0)
    got = _logits(model) - _logits(_unbalanced()).mean(axis=0)
    return float(max(0.0, 1 - ((got - want) ** 2).sum() / (want**2).sum()))


def test_the_ladder_rescues_a_model_that_one_scale_for_all_wrecks() -> None:
    """Per-tensor weights fail, a later remedy passes, and the text names the cause."""
    climbed = climb(_unbalanced(), _batches, _agreement, Settings(per_channel=False), allowed_drop=0.1)
    assert climbed.tried[0].drop is not None
    assert climbed.tried[0].drop > 0.1
    assert climbed.chosen.drop is not None
    assert climbed.chosen.drop <= 0.1
    assert climbed.chosen.rung.name != "float32"
    assert climbed.chosen.rung.cause in climbed.chosen.why
    assert _agreement(climbed.chosen.artifact) == pytest.approx(1 - climbed.chosen.drop)


def test_a_rung_that_cannot_be_made_is_said_and_passed_over() -> None:
    """Dynamic int8 of a CNN is refused; the search continues and keeps the reason."""
    settings = Settings(scheme="dynamic_int8")
    climbed = climb(_unbalanced(), _batches, _agreement, settings, allowed_drop=0.1)
    assert climbed.tried[0].drop is None
    assert "convolutions" in climbed.tried[0].why
    assert climbed.chosen.rung.name in {"weight_int8", "float16"}


def test_an_impossible_allowance_ends_at_the_float_model() -> None:
    """Nothing can gain two points: every rung is tried, the float model is chosen, byte for byte."""
    climbed = climb(_unbalanced(), _batches, _agreement, Settings(), allowed_drop=-2.0)
    assert climbed.chosen.artifact == _unbalanced()
    assert [item.rung.name for item in climbed.tried] == [rung.name for rung in LADDER]


def test_a_model_that_cannot_be_read_is_an_error() -> None:
    """Not even the float rung can be made of foreign bytes."""
    with pytest.raises(QuantizeError):
        climb(b"no model", _batches, lambda artifact: float(len(artifact) > 0), Settings(), allowed_drop=-1.0)
