"""A file and inputs without labels: it is judged by its agreement with the original, and nothing more is claimed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from compressor.cli import main
from compressor.errors import DataError, RecipeError
from compressor.gates.evidence import Verdict
from compressor.recipe.model import Recipe
from compressor.recipe.read import parse_recipe, read_recipe
from compressor.release.verify import verify_bundle
from compressor.run.pipeline import Outcome, run_recipe
from compressor.search.recipe_text import absolute, recipe_text
from edge_agent.cli import main as agent
from tests.compressor.imported import colours
from wire.bundle import REFERENCE, read_bundle
from wire.reference import read_reference

LABELS = 'labels = ["red", "green", "blue"]'
UNLABELLED = 'unlabelled = "in"'


def written(folder: Path, file: bytes, count: int = 420, **values: str) -> Path:
    """Write pictures without labels, a file and its recipe to ``folder``; return the recipe's path."""
    (folder / "in").mkdir()
    for row, image in enumerate(colours.pictures(count)[0]):
        Image.fromarray(image).save(folder / "in" / f"{row:04d}.png")
    (folder / "mine.onnx").write_bytes(file)
    given = {"model": LABELS, "data": UNLABELLED, "gates": "flip_ratio = {max = 0.03}"} | values
    return colours.recipe(folder, **given)


def outcome(folder: Path, file: bytes | None = None, **values: str) -> Outcome:
    """Return the result of a run without labels."""
    return run_recipe(read_recipe(written(folder, file or colours.network(), **values)), out=folder / "out")


def gates_of(done: Outcome) -> dict[str, str]:
    """Return the verdict of each gate."""
    return {line.name: line.verdict for line in done.certificate.gates}


def test_a_file_and_pictures_without_labels_give_a_bundle(tmp_path: Path) -> None:
    """Its share of changed answers has a bound, no figure is an accuracy, and the first remark says what is missing."""
    done = outcome(tmp_path)
    assert done.verdict is Verdict.PASS
    assert gates_of(done) == {"flip_ratio": "pass", "better_than_constant": "pass"}
    figures = done.targets[0].figures
    assert figures["agreement"] >= 0.99
    assert figures["flip_ratio_upper"] <= 0.03
    assert not {name for name in figures if "accuracy" in name}
    first = done.targets[0].remarks[0]
    assert first.startswith("Agreement with the original says nothing about whether the original is right")
    assert "labelled rows would show a margin of 1.00 %" in first
    assert verify_bundle(done.bundles[0]).complete
    reference = read_reference(read_bundle(done.bundles[0]).files[REFERENCE])
    assert (sum(reference.table_seen), reference.risk, reference.temperature) == (0, 0.0, 1.0)  # not known
    assert (tmp_path / "out" / "disagreements.tsv").read_text().startswith("path\tlabel")


def test_without_training_no_input_is_kept_for_it(tmp_path: Path) -> None:
    """60 % of the sources gate, 10 % calibrate, 30 % make the drift reference."""
    done = outcome(tmp_path)
    assert 0.5 * 420 < done.targets[0].figures["n_gate"] < 0.7 * 420


def test_answers_that_change_fail_the_gate(tmp_path: Path) -> None:
    """Classes that differ by less than a step of int8: many answers change, and the list names the pictures."""
    done = outcome(tmp_path, colours.network(contrast=0.02))
    assert done.verdict is Verdict.FAIL
    assert done.bundles == ()
    lines = (tmp_path / "out" / "disagreements.tsv").read_text().splitlines()[1:]
    assert lines
    assert all(line.split("\t")[0].endswith(".png") and line.split("\t")[1] == "" for line in lines)


def test_an_original_that_answers_the_same_to_everything_passes_nothing(tmp_path: Path) -> None:
    """Two constants agree on everything: wrong mean and std, or a broken export."""
    model = colours.network(constant=True)
    done = outcome(tmp_path, model)
    assert gates_of(done) == {"flip_ratio": "pass", "better_than_constant": "fail"}


def test_too_few_pictures_are_inconclusive_and_no_labels_are_asked_for(tmp_path: Path) -> None:
    """More of the same would decide."""
    done = outcome(tmp_path, gates="flip_ratio = {max = 0.005}")
    assert done.verdict is Verdict.INCONCLUSIVE
    line = done.certificate.gates[0]
    assert line.needs > 0
    assert line.text.endswith("(this gate needs no labels)")
    assert "more samples would decide it" in done.report.read_text()


def test_frames_of_one_scene_count_once(tmp_path: Path) -> None:
    """Clusters are no independent observations: ten frames each, so that a tenth of the rows remains."""
    path = written(tmp_path, colours.network())
    scenes = "".join(f"{row:04d}.png,scene-{row // 10}\n" for row in range(420))
    (tmp_path / "in" / "sources.csv").write_text("path,source\n" + scenes)
    done = run_recipe(read_recipe(path), out=tmp_path / "out")
    assert done.targets[0].figures["n_gate"] < 0.7 * 42
    assert done.verdict is Verdict.INCONCLUSIVE


def test_steps_that_train_learn_the_answers_of_the_original(tmp_path: Path) -> None:
    """Distillation and quantization-aware training towards the file itself need no labels."""
    steps = "".join(
        f'[[compress]]\nstep = "{name}"\nepochs = 1\nallow_unchanged = true\n' for name in ("distill", "qat")
    )
    done = outcome(tmp_path, more=steps + '[[compress]]\nstep = "quantize"\n')
    assert done.targets[0].figures["agreement"] > 0.9
    assert "no train rows" not in " ".join(done.targets[0].remarks)


def test_numbers_are_compared_in_their_unit(tmp_path: Path) -> None:
    """The mean difference from the original has a bound; a wrong limit is not passed."""
    values = {
        "model": 'labels = ["height"]', "data": f'{UNLABELLED}\nlabel = "number"', "gates": "value_change = {max = 0.5}"
    }  # fmt: skip
    done = outcome(tmp_path, colours.network(outputs=1), **values)
    assert done.verdict is Verdict.PASS
    figures = done.targets[0].figures
    assert 0 < figures["value_change"] < figures["value_change_upper"] <= 0.5
    assert "the mean absolute error grew by at most" in done.targets[0].remarks[0]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"gates": "accuracy_drop = {max = 0.01}"},
            r"recipe of classes without labels has, got accuracy_drop: .* use flip_ratio.*or give labelled rows",
        ),
        ({"gates": "value_change = {max = 0.01}"}, "got value_change"),
        ({"model": ""}, r"Expected \[model\] labels with \[data\] unlabelled"),
        ({"data": f'{UNLABELLED}\nneeds = "x"'}, r"Expected no needs in \[data\] beside unlabelled = 'in'"),
        ({"data": f'{UNLABELLED}\ntask = "mine:TASK"'}, "only classification and regression can do without"),
        (
            {"data": 'task = "unlabelled_classes"'},
            "to be anomaly or classification or detection or multi_label or regression",
        ),
    ],
)
def test_a_recipe_that_asks_for_labels_is_refused_with_a_way_on(
    tmp_path: Path, values: dict[str, str], said: str
) -> None:
    """Before any data is read."""
    usual = {"model": LABELS, "data": UNLABELLED, "gates": "flip_ratio = {max = 0.03}"}
    path = colours.recipe(tmp_path, **usual | values)
    with pytest.raises(RecipeError, match=said):
        read_recipe(path)


def test_nothing_is_trained_without_labels(tmp_path: Path) -> None:
    """A recipe of a network of ours needs a file whose answers it takes."""
    path = colours.recipe(tmp_path, model=LABELS, data=UNLABELLED, gates="flip_ratio = {max = 0.03}")
    path.write_text(path.read_text().replace('onnx = "mine.onnx"', ""))
    with pytest.raises(RecipeError, match=r"Expected onnx or tflite in \[model\] with \[data\] unlabelled, got none"):
        read_recipe(path)


def test_the_recipe_survives_its_text(tmp_path: Path) -> None:
    """A search and ``compress`` write recipes."""
    read: Recipe = read_recipe(colours.recipe(tmp_path, model=LABELS, data=UNLABELLED, gates="flip_ratio = {max=0.1}"))
    assert (read.data.dataset, read.data.path, read.data.labelled) == ("unlabelled", "in", False)
    assert parse_recipe(recipe_text(read)).data == read.data


def test_a_release_before_needs_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which of two answers is better, agreement can't tell."""
    done = outcome(tmp_path)
    arguments: Sequence[str] = ["run", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "second")]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--version", "2", "--against", str(done.bundles[0])])
    assert stop.value.code == 4
    assert (
        "error [package_invalid]: Expected labelled rows to judge colours against a release" in capsys.readouterr().err
    )


def test_a_device_answers_as_the_original(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The bundle runs as any other."""
    done = outcome(tmp_path)
    picture = str(tmp_path / "in" / "0001.png")
    capfd.readouterr()
    CliRunner().invoke(agent, ["try", str(done.bundles[0]), "--path", picture, "--once"])
    assert json.loads(capfd.readouterr().out)["label"] == "green"


BESIDE = f'dataset = "arrays"\npath = "data.npz"\nsplit = "part"\n{UNLABELLED}'
DISTIL = '[[compress]]\nstep = "distill"\nepochs = 1\n[[compress]]\nstep = "quantize"\n'


def both(folder: Path, fresh: int) -> Path:
    """Write 360 labelled pictures, 20 of them without label too, and ``fresh`` others; return the recipe's path."""
    colours.arrays(folder / "data.npz", ("train", "gate", "calibration", "reference"))
    (folder / "mine.onnx").write_bytes(colours.network())
    (folder / "in").mkdir()
    known, others = colours.pictures(360)[0][::18], colours.pictures(fresh, seed=1)[0]
    for row, image in enumerate([*known, *others]):
        Image.fromarray(image).save(folder / "in" / f"{row:04d}.png")
    return colours.recipe(folder, data=BESIDE, more=DISTIL)


@pytest.mark.slow
def test_distillation_learns_from_both_and_labelled_rows_gate(tmp_path: Path) -> None:
    """Pictures that labelled rows show already are left out: the gate would judge what the student was taught."""
    path = both(tmp_path, 100)
    done = run_recipe(read_recipe(path), out=tmp_path / "out")
    assert done.verdict is Verdict.PASS
    assert done.targets[0].figures["n_gate"] == 90  # of 360 labelled rows
    said = "Step distill learnt from 100 inputs without labels too, by the teacher's answers."
    assert said in done.targets[0].remarks
    lineage = read_bundle(done.bundles[0]).manifest.lineage
    assert lineage["unlabelled"] not in {"", lineage["data"]}


def test_inputs_that_labelled_rows_show_are_not_enough(tmp_path: Path) -> None:
    """Nothing new is in them: the error says so before anything is trained."""
    path = both(tmp_path, 0)
    with pytest.raises(DataError, match="Expected inputs in in that labelled rows don't show, got 20 that they do"):
        run_recipe(read_recipe(path), out=tmp_path / "out")


@pytest.mark.parametrize(
    ("data", "more", "said"),
    [
        (BESIDE, "", "Expected no unlabelled in .* without a step 'distill', which learns from both"),
        (f'{BESIDE}\ntask = "multi_label"', DISTIL, "only classification and regression learn from a teacher"),
    ],
)
def test_rows_of_both_kinds_are_for_distillation(tmp_path: Path, data: str, more: str, said: str) -> None:
    """Without the step, or of another task, nothing would read those without labels."""
    with pytest.raises(RecipeError, match=said):
        read_recipe(colours.recipe(tmp_path, data=data, more=more, gates=""))


@pytest.mark.parametrize("data", [BESIDE, f'dataset = "digits"\n{UNLABELLED}'])
def test_rows_of_both_kinds_survive_the_recipes_text(tmp_path: Path, data: str) -> None:
    """Also those of the data set that is the default; paths become absolute."""
    read = read_recipe(colours.recipe(tmp_path, data=data, more=DISTIL))
    assert read.data.labelled
    assert parse_recipe(recipe_text(read)).data == read.data
    assert absolute(read).data.unlabelled == str(tmp_path / "in")
