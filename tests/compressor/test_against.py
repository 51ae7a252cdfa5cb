"""A candidate is judged against the release that devices run, at every site."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compressor.data import digits
from compressor.data._split import split
from compressor.data._table import Table, concatenate
from compressor.errors import SplitError
from compressor.gates import Verdict
from compressor.gates.evidence import GateRecipe
from compressor.recipe.model import DataRecipe, Recipe
from compressor.recipe.read import read_recipe
from compressor.run.pipeline import BasePoint, LooksAt, run_recipe

SITE = "b"


def sound(data: DataRecipe, root: Path | None = None) -> Table:
    """Return digits of two sites: three in four through the usual lens, the others through a dark one."""
    del data, root
    rows = range(1797)
    usual = digits.render([row for row in rows if row % 4], digits.LENS_A, "a")
    return concatenate(usual, digits.render([row for row in rows if not row % 4], digits.DRIFTED, SITE))


def mislabelled(data: DataRecipe, root: Path | None = None) -> Table:
    """Return the same rows; where one site is trained on, its labels are shifted by one."""
    table = sound(data, root)
    train = split(table, 0).train
    labels = table.labels.copy()
    wrong = train[table.slices[train] == SITE]
    labels[wrong] = (labels[wrong] + 1) % 10
    return replace(table, labels=np.asarray(labels))


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """A recipe of a tiny network whose only own gate is on size."""
    read = read_recipe(Path(__file__).with_name("pipeline_recipe.toml"))
    return replace(read, gates=(GateRecipe(name="size_bytes", max=1e6),))


def on(recipe: Recipe, loader: str, epochs: int) -> Recipe:
    """Return ``recipe`` on the data of ``loader``."""
    data = replace(recipe.data, dataset=f"tests.compressor.test_against:{loader}")
    return replace(recipe, data=data, train=replace(recipe.train, epochs=epochs))


@pytest.mark.slow
def test_a_release_that_gains_on_the_average_and_falls_at_one_site_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    """The labels of one site are shifted in its training: the average rises, and the gate on sites names the one."""
    before = run_recipe(on(recipe, "sound", 8), out=tmp_path / "before")
    assert before.verdict is Verdict.PASS
    base = BasePoint(before.bundles[0], compared=True)
    after = run_recipe(on(recipe, "mislabelled", 16), out=tmp_path / "after", version=2, base=base)
    lines = {line.name: line for line in after.certificate.gates}
    assert after.certificate.baseline == "tiny-1"
    assert after.certificate.figures["accuracy"] > after.certificate.figures["baseline_accuracy"]
    assert (after.verdict, after.bundles, lines["worst_slice_drop"].verdict) == (Verdict.FAIL, (), "fail")
    assert f"slice '{SITE}'" in lines["worst_slice_drop"].text
    assert any("Against tiny-1" in remark for remark in after.certificate.remarks)


@pytest.mark.slow
def test_looks_are_counted_in_the_folder_and_the_planned_number_is_kept(recipe: Recipe, tmp_path: Path) -> None:
    """Each has its part of the risk; the same candidate is no look; one more than planned is refused."""
    bounded = replace(on(recipe, "sound", 1), gates=(GateRecipe(name="accuracy_drop", max=0.2),))
    made = [
        run_recipe(replace(bounded, train=replace(bounded.train, seed=0, batch=batch)), out=tmp_path, looks=plan)
        for batch in (64, 64, 32)
        for plan in [LooksAt(tmp_path / "looks.json", 2)]
    ]
    assert [one.certificate.look for one in made] == [1, 1, 2]
    assert {one.certificate.rules[0].confidence for one in made} == {0.975}
    with pytest.raises(SplitError, match="at most 2 looks at this gate split"):
        run_recipe(replace(bounded, train=replace(bounded.train, batch=16)), out=tmp_path)
