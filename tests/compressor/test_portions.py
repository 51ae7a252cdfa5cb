"""Work is sized by bytes: large rows go through a model few at a time, small ones many."""

from __future__ import annotations

import numpy as np
import pytest

from compressor.portions import INPUT_BYTES, portions, rows_within


@pytest.mark.parametrize(
    ("row", "rows"), [(1, 256), (INPUT_BYTES // 256, 256), (INPUT_BYTES // 255, 255), (INPUT_BYTES, 1), (10**12, 1)]
)
def test_rows_are_as_many_as_fit_and_never_none(row: int, rows: int) -> None:
    """Neither the limit of rows nor that of bytes is exceeded; there is always at least one row."""
    assert rows_within(row, most=256) == rows


def test_portions_are_all_rows_in_order_within_the_bytes() -> None:
    """224 x 224 RGB: 13 rows at a time, none lost, none copied."""
    inputs = np.arange(30, dtype=np.float32)[:, None, None, None] * np.ones((1, 3, 224, 224), np.float32)
    parts = list(portions(inputs, most=64))
    assert [len(part) for part in parts] == [13, 13, 4]
    assert all(part.nbytes <= INPUT_BYTES and part.base is inputs for part in parts)
    assert np.array_equal(np.concatenate(parts), inputs)
