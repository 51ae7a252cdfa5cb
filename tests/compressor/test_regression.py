"""A regression from a table to the device: both formats, gated on errors, decoded by the manifest, served."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compressor.data import load
from compressor.errors import DataError
from compressor.export.onnx import export_onnx
from compressor.gates import Verdict
from compressor.gates.certificate import read_certificate
from compressor.gates.evidence import GateRecipe
from compressor.measurement.predictions import Candidate, predict
from compressor.recipe.model import Recipe, TrainRecipe
from compressor.recipe.read import read_recipe
from compressor.release.regate import check_golden, gate_again
from compressor.release.verify import verify_bundle
from compressor.run.pipeline import BasePoint, Outcome, run_recipe
from edge_agent.inference.batching import ResultBatcher
from edge_agent.inference.probe import probe
from edge_agent.inference.served_model import ServedModel, load_model
from wire.bundle import Bundle, read_bundle

pytest.importorskip("litert_torch", reason="the TFLite converter is not installed: ./scripts/setup tflite")
pytestmark = pytest.mark.slow
RECIPE = Path(__file__).with_name("regression_recipe.toml")
ROWS, STEPS = 700, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of noisy ramps whose value, 300 plus ten times the slope, is far from zero."""
    folder = tmp_path_factory.mktemp("slopes")
    random = np.random.default_rng(0)
    lines = ["window,site,target,x"]
    for row in range(ROWS):
        slope = random.uniform(-2, 2)
        values = 50 + slope * (np.arange(STEPS) - STEPS / 2) + random.normal(0, 1, STEPS)
        site = "north" if row % 2 else "south"
        lines += [f"w{row},{site},{300 + 10 * slope:.4f},{value:.4f}" for value in values]
    (folder / "steps.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """The recipe beside this file."""
    return read_recipe(RECIPE)


@pytest.fixture(scope="module")
def outcome(folder: Path, recipe: Recipe) -> Outcome:
    """One run, shared."""
    return run_recipe(recipe, data_root=folder, out=folder / "build")


@pytest.fixture(scope="module")
def bundles(outcome: Outcome) -> dict[str, Bundle]:
    """The bundles of the run by target."""
    return {bundle.manifest.target: bundle for bundle in map(read_bundle, outcome.bundles)}


@pytest.fixture
def served(outcome: Outcome) -> ServedModel:
    """The int8 TFLite bundle as the agent's child loads it."""
    return load_model(next(path for path in outcome.bundles if path.name.endswith("-pi.tfb")))


def test_both_targets_pass_on_errors_alone(outcome: Outcome) -> None:
    """Every gate was measured; the certificate has no figures of classes."""
    assert outcome.verdict is Verdict.PASS
    assert {line.name for line in outcome.certificate.gates} == {
        "better_than_constant",
        *(gate.name for gate in read_recipe(RECIPE).gates),
    }
    assert all(item.figures["mae"] < 6 and item.figures["n_gate"] > 200 for item in outcome.targets)
    assert not any("accuracy" in name or "flip" in name for name in outcome.certificate.figures)
    assert not outcome.certificate.counts


def test_the_certificate_keeps_the_bounds_and_every_slice(outcome: Outcome) -> None:
    """The evidence of the gates is in the bundle; slices have the Bonferroni level of two, of a first look."""
    metrics = read_certificate((outcome.report.parent / "gate.json").read_bytes()).metrics
    assert set(metrics) == {"error_increase", "rmse_increase", "mae", "slice:north", "slice:south"}
    assert metrics["error_increase"].confidence == pytest.approx(0.955)
    assert metrics["slice:north"].confidence == pytest.approx(0.9775)


def test_integers_stand_for_values_far_from_zero(bundles: dict[str, Bundle]) -> None:
    """int8 from the file, then scale and zero point, then mean and spread: its 256 steps span the range of values."""
    manifest = bundles["pi"].manifest
    spec = manifest.outputs[0]
    assert (spec.dtype, manifest.values, manifest.labels) == ("int8", ("target",), ())
    step = spec.scale * spec.spread[0]
    assert 290 < spec.mean[0] < 310
    assert 0 < step < 0.5
    golden = check_golden(bundles["pi"])
    steps = (golden.logits[:, 0] - spec.mean[0]) / step + spec.zero_point
    assert np.allclose(steps, np.rint(steps), atol=1e-2)


def test_all_targets_have_the_same_golden_inputs(bundles: dict[str, Bundle]) -> None:
    """A retraining keeps those of the one release that it is about: each target's patch carries no new ones."""
    gateway, pi = (check_golden(bundles[name]).inputs for name in ("gateway", "pi"))
    assert np.array_equal(gateway, pi.transpose(0, 3, 1, 2))


def test_learnt_ranges_reach_both_formats(bundles: dict[str, Bundle]) -> None:
    """The same network on the same grid has nearly the same outputs in both runtimes, in the values' unit."""
    golden = check_golden(bundles["pi"])
    gateway = bundles["gateway"]
    nchw = golden.inputs.transpose(0, 3, 1, 2).copy()
    other = predict(Candidate(gateway.manifest, gateway.artifact), nchw).logits
    assert np.abs(golden.logits - other).max() <= 0.1 * np.ptp(other)
    assert np.abs(golden.logits[:, 0] - golden.labels[:, 0]).mean() < 6


def test_bundles_verify_and_the_device_confirms_them(outcome: Outcome) -> None:
    """Digests, verdicts and golden vectors hold for values as for classes, here and in the device's probe."""
    for path in outcome.bundles:
        assert verify_bundle(path).complete
        assert gate_again(path).verdict == "pass"
        assert probe(path).ok


def test_report_and_card_say_error_and_never_accuracy(outcome: Outcome, bundles: dict[str, Bundle]) -> None:
    """Each measurement is named correctly."""
    page = outcome.report.read_text()
    body = page[page.index("<main") :]
    assert "Error on the gate split" in body
    assert "accuracy" not in body.lower()
    card = bundles["pi"].files["card.md"].decode()
    assert "predicts target from inputs (sensor window)" in card
    assert "increase of the mean absolute error" in card
    assert "accuracy" not in card.lower()
    assert b'"task":"sensor window regression"' in bundles["pi"].files["mlbom.cdx.json"]


def test_the_agent_counts_values_in_a_stream_of_their_own(served: ServedModel, folder: Path) -> None:
    """A window of inferences has a histogram of the value, no classes, and a heartbeat without invalid outputs."""
    results = ResultBatcher(served)
    lines = (folder / "steps.csv").read_text().splitlines()[1:]
    for row in range(20):
        text = "\n".join(line.rpartition(",")[2] for line in lines[row * STEPS : (row + 1) * STEPS])
        results.add(served.infer(text.encode()), text.encode(), row)
    results.settle()
    counters, names = served.counter.take(), [spec.name for spec in served.reference.streams]
    assert (served.reference.classes, names[-1], counters.table) == (0, "value_0", ())
    assert sum(counters.bins(len(names) - 1)) == counters.n == 20
    assert results.take_heartbeat().figures(0)["classes"] == [20]


def test_a_value_that_is_no_number_is_an_invalid_output(served: ServedModel) -> None:
    """Probation sees it: inferences less those of a class."""
    results = ResultBatcher(served)
    outcome = served.infer(b"\n".join(b"50" for _ in range(STEPS)))
    results.add(replace(outcome, logits=np.array([[np.nan]], np.float32)), b"", 0)
    figures = results.take_heartbeat().figures(0)
    assert (figures["n"], figures["classes"]) == (1, [0])


def test_a_margin_that_is_not_met_fails_and_leaves_no_bundle(folder: Path, recipe: Recipe) -> None:
    """An error that must fall by 100 does not."""
    strict = replace(recipe, gates=(GateRecipe(name="error_increase", max=-100.0),))
    outcome = run_recipe(strict, data_root=folder, out=folder / "build-strict")
    assert outcome.verdict is Verdict.FAIL
    assert not outcome.bundles


def test_a_second_run_finds_every_step(outcome: Outcome, folder: Path, recipe: Recipe) -> None:
    """Numbers, unit and learned ranges are part of a step's key."""
    again = run_recipe(recipe, data_root=folder, out=outcome.report.parent)
    assert again.ran == ()
    assert {"step-prune", "step-distill", "step-qat", "export", "quantize"} <= set(again.found)


def test_a_new_version_is_compared_with_the_release_before(outcome: Outcome, folder: Path, recipe: Recipe) -> None:
    """The baseline is then the bundle that devices run; its golden inputs stay, also for a target of another layout."""
    before = next(path for path in outcome.bundles if path.name.endswith("-gateway.tfb"))
    only = replace(recipe, compress=recipe.compress[3:4])
    again = run_recipe(only, data_root=folder, out=folder / "build-2", version=2, base=BasePoint(before))
    assert again.certificate.baseline == "slope-1"
    kept = check_golden(read_bundle(before)).inputs
    for bundle in map(read_bundle, again.bundles):
        inputs = check_golden(bundle).inputs
        assert np.array_equal(inputs if bundle.manifest.target == "gateway" else inputs.transpose(0, 3, 1, 2), kept)


class _Slope(nn.Module):
    """The value by least squares, in its own unit: a model that a user supplies."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4 * STEPS, 1)
        along = torch.arange(STEPS) - (STEPS - 1) / 2
        by_step = 10 * 100 * 0.25 * along / (along**2).sum()  # ten a slope; inputs are (x / 100 - 0.5) / 0.25
        with torch.no_grad():
            self.head.weight.copy_(by_step.repeat_interleave(4)[None] / 4)
            self.head.bias.fill_(300)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        flat = x.flatten(1)
        return self.head(flat), flat


def test_a_model_of_ones_own_speaks_the_values_unit(folder: Path, recipe: Recipe) -> None:
    """An ONNX file with outputs of 300 and more is gated and bundled unchanged; the loss by int8 is small."""
    (folder / "own.onnx").write_bytes(export_onnx(_Slope(), 1, STEPS, 4))
    own = replace(
        recipe, model=replace(recipe.model, onnx=str(folder / "own.onnx")), targets=recipe.targets[:1],
        compress=recipe.compress[3:4], train=TrainRecipe(),
    )  # fmt: skip
    outcome = run_recipe(own, data_root=folder, out=folder / "build-own")
    assert outcome.verdict is Verdict.PASS
    assert outcome.certificate.figures["float_mae"] < 1
    assert read_bundle(outcome.bundles[0]).manifest.outputs[0].mean == (0.0,)


def test_drifted_samples_are_refused(folder: Path, recipe: Recipe) -> None:
    """The server's samples have classes: a regression is retrained on more data of its own."""
    extra = load(replace(recipe.data, path=str(folder / "steps.csv")))
    with pytest.raises(DataError, match="recipe of classes for a retraining"):
        run_recipe(recipe, data_root=folder, out=folder / "build-extra", extra=extra)


def test_a_constant_target_ends_before_training(tmp_path: Path, recipe: Recipe) -> None:
    """Nothing is trained, nothing is written but the folder."""
    rows = [f"w{row},north,5,{step}" for row in range(40) for step in range(STEPS)]
    (tmp_path / "steps.csv").write_text("\n".join(["window,site,target,x", *rows]))
    with pytest.raises(DataError, match="that differ, got 5 in all 40 rows"):
        run_recipe(recipe, data_root=tmp_path, out=tmp_path / "out")
