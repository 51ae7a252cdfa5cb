"""Several processes train as one does, and nothing hangs. Every test starts real processes (10 s each)."""

from __future__ import annotations

import copy
import io
import time
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressor import networks
from compressor.data._inputs import FileInputs
from compressor.errors import TrainError
from compressor.portions import portions
from compressor.recipe.model import TrainRecipe
from compressor.steps._base import Rows
from compressor.train.processes.distributed import Launch, fit_distributed
from compressor.train.processes.job import NetworkSpec
from compressor.train.supervised import Epoch, fit

SETTINGS = TrainRecipe(epochs=3, batch=16, learning_rate=0.01, augment=0.0, processes=2)
RESNET: NetworkSpec = ("resnet8", 2, 1, 6, 6, {"filters": 4})
NETWORK = """
import os, time, torch
class Tiny(torch.nn.Module):
    def __init__(self, classes, size):
        super().__init__()
        self.body, self.head = torch.nn.Linear(size, 8), torch.nn.Linear(8, classes)
        self.unused = torch.nn.Linear(2, 2)
    def forward(self, x):
        embedding = torch.relu(self.body(x.flatten(1)))
        return self.head(embedding), embedding
def build(classes, channels, height, width):
    return Tiny(classes, channels * height * width)
def fails(*shape):
    if os.environ.get("RANK") == "1":
        raise RuntimeError("the cable is out")
    return build(*shape)
def dies(*shape):
    if os.environ.get("RANK") == "1":
        os.kill(os.getpid(), 9)
    return build(*shape)
def hangs(*shape):
    if os.environ.get("RANK") == "1":
        time.sleep(600)
    return build(*shape)
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NetworkSpec:
    """A user's own network without batch normalisation, and with a layer that the loss does not reach."""
    (tmp_path / "tiny_net.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    return ("tiny_net:build", 2, 1, 6, 6, {})


def _rows(n: int = 70) -> Rows:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, n)
    inputs = rng.standard_normal((n, 1, 6, 6)).astype(np.float32)
    inputs[labels == 1, :, :3] += 1
    return Rows(inputs, labels)


def _bytes(network: torch.nn.Module) -> bytes:
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    return buffer.getvalue()


def _kill_at_one(epoch: Epoch) -> None:
    raise KeyboardInterrupt(epoch)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "change"),
    [
        ("tiny", {"class_weights": "balanced", "label_smoothing": 0.1}),
        ("resnet8", {"augment": 1.0, "mixup": 0.4, "cutmix": 0.4, "ema": 0.9, "early_stopping": 1}),
    ],
)
def test_two_processes_come_to_the_weights_of_one(tiny: NetworkSpec, network: str, change: dict[str, Any]) -> None:
    """Uneven parts, weights of classes, draws, and moments of batch norms are those of the whole batch."""
    rows, settings, one, two = _rows(), replace(SETTINGS, batch=17, **change), list[Epoch](), list[Epoch]()
    spec = tiny if network == "tiny" else RESNET
    torch.manual_seed(settings.seed)
    start = networks.build(*spec)
    alone = fit(copy.deepcopy(start), rows.inputs, rows.labels, settings, held=rows, on_epoch=one.append)
    launch = Launch(start=_bytes(start), held=rows, on_epoch=two.append)
    shared = fit_distributed(spec, rows, settings, launch)
    for name, value in alone.state_dict().items():
        assert torch.allclose(value, shared.state_dict()[name], atol=1e-4, rtol=1e-4), name
    assert [epoch.number for epoch in two] == [epoch.number for epoch in one]
    assert np.allclose([astuple(epoch)[2:5] for epoch in one], [astuple(epoch)[2:5] for epoch in two], atol=1e-4)
    assert not shared.training


@pytest.mark.slow
def test_inputs_that_do_not_fit_into_memory_are_sent_in_parts(tmp_path: Path) -> None:
    """From the file of the first process to files of the others: the weights are those of arrays, bit by bit."""
    rows, settings = _rows(), replace(SETTINGS, epochs=1, augment=1.0, early_stopping=1)
    streamed = replace(rows, inputs=FileInputs.received(portions(rows.inputs, most=9), rows.inputs.shape, tmp_path))
    torch.manual_seed(0)
    start = _bytes(networks.build(*RESNET))
    whole = fit_distributed(RESNET, rows, settings, Launch(start=start, held=rows)).state_dict()
    parts = fit_distributed(RESNET, streamed, settings, Launch(start=start, held=streamed)).state_dict()
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


@pytest.mark.slow
def test_a_killed_distributed_training_resumes_to_the_same_weights(tmp_path: Path) -> None:
    """Augmentation, batch normalisation, EMA and early stopping included; the other processes go with the parent."""
    rows, spec = _rows(), ("resnet8", 2, 1, 6, 6, {"filters": 4})
    full = replace(SETTINGS, augment=1.0, ema=0.9, mixup=0.4, early_stopping=3)
    launch = Launch(held=rows, resume=tmp_path / "state.pt")
    with pytest.raises(KeyboardInterrupt):
        fit_distributed(spec, rows, full, replace(launch, on_epoch=_kill_at_one))
    assert (tmp_path / "state.pt").exists()
    resumed = fit_distributed(spec, rows, full, launch).state_dict()
    whole = fit_distributed(spec, rows, full, Launch(held=rows)).state_dict()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


@pytest.mark.slow
def test_a_process_that_fails_ends_the_training_with_its_last_lines(tiny: NetworkSpec) -> None:
    """The waiting process is ended too, and the error names the cause."""
    rows = _rows()
    with pytest.raises(TrainError, match=r"exit code 1 of rank 1:\n.*RuntimeError: the cable is out"):
        fit_distributed(("tiny_net:fails", *tiny[1:]), rows, SETTINGS)


@pytest.mark.slow
def test_a_process_that_is_killed_is_named_with_its_signal(tiny: NetworkSpec) -> None:
    """The other process loses it, which is not the cause."""
    rows = _rows()
    with pytest.raises(TrainError, match=r"got signal SIGKILL of rank 1: .*lower processes"):
        fit_distributed(("tiny_net:dies", *tiny[1:]), rows, SETTINGS)


@pytest.mark.slow
def test_a_process_that_hangs_ends_the_training(tiny: NetworkSpec) -> None:
    """Without the end of an epoch within the patience, all processes are ended."""
    rows, began_s = _rows(), time.monotonic()
    with pytest.raises(TrainError, match="Expected an epoch within 15 s"):
        fit_distributed(("tiny_net:hangs", *tiny[1:]), rows, SETTINGS, Launch(stall_s=15))
    assert time.monotonic() - began_s < 60


def test_bad_rows_and_small_batches_are_refused_before_a_process_starts(tiny: NetworkSpec) -> None:
    """Rows that the processes would refuse are refused at once."""
    rows, began_s = _rows(), time.monotonic()
    broken = rows.inputs.copy()
    broken[3] = np.nan
    with pytest.raises(TrainError, match="row 3"):
        fit_distributed(tiny, Rows(broken, rows.labels), SETTINGS)
    with pytest.raises(TrainError, match="lower processes"):
        fit_distributed(tiny, rows, replace(SETTINGS, processes=9))
    assert time.monotonic() - began_s < 5
