"""Sensitivity measures the loss of each layer, and protects layers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from compressor import networks, steps
from compressor.prune.importance import RATIOS, ChannelSensitivity, measure_sensitivity, sensitive_layers
from compressor.prune.settings import PruneSettings
from compressor.steps._base import Bench
from compressor.train.supervised import fit


def _network() -> torch.nn.Module:
    return networks.build("resnet8", 10, 1, 32, 32)


def test_measures_every_group_at_every_ratio(bench: Bench) -> None:
    """Six groups of ResNet8, three ratios each; the network is as before."""
    network = _network()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    measured = measure_sensitivity(network, bench)
    assert len(measured) == 6 * len(RATIOS)
    assert [one.ratio for one in measured[:3]] == list(RATIOS)
    assert {one.layer for one in measured} & {"stem"}
    assert all(one.removed >= 1 and -100 <= one.drop_points <= 100 for one in measured)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_a_limit_protects_what_costs_more_at_half() -> None:
    """Only the drop at half of the channels counts."""
    rows = (("a", 0.5, 3.0), ("b", 0.5, 1.0), ("b", 0.75, 9.0), ("c", 0.25, 9.0))
    measured = [
        ChannelSensitivity(layer=layer, layers=(layer,), ratio=ratio, removed=1, drop_points=drop)
        for layer, ratio, drop in rows
    ]
    assert sensitive_layers(measured, 2.0) == {"a"}


@pytest.mark.slow
def test_protected_layers_keep_their_width(bench: Bench) -> None:
    """Layers that cost more than the limit come out as wide as they went in, and the notes name them."""
    settings = replace(bench.settings, epochs=15, learning_rate=0.01)
    trained = fit(_network(), bench.train.inputs, bench.train.labels, settings)
    drops = {one.layer: one.drop_points for one in measure_sensitivity(trained, bench) if one.ratio == 0.5}
    layer, least = max(drops, key=lambda name: drops[name]), min(drops.values())
    width = trained.get_parameter(f"{layer}.weight").shape[0]
    limit = max(drops[layer] - 0.01, least)
    assert limit > 0
    quick = PruneSettings(macs_ratio=0.8, rounds=1, fine_tune_epochs=0, protect_sensitive=limit)
    applied = steps.apply(trained, bench, quick)
    assert layer in applied.notes["protected_layers"]
    assert applied.network.get_parameter(f"{layer}.weight").shape[0] == width
    assert applied.notes[f"sensitivity {layer}"].count("points at") == 3
