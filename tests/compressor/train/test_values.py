"""Training on numbers: both losses, early stopping on the error, distillation on values, and refused inputs."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compressor import networks, steps
from compressor.errors import TrainError
from compressor.prune import judging
from compressor.prune.groups import find_groups
from compressor.prune.importance import channel_scores, measure_sensitivity
from compressor.prune.settings import SparsifySettings
from compressor.recipe.model import TrainRecipe
from compressor.steps import distill, qat
from compressor.steps._base import Bench, Rows
from compressor.tasks.regression.training import ValueLoss
from compressor.train.augmentation import draw_mix
from compressor.train.processes import job
from compressor.train.processes.job import SharedTraining
from compressor.train.supervised import Epoch, fit

SETTINGS = TrainRecipe(epochs=12, batch=32, learning_rate=0.01, augment=0.0)


def rows(seed: int, n: int = 160, outputs: int = 1) -> Rows:
    """Return windows whose last step, and the mean of whose first half, are the numbers to predict."""
    x = np.random.default_rng(seed).standard_normal((n, 1, 16, 4)).astype(np.float32)
    values = np.stack([x[:, 0, -1, 0], 4 * x[:, 0, :8].mean(axis=(1, 2))], axis=1)
    return Rows(x, np.ascontiguousarray(values[:, :outputs]))


def network(filters: int = 8, outputs: int = 1) -> nn.Module:
    """Return an untrained network of values."""
    return networks.build("window_cnn", outputs, 1, 16, 4, {"filters": filters, "hidden": 16})


@pytest.fixture(scope="module")
def bench() -> Bench:
    """A bench of numbers with a trained teacher."""
    train = rows(0)
    teacher = fit(network(16), train.inputs, train.labels, SETTINGS)
    return Bench(
        train=train, calibration=train, search=rows(1, 64), settings=replace(SETTINGS, epochs=2), teacher=teacher
    )


@pytest.mark.parametrize("loss", ["huber", "mse"])
def test_learns_two_numbers_by_either_loss(loss: str) -> None:
    """The error falls well below a standard deviation, on every output."""
    data = rows(0, outputs=2)
    trained = fit(network(outputs=2), data.inputs, data.labels, replace(SETTINGS, loss=loss))
    with torch.no_grad():
        said = trained(torch.from_numpy(data.inputs))[0].numpy()
    assert (np.abs(said - data.labels).mean(axis=0) < 0.5).all()


def test_huber_grows_slower_than_the_square() -> None:
    """An outlier of ten deviations costs 9.5, not 100."""
    said, wanted = torch.tensor([[10.0]]), torch.tensor([[0.0]])
    assert float(ValueLoss("").between(said, wanted)) == pytest.approx(9.5)
    assert float(ValueLoss("mse").between(said, wanted)) == pytest.approx(100.0)


def test_early_stopping_keeps_the_weights_of_the_smallest_error() -> None:
    """The reported score is an error, and the weights of its best epoch are kept."""
    data, held, told = rows(0), rows(1, 64), list[Epoch]()
    settings = replace(SETTINGS, early_stopping=20)
    trained = fit(network(), data.inputs, data.labels, settings, held=held, on_epoch=told.append)
    errors = [epoch.held_accuracy for epoch in told if epoch.held_accuracy is not None]
    assert -judging.score(trained, held) == pytest.approx(min(errors), abs=1e-5)
    assert told[0].measure == "error"
    assert told[0].said.startswith("loss ")
    assert " error " in told[0].said


def test_a_resumed_training_gives_the_same_weights(tmp_path: Path) -> None:
    """Numbers are stored and compared like classes."""
    data, path = rows(0), tmp_path / "t.part"
    whole = fit(network(), data.inputs, data.labels, SETTINGS)

    def stop(epoch: Epoch) -> None:
        if epoch.number == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(network(), data.inputs, data.labels, SETTINGS, resume=path, on_epoch=stop)
    again = fit(network(), data.inputs, data.labels, SETTINGS, resume=path)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in whole.state_dict().items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda y: y * np.float32(0), "differ, got the same in all 160 rows of value 0"),
        (lambda y: np.where(np.arange(160)[:, None] == 3, np.float32(np.nan), y), "finite training values, got nan"),
        (lambda y: np.repeat(y, 2, axis=1), r"values \(N, 1\), as the network gives, got \(160, 2\)"),
    ],
)
def test_refuses_constant_nan_and_too_many_values(change, said: str) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - a lambda
    """Before the first step."""
    data = rows(0)
    with pytest.raises(TrainError, match=said):
        fit(network(), data.inputs, change(data.labels).astype(np.float32), SETTINGS)


def test_mixup_mixes_numbers_by_the_same_share() -> None:
    """A number between two is the target of an input between two."""
    x = torch.arange(8.0).reshape(8, 1, 1, 1)
    mix = draw_mix(tuple(x.shape), (1.0, 0.0), torch.Generator().manual_seed(0))
    assert mix is not None
    y = x.reshape(8, 1)
    assert torch.allclose(mix.inputs(x, x[mix.partners]).reshape(8, 1), mix.labels(y, y[mix.partners], 1))


def test_numbers_go_to_other_processes_and_back(tmp_path: Path) -> None:
    """Arrays and the loss are the same after the folder."""
    settings = replace(SETTINGS, loss="mse")
    sent = SharedTraining(spec=("window_cnn", 1, 1, 16, 4, {}), rows=rows(0), settings=settings, held=rows(1))
    job.write(sent, tmp_path)
    got = job.read(tmp_path)
    assert got.settings.loss == "mse"
    assert got.held is not None
    assert np.array_equal(got.rows.labels, sent.rows.labels)


def test_a_student_comes_nearer_to_its_teacher(bench: Bench) -> None:
    """The notes have the distance of its values from the teacher's, and no agreement."""
    applied = steps.apply(network(4), bench, distill.Settings(epochs=20, weight=1.0, learning_rate=0.01))
    assert set(applied.notes) == {"teacher_distance_before", "teacher_distance_after"}
    assert applied.notes["teacher_distance_after"] < 0.9 * applied.notes["teacher_distance_before"]


def test_pruning_notes_errors(bench: Bench) -> None:
    """Masks and channels are judged by the error on the search rows."""
    trained = copy.deepcopy(bench.teacher)
    applied = steps.apply(trained, bench, SparsifySettings(rounds=1, fine_tune_epochs=1))
    assert {"error_before", "error_after", "round_1_error"} <= set(applied.notes)
    assert not any("accuracy" in name for name in applied.notes)


def test_sensitivity_is_in_hundredths_of_a_deviation(bench: Bench) -> None:
    """Narrowing a trained layer costs error, and taylor's scores follow the squared error."""
    assert bench.teacher is not None
    measured = measure_sensitivity(bench.teacher, bench)
    assert max(one.drop_points for one in measured) > 1
    groups = find_groups(bench.teacher, (1, 16, 4)).groups
    scores = channel_scores(bench.teacher, groups, "taylor", bench.train)
    assert all(np.isfinite(score).all() and score.max() > 0 for score in scores.values())


def test_qat_keeps_the_epoch_of_the_smallest_error(bench: Bench) -> None:
    """Learned ranges of a regression are no worse than observed ones on the search rows."""
    applied = steps.apply(copy.deepcopy(bench.teacher), bench, qat.Settings(epochs=2, allow_unchanged=True))
    assert applied.notes["fake_quant_error"] <= applied.notes["fake_quant_error_before"]
    assert applied.ranges
