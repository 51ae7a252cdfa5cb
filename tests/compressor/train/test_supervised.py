"""The training loop learns, and does so the same way twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from compressor import networks
from compressor.errors import TrainError
from compressor.recipe.model import TrainRecipe
from compressor.steps._base import Rows
from compressor.train.augmentation import augment
from compressor.train.supervised import Epoch, fit

SETTINGS = TrainRecipe(epochs=3, batch=16, learning_rate=0.01)


def _data(n: int = 96) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, n)
    inputs = rng.standard_normal((n, 1, 12, 12)).astype(np.float32)
    inputs[labels == 1, :, :6] += 2
    return inputs, labels


def _network() -> torch.nn.Module:
    return networks.build("resnet8", 2, 1, 12, 12, {"filters": 4})


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_learns_what_is_easy(optimizer: str) -> None:
    """Bright above or not is learnt in a few epochs by either optimizer."""
    inputs, labels = _data()
    network = fit(_network(), inputs, labels, replace(SETTINGS, optimizer=optimizer, epochs=6))
    with torch.no_grad():
        predicted = network(torch.from_numpy(inputs))[0].argmax(1).numpy()
    assert (predicted == labels).mean() > 0.9
    assert not network.training


def test_the_same_seed_gives_the_same_weights() -> None:
    """Two trainings agree bit for bit; another seed does not."""
    runs = [fit(_network(), *_data(), replace(SETTINGS, seed=seed)).state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0])
    assert not torch.equal(runs[0]["head.weight"], runs[2]["head.weight"])


def test_tells_every_epoch() -> None:
    """The callback gets each epoch once, in order, with its figures."""
    told: list[Epoch] = []
    fit(_network(), *_data(), SETTINGS, on_epoch=told.append)
    assert [epoch.number for epoch in told] == [1, 2, 3]
    assert all(epoch.of == 3 and np.isfinite(epoch.loss) for epoch in told)


def test_a_loss_that_diverges_stops_the_run() -> None:
    """A training that runs away ends in a coded error, not in silent rubbish."""
    inputs, labels = _data()
    wild = replace(SETTINGS, augment=0.0, optimizer="sgd", weight_decay=1e30, learning_rate=1e8)
    with pytest.raises(TrainError, match="finite loss"):
        fit(_network(), inputs, labels, wild)


def test_nothing_to_learn_from_is_an_error() -> None:
    """One sample, or labels of another number, are refused."""
    inputs, labels = _data()
    for x, y in ((inputs[:1], labels[:1]), (inputs, labels[:-1])):
        with pytest.raises(TrainError):
            fit(_network(), x, y, SETTINGS)


def test_augmentation_keeps_the_shape_and_strength_zero_the_values() -> None:
    """Augmented batches have the same shape; strength 0 returns the batch unchanged."""
    x = torch.rand(4, 3, 10, 6)
    generator = torch.Generator().manual_seed(0)
    assert augment(x, 0.0, generator) is x
    assert augment(x, 1.0, generator).shape == x.shape
    assert not torch.equal(augment(x, 1.0, generator), x)


def test_new_options_are_off_by_default() -> None:
    """Held rows that nothing is decided by change no bit of the weights."""
    inputs, labels = _data()
    told: list[Epoch] = []
    plain = fit(_network(), inputs, labels, SETTINGS).state_dict()
    watched = fit(_network(), inputs, labels, SETTINGS, held=Rows(*_data(32)), on_epoch=told.append).state_dict()
    assert all(torch.equal(plain[name], watched[name]) for name in plain)
    assert all(epoch.held_accuracy is not None for epoch in told)


@pytest.mark.slow
@pytest.mark.parametrize(
    "option",
    [
        {"schedule": "cosine"}, {"schedule": "step"}, {"schedule": "constant"}, {"warm_up_epochs": 1}, {"ema": 0.9},
        {"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}, {"class_weights": "balanced"},
    ],
)  # fmt: skip
def test_each_option_changes_the_weights_and_is_deterministic(option: dict[str, Any]) -> None:
    """With an option two trainings agree bit for bit, and differ from one without."""
    inputs, labels = _data()
    labels[:40] = 0
    runs = [fit(_network(), inputs, labels, settings) for settings in (*[replace(SETTINGS, **option)] * 2, SETTINGS)]
    once, again, without = (run.state_dict()["head.weight"] for run in runs)
    assert torch.equal(once, again)
    assert not torch.equal(once, without)


def test_stops_early_and_keeps_the_best_weights() -> None:
    """Held labels that contradict the training end it after its patience, with the weights of its first epoch."""
    inputs, labels = _data()
    told: list[Epoch] = []
    patient = replace(SETTINGS, epochs=30, early_stopping=2, schedule="constant", augment=0.0)
    best = fit(_network(), inputs, labels, patient, held=Rows(inputs, 1 - labels), on_epoch=told.append)
    assert len(told) < 30
    chosen = max(range(len(told)), key=lambda i: (told[i].held_accuracy or 0, -i))
    first = fit(_network(), inputs, labels, replace(patient, epochs=chosen + 1, early_stopping=0))
    assert torch.equal(best.get_parameter("head.weight"), first.get_parameter("head.weight"))


def test_early_stopping_without_held_rows_is_an_error() -> None:
    """Without rows to judge on it is refused, not skipped."""
    for held in (None, Rows(*(values[:0] for values in _data()))):
        with pytest.raises(TrainError, match="early_stopping"):
            fit(_network(), *_data(), replace(SETTINGS, early_stopping=1), held=held)
