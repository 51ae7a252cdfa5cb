"""A killed training resumes at its epoch and results in the same weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from compressor import networks
from compressor.data._inputs import FileInputs
from compressor.errors import TrainError
from compressor.portions import portions
from compressor.recipe.model import TrainRecipe
from compressor.steps._base import Rows
from compressor.train.supervised import Epoch, fit

SETTINGS = TrainRecipe(epochs=4, batch=16, learning_rate=0.01)
FULL = replace(SETTINGS, ema=0.9, mixup=0.4, schedule="cosine", warm_up_epochs=1, early_stopping=4)


def _rows(n: int = 64) -> Rows:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, n)
    inputs = rng.standard_normal((n, 1, 8, 8)).astype(np.float32)
    inputs[labels == 1, :, :4] += 2
    return Rows(inputs, labels)


def _network() -> torch.nn.Module:
    return networks.build("resnet8", 2, 1, 8, 8, {"filters": 4})


def _kill_at_two(epoch: Epoch) -> None:
    if epoch.number == 2:
        raise KeyboardInterrupt


def _fit(settings: TrainRecipe, path: Path | None, on_epoch: object = None) -> torch.nn.Module:
    rows = _rows()
    return fit(_network(), rows.inputs, rows.labels, settings, held=rows, resume=path, on_epoch=on_epoch)  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [SETTINGS, replace(SETTINGS, optimizer="sgd"), FULL])
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, settings: TrainRecipe) -> None:
    """Killed after the second epoch and started again: the same weights bit for bit, and every epoch is reported."""
    told: list[Epoch] = []
    with pytest.raises(KeyboardInterrupt):
        _fit(settings, tmp_path / "state.pt", _kill_at_two)
    resumed, whole = _fit(settings, tmp_path / "state.pt", told.append).state_dict(), _fit(settings, None).state_dict()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert [epoch.number for epoch in told] == [1, 2, 3, 4]
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_inputs_in_a_file_continue_what_inputs_in_memory_began(tmp_path: Path) -> None:
    """Where rows are does not count: the state is of the same training, and the weights are the same bit for bit."""
    rows = _rows()
    shape = rows.inputs.shape
    inputs = FileInputs.received(portions(rows.inputs, most=7), shape, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        _fit(FULL, tmp_path / "state.pt", _kill_at_two)
    held = replace(rows, inputs=inputs)
    resumed = fit(_network(), inputs, rows.labels, FULL, held=held, resume=tmp_path / "state.pt").state_dict()
    whole = _fit(FULL, None).state_dict()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    """With the state of the last epoch there is nothing left to train."""
    first = _fit(SETTINGS, tmp_path / "state.pt")
    before = (tmp_path / "state.pt").stat().st_mtime_ns
    assert torch.equal(_fit(SETTINGS, tmp_path / "state.pt").state_dict()["head.bias"], first.state_dict()["head.bias"])
    assert (tmp_path / "state.pt").stat().st_mtime_ns == before


def test_the_state_of_another_training_is_refused(tmp_path: Path) -> None:
    """Training must not continue from these weights with other settings."""
    _fit(replace(SETTINGS, epochs=1), tmp_path / "state.pt")
    with pytest.raises(TrainError, match="delete it to start over"):
        _fit(replace(SETTINGS, epochs=1, seed=1), tmp_path / "state.pt")


@pytest.mark.parametrize("content", [b"", b"no state", b"PK\x03\x04broken"])
def test_a_broken_state_is_refused(tmp_path: Path, content: bytes) -> None:
    """A foreign file is a coded error that names it and is left as it is."""
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(TrainError, match=r"state\.pt"):
        _fit(SETTINGS, tmp_path / "state.pt")
    assert (tmp_path / "state.pt").read_bytes() == content


def test_a_state_that_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    """The error comes in the first epoch, not after the last."""
    with pytest.raises(TrainError, match="Expected to write"):
        _fit(SETTINGS, tmp_path / "no folder" / "state.pt")
