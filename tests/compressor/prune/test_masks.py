"""Sparsity is exact, kept by fine-tuning, and reported correctly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from compressor import networks, steps
from compressor.errors import PruneError, RecipeError
from compressor.export.onnx import export_onnx
from compressor.prune.masks import cubic, held, make_masks
from compressor.prune.settings import SparsifySettings, n_of_m
from compressor.steps._base import Bench
from tests.compressor.networks.kinds import CLASSIFIERS

pytestmark = pytest.mark.slow

SHAPE = (1, 32, 32)
QUICK = SparsifySettings(rounds=2, fine_tune_epochs=1)


def _network(name: str = "resnet8") -> nn.Module:
    return networks.build(name, 10, *SHAPE)


def _sparse(bench: Bench, name: str = "resnet8", settings: SparsifySettings = QUICK) -> steps.Applied:
    return steps.apply(_network(name), bench, settings)


def _masked(network: nn.Module) -> list[torch.Tensor]:
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return [layer.weight for layer in layers if getattr(layer, "groups", 1) == 1]


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("pattern", ["2:4", "1:4", "3:8"])
def test_n_of_m_holds_exactly(bench: Bench, name: str, pattern: str) -> None:
    """Each M neighbouring inputs of every masked layer have exactly N weights, after fine-tuning."""
    n, m = n_of_m(pattern)
    weights = [w for w in _masked(_sparse(bench, name, replace(QUICK, pattern=pattern)).network) if not w.shape[1] % m]
    assert weights
    for weight in weights:
        assert set((weight.movedim(1, -1).reshape(-1, m) != 0).sum(dim=1).tolist()) == {n}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_unstructured_share_holds_exactly(bench: Bench, name: str) -> None:
    """Each masked layer has its share of zeros after fine-tuning; a zero is +0.0, so that it compresses."""
    applied = _sparse(bench, name, replace(QUICK, sparsity=0.75))
    for weight in _masked(applied.network):
        assert int((weight == 0).sum()) == round(0.75 * weight.numel())
        assert not torch.signbit(weight[weight == 0]).any()
    assert applied.notes["sparsity_of_masked_layers"] == pytest.approx(0.75, abs=0.001)


def test_names_and_order_of_the_weights_stay(bench: Bench) -> None:
    """No trace of the masks is left in the network."""
    network = _sparse(bench).network
    assert list(network.state_dict()) == list(_network().state_dict())
    assert [type(module) for module in network.modules()] == [type(module) for module in _network().modules()]


def test_notes_tell_size_and_no_speed(bench: Bench) -> None:
    """The compressed size falls by a good part, speed is not claimed, layers left dense are named."""
    notes = _sparse(bench, settings=replace(QUICK, pattern="1:4")).notes
    assert notes["weights_zlib_bytes_after"] < 0.5 * notes["weights_zlib_bytes_before"]
    assert notes["speed_gain"].startswith("none")
    assert notes["layers_left_dense"] == "stem"


def test_a_sparse_network_exports(bench: Bench) -> None:
    """The exported file computes the same as the masked network."""
    network = _sparse(bench).network
    session = onnxruntime.InferenceSession(export_onnx(network, *SHAPE), providers=["CPUExecutionProvider"])
    x = bench.search.inputs
    with torch.no_grad():
        np.testing.assert_allclose(
            session.run(["logits"], {"input": x})[0], network(torch.from_numpy(x))[0].numpy(), atol=1e-4
        )


def test_the_same_seed_gives_the_same_weights(bench: Bench) -> None:
    """Two runs agree bit for bit."""
    first, second = (_sparse(bench).network.state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_schedule_is_cubic() -> None:
    """Equation 1 of Zhu and Gupta, from nothing to all."""
    assert [cubic(number, 2) for number in (0, 1, 2)] == [0.0, 0.875, 1.0]


def test_masks_come_off_when_training_fails() -> None:
    """After an error inside, plain weights with their zeros are left."""
    network = _network()
    masks = make_masks(network, SparsifySettings(sparsity=0.5))
    with pytest.raises(KeyboardInterrupt), held(network, masks):
        raise KeyboardInterrupt
    assert list(network.state_dict()) == list(_network().state_dict())
    assert all((network.get_parameter(f"{name}.weight")[~mask] == 0).all() for name, mask in masks.items())


def test_a_pattern_that_fits_no_layer_is_a_coded_error(bench: Bench) -> None:
    """Where no layer's inputs divide by M, the message offers another pattern."""
    with pytest.raises(PruneError, match="divide by 11"):
        _sparse(bench, settings=replace(QUICK, pattern="2:11"))


@pytest.mark.parametrize(
    "bad",
    [{"pattern": "4:2"}, {"pattern": "4:4"}, {"pattern": "0:4"}, {"pattern": "half"}, {"sparsity": 1.0},
     {"sparsity": 0.0}, {"rounds": 0}, {"fine_tune_epochs": -1}],
)  # fmt: skip
def test_refuses_bad_settings(bad: dict[str, Any]) -> None:
    """A value out of range is refused before anything runs; defaults and any N:M are not."""
    steps.check(SparsifySettings())
    steps.check(SparsifySettings(pattern="3:8"))
    with pytest.raises(RecipeError, match="sparsify " + next(iter(bad))):
        steps.check(replace(SparsifySettings(), **bad))
