"""A gate from outside: one row in a module of a person's own, by its dotted path, from the recipe to the report."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compressor.errors import PluginError, RecipeError
from compressor.gates import certificate as certificates
from compressor.gates.certificate import Certificate, Line
from compressor.gates.evidence import Evidence, GateRecipe, Verdict
from compressor.gates.kinds import KINDS, GateKind, measured
from compressor.measurement.predictions import Compared, Predictions
from compressor.recipe.model import Recipe
from compressor.recipe.read import parse_recipe, read_recipe
from compressor.release.regate import gate_again
from compressor.release.verify import verify_bundle
from compressor.run.pipeline import Outcome, run_recipe
from compressor.search.recipe_text import recipe_text
from compressor.statistics.bootstrap import Draws, score_drop
from compressor.statistics.bounds import MetricEvidence

HERE = Path(__file__).parent
GUIDE = HERE.parents[2] / "docs" / "how-to" / "own-gate.md"
SURE, HOST = "trial_gate:RIGHT_WHERE_SURE", "trial_gate:HERE_ONLY"
METRIC = MetricEvidence(drop=0.5, lower=0.1, upper=0.9, confidence=0.95, n=500, rarest=500, baseline=1.0, candidate=1.5)
NORMAL = MetricEvidence(drop=0.1, lower=-0.1, upper=0.3, confidence=0.95, n=500, rarest=500)
BOUNDED = GateKind(limits=("max",), bounded=True, measure=lambda _compared: NORMAL)
MODEL = '[model]\nname = "m"\n'


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put this folder on the path, as a person puts theirs."""
    monkeypatch.syspath_prepend(HERE)


def tiny(*gates: GateRecipe) -> Recipe:
    """Return a recipe that trains one epoch, with these gates."""
    return replace(read_recipe(HERE.parent / "pipeline_recipe.toml"), gates=gates)


def refusal(gates: str, error: type[Exception] = RecipeError) -> str:
    """Return the error message for the lines ``gates`` of a recipe."""
    with pytest.raises(error) as caught:
        parse_recipe(f"{MODEL}[gates]\n{gates}".encode())
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f'"{SURE}" = {{max = 0.5}}', "min, as {min = 0.01}"),
        (f'"{SURE}" = {{min = 50}}', "as a share (0.01 is 1 %) between 0 and 1, got 50"),
        (f'"{SURE}" = {{min = 0.5, confidence = 0.9}}', "no confidence"),
        (f'"{HOST}" = {{min = 0.5, on = "device:cam-1"}}', "a device has no evidence for this gate"),
    ],
)
def test_a_recipe_is_checked_by_what_the_row_says(line: str, said: str) -> None:
    """Limits, unit, confidence and place, as of our own."""
    assert said in refusal(line)


def test_a_gate_of_another_task_is_refused() -> None:
    """A regression has no right answers."""
    with pytest.raises(RecipeError, match=f"got {SURE}"):
        parse_recipe(f'{MODEL}[data]\nlabel = "number"\n[gates]\n"{SURE}" = {{min = 0.5}}'.encode())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("not_there_at_all:GATE", "the module 'not_there_at_all'"),
        ("trial_gate:NO_KIND", "a compressor.gates.kinds.GateKind, got int"),
        ("trial_gate:NO_KINT", "did you mean 'NO_KIND'"),
        ("trial_gate:BOUNDED_FROM_BELOW", "of a bounded one ('max',)"),
        ("trial_gate:EMPTY", "with measure and without make"),
    ],
)
def test_what_is_no_gate_is_named(name: str, said: str) -> None:
    """Before anything is trained."""
    assert said in refusal(f'"{name}" = {{max = 1}}', PluginError)


@pytest.mark.parametrize(("name", "said"), [("BROKEN", "no_such_field"), ("WITHOUT_END", "a finite number, got nan")])
def test_a_measurement_that_fails_fails_its_own_gate_alone(name: str, said: str) -> None:
    """The gate has the reason and, for a mistake in the code, the line."""
    rules = [GateRecipe(name=f"trial_gate:{name}", max=1.0), GateRecipe(name="size_bytes", max=9.0)]
    evidence = Evidence(figures={"size_bytes": 3.0}).beside(measured(rules, object()))
    broken, size = certificates.judge(rules, evidence).results
    assert (broken.verdict, size.verdict) == (Verdict.FAIL, Verdict.PASS)
    assert said in broken.text


@pytest.mark.parametrize(
    ("evidence", "verdict"),
    [
        (Evidence(figures={"gone_since:GATE": 0.5}), Verdict.PASS),
        (Evidence(figures={"gone_since:GATE": 1.5}), Verdict.FAIL),
        (Evidence(metrics={"gone_since:GATE": replace(METRIC, upper=0.9)}), Verdict.PASS),
        (Evidence(metrics={"gone_since:GATE": replace(METRIC, lower=1.1, upper=1.2)}), Verdict.FAIL),
        (Evidence(), Verdict.FAIL),
    ],
)
def test_a_certificate_is_judged_again_without_the_module(evidence: Evidence, verdict: Verdict) -> None:
    """By its measurements: a missing module does not make a gate pass, and a bundle imports nothing."""
    judged = certificates.judge([GateRecipe(name="gone_since:GATE", max=1.0)], evidence)
    assert judged.verdict is verdict


def test_a_certificate_names_no_module_into_being(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module is on the path, and would write a file."""
    (tmp_path / "a_trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    name = "a_trap:GATE"
    kept = Certificate(
        rules=(GateRecipe(name=name, max=1.0),),
        gates=(Line(name=name, verdict="pass", value=0.5),),
        figures={name: 0.5},
    )
    certificates.judge(kept.rules, certificates.evidence_of(certificates.for_bundle(kept)))
    assert not (tmp_path / "sprung").exists()


def test_a_recipe_written_by_the_search_reads_again() -> None:
    """The name has a colon, which a bare key of TOML can't have."""
    recipe = parse_recipe(f'{MODEL}[gates]\n"{SURE}" = {{min = 0.5}}'.encode())
    assert parse_recipe(recipe_text(recipe).encode()).gates == recipe.gates


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """One run with a gate from outside that passes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE)
        return run_recipe(tiny(GateRecipe(name=SURE, min=0.05)), out=tmp_path_factory.mktemp("own"))


@pytest.mark.slow
def test_a_run_judges_it_and_keeps_number_code_and_line(outcome: Outcome) -> None:
    """Certificate and report have it like any other."""
    certificate = outcome.certificate
    (line,) = [line for line in certificate.gates if line.name == SURE]
    assert (line.verdict, line.value) == ("pass", certificate.figures[SURE])
    assert "trial_gate" in certificate.code_digests
    assert SURE in outcome.report.read_text()
    assert f"{100 * certificate.figures[SURE]:.2f} %" in outcome.report.read_text()


@pytest.mark.slow
def test_bundle_and_folder_are_judged_again_by_it(outcome: Outcome) -> None:
    """By the number that the certificate keeps."""
    assert verify_bundle(outcome.bundles[0]).verdict == "pass"
    for path in (outcome.report.parent, outcome.bundles[0]):
        assert [line.verdict for line in gate_again(path).gates if line.name == SURE] == ["pass"]


@pytest.mark.slow
def test_a_limit_that_is_not_met_leaves_no_bundle(tmp_path: Path) -> None:
    """It decides, as any gate does."""
    failed = run_recipe(tiny(GateRecipe(name=SURE, min=1.0)), out=tmp_path)
    assert (failed.verdict, failed.bundles) == (Verdict.FAIL, ())


@pytest.mark.slow
def test_the_examples_of_the_guide_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two modules and the two lines of the guide, unchanged, in one run."""
    text = GUIDE.read_text()
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        (tmp_path / block.splitlines()[0].removeprefix("# ")).write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    gates = [
        GateRecipe(name=name, **limits)
        for block in re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for name, limits in tomllib.loads(block)["gates"].items()
    ]
    outcome = run_recipe(tiny(*gates), out=tmp_path / "out")
    said = {line.name: line.verdict for line in outcome.certificate.gates}
    assert said["margins:SMALLEST_MARGIN"] in {"pass", "fail"}
    assert said["spread:SPREAD"] == "pass"
    assert outcome.certificate.metrics["spread:SPREAD"].n > 0
    assert said["certain:certainty"] == "pass"


def test_no_two_rows_share_a_name_or_a_figure() -> None:
    """A figure has one unit."""
    names = [name for kind in KINDS.values() for name in (kind.name, *kind.beside, *kind.formerly)]
    assert len(names) == len(set(names))
    assert all(len(kind.limits) == 1 for kind in KINDS.values() if kind.make is not None or kind.added is not None)


def test_a_bound_for_the_whole_risk_is_moved_away_for_a_look() -> None:
    """By the ratio of the normal quantiles; one that was made for less confidence than the recipe's is refused."""
    rule = GateRecipe(name=f"{__name__}:BOUNDED", max=1.0, confidence=1 - 0.05 * 0.9)
    moved = measured([rule], None, 0.9).metrics[rule.name]
    assert (moved.confidence, moved.upper) == (rule.confidence, pytest.approx(0.1 + 0.2 * 1.6954 / 1.6449, abs=1e-4))
    stricter = measured([replace(rule, confidence=0.99)], None, 0.9).metrics[rule.name]
    assert (stricter.confidence, stricter.upper) == (0.95, 0.3)


def compared_by(change: float, rows: int = 400, each: int = 1) -> Compared:
    """Return two models of random logits, the second with ``change`` added to the right one; sources of ``each``."""
    rng = np.random.default_rng(5)
    labels = np.repeat(rng.integers(0, 3, rows // each), each)
    logits = np.repeat(rng.normal(size=(rows // each, 3)), each, axis=0).astype(np.float32)
    better = logits.copy()
    better[np.arange(rows), labels] += change
    none = np.zeros((rows, 0), np.float32)
    before, after = Predictions(logits, none), Predictions(better, none)
    sources = np.repeat(np.arange(rows // each), each).astype(str)
    return Compared(
        labels=labels, slices=np.full(rows, ""), baseline=before, float_model=before, candidate=after, sources=sources
    )


def test_a_function_of_ones_own_is_a_metric_with_a_bound() -> None:
    """One number a row: what is better passes, what is worse fails, and sources count once."""
    rule = GateRecipe(name="trial_gate:certainty", max=0.02)
    verdicts = {}
    for change in (0.5, 0.0, -0.5):
        found = measured([rule], compared_by(change))
        verdicts[change] = certificates.judge([rule], found).verdict
    assert verdicts == {0.5: Verdict.PASS, 0.0: Verdict.PASS, -0.5: Verdict.FAIL}
    alone, frames = (measured([rule], compared_by(-0.05, each=each)).metrics[rule.name] for each in (1, 10))
    assert (alone.n, frames.n) == (400, 40)
    assert frames.upper - frames.drop > 2 * (alone.upper - alone.drop)
    assert alone.drop == pytest.approx(alone.baseline - alone.candidate)
    assert 0 < alone.candidate < alone.baseline < 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("one_number", r"Expected a score for each of 400 rows, got \(\): return one number a row"),
        ("not_a_number", "Expected finite scores, got nan for row"),
    ],
)
def test_a_score_that_is_none_is_unknown_with_the_reason(name: str, said: str) -> None:
    """Its own gate fails with these words, and the run goes on."""
    found = measured([GateRecipe(name=f"trial_gate:{name}", max=0.1)], compared_by(0.0))
    assert re.search(said, found.unknown[f"trial_gate:{name}"])


def test_the_bound_of_ones_own_metric_holds_for_frames_of_one_scene() -> None:
    """At the margin at most 5 % and two standard errors pass, where three rows of a source are alike."""
    rng, passed, times = np.random.default_rng(11), 0, 300
    for _ in range(times):
        before = np.repeat(rng.beta(8, 2, 60), 3)
        after = before - np.repeat(rng.exponential(0.05, 60), 3)
        found = score_drop(before, after, np.repeat(np.arange(60), 3), Draws(replicates=400))
        passed += found.upper <= 0.05
    assert passed / times <= 0.05 + 2 * (0.05 * 0.95 / times) ** 0.5
