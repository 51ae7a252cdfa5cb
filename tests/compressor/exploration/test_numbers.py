"""Looking at a regression's data: in groups of the numbers, without a search for wrong labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compressor.data._table import Table, make_value_table
from compressor.exploration.explore import explore
from compressor.exploration.report import render
from compressor.exploration.schema import read_schema, validate
from compressor.progress import Silent
from compressor.run.stages import table_digest


@pytest.fixture
def table() -> Table:
    """A hundred random images with the numbers 0 to 99."""
    images = list(np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3), dtype=np.uint8))
    return make_value_table(images, [[float(i)] for i in range(100)], ["litres"], slices=["all"] * 100)


def test_numbers_are_explored_in_groups(table: Table) -> None:
    """Five of equal size; the digest is that of the numbers themselves, as a run's lineage has it."""
    found = explore(table, Silent())
    assert [sum(parts.values()) for parts in found.classes.values()] == [20] * 5
    assert found.digest == table_digest(table)
    assert found.counts["label_suspects"] == 0
    assert any("numbers are to be predicted" in note for note in found.notes)
    assert "<html" in render("litres", found, table)


def test_expectations_hold_for_the_groups(table: Table, tmp_path: Path) -> None:
    """A schema counts groups where it counts classes."""
    (tmp_path / "schema.toml").write_text("min_rows_per_class = 20\nmax_class_ratio = 1.0\n")
    assert all(item.holds for item in validate(table, read_schema(tmp_path / "schema.toml")))
