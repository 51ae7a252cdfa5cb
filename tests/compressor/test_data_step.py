"""A cached table is unchanged and read once, and bundles contain the complete front end that made it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compressor import data as cached
from compressor.cache import Cache
from compressor.closure import code_digests
from compressor.data import load_kept, pack, unpack
from compressor.data._front_end import preprocessing_of
from compressor.data._table import Shares, make_table
from compressor.errors import DataError
from compressor.recipe.model import DataRecipe
from wire.codec import encode

STROKES = DataRecipe(dataset="windows", path="strokes.json", colour="grey", front_end="stroke", options={"side": 24})


def test_a_kept_table_comes_back_as_it_was() -> None:
    """Images of any size, columns, names, excluded rows, and the shares of the splits."""
    images = [np.full((height, 3, 3), height, np.uint8) for height in (2, 5)]
    table = make_table(images, ["b", "a"], slices=["x", "y"], sources=["1", "2"], corrupt=("bad.png",))
    table = replace(table, shares=Shares(0.1, 0.2, 0.3, 0.4), kinds=np.array(["k", "l"]), remarks=("said",))
    back = unpack(pack(table))
    assert back.kinds is not None
    assert (back.kinds.tolist(), back.remarks, back.told) == (["k", "l"], ("said",), None)
    assert unpack(pack(replace(table, kinds=None))).kinds is None
    assert all(np.array_equal(one, other) for one, other in zip(table.images, back.images, strict=True))
    assert all(np.array_equal(getattr(table, name), getattr(back, name)) for name in ("labels", "slices", "sources"))
    assert (back.class_names, back.corrupt, back.shares) == (("a", "b"), ("bad.png",), Shares(0.1, 0.2, 0.3, 0.4))


def write_strokes(folder: Path) -> None:
    """Write four strokes of two labels, as the magic wand records them."""
    points = [{"x": 0.1 * step, "y": 0.02 * step * step} for step in range(6)]
    strokes = [{"index": i, "label": str(i % 2), "strokePoints": points[: 3 + i]} for i in range(4)]
    (folder / "strokes.json").write_text(json.dumps({"strokes": strokes}))


def test_a_table_is_rendered_once_and_again_with_other_options(tmp_path: Path) -> None:
    """The second run finds the table; another option of the front end makes another."""
    write_strokes(tmp_path)
    first, second, other = (Cache(tmp_path / "cache") for _ in range(3))
    made = load_kept(first, STROKES, tmp_path)
    kept = load_kept(second, STROKES, tmp_path)
    load_kept(other, replace(STROKES, options={"side": 16}), tmp_path)
    assert (first.ran, second.ran, second.found, other.ran) == (["data"], [], ["data"], ["data"])
    assert all(np.array_equal(a, b) for a, b in zip(made.images, kept.images, strict=True))


def test_a_kept_table_depends_on_the_code_of_the_front_ends() -> None:
    """A changed front end renders again: its source is part of the step's key."""
    digests = code_digests(cached.code_of(STROKES))
    assert {f"edge_agent.front_ends.{name}" for name in ("_base", "log_mel", "stroke", "window")} <= set(digests)
    assert "compressor.data.windows" in digests
    assert "compressor.data.spoken" not in digests


def test_a_manifest_carries_every_option_of_the_front_end() -> None:
    """Options that the recipe omits are written with today's default."""
    pre = preprocessing_of(STROKES)
    assert (pre.front_end, pre.front_end_options) == ("stroke", {"side": 24.0, "line_px": 2.5, "margin_px": 3.0})
    assert (pre.orientation, pre.decode) == ("stored", "full")
    images = preprocessing_of(DataRecipe())
    assert (images.orientation, images.decode, images.front_end) == ("exif", "reduced", "")
    assert b"decode" not in encode(preprocessing_of(DataRecipe(orientation="stored", decode="full")))


def test_options_of_a_data_set_of_ones_own_stay_out_of_the_manifest() -> None:
    """A data set that names no front end itself may keep its own options beside the front end's, numbered or not."""
    own = DataRecipe(dataset="json:loads", front_end="window", options={"folds": 3, "low_0": 0.5, "channels": 2})
    options = preprocessing_of(own).front_end_options
    assert "folds" not in options
    assert (options["low_0"], options["channels"], options["steps"]) == (0.5, 2.0, 64.0)


def test_a_misspelled_option_is_refused() -> None:
    """The data set knows all options of its front end and names the nearest."""
    with pytest.raises(DataError, match="did you mean 'line_px'"):
        preprocessing_of(replace(STROKES, options={"line_pixels": 2}))
