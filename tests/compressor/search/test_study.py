"""A real search on the embedded data, with a tiny network and a small space: trials, results and files."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from compressor.cache import Cache
from compressor.cli.search import command
from compressor.errors import CompressorError, MeasureError, PackageError, PluginError, RecipeError
from compressor.gates.evidence import GateRecipe
from compressor.progress import Silent
from compressor.recipe.model import Recipe
from compressor.recipe.read import parse_recipe, read_recipe
from compressor.search import results
from compressor.search.pareto import FP32, OWN, SAMPLED, SearchResult, Tried
from compressor.search.space import Space
from compressor.search.study import Budget, allowed_drop, search, steps_for
from compressor.search.trial import Ground, measured, prepared, study_digest, target_of, workable
from compressor.steps.quantize import Settings as QuantizeRecipe

RECIPE = Path(__file__).with_name("search_recipe.toml")
SPACE = Space(("none", "static_int8", "no_such_scheme"), (1.0,), network=False)
pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True)
class Searched:
    """A search in two calls: ``first`` has the results of the first one."""

    ground: Ground
    storage: str
    first: tuple[Tried, ...]
    tried: tuple[Tried, ...]
    found: SearchResult
    files: tuple[Path, ...]


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """A recipe that trains one epoch."""
    return read_recipe(RECIPE)


@pytest.fixture(scope="module")
def searched(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """Two trials, then the whole space; shared by all tests."""
    out = tmp_path_factory.mktemp("search")
    ground = prepared(recipe, target_of(recipe, ""), Cache(out / "cache"), Silent())
    storage = f"sqlite:///{out / 'search.db'}"
    first = search(ground, SPACE, Budget(2), storage)
    tried = search(ground, SPACE, Budget(100), storage)
    found = results.found_of(ground, recipe, tried)
    return Searched(ground, storage, first, tried, found, results.write(found, out))


def test_the_float_model_and_the_recipes_own_steps_come_first(searched: Searched) -> None:
    """Trial 0 is fp32, which loses nothing; trial 1 is the recipe's [[compress]]."""
    assert [(item.number, item.origin, item.name) for item in searched.first] == [
        (0, FP32, "fp32"), (1, OWN, "static_int8 (percentile)"),
    ]  # fmt: skip
    plain = searched.first[0].measured
    assert plain is not None
    assert plain.drop == 0


def test_a_second_call_goes_on_and_repeats_nothing(searched: Searched) -> None:
    """Earlier trials are unchanged, and every variant is measured once until the space is exhausted."""
    assert searched.tried[:2] == searched.first
    assert len({item.key for item in searched.tried}) == len(searched.tried)
    assert {item.name for item in searched.tried} == {
        "fp32", "static_int8 (percentile)", "static_int8 (min_max)", "static_int8 (mse)", "no_such_scheme",
    }  # fmt: skip


def test_a_budget_that_is_spent_tries_nothing_more(searched: Searched) -> None:
    """The same command again leaves the same trials."""
    assert search(searched.ground, SPACE, Budget(3), searched.storage) == searched.tried


def test_a_failing_trial_is_recorded_with_its_message(searched: Searched) -> None:
    """The search went on, and the failure is not on the front."""
    failed = [item for item in searched.tried if item.measured is None]
    assert [item.name for item in failed] == ["no_such_scheme"]
    assert "no_such_scheme" in failed[0].error
    assert failed[0] not in searched.found.front


def test_the_search_rows_are_in_no_other_split(searched: Searched) -> None:
    """They are learnt from by no trial, and none is a row of the gate."""
    lesson, run = searched.ground.lesson, searched.ground.run
    held = set(lesson.search.sources.tolist())
    others = [*lesson.train, *lesson.calibration, run.rows("gate"), run.rows("reference")]
    assert held
    assert not any(held & set(table.sources.tolist()) for table in others)


def test_what_is_chosen_is_feasible_and_said(searched: Searched) -> None:
    """The choice is on the front, within the recipe's gate, with a reason that starts with its name."""
    choice = searched.found.choice
    assert choice.tried in searched.found.front
    assert choice.tried.measured is not None
    assert choice.tried.measured.drop <= 0.05
    assert choice.reason[0].startswith(choice.tried.name)


def test_the_chosen_recipe_is_read_back_equal(searched: Searched) -> None:
    """OUT/chosen.toml holds the choice's steps for `compressor run`."""
    read = parse_recipe(next(path for path in searched.files if path.name == results.CHOSEN).read_bytes())
    assert read == replace(searched.found.recipe, folder=Path())
    assert read.compress == steps_for(searched.found.choice.tried, searched.ground)


def test_the_json_has_every_trial_front_choice_and_reason(searched: Searched) -> None:
    """Failed trials have no figures but their error."""
    document = json.loads(next(path for path in searched.files if path.name == results.SEARCH_JSON).read_text())
    assert [trial["number"] for trial in document["trials"]] == [item.number for item in searched.tried]
    assert document["chosen"] in document["front"]
    assert document["reason"] == list(searched.found.choice.reason)
    assert all(bool(trial["error"]) == (trial["measured"] is None) for trial in document["trials"])


def test_the_page_asks_the_network_for_nothing(searched: Searched) -> None:
    """Its policy forbids it; every variant is in its table, and the style supports dark screens."""
    page = next(path for path in searched.files if path.name == results.SEARCH_HTML).read_text()
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    assert "<p>Measured on search rows that no weight was learnt from" in page
    assert all(item.name in page for item in searched.tried)
    assert "<script src" not in page
    assert "<link" not in page


def test_another_recipe_has_a_study_of_its_own(recipe: Recipe, searched: Searched) -> None:
    """A changed step changes the name; the release's number does not."""
    name = study_digest(searched.ground, SPACE)
    assert study_digest(replace(searched.ground, own=(QuantizeRecipe(percentile=99),)), SPACE) != name
    run = searched.ground.run
    newer = replace(run.recipe, model=replace(run.recipe.model, version=2))
    assert study_digest(replace(searched.ground, run=replace(run, recipe=newer)), SPACE) == name
    assert target_of(recipe, "host").name == "host"


def test_nsga2_searches_in_the_same_study(searched: Searched) -> None:
    """The sampler may change from call to call; earlier trials count."""
    assert search(searched.ground, SPACE, Budget(100, sampler="nsga2"), searched.storage) == searched.tried


def test_a_time_limit_starts_no_further_trial(searched: Searched, tmp_path: Path) -> None:
    """A limit that is over before the first trial leaves the study empty."""
    budget = Budget(5, timeout_s=1e-9)
    assert search(searched.ground, SPACE, budget, f"sqlite:///{tmp_path / 's.db'}") == ()


def test_a_stopped_trial_is_tried_again(searched: Searched, tmp_path: Path) -> None:
    """After Ctrl-C in the middle of a trial the same call continues with fp32 and the recipe."""

    class Stopping(Silent):
        def say(self, text: str) -> None:
            if text.startswith("trial 1"):
                raise KeyboardInterrupt

    storage = f"sqlite:///{tmp_path / 's.db'}"
    run = replace(searched.ground.run, progress=Stopping())
    with pytest.raises(KeyboardInterrupt):
        search(replace(searched.ground, run=run), SPACE, Budget(3), storage)
    assert [item.origin for item in search(searched.ground, SPACE, Budget(2), storage)] == [FP32, OWN]


def test_measuring_again_says_the_same(searched: Searched) -> None:
    """Results are cached, so a resumed search has the same figures."""
    assert measured(searched.ground, searched.ground.own) == searched.first[1].measured


def test_a_sampled_form_stands_for_its_steps(searched: Searched) -> None:
    """The settings in the storage are enough to make the steps again."""
    found = next(item for item in searched.tried if item.origin == SAMPLED and item.measured is not None)
    steps = steps_for(found, searched.ground)
    assert isinstance(steps[0], QuantizeRecipe)
    assert found.name == f"static_int8 ({steps[0].calibration})"


def test_a_scheme_that_refuses_the_float_model_is_not_tried(searched: Searched) -> None:
    """Dynamic int8 refuses convolutions: no trial is pruned or trained for it, and the others stay."""
    space = replace(SPACE, schemes=(*SPACE.schemes, "dynamic_int8", "float16"))
    left = workable(searched.ground, space)
    assert left == replace(space, schemes=(*SPACE.schemes, "float16"))


def test_without_a_gate_one_point_is_allowed(searched: Searched) -> None:
    """With one, its max."""
    run = searched.ground.run
    bare = replace(run, recipe=replace(run.recipe, gates=(GateRecipe(name="size_bytes", max=1),)))
    assert (allowed_drop(searched.ground), allowed_drop(replace(searched.ground, run=bare))) == (0.05, 0.01)


@pytest.mark.parametrize(
    ("storage", "error"),
    [
        ("nonsense", PackageError),
        ("sqlite:////no/such/folder/s.db", PackageError),
        ("oracle://u:secret@h/d", PluginError),
    ],
)
def test_a_storage_that_can_not_be_opened_is_said(
    searched: Searched, storage: str, error: type[CompressorError]
) -> None:
    """The message names the option and never the URL, which may hold a password."""
    with pytest.raises(error, match="--storage") as caught:
        search(searched.ground, SPACE, Budget(3), storage)
    assert "secret" not in str(caught.value)


def test_a_target_that_can_not_be_searched_is_refused(recipe: Recipe) -> None:
    """An unknown one, another processor's, or an imported TFLite file."""
    with pytest.raises(RecipeError, match="--target"):
        target_of(recipe, "hots")
    with pytest.raises(MeasureError, match="processor"):
        target_of(replace(recipe, targets=(replace(recipe.targets[0], cpu="aarch64"),)), "")
    with pytest.raises(RecipeError, match="tflite"):
        target_of(replace(recipe, model=replace(recipe.model, tflite="m.tflite")), "")


def test_a_form_narrower_than_could_be_pruned_is_not_tried(searched: Searched, tmp_path: Path) -> None:
    """The tiny network has eight channels a layer at least: after one failure to prune, no narrower one is tried."""
    space = Space(("none",), (1.0, 0.5, 0.35, 0.25), network=True)
    tried = search(searched.ground, space, Budget(100), f"sqlite:///{tmp_path / 's.db'}")
    failed = [dict(item.settings)["macs_ratio"] for item in tried if item.measured is None]
    assert failed
    assert failed == sorted(failed)
    assert len(tried) == 2 + len(failed)


def test_the_command_ends_with_the_gates_and_a_recipe_that_runs(searched: Searched) -> None:
    """Two trials, the choice through the gates: its exit code, its bundle, and chosen.toml as run reads it."""
    out = searched.files[0].parent
    done = CliRunner().invoke(command, [str(RECIPE), "--out", str(out), "--trials", "2", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["verdict"], [trial["origin"] for trial in told["trials"]]) == ("pass", ["fp32", "recipe"])
    assert all(Path(path).is_file() for path in told["files"])
    assert {"search.html", "search.json", "chosen.toml", "gate.json"} <= {path.name for path in out.iterdir()}
    assert read_recipe(out / "chosen.toml").targets == read_recipe(RECIPE).targets
