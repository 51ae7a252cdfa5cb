"""Every recipe of ``models/`` runs on a fresh clone: on its own data, or on a stand-in that is named as one."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from compressor import stand_ins
from compressor.api import run
from compressor.cli import main
from compressor.data import load
from compressor.errors import DataError, GateNotPassedError, RecipeError
from compressor.recipe.model import Recipe
from compressor.recipe.read import parse_recipe, read_recipe
from compressor.release.signing import read_signable

ROOT = Path(__file__).resolve().parents[2]
RECIPES = {path.parent.name: read_recipe(path) for path in sorted(ROOT.glob("models/*/recipe.toml"))}
EMBEDDED = {"digits", "scenes", "sklearn_tables"}  # data sets that need no data
NEEDY = {name: recipe for name, recipe in RECIPES.items() if recipe.data.dataset not in EMBEDDED}
SLOW_TO_LEARN = {name for name, recipe in RECIPES.items() if recipe.data.task == "detection"}
"""Two epochs are too few for their gate of mAP: how far a bundle is from one is tried with another limit."""


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_no_recipe_points_outside_the_repository(recipe: Recipe) -> None:
    """A recipe's path is inside; a recipe without one has ``needs``."""
    inside = (recipe.folder / recipe.data.path).resolve()
    assert inside.exists()
    assert inside.is_relative_to(ROOT)
    assert recipe.data.path or recipe.data.needs or recipe.data.dataset in EMBEDDED


@pytest.mark.parametrize("recipe", NEEDY.values(), ids=NEEDY)
def test_what_a_recipe_needs_names_source_licence_and_digest(recipe: Recipe) -> None:
    """One sentence describes the data and its form; without data it is the error."""
    assert re.search(r"https://github\.com/\S+ ", recipe.data.needs)
    assert re.search(r"\((Apache-2\.0|MIT|CC BY-SA 4\.0); content digest [0-9a-f]{64}\)$", recipe.data.needs)
    with pytest.raises(DataError, match="pass it with --data, or try the recipe with --quick") as raised:
        load(recipe.data, recipe.folder)
    assert recipe.data.needs in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", NEEDY.values(), ids=NEEDY)
def test_a_stand_in_has_the_same_bytes_each_time_and_data_of_ones_own_takes_its_place(
    recipe: Recipe, tmp_path: Path
) -> None:
    """A stopped run continues; with --data no output mentions a stand-in."""
    first, second = (stand_ins.stood_in(recipe, tmp_path / name) for name in ("first", "second"))
    written = [
        {file.name: file.read_bytes() for file in Path(one.data.path).parent.rglob("*.*")} for one in (first, second)
    ]
    assert written[0] == written[1]
    assert first.data.generated
    own = recipe.with_data(Path(first.data.path))
    assert not own.data.generated
    assert stand_ins.stood_in(own, tmp_path) is own


def test_every_stand_in_is_that_of_a_recipe() -> None:
    """None is left over, none is missing."""
    assert set(stand_ins.names()) == {recipe.data.stand_in for recipe in NEEDY.values()}


def test_what_is_said_of_the_data_is_no_part_of_a_recipes_digest() -> None:
    """A sentence that is put better makes no other model."""
    data = NEEDY["gestures"].data
    assert repr(data) == repr(replace(data, needs="", stand_in=""))


def test_a_recipe_with_a_path_has_no_stand_in() -> None:
    """Otherwise it would be unclear which of the two is used."""
    with pytest.raises(RecipeError, match="path or stand_in, got both"):
        parse_recipe(b'[model]\nname = "m"\n[data]\npath = "x"\nstand_in = "gestures"\n')


@pytest.mark.nightly
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_passes_quickly(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0; the certificate of a run on a stand-in states it, and it is never signed."""
    command = ["run", str(ROOT / "models" / name), "--quick", "--out", str(tmp_path)]
    if name in SLOW_TO_LEARN:
        with pytest.raises(SystemExit) as end:
            main(command)
        assert (end.value.code, list(tmp_path.glob("*.tfb"))) == (2, [])
        assert "no bundle was made: fail (map): run it without --quick" in capsys.readouterr().out
        command += ["--set", "gates.map.min=0.01"]
    with pytest.raises(SystemExit) as end:
        main([*command, "--json"])
    told = capsys.readouterr()
    assert end.value.code == 0, told.err
    bundle = next(tmp_path.glob("*.tfb"))
    if name in NEEDY:
        assert "STAND-IN" in told.err
        assert "stand-in" in json.dumps(json.loads((tmp_path / "gate.json").read_text())["remarks"])
        with pytest.raises(GateNotPassedError, match="stand-in"):
            read_signable(bundle)
    else:
        assert "STAND-IN" not in told.err
        read_signable(bundle)


@pytest.mark.slow
def test_the_python_interface_stands_in_too_and_says_so(tmp_path: Path) -> None:
    """With the user's own data it does not."""
    told: list[str] = []
    result = run(ROOT / "models" / "nab", out=tmp_path, quick=True, progress=lambda event: told.append(event.text))
    assert any("STAND-IN" in text for text in told)
    assert any("stand-in" in remark for remark in result.remarks)
    own = run(ROOT / "models" / "nab", out=tmp_path, data=tmp_path / "stand_in" / "temperatures", quick=True)
    assert not any("stand-in" in remark for remark in own.remarks)
