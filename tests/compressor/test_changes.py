"""``--set``: which values are changed, how they are typed, and which keys are refused with the nearest one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from compressor.cli import app, main
from compressor.errors import RecipeError
from compressor.recipe.changes import changed
from compressor.recipe.model import Recipe
from compressor.recipe.read import read_recipe

TEXT = """[model]
name = "tiny"
network_options = {filters = 4}
[data]
dataset = "digits"
[train]
epochs = 12
[[compress]]
step = "qat"
[[compress]]
step = "quantize"
[targets.host]
runtime = "onnx"
[gates]
accuracy_drop = {max = 0.01}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the file of a recipe with all kinds of tables."""
    (tmp_path / "recipe.toml").write_text(TEXT)
    return tmp_path / "recipe.toml"


def with_changes(file: Path, *changes: str) -> Recipe:
    """Return the recipe in ``file`` with ``changes``."""
    return read_recipe(file, changes)


def test_values_are_typed_by_their_keys(file: Path) -> None:
    """Whole numbers, numbers, texts with and without quotes, lists, truth, tables and their keys."""
    recipe = with_changes(
        file, "train.epochs=3", "train.learning_rate=1", "model.name=other", 'data.colour="grey"',
        "data.train_slices=lens-a, lens-b", "model.network_options.filters=8", "compress.quantize.per_channel=false",
        "compress.qat.epochs=2", "targets.host.threads=2", "targets.board.runtime=litert", "data.label=exact",
        "data.shares={train = 0.4, calibration = 0.2, gate = 0.2, reference = 0.2}", "acceptance.latency_slack=2.5",
    )  # fmt: skip
    assert (recipe.train.epochs, recipe.train.learning_rate) == (3, 1.0)
    assert isinstance(recipe.train.learning_rate, float)
    assert (recipe.model.name, recipe.data.colour, recipe.data.label) == ("other", "grey", "exact")
    assert recipe.data.train_slices == ("lens-a", "lens-b")
    assert recipe.model.network_options == {"filters": 8}
    assert [getattr(step, "per_channel", True) for step in recipe.compress][1] is False
    assert recipe.compress[0].epochs == 2
    assert [(target.name, target.runtime, target.threads) for target in recipe.targets] == [
        ("host", "onnx", 2), ("board", "litert", 1),
    ]  # fmt: skip
    assert recipe.data.shares["gate"] == 0.2
    assert recipe.acceptance.latency_slack == 2.5


def test_size_is_width_and_height(file: Path) -> None:
    """And a later change wins."""
    recipe = with_changes(file, "data.size=48", "data.height=64", "train.seed=1", "train.seed=2")
    assert (recipe.data.width, recipe.data.height, recipe.train.seed) == (48, 64, 2)


def test_a_gate_has_one_limit(file: Path) -> None:
    """The other one of the recipe goes; a gate that is not there is added."""
    recipe = with_changes(file, "gates.accuracy_drop.max=0.03", "gates.accuracy.min=0.9")
    limits = {gate.name: gate.limit for gate in recipe.gates}
    assert (limits["accuracy_drop"], limits["accuracy"]) == (0.03, 0.9)


def test_a_step_that_is_not_written_is_the_default_one() -> None:
    """A recipe without ``[[compress]]`` quantizes."""
    found = changed({"model": {"name": "m"}}, ["compress.quantize.scheme=dynamic_int8"])
    assert found["compress"] == [{"step": "quantize", "scheme": "dynamic_int8"}]


def test_the_document_itself_stays() -> None:
    """A recipe that is read again is as its file says."""
    document = {"train": {"epochs": 12}}
    changed(document, ["train.epochs=3"])
    assert document == {"train": {"epochs": 12}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("train.epochs", "Expected --set TABLE.KEY=VALUE, as in --set train.epochs=3, got 'train.epochs'"),
        ("epochs=3", "did you mean 'train.epochs'?"),
        ("=3", "Expected --set TABLE.KEY=VALUE"),
        ("train..epochs=3", "Expected --set TABLE.KEY=VALUE"),
        ("trian.epochs=3", "got 'trian': did you mean 'train.epochs'?"),
        ("train.epoch=3", "got 'epoch': did you mean 'epochs'?"),
        ("data.epochs=3", "did you mean 'train.epochs'?"),
        ("data.sise=3", "got 'sise': did you mean 'size'?"),
        ("train.epochs=three", "--set train.epochs to be a whole number, got 'three'"),
        ("train.epochs=3.5", "[train] epochs to be a whole number, got float 3.5"),
        ("train.epochs=0", "[train] epochs between 1 and 10000, got 0"),
        ("train.epochs=3\nseed = 4", "one value, got several lines"),
        ("train.epochs.x=3", "to end at 'epochs', which is a whole number, got 'x' below it"),
        ("data.colour=gray", "[data] colour to be rgb or bgr or grey, got 'gray': did you mean 'grey'?"),
        ("data.options.steps=many", "--set data.options.steps to be a whole number or a number, got 'many'"),
        ("compress.prune.macs_ratio=0.5", "one of the recipe's steps (qat, quantize), got no step 'prune'"),
        ("compress.quantise.scheme=x", "did you mean 'quantize'?"),
        ("compress.quantize.shceme=x", "got 'shceme': did you mean 'scheme'?"),
        ("targets.host=1", "with a name and a key"),
        ("gates.acuracy.min=0.5", "got 'acuracy': did you mean 'accuracy'?"),
        ("gates.accuracy.mim=0.5", "got 'mim': did you mean 'min'?"),
        ("smoothing.knid=mean", "kind"),
    ],
)
def test_a_wrong_change_is_named(file: Path, change: str, said: str) -> None:
    """With the key, the expectation, the value and the nearest key."""
    with pytest.raises(RecipeError) as found:
        with_changes(file, change)
    assert said in str(found.value)


def test_the_file_is_named_with_a_value_out_of_range(file: Path) -> None:
    """The checks of the file hold for the changes."""
    with pytest.raises(RecipeError, match=r"recipe\.toml: Expected \[train\] batch"):
        with_changes(file, "train.batch=1")


def test_commands_have_the_option(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong key ends with code 4 and one line, before anything is written; a right one is used."""
    for words in (["run", str(file)], ["search", str(file)], ["data", "digest", str(file)], ["data", "fit", str(file)]):
        with pytest.raises(SystemExit) as stop:
            main([*words, "--set", "train.epoch=3"])
        assert stop.value.code == 4
        assert "error [recipe_invalid]" in capsys.readouterr().err
    assert not (file.parent / "build").exists()
    with pytest.raises(SystemExit) as stop:
        main(["data", "digest", str(file.parent), "--set", "data.train_slices=lens-x"])
    assert "lens-x" in capsys.readouterr().err


def test_changes_beside_data_are_refused(file: Path) -> None:
    """There is no recipe to change."""
    (file.parent / "x.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    done = CliRunner().invoke(app, ["data", "explore", str(file.parent / "x.zip"), "--set", "data.size=3"])
    assert "Expected --set beside a recipe" in str(done.exception)


def test_gate_against_takes_changes_of_its_recipe() -> None:
    """Without a recipe there is nothing to change."""
    done = CliRunner().invoke(app, ["gate", "build", "--set", "train.seed=1"])
    assert "Expected --against OLD.tfb with --set" in done.output


def test_a_rebuild_takes_the_changes_of_its_run() -> None:
    """Without a recipe there is nothing to change."""
    done = CliRunner().invoke(app, ["verify", "x.tfb", "--set", "train.seed=1"])
    assert "Expected --rebuild RECIPE with --set" in done.output


def test_changes_stand_in_the_chosen_recipe(file: Path) -> None:
    """The text of a recipe with changes reads as the same recipe."""
    from compressor.recipe.read import parse_recipe  # noqa: PLC0415 - only here
    from compressor.search.recipe_text import recipe_text  # noqa: PLC0415 - only here

    recipe = with_changes(file, "data.columns.label=x", "data.dataset=labelled_images", "data.path=y")
    again = parse_recipe(recipe_text(recipe))
    assert again.data == recipe.data
    assert json.dumps(dict(again.data.columns)) == '{"label": "x"}'
