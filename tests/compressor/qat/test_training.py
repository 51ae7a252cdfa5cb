"""The step qat on a small network: it rescues, it is deterministic, and it keeps its promises."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from compressor import networks, steps
from compressor.errors import QuantizeError, RecipeError, TrainError
from compressor.qat.fake_quantize import Grid, weight_scale
from compressor.qat.graph import layers, trace, weight_of
from compressor.qat.simulation import simulate
from compressor.qat.training import QatPlan, score, train
from compressor.recipe.model import TrainRecipe
from compressor.steps._base import Applied, Bench, Rows
from compressor.steps.qat import Settings, apply
from compressor.train.supervised import fit

pytestmark = pytest.mark.slow

TRAINING = TrainRecipe(epochs=4, batch=16, learning_rate=0.01)


@pytest.fixture
def network(easy: Rows) -> nn.Module:
    """Return a trained ResNet8 whose first channel is huge and whose second undoes it: per-tensor int8 ruins it."""
    made = fit(networks.build("resnet8", 2, 1, 12, 12, {"filters": 4}), easy.inputs, easy.labels, TRAINING)
    with torch.no_grad():
        for block in made.blocks:
            block.first_norm.weight[0] *= 150
            block.first_norm.bias[0] *= 150
            block.second.weight[:, 0] /= 150
    return made


def _bench(easy: Rows, teacher: nn.Module | None = None) -> Bench:
    return Bench(
        train=easy,
        calibration=easy,
        search=easy,
        settings=TRAINING,
        teacher=copy.deepcopy(teacher) if teacher else None,
    )


def _fake_quantized(applied: Applied, easy: Rows, grid: Grid) -> float:
    simulation = simulate(applied.network, easy.inputs, grid)
    simulation.observe(easy.inputs)
    for name, quantizer in simulation.quantizers.items():
        quantizer.observed = torch.tensor(applied.ranges[name])
    return score(simulation.copy, easy).accuracy


def test_rescues_a_network_that_per_tensor_weights_ruin(network: nn.Module, easy: Rows) -> None:
    """Fake-quantized accuracy rises, and the result with its ranges has exactly the accuracy that is noted."""
    settings = Settings(epochs=6, learning_rate=0.003, per_channel=False)
    applied = apply(network, _bench(easy, network), settings)
    assert applied.notes["fake_quant_accuracy_before"] < 0.8
    assert applied.notes["fake_quant_accuracy"] > 0.9
    assert _fake_quantized(applied, easy, Grid(per_channel=False)) == applied.notes["fake_quant_accuracy"]


def test_keeps_the_structure_and_names_nodes_of_the_network(network: nn.Module, easy: Rows) -> None:
    """Keys stay, weights are finite and on their grid, and every range contains 0 and names an FX node."""
    keys = list(network.state_dict())
    applied = apply(network, _bench(easy, network), Settings(max_steps=2))
    traced = trace(applied.network)
    assert list(applied.network.state_dict()) == keys
    assert applied.finite()
    assert set(applied.ranges) <= {node.name for node in traced.graph.nodes}
    assert all(low <= 0 < high for low, high in applied.ranges.values())
    for layer in layers(traced):
        steps = (weight_of(applied.network, layer) / weight_scale(weight_of(applied.network, layer), Grid())).detach()
        assert torch.allclose(steps, steps.round(), atol=1e-3)
        assert steps.abs().max() == pytest.approx(127, abs=1e-3)


def test_the_same_seed_gives_the_same_weights_and_ranges(network: nn.Module, easy: Rows) -> None:
    """Two runs agree bit for bit, whatever the global random state; another seed does not."""
    results = []
    for seed in (1, 1, 2):
        torch.rand(seed)
        bench = replace(_bench(easy, network), settings=replace(TRAINING, seed=seed))
        results.append(apply(copy.deepcopy(network), bench, Settings(epochs=1, learning_rate=0.003, per_channel=False)))
    first, second, other = (result.network.state_dict() for result in results)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert results[0].ranges == results[1].ranges
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_max_steps_ends_training_and_zero_is_no_limit(network: nn.Module, easy: Rows) -> None:
    """Steps are counted over epochs: 96 rows in batches of 16 are 6 an epoch."""
    for most, taken in ((8, 8), (3, 3), (0, 12)):
        applied = apply(copy.deepcopy(network), _bench(easy), Settings(epochs=2, max_steps=most))
        assert applied.notes["steps"] == taken


def test_never_returns_worse_than_it_began(network: nn.Module, easy: Rows) -> None:
    """With a destructive rate the start is kept, and the message names the next step."""
    told: list[str] = []
    applied = apply(network, replace(_bench(easy), tell=told.append), Settings(epochs=1, learning_rate=0.9))
    assert told[-1].endswith("the start, which is kept; a learning_rate below 0.9 may help")
    assert applied.notes["fake_quant_accuracy"] >= applied.notes["fake_quant_accuracy_before"]


def test_nothing_to_calibrate_or_learn_from_is_an_error(network: nn.Module, easy: Rows) -> None:
    """Empty splits are refused before anything is trained."""
    none = Rows(easy.inputs[:0], easy.labels[:0])
    for split, error in (("calibration", QuantizeError), ("train", TrainError), ("search", TrainError)):
        with pytest.raises(error, match="got"):
            apply(copy.deepcopy(network), replace(_bench(easy), **{split: none}), Settings(max_steps=1))


def test_inputs_that_are_not_finite_are_errors(network: nn.Module, easy: Rows) -> None:
    """NaN in calibration or training rows ends in a coded error."""
    broken = Rows(np.full_like(easy.inputs, np.nan), easy.labels)
    with pytest.raises(QuantizeError, match="finite"):
        apply(copy.deepcopy(network), replace(_bench(easy), calibration=broken), Settings(max_steps=1))
    with pytest.raises(TrainError, match="finite"):
        apply(copy.deepcopy(network), replace(_bench(easy), train=broken), Settings(max_steps=1))


@pytest.mark.parametrize(("where", "said"), [("stem.weight", "the weights of stem"), ("head.bias", "the bias of head")])
def test_a_training_that_diverged_names_the_layer_and_the_value(
    network: nn.Module, easy: Rows, where: str, said: str
) -> None:
    """The error names the weights that are not finite, and the next step."""
    simulation = simulate(network, easy.inputs, Grid())
    simulation.observe(easy.inputs)
    with torch.no_grad():
        network.get_parameter(where).view(-1)[0] = float("nan")
    plan = QatPlan(
        epochs=1,
        max_steps=1,
        learning_rate=0.5,
        range_learning_rate=0.005,
        distill=0.0,
        batch=16,
        augment=0.0,
        label_smoothing=0.0,
        seed=0,
    )
    with pytest.raises(TrainError, match=rf"with nan in {said}: check the inputs, or lower learning_rate \(0.5\)"):
        train(simulation, easy, easy, plan)


def test_settings_out_of_range_are_found() -> None:
    """Every number has limits; the defaults are within."""
    steps.check(Settings())
    with pytest.raises(RecipeError, match=r"\[\[compress\]\] qat distill between 0 and 1, got 2"):
        steps.check(Settings(distill=2.0))
