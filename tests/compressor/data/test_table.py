"""Tables: made, aligned, joined."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compressor.data._table import Table, align, concatenate, make_table, sort_classes
from compressor.errors import DataError


def _table(*names: str) -> Table:
    images = [np.full((2, 2, 3), i, dtype=np.uint8) for i in range(len(names))]
    return make_table(images, names, slices=["all"] * len(names))


def test_classes_sort_by_value_where_they_are_numbers() -> None:
    """Ten comes after nine, words by the alphabet."""
    assert sort_classes({"10", "9", "0.5"}) == ("0.5", "9", "10")
    assert sort_classes({"no", "yes", "7"}) == ("7", "no", "yes")


def test_classes_of_one_value_are_in_the_same_order_on_every_run() -> None:
    """A set has another order in every process: outputs would change places under the same weights."""
    assert sort_classes({"1", "1.0", "01", "0"}) == ("0", "01", "1", "1.0")
    assert sort_classes({"nan", "2", "1"}) == ("1", "2", "nan")


def test_equal_sized_images_stay_apart() -> None:
    """The images column holds one array per row even when all have the same size."""
    table = _table("a", "b")
    assert table.images.shape == (2,)
    assert table.images[1].shape == (2, 2, 3)


def test_joined_labels_mean_the_same_class() -> None:
    """A table with fewer classes is joined by class name, not by number."""
    joined = concatenate(_table("0", "1", "2"), _table("2", "1"))
    assert joined.labels.tolist() == [0, 1, 2, 2, 1]


def test_an_unknown_class_is_refused() -> None:
    """A label that the model does not know is named."""
    with pytest.raises(DataError, match="got seven"):
        align(_table("seven"), ("0", "1"))


def test_takes_rows_by_index_and_by_mask() -> None:
    """Indices and masks select the same rows of every column."""
    table = _table("a", "b", "c")
    assert table.take(np.array([2, 0])).labels.tolist() == [2, 0]
    assert table.take(table.labels == 1).hashes.tolist() == [table.hashes[1]]
    kinds = replace(table, kinds=np.array(["x", "y", "z"]))
    assert kinds.take(np.array([2, 0])).kinds.tolist() == ["z", "x"]  # type: ignore[union-attr]
    assert table.take(np.array([2, 0])).kinds is None


def test_no_images_is_an_error() -> None:
    """A table without a row is refused where it is made."""
    with pytest.raises(DataError, match="at least one"):
        _table()
