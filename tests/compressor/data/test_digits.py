"""The embedded data set."""

from __future__ import annotations

import numpy as np
import pytest

from compressor.data import load
from compressor.data._split import split
from compressor.data.digits import DRIFTED, VIEWS, render, source_images, source_number
from compressor.errors import DataError
from compressor.recipe.model import DataRecipe


def test_there_are_1797_real_images_of_ten_classes() -> None:
    """The bundled images come as uint8 with their labels."""
    images, labels = source_images()
    assert images.shape == (1797, 8, 8)
    assert images.dtype == np.uint8
    assert sorted(set(labels.tolist())) == list(range(10))


def test_views_of_one_image_share_their_source() -> None:
    """Several frames of one digit differ in content and agree in source and label."""
    table = render([4, 9], DRIFTED, "dusk", views=VIEWS)
    assert len(set(table.hashes)) == 2 * VIEWS
    assert [source_number(source) for source in table.sources] == [4] * VIEWS + [9] * VIEWS
    assert set(table.slices) == {"dusk"}


def test_rendering_is_seeded() -> None:
    """The same seed gives the same frames, another seed other ones."""
    first, again, other = (render([1], DRIFTED, "x", seed=seed).hashes[0] for seed in (1, 1, 2))
    assert first == again != other


def test_a_frame_does_not_depend_on_the_frames_beside_it() -> None:
    """A device's frame is the same in whatever order and company it is rendered."""
    alone, together = render([5], DRIFTED, "x", views=2), render(range(300), DRIFTED, "x", views=2)
    assert set(alone.hashes) <= set(together.hashes)


@pytest.mark.slow
def test_most_sources_judge_and_the_reference_is_large_enough() -> None:
    """For any seed a 1-point margin can be shown, and the drift reference has 2,000 rows."""
    table = load(DataRecipe())
    for seed in range(4):
        splits = split(table, seed)
        assert len(splits.gate) == splits.n_effective(table, splits.gate) >= 880
        assert len(splits.reference) >= 2000


@pytest.mark.slow
def test_a_recipe_may_ask_for_other_shares() -> None:
    """``[data] shares`` replaces the recommendation of the data set wherever the recipe's data is loaded."""
    table = load(DataRecipe(shares={"train": 0.7, "calibration": 0.1, "gate": 0.1, "reference": 0.1}))
    assert 120 < len(split(table, 0).gate) < 240


def test_a_path_that_would_not_be_read_is_refused() -> None:
    """``--data mine.zip`` beside the built-in data would gate a model on other rows than the person thinks."""
    with pytest.raises(DataError, match=r"no path = 'mine.zip' in \[data\] with dataset = 'digits'"):
        load(DataRecipe(path="mine.zip"))
