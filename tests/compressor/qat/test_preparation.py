"""Training starts where the grid can hold the weights: clipped, equalized, or as they are."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from compressor import networks
from compressor.errors import QuantizeError, TrainError
from compressor.qat.fake_quantize import Grid
from compressor.qat.simulation import simulate
from compressor.qat.training import CLIPPED, EQUALIZED, PLAIN, prepare, score
from compressor.recipe.model import TrainRecipe
from compressor.steps._base import Bench, Rows
from compressor.steps.equalize import Settings, apply
from compressor.train.supervised import fit

PER_TENSOR = Grid(per_channel=False)


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Rows]:
    """A small ResNet8 that distinguishes images that are bright above or below, and its rows."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 96)
    inputs = rng.standard_normal((96, 1, 12, 12)).astype(np.float32)
    inputs[labels == 1, :, :6] += 2
    settings = TrainRecipe(epochs=4, batch=16, learning_rate=0.01)
    network = networks.build("resnet8", 2, 1, 12, 12, {"filters": 4})
    return fit(network, inputs, labels, settings), Rows(inputs, labels)


def _dead(network: nn.Module) -> nn.Module:
    """Return a copy in which a channel of each block is always 0 and the weights that read it are huge."""
    made = copy.deepcopy(network)
    with torch.no_grad():
        for block in made.blocks:
            block.first_norm.bias[0] = -100
            block.second.weight[:, 0] = 300
    return made


def _spread(network: nn.Module) -> nn.Module:
    """Return a copy in which a channel of each block is 150 times as large and the next layer undoes it."""
    made = copy.deepcopy(network)
    with torch.no_grad():
        for block in made.blocks:
            block.first_norm.weight[0] *= 150
            block.first_norm.bias[0] *= 150
            block.second.weight[:, 0] /= 150
    return made


def test_weights_that_only_meet_zeros_no_longer_take_the_levels(trained: tuple[nn.Module, Rows]) -> None:
    """Without a step of training, a network ruined by channels that died is as good as the float one."""
    network, rows = _dead(trained[0]), trained[1]
    reached = score(network, rows)
    simulation = simulate(network, rows.inputs, PER_TENSOR)
    found = prepare(simulation, rows.inputs, rows, equalize=False)
    assert found.name == CLIPPED
    assert found.plain.accuracy < 0.8
    assert found.score.accuracy >= reached.accuracy - 0.02
    assert score(simulation.copy, rows) == found.score


def test_channels_of_unlike_size_are_equalized(trained: tuple[nn.Module, Rows]) -> None:
    """Where the large channels matter, clipping ruins them; their scale moves into the next layer instead."""
    network, rows = trained[0], trained[1]
    simulation = simulate(_spread(network), rows.inputs, PER_TENSOR)
    found = prepare(simulation, rows.inputs, rows, equalize=True)
    assert found.name == EQUALIZED
    assert found.plain.accuracy < 0.8
    assert found.score.accuracy >= score(network, rows).accuracy - 0.02


@pytest.mark.parametrize("equalize", [True, False])
def test_the_start_is_never_worse_than_plain_ranges(trained: tuple[nn.Module, Rows], *, equalize: bool) -> None:
    """Of several preparations the best on the search rows is kept, weights and ranges."""
    network, rows = trained
    simulation = simulate(copy.deepcopy(network), rows.inputs, Grid())
    found = prepare(simulation, rows.inputs, rows, equalize=equalize)
    assert found.name in {PLAIN, CLIPPED, *({EQUALIZED} if equalize else ())}
    assert found.plain <= found.score
    assert score(simulation.copy, rows) == found.score


def test_what_is_exported_has_the_scale_that_was_chosen(trained: tuple[nn.Module, Rows]) -> None:
    """The largest weight equals the clip, so that a back end that computes the scale from it finds the same grid."""
    network, rows = _dead(trained[0]), trained[1]
    simulation = simulate(network, rows.inputs, PER_TENSOR)
    found = prepare(simulation, rows.inputs, rows, equalize=False)
    simulation.settle()
    again = simulate(network, rows.inputs, PER_TENSOR)
    again.observe(rows.inputs)
    assert score(again.copy, rows).accuracy == pytest.approx(found.score.accuracy, abs=0.02)


def test_step_equalize_clips_for_good_where_asked(trained: tuple[nn.Module, Rows]) -> None:
    """Without training, clipped weights in plain min/max ranges are as good as the float network was."""
    network, rows = _dead(trained[0]), trained[1]
    reached = score(network, rows)
    bench = Bench(train=rows, calibration=rows, search=rows, settings=TrainRecipe())
    applied = apply(network, bench, Settings(clip_weights=True, per_channel=False))
    simulation = simulate(applied.network, rows.inputs, PER_TENSOR)
    simulation.observe(rows.inputs)
    assert applied.notes["clipped_weights"] > 0
    assert score(simulation.copy, rows).accuracy >= reached.accuracy - 0.02


def test_no_rows_are_errors(trained: tuple[nn.Module, Rows]) -> None:
    """Nothing to observe or to judge on is refused."""
    network, rows = trained
    none = Rows(rows.inputs[:0], rows.labels[:0])
    simulation = simulate(copy.deepcopy(network), rows.inputs, PER_TENSOR)
    with pytest.raises(QuantizeError, match="calibration rows"):
        prepare(simulation, none.inputs, rows, equalize=True)
    with pytest.raises(TrainError, match="search split"):
        prepare(simulation, rows.inputs, none, equalize=True)
