"""The outputs of a student approach those of its teacher, and match the requested ones."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from compressor import networks, steps
from compressor.errors import TrainError
from compressor.recipe.model import TrainRecipe
from compressor.steps import distill, fine_tune
from compressor.steps._base import Bench, Rows
from compressor.steps._settings import Settings
from compressor.tasks.classification.training import CrossEntropy, divergence
from compressor.train.distillation import DistillationLoss, Mixture, Unlabelled, agreement
from compressor.train.supervised import fit

SETTINGS = TrainRecipe(epochs=4, batch=16, learning_rate=0.01, augment=0.0)


def _rows(seed: int, n: int = 96) -> Rows:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    inputs = rng.standard_normal((n, 1, 8, 8)).astype(np.float32)
    inputs[labels == 1, :, :4] += 1
    inputs[labels == 2, :, :, :4] += 1
    return Rows(inputs, labels)


def _network(filters: int, classes: int = 3) -> torch.nn.Module:
    return networks.build("resnet8", classes, 1, 8, 8, {"filters": filters})


@pytest.fixture(scope="module")
def bench() -> Bench:
    """A bench with a trained teacher of eight filters."""
    rows = _rows(0)
    teacher = fit(_network(8), rows.inputs, rows.labels, SETTINGS)
    return Bench(train=rows, calibration=rows, search=_rows(1), settings=SETTINGS, teacher=teacher)


@pytest.mark.parametrize("options", [{}, {"feature_weight": 1.0}, {"weight": 1.0, "temperature": 1.0}])
def test_brings_the_student_nearer_to_its_teacher(bench: Bench, options: dict[str, float]) -> None:
    """The divergence on rows that were not trained on falls; the notes equal a second measurement."""
    settings = distill.Settings(epochs=4, learning_rate=0.01, **options)  # type: ignore[arg-type]
    applied = steps.apply(_network(4), bench, settings)
    notes = applied.notes
    assert notes["teacher_kl_after_nats"] < 0.7 * notes["teacher_kl_before_nats"]
    assert bench.teacher is not None
    assert (
        notes["teacher_kl_after_nats"]
        == agreement(applied.network, bench.teacher, bench.search, "after")["teacher_kl_after_nats"]
    )
    assert not applied.network.training


def test_leaves_the_teacher_alone_and_is_deterministic(bench: Bench) -> None:
    """Not a bit of the teacher changes, its batch statistics included; two runs agree."""
    assert bench.teacher is not None
    before = copy.deepcopy(bench.teacher.state_dict())
    settings = distill.Settings(epochs=1, feature_weight=1.0)
    once, again = (steps.apply(_network(4), bench, settings).network.state_dict() for _ in range(2))
    assert all(torch.equal(value, before[name]) for name, value in bench.teacher.state_dict().items())
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_features_pull_the_embedding_towards_the_teachers(bench: Bench) -> None:
    """With equal widths, matching features makes embeddings point the same way more than logits alone do."""
    assert bench.teacher is not None
    x, found = torch.from_numpy(bench.search.inputs), []
    for weight in (0.0, 10.0):
        settings = distill.Settings(epochs=4, learning_rate=0.01, feature_weight=weight)
        student = steps.apply(networks.build("ds_cnn", 3, 1, 8, 8, {"filters": 32}), bench, settings).network
        with torch.no_grad():
            cosine = torch.nn.functional.cosine_similarity(student(x)[1], bench.teacher(x)[1], dim=1)
        found.append(float(cosine.mean()))
    assert found[1] > found[0] + 0.05


def test_divergence_and_loss_equal_the_formula() -> None:
    """Two classes by hand: KL of (3/4, 1/4) against (1/2, 1/2), T^2 and the weights."""
    teacher_logits, student_logits = torch.tensor([[3.0, 1.0]]).log(), torch.zeros(1, 2)
    expected = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert float(divergence(student_logits, teacher_logits)) == pytest.approx(expected, rel=1e-5)
    assert float(divergence(student_logits, teacher_logits * 2, 2.0)) == pytest.approx(expected, rel=1e-5)

    class Fixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return teacher_logits * 2, x

    loss = DistillationLoss(Fixed(), CrossEntropy(0.0, None), Mixture(2.0, 0.7), (2, 2))
    got = float(loss(torch.ones(1, 2), (student_logits, torch.ones(1, 2)), torch.tensor([0])))
    assert got == pytest.approx(0.3 * np.log(2) + 0.7 * 4 * expected, rel=1e-5)


def test_rows_without_labels_count_in_the_teachers_part_alone() -> None:
    """One row of each kind: the label's loss is that of its row, the teacher's the mean of both."""

    def answered(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 2 * x, x

    class Fixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    class Student(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return answered(x)

    labelled, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    beside = Unlabelled(Student(), other.numpy(), replace(SETTINGS, augment=0.0))
    loss = DistillationLoss(Fixed(), CrossEntropy(0.0, None), Mixture(1.0, 0.6), (2, 2), beside)
    got = loss(labelled, answered(labelled), torch.tensor([1]))
    own = torch.nn.functional.cross_entropy(2 * labelled, torch.tensor([1]))
    both = torch.cat([labelled, other])
    assert float(got) == pytest.approx(float(0.4 * own + 0.6 * divergence(2 * both, both)), rel=1e-5)


def test_rows_without_labels_bring_the_student_nearer(bench: Bench) -> None:
    """Few labelled rows: with others that only the teacher answers, new rows are answered more as it does."""
    few = Rows(bench.train.inputs[:32], bench.train.labels[:32])
    settings, found = distill.Settings(epochs=12, learning_rate=0.01), []
    for unlabelled in (None, _rows(2, 256).inputs):
        applied = steps.apply(_network(4), replace(bench, train=few, unlabelled=unlabelled), settings)
        found.append(applied.notes["teacher_kl_after_nats"])
    assert applied.notes["unlabelled_inputs"] == 256
    assert found[1] < 0.8 * found[0]


def test_each_row_without_label_is_drawn_before_one_comes_again() -> None:
    """More are asked for than there are left: the next order begins, and the same seed gives the same one."""
    inputs = np.arange(5, dtype=np.float32).reshape(5, 1, 1, 1)
    first, again = (Unlabelled(torch.nn.Identity(), inputs, replace(SETTINGS, augment=0.0)) for _ in range(2))
    drawn = torch.cat([first.drawn(3)[0] for _ in range(5)]).flatten().tolist()
    assert [sorted(drawn[start : start + 5]) for start in (0, 5, 10)] == [[0.0, 1.0, 2.0, 3.0, 4.0]] * 3
    assert torch.cat([again.drawn(3)[0] for _ in range(5)]).flatten().tolist() == drawn


def test_refuses_what_is_no_teacher(bench: Bench) -> None:
    """No teacher, the student itself, or one of other classes: errors that name the next step."""
    student = _network(4)
    for teacher, said in ((None, "fine_tune"), (student, "copy it"), (_network(4, classes=2), "same labels")):
        with pytest.raises(TrainError, match=said):
            distill.apply(student, replace(bench, teacher=teacher), distill.Settings(epochs=1))


@pytest.mark.parametrize("settings", [distill.Settings(epochs=2), fine_tune.Settings(epochs=2)])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_what_a_mask_pruned_stays_pruned(bench: Bench, settings: Settings, optimizer: str) -> None:
    """Zeros in weights are zero after training further, the others move, and no hook stays behind."""
    network = _network(4)
    weight = network.get_parameter("blocks.0.first.weight")
    with torch.no_grad():
        weight[::2] = 0
    before = weight.detach().clone()
    steps.apply(network, replace(bench, settings=replace(SETTINGS, optimizer=optimizer)), settings)
    assert torch.equal(weight == 0, before == 0)
    assert not torch.equal(weight, before)
    assert not weight._backward_hooks


def test_fine_tuning_lowers_the_loss_and_says_so(bench: Bench) -> None:
    """The step trains from the present weights, with its own epochs, and reports each."""
    told: list[str] = []
    network = _network(4)
    settings = fine_tune.Settings(epochs=3, learning_rate=0.01)
    first = steps.apply(network, replace(bench, tell=told.append), settings)
    second = steps.apply(network, bench, settings)
    assert first.notes["epochs"] == len(told) == 3
    assert second.notes["loss_last"] < first.notes["loss_last"]


@pytest.mark.parametrize("module", [distill, fine_tune])
def test_settings_are_checked(module: object) -> None:
    """Defaults are inside every range."""
    steps.check(module.Settings())  # type: ignore[attr-defined]
