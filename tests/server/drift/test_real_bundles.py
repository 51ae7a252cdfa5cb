"""A real bundle of grey pictures, counted by the device's code and judged by the real service on SQLite."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scripts.bench.real_bundles import CountedItems, items_of, served
from server.drift.config import DriftConfig

RECIPE = Path(__file__).parents[2] / "compressor" / "pipeline_recipe.toml"
PLACES = {f"d{i}": {"site": f"site-{i // 3}", "lens": f"lens-{i % 4}"} for i in range(12)}
N, COMMISSIONED, QUIET = 60, 72, 40


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> CountedItems:
    """The test data of the built-in digits; most streams of colour stand in one bin."""
    return items_of(RECIPE, tmp_path_factory.mktemp("digits"))


@pytest.mark.slow
def test_a_grey_bundle_is_quiet_until_one_device_sees_something_else(items: CountedItems) -> None:
    """Twelve devices, independent draws: no verdict; then one sees nothing but zeros, and is the only one named."""
    dice = np.random.default_rng(1)
    zeros = np.flatnonzero(items.labels == 0)
    with served(items.reference, PLACES, DriftConfig(baseline_windows=COMMISSIONED)) as fleet:
        for _ in range(COMMISSIONED + QUIET):
            fleet.window(items.windows(dice.integers(len(items.counters), size=(12, N))), N)
        assert fleet.verdicts() == ()
        for _ in range(3):
            drawn = dice.integers(len(items.counters), size=(12, N))
            drawn[4] = dice.choice(zeros, N)
            fleet.window(items.windows(drawn), N)
        (verdict,) = fleet.verdicts()
        assert (verdict.kind, verdict.devices) == ("device_local", ("d4",))
        assert max(fleet.sizes) <= 800


@pytest.mark.slow
def test_a_window_is_the_sum_of_its_items(items: CountedItems) -> None:
    """The same item twice counts twice, in every counter; the bins of a stream sum to the number of samples."""
    (window,) = items.windows(np.array([[3, 3, 5]]))
    assert (window == 2 * items.counters[3] + items.counters[5]).all()
    assert window[:16].sum() == 3
