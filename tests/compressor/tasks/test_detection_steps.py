"""The steps on a detector: each changes it as it promises, and learns from boxes that move with their pictures."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compressor import networks, steps
from compressor.export.onnx import export_onnx
from compressor.qat.training import QatPlan, _Loss
from compressor.recipe.model import TrainRecipe
from compressor.steps import qat
from compressor.steps._base import Applied, Bench, Rows
from compressor.tasks import named
from compressor.tasks._loss import TaskLoss
from compressor.train.supervised import Options, fit_with

SIDE = 64
pytestmark = pytest.mark.slow
SETTINGS = TrainRecipe(epochs=8, batch=16, learning_rate=0.01, fine_tune_learning_rate=0.01, augment=0.5, flips="both")
BRIGHT = torch.tensor([0.25, 0.5, 0.5, 0.75])


def rectangles(count: int, seed: int) -> Rows:
    """Return pictures with a bright or a dark rectangle each, the two classes, on grey."""
    rng = np.random.default_rng(seed)
    images = np.full((count, 1, SIDE, SIDE), 0.5, np.float32) + rng.normal(0, 0.02, (count, 1, SIDE, SIDE))
    labels = np.zeros((count, 1, 5), np.float32)
    for image, label in zip(images, labels, strict=True):
        kind, (width, high) = rng.integers(2), rng.integers(16, 32, 2)
        x, y = rng.integers(0, SIDE - width), rng.integers(0, SIDE - high)
        image[0, y : y + high, x : x + width] = float(kind)
        label[0] = [kind, x / SIDE, y / SIDE, (x + width) / SIDE, (y + high) / SIDE]
    return Rows(images.astype(np.float32), labels, "detection")


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """Return a detector of these rectangles, trained for a few seconds."""
    torch.manual_seed(0)
    network = networks.build("centre_net", 2, 1, SIDE, SIDE, {"filters": 8})
    return fit_with(network, rectangles(160, 0), SETTINGS, Options())


Made = tuple[Applied, float, float]


@pytest.fixture(scope="module")
def applied(trained: nn.Module) -> Callable[[str], Made]:
    """Return the result of a step on a copy, and the F1 before and after; each step is taken once."""
    return functools.cache(lambda step: _applied(trained, step, **STEPS[step]))


def _applied(trained: nn.Module, step: str, **own: float) -> Made:
    rows, search = rectangles(96, 1), rectangles(48, 2)
    bench = Bench(train=rows, calibration=search, search=search, settings=SETTINGS, teacher=copy.deepcopy(trained))
    settings = steps.module(step).Settings(**own)
    result = steps.apply(copy.deepcopy(trained), bench, settings)
    return result, *(score(one, search) for one in (trained, result.network))  # type: ignore[return-value]


def score(network: nn.Module, rows: Rows) -> float:
    """Return the mean F1 of a picture."""
    with torch.no_grad():
        grid = network.eval()(torch.from_numpy(rows.inputs))[0]
    return named("detection").training.goodness(grid, torch.from_numpy(rows.labels)) / len(rows)


STEPS = {
    "prune": {"macs_ratio": 0.8, "rounds": 1, "fine_tune_epochs": 3},
    "distill": {"epochs": 1},
    "qat": {"epochs": 1, "allow_unchanged": True},
    "fine_tune": {"epochs": 1},
    "sparsify": {"sparsity": 0.3, "rounds": 1, "fine_tune_epochs": 1},
    "equalize": {},
}


def test_every_step_of_a_network_is_tried_here() -> None:
    """A new one needs its row: a detector either has it or refuses it by name."""
    there = {name for name in steps.names() if steps.module(name).LEVEL == steps.NETWORK}
    assert there == STEPS.keys()


@pytest.mark.parametrize("step", STEPS)
def test_a_step_keeps_a_detector_that_detects(applied: Callable[[str], Made], step: str) -> None:
    """It still finds the rectangles, and exports with its grid."""
    result, before, after = applied(step)
    assert before > 0.8
    assert after > 0.6, (before, after, result.notes)
    assert result.finite()
    assert bool(result.ranges) == (step == "qat")
    assert export_onnx(result.network, 1, SIDE, SIDE)


def test_pruning_narrows_the_body_and_keeps_the_grid(applied: Callable[[str], Made]) -> None:
    """The classes and the four numbers of a box stay; fewer multiplications remain."""
    result, _, _ = applied("prune")
    assert result.notes["macs_after"] <= 0.8 * result.notes["macs_before"]
    assert result.network(torch.zeros(1, 1, SIDE, SIDE))[0].shape == (1, 6, SIDE // 8, SIDE // 8)


def test_distillation_comes_closer_to_the_teachers_grid(trained: nn.Module) -> None:
    """From a student with other weights, on rows that it was not trained on."""
    torch.manual_seed(1)
    student = copy.deepcopy(trained)
    with torch.no_grad():
        student.head.weight += 0.1 * torch.randn_like(student.head.weight)  # type: ignore[operator]
    rows = rectangles(96, 1)
    bench = Bench(train=rows, calibration=rows, search=rectangles(48, 2), settings=SETTINGS, teacher=trained)
    notes = steps.apply(student, bench, steps.module("distill").Settings(epochs=2, weight=1.0)).notes
    assert notes["teacher_distance_after"] < 0.8 * notes["teacher_distance_before"]


class Recorded(TaskLoss):
    """Keeps what it is called with."""

    def forward(self, x: torch.Tensor, outputs: Any, targets: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        """Return nothing to learn."""
        del outputs
        self.seen = (x, targets)
        return x.sum() * 0


def test_boxes_move_with_their_pictures_in_quantization_aware_training() -> None:
    """A bright rectangle stays in its box, as in the training of floats."""
    x = torch.zeros(32, 1, SIDE, SIDE)
    x[:, :, SIDE // 2 : 3 * SIDE // 4, SIDE // 4 : SIDE // 2] = 4
    y = torch.cat([torch.zeros(1), BRIGHT]).repeat(32, 1, 1)
    own = Recorded()
    plan = QatPlan(
        epochs=1, max_steps=1, learning_rate=0.1, range_learning_rate=0.1, distill=0.0, batch=32, augment=1.0,
        label_smoothing=0.0, seed=0, flips="both",
    )  # fmt: skip
    loss = _Loss(
        plan=plan, own=own, training=named("detection").training, teacher=None,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    loss(lambda given: (given, given), x, y)  # type: ignore[arg-type]
    images, boxes = own.seen
    kept = boxes[:, 0, 0] >= 0
    assert kept.sum() > 16
    assert (boxes[kept, 0, 1] > 0.5).any()  # some are mirrored
    for image, box in zip(images[kept, 0], boxes[kept, 0], strict=True):
        there = torch.nonzero(image > 2)
        low, high = there.amin(dim=0), there.amax(dim=0) + 1
        found = torch.stack([low[1], low[0], high[1], high[0]]) / SIDE
        assert torch.allclose(found, box[1:], atol=0.04), (found, box)


def test_quantization_aware_training_has_the_flips_of_the_recipe(trained: nn.Module) -> None:
    """Mirrored pictures give another loss, from the same start and seed; no preflight calls the key unread."""
    rows, losses = rectangles(32, 1), []
    for flips in ("none", "both"):
        told: list[str] = []
        settings = replace(SETTINGS, flips=flips)
        bench = Bench(train=rows, calibration=rows, search=rows, settings=settings, tell=told.append)
        own = qat.Settings(max_steps=1, equalize=False, allow_unchanged=True)
        steps.apply(copy.deepcopy(trained), bench, own)
        losses.append(told[0].rpartition("loss")[2])
    assert losses[0] != losses[1]
    assert "flips" in qat.TRAIN_READS
