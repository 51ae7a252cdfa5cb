"""What the outputs of an imported file are: told by their values, or by the recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.errors import ModelOutputsError, RecipeError
from compressor.gates.evidence import Verdict
from compressor.recipe.read import read_recipe
from compressor.run.pipeline import Outcome, run_recipe
from tests.compressor.imported import colours
from wire.bundle import read_bundle

ASKED = "Expected logits, or probabilities that sum to 1, got outputs of 0 to 1 that sum to"


def outcome(folder: Path, *last: str, outputs: str = "", more: str = "", runtime: str = "onnx") -> Outcome:
    """Return the result of a run of a file that ends in the operators ``last``."""
    (folder / "mine.onnx").write_bytes(colours.network(last=last, contrast=0.2))
    colours.arrays(folder / "data.npz", ["gate", "calibration", "train", "gate"])
    model = f'outputs = "{outputs}"' if outputs else ""
    path = colours.recipe(folder, model=model, more=more, runtime=runtime)
    return run_recipe(read_recipe(path), out=folder / "out")


def meaning_of(done: Outcome) -> str:
    """Return what the bundle says of its outputs."""
    return read_bundle(done.bundles[0]).manifest.outputs[0].meaning


def test_a_sigmoid_is_asked_about(tmp_path: Path) -> None:
    """Before anything is compressed; a way on for each case is named."""
    with pytest.raises(ModelOutputsError, match=ASKED) as caught:
        outcome(tmp_path, "Sigmoid")
    assert caught.value.code == "model_outputs"
    said = str(caught.value)
    assert "outputs = 'probabilities' if each input has one class" in said
    assert "[data] task = 'multi_label' if an input has several" in said


@pytest.mark.parametrize(("outputs", "meaning"), [("probabilities", "probability"), ("logits", "")])
def test_the_recipe_says_what_a_sigmoid_gives(tmp_path: Path, outputs: str, meaning: str) -> None:
    """Of probabilities, a device gives the logarithms, as of a softmax."""
    done = outcome(tmp_path, "Sigmoid", outputs=outputs, more='[[compress]]\nstep = "quantize"\nscheme = "none"')
    assert done.verdict is Verdict.PASS
    assert meaning_of(done) == meaning


def test_logits_and_a_softmax_are_not_asked_about(tmp_path: Path) -> None:
    """Their values tell."""
    assert outcome(tmp_path).verdict is not Verdict.FAIL
    with pytest.raises(ModelOutputsError, match=r"Expected outputs of 0 to 1, as .* says, got -"):
        outcome(tmp_path, outputs="probabilities")


def test_a_network_learns_and_is_exported_without_its_sigmoid(tmp_path: Path) -> None:
    """Losses take logits: the exported file ends before it."""
    steps = '[[compress]]\nstep = "fine_tune"\nepochs = 1\n[[compress]]\nstep = "quantize"\nscheme = "none"'
    done = outcome(tmp_path, "Sigmoid", outputs="probabilities", more=steps)
    assert done.verdict is Verdict.PASS
    assert meaning_of(done) == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('outputs = "multi_label"', "outputs"),
        ('outputs = "logits"', r"Expected no outputs in \[model\] without an imported file"),
    ],
)
def test_a_recipe_that_says_too_much_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """An unknown kind, and a key that nothing would read."""
    path = colours.recipe(tmp_path, model=text)
    path.write_text(path.read_text().replace('onnx = "mine.onnx"', ""))
    with pytest.raises(RecipeError, match=said):
        read_recipe(path)


@pytest.mark.parametrize(
    ("model", "data"),
    [
        ('outputs = "probabilities"', ""),
        ("constants = {mask = 1.0}", ""),
        ('labels = ["red", "green", "blue"]', 'unlabelled = "in"'),
    ],
)
def test_a_file_of_the_command_line_is_there_when_the_recipe_is_checked(tmp_path: Path, model: str, data: str) -> None:
    """What only a recipe with a file may say is no mistake where ``--onnx`` gives the file."""
    gates = {"gates": "flip_ratio = {max = 0.1}", "data": data} if data else {}
    path = colours.recipe(tmp_path, model=model, **gates)
    path.write_text(path.read_text().replace('onnx = "mine.onnx"', ""))
    with pytest.raises(RecipeError):
        read_recipe(path)
    read = read_recipe(path, files={"onnx": tmp_path / "mine.onnx"})
    assert read.model.onnx == str(tmp_path / "mine.onnx")


def test_a_file_of_the_command_line_replaces_the_recipe_s_own(tmp_path: Path) -> None:
    """One model, whatever the recipe names; a TFLite file has no steps unless the recipe writes some."""
    path = colours.recipe(tmp_path, runtime="litert")
    read = read_recipe(path, files={"tflite": tmp_path / "mine.tflite"})
    assert (read.model.onnx, read.model.tflite) == ("", str(tmp_path / "mine.tflite"))
    assert read.compress == ()
