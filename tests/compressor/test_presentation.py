"""The content of the report of a real run beside its gates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from compressor.gates.certificate import read_certificate
from compressor.gates.evidence import GateRecipe
from compressor.recipe.read import read_recipe
from compressor.release.regate import gate_again
from compressor.run.pipeline import Outcome, run_recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """One run that is also gated on the area under the curve."""
    recipe = read_recipe(Path(__file__).with_name("pipeline_recipe.toml"))
    recipe = replace(recipe, gates=(*recipe.gates, GateRecipe(name="auc_drop", max=0.2)))
    return run_recipe(recipe, out=tmp_path_factory.mktemp("shown"))


def test_flips_layers_and_steps_are_on_the_page(outcome: Outcome) -> None:
    """Further facts for a decision; at most twelve flips of three pictures."""
    page = outcome.report.read_text()
    for said in ("What changed", "First diverging layer", "What each step cost", "quantize (host)"):
        assert said in page
    assert " flipped on host: " in page or "Nothing flipped on host" in page
    assert page.count("<figure><img src=") in range(0, 37, 3)
    assert "not compared" not in page


def test_a_bootstrapped_gate_is_judged_in_the_run_and_again_from_its_folder(outcome: Outcome) -> None:
    """The certificate contains the bounds."""
    folder = outcome.report.parent
    kept = read_certificate((folder / "gate.json").read_bytes())
    assert kept.metrics["auc_drop"].n == 912
    again = gate_again(folder)
    assert [(line.name, line.verdict, line.text) for line in again.gates] == [
        (line.name, line.verdict, line.text) for line in kept.gates
    ]
