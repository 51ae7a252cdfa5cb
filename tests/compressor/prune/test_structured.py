"""Structured pruning reaches the requested MACs, and leaves a network that can be exported."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from compressor import networks, steps
from compressor.errors import PruneError, RecipeError, StepDidNothingError
from compressor.export.onnx import OUTPUT_NAMES, export_onnx
from compressor.prune.judging import score
from compressor.prune.plan import count_macs, count_parameters
from compressor.prune.settings import IMPORTANCES, PruneSettings
from compressor.steps._base import Bench, Rows
from tests.compressor.networks.kinds import CLASSIFIERS

pytestmark = pytest.mark.slow

SHAPE = (1, 32, 32)
LEAST = {"window_cnn": 0.25}  # three layers of 16 and 32: multiples of 8 are steps this wide
QUICK = PruneSettings(macs_ratio=0.5, rounds=1, fine_tune_epochs=1)


def _network(name: str = "resnet8") -> torch.nn.Module:
    return networks.build(name, 10, *SHAPE)


def _pruned(bench: Bench, name: str = "resnet8", settings: PruneSettings = QUICK) -> steps.Applied:
    return steps.apply(_network(name), bench, settings)


@pytest.mark.parametrize("importance", IMPORTANCES)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_meets_the_share_of_macs(bench: Bench, name: str, importance: str) -> None:
    """At most half of the MACs are left, by count, and not much less; the notes have the figure."""
    applied = _pruned(bench, name, replace(QUICK, importance=importance, fine_tune_epochs=0))
    before, after = (count_macs(network, *SHAPE) for network in (_network(name), applied.network))
    assert LEAST.get(name, 0.45) * before < after <= 0.5 * before
    assert (applied.notes["macs_before"], applied.notes["macs_after"]) == (before, after)
    assert applied.notes["parameters_after"] == count_parameters(applied.network)
    assert applied.network(torch.zeros(2, *SHAPE))[0].shape == (2, 10)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_only_shapes_change(bench: Bench, name: str) -> None:
    """Names of modules and weights stay; shapes get narrower and never wider; classes stay; widths are multiples."""
    applied, fresh = _pruned(bench, name).network, _network(name)
    assert [key for key, _ in applied.named_modules()] == [key for key, _ in fresh.named_modules()]
    old, new = fresh.state_dict(), applied.state_dict()
    assert list(old) == list(new)
    assert all(a <= b for key in old for a, b in zip(new[key].shape, old[key].shape, strict=True))
    assert sum(value.numel() for value in new.values()) < sum(value.numel() for value in old.values())
    assert new["head.bias"].shape == (10,)
    assert all(value.shape[0] % 8 == 0 for key, value in new.items() if value.ndim == 4)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_pruned_network_exports(bench: Bench, name: str) -> None:
    """The exported file computes the same as the narrowed network."""
    network = _pruned(bench, name).network
    session = onnxruntime.InferenceSession(export_onnx(network, *SHAPE), providers=["CPUExecutionProvider"])
    x = bench.search.inputs
    with torch.no_grad():
        expected = [output.numpy() for output in network(torch.from_numpy(x))]
    for got, want in zip(session.run(list(OUTPUT_NAMES), {"input": x}), expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_the_same_seed_gives_the_same_weights(bench: Bench, importance: str) -> None:
    """Two runs agree bit for bit."""
    settings = replace(QUICK, importance=importance, rounds=2)
    first, second = (_pruned(bench, settings=settings).network.state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_prunes_in_rounds(bench: Bench) -> None:
    """Each round takes MACs, and notes its accuracy before and after fine-tuning; the last meets the share."""
    notes = _pruned(bench, settings=replace(QUICK, rounds=3)).notes
    macs = [notes["macs_before"], *(notes[f"round_{number}_macs"] for number in (1, 2, 3))]
    assert macs == sorted(set(macs), reverse=True)
    assert macs[-1] <= 0.5 * macs[0]
    assert all(0 <= notes[f"round_{number}_accuracy_tuned"] <= 1 for number in (1, 2, 3))


def test_single_channels_come_nearer_to_the_share(bench: Bench) -> None:
    """Without rounding of widths the share is met within two hundredths."""
    notes = _pruned(bench, settings=replace(QUICK, round_to=1, fine_tune_epochs=0)).notes
    assert 0.48 < notes["macs_ratio"] <= 0.5


def test_no_layer_gives_more_than_it_may(bench: Bench) -> None:
    """At most ``max_layer_ratio`` of the original width is removed, over all rounds together."""
    settings = replace(QUICK, macs_ratio=0.3, max_layer_ratio=0.5, round_to=1, rounds=3, fine_tune_epochs=0)
    new, old = _pruned(bench, settings=settings).network.state_dict(), _network().state_dict()
    assert all(2 * new[key].shape[0] >= old[key].shape[0] for key in old if old[key].ndim == 4)


def test_a_share_out_of_reach_is_a_coded_error(bench: Bench) -> None:
    """A share below the limits of the layers raises a PruneError that names the settings to change."""
    with pytest.raises(PruneError, match="raise macs_ratio, max_layer_ratio"):
        _pruned(bench, settings=replace(QUICK, macs_ratio=0.02, max_layer_ratio=0.5))


def test_no_rows_to_judge_with_is_a_coded_error(bench: Bench) -> None:
    """An empty search split ends in a PruneError, not in a NaN."""
    none = Rows(bench.search.inputs[:0], bench.search.labels[:0])
    with pytest.raises(PruneError, match="rows in the search split"):
        score(_network(), none)


def test_bn_scale_needs_batch_norms(bench: Bench) -> None:
    """A network without batch norms raises an error instead of being pruned by another score."""
    network = _network()
    for name in [key for key, _ in network.named_modules() if key.endswith("norm")]:
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, torch.nn.Identity())
    with pytest.raises(PruneError, match="batch norms"):
        steps.apply(network, bench, replace(QUICK, importance="bn_scale"))


class _Norm(torch.nn.Module):
    """Makes its logits by a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(1, 10, 32), torch.nn.BatchNorm1d(10)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.conv(x).flatten(1)
        return self.norm(y), y


def test_logits_that_another_operation_makes_are_found_by_trial(bench: Bench) -> None:
    """A layer whose channels become the classes is left alone, though it does not output them itself."""
    with pytest.raises(StepDidNothingError, match="conv: its channels are outputs of the network, 10 of them"):
        steps.apply(_Norm(), bench, QUICK)


def test_prunes_until_fast_enough_or_says_why_not(bench: Bench) -> None:
    """A mild latency goal is tried by measured time; the verdict fits the figure."""
    notes = _pruned(bench, settings=replace(QUICK, latency_ratio=0.8, fine_tune_epochs=0)).notes
    assert (notes["latency_ratio"] <= 0.8) == (notes["latency_verdict"] == "reached")
    assert notes["macs_after"] < notes["macs_before"]


def test_says_when_pruning_does_not_help(bench: Bench) -> None:
    """A latency that no width reaches is noted with the fastest found."""
    notes = _pruned(bench, "ds_cnn", replace(QUICK, latency_ratio=0.01, fine_tune_epochs=0)).notes
    assert "of the time" in notes["latency_verdict"]
    assert notes["latency_ratio"] > 0.01


@pytest.mark.parametrize(
    "bad",
    [{"macs_ratio": 0.0}, {"macs_ratio": 1.5}, {"importance": "taylr"}, {"rounds": 0}, {"round_to": 0},
     {"fine_tune_epochs": -1}, {"latency_ratio": -0.1}, {"max_layer_ratio": 1.0}, {"protect_sensitive": -1.0}],
)  # fmt: skip
def test_refuses_bad_settings(bad: dict[str, Any]) -> None:
    """A value out of range is refused before anything runs; the defaults are not."""
    steps.check(PruneSettings())
    with pytest.raises(RecipeError, match="prune " + next(iter(bad))):
        steps.check(replace(PruneSettings(), **bad))


def test_a_pruned_network_prunes_again(bench: Bench) -> None:
    """Another step of pruning starts from the narrowed widths."""
    once = _pruned(bench).network
    again = steps.apply(copy.deepcopy(once), bench, replace(QUICK, macs_ratio=0.6, fine_tune_epochs=0))
    assert count_macs(again.network, *SHAPE) <= 0.6 * count_macs(once, *SHAPE)
