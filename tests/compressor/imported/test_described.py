"""What a file says of itself, compared with a recipe."""

from __future__ import annotations

from dataclasses import replace

import pytest

from compressor.errors import ModelSignatureError
from compressor.formats import FileWords
from compressor.recipe.model import DataRecipe
from compressor.run.described import check_labels, default_scale, normalisation

DATA = DataRecipe(dataset="digits", mean=0.5, std=0.5)


def test_a_normalisation_that_differs_is_said_with_what_would_fit() -> None:
    """Of pixels from 0 to 255, as metadata have it; nothing is said of what fits, nor of what can't be."""
    words = FileWords(mean=(127.5,), std=(127.5,))
    assert normalisation(words, DATA) == ""
    assert normalisation(words, replace(DATA, mean=0.0, std=1.0)).endswith(
        "gives it mean 0 and std 1 of 0 to 1: set mean = 0.5 and std = 0.5, unless they are wrong"
    )
    photo = FileWords(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    levels = normalisation(words, replace(DATA, scale=1.0, mean=0.0, std=1.0))
    assert levels.endswith("mean 0 and std 1 of 0 to 255: set mean = 127.5 and std = 127.5, unless they are wrong")
    assert normalisation(words, replace(DATA, scale=1.0, mean=127.5, std=127.5)) == ""
    assert "set mean = [0.485, 0.456, 0.406] and std = [0.229, 0.224, 0.225]" in normalisation(photo, DATA)
    assert normalisation(FileWords(mean=(1.0,), std=(0.0,)), DATA) == ""
    assert normalisation(FileWords(), DATA) == ""


def test_a_scale_that_nobody_wrote_is_said_with_the_inputs_that_it_gives() -> None:
    """Most files were trained on others; a recipe, or a file, that names a scale is believed."""
    said = default_scale(FileWords(), DataRecipe(dataset="digits"))
    assert said.startswith("std = 0.25 in [data], its default, and mean = 0.5 give the file inputs of -2 to 2: ")
    assert "inputs of -4 to 4: " in default_scale(FileWords(), DataRecipe(dataset="digits", mean=(0.5, 1.0, 0.0)))
    assert default_scale(FileWords(), DATA) == default_scale(FileWords(), replace(DATA, std=(0.25, 0.25, 0.25))) == ""
    assert default_scale(FileWords(mean=(0.0,), std=(1.0,)), DataRecipe(dataset="digits")) == ""
    assert default_scale(FileWords(), DataRecipe(dataset="digits", front_end="log_mel")) == ""


def test_labels_in_another_order_are_an_error_and_other_names_are_said() -> None:
    """Every answer of the first would carry a wrong name; the second may be another language."""
    assert check_labels(FileWords(labels=("a", "b")), ("a", "b")) == ""
    assert check_labels(FileWords(), ("a", "b")) == ""
    with pytest.raises(ModelSignatureError, match=r'got a, b: set \[model\] labels = \["b", "a"\]'):
        check_labels(FileWords(labels=("b", "a")), ("a", "b"))
    assert "calls its classes un, deux, the data a, b" in check_labels(FileWords(labels=("un", "deux")), ("a", "b"))
    assert "names 3 classes (a, b, c), the recipe has 2" in check_labels(FileWords(labels=("a", "b", "c")), ("a", "b"))
