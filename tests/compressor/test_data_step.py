"""A kept table comes back as it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compressor.data.shares import Shares
from compressor.data.table import make_table
from compressor.data_step import pack, unpack


def test_a_kept_table_comes_back_as_it_was() -> None:
    """Images of any size, columns, names, what was left out, and the shares of the splits."""
    images = [np.full((height, 3, 3), height, np.uint8) for height in (2, 5)]
    table = make_table(images, ["b", "a"], slices=["x", "y"], sources=["1", "2"], corrupt=("bad.png",))
    table = replace(table, shares=Shares(0.1, 0.2, 0.3, 0.4))
    back = unpack(pack(table))
    assert all(np.array_equal(one, other) for one, other in zip(table.images, back.images, strict=True))
    assert all(np.array_equal(getattr(table, name), getattr(back, name)) for name in ("labels", "slices", "sources"))
    assert (back.class_names, back.corrupt, back.shares) == (("a", "b"), ("bad.png",), Shares(0.1, 0.2, 0.3, 0.4))
