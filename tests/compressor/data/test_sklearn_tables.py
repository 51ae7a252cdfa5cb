"""scikit-learn's tables: rows of features as pictures of one line, classes or a number to predict."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes

from compressor import data
from compressor.data import sklearn_tables
from compressor.errors import CorruptImageError, DataError
from compressor.recipe.model import DataRecipe

OPTIONS = {"steps": 1, "channels": 30, "low": 0, "high": 100}
RECIPE = DataRecipe(dataset="sklearn_tables", front_end="window", options=OPTIONS, width=30, height=1, colour="grey")


def test_each_row_is_a_picture_of_one_line() -> None:
    """Of as many pixels as features; rows are sources of their own, with the class of the table."""
    table, found = data.load(RECIPE), load_breast_cancer()
    assert (len(table), table.class_names) == (569, ("benign", "malignant"))
    assert len(set(table.sources.tolist())) == 569
    assert table.images[0].shape == (1, 30, 3)
    wanted = np.rint(np.clip(found.data[7] / 100, 0, 1) * 255)
    assert table.images[7][0, :, 0].tolist() == wanted.tolist()
    assert [table.class_names[label] for label in table.labels[:3]] == [
        found.target_names[one] for one in found.target[:3]
    ]


def test_numbers_to_predict_are_those_of_the_other_table() -> None:
    """With label = "number"."""
    options = {**OPTIONS, "channels": 10, "high": 400}
    table = data.load(DataRecipe(dataset="sklearn_tables", front_end="window", options=options, label="number"))
    assert table.class_names == ("progress",)
    assert table.labels[:, 0].tolist() == load_diabetes().target.tolist()


def test_ranges_are_fitted_on_the_numbers_themselves() -> None:
    """Not on their 8 bits."""
    ranged = sklearn_tables.raw(RECIPE)
    assert ranged[3].values[0] == pytest.approx(load_breast_cancer().data[3])


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"channels": 29}, CorruptImageError, "1 to 65536 steps x 29 channels, got"),
        ({"steps": 2}, CorruptImageError, "Expected 2 steps, got 1"),
        ({"stride": 4}, DataError, "Expected no 'stride' in .* a row of a table in each window"),
        ({"colums": 4}, DataError, "Expected in window one of steps, channels.*got 'colums'"),
    ],
)
def test_options_that_do_not_fit_the_table_are_named(
    options: dict[str, int], error: type[Exception], told: str
) -> None:
    """With the row or the option."""
    changed = DataRecipe(dataset="sklearn_tables", front_end="window", options={**OPTIONS, **options})
    with pytest.raises(error, match=told):
        data.load(changed)
