"""The bins of the reference have equal masses, and there are bins for unseen values."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from compressor.measurement.predictions import Predictions
from compressor.release.drift_reference import DeviceSamples, equal_mass_edges, joined_contexts, make_reference
from compressor.tasks.classification.evidence import temperature
from edge_agent.inference import drift_counters
from edge_agent.inference.support import Support
from edge_agent.tasks.classification import Classification
from edge_agent.tasks.regression import Regression
from wire.reference import Context, read_reference, write_reference


def test_edges_part_continuous_values_into_equal_masses() -> None:
    """Each of the 16 bins holds about a sixteenth."""
    values = np.random.default_rng(0).normal(size=4000)
    counts = np.bincount(np.searchsorted(equal_mass_edges(values), values.astype(np.float32), side="right"))
    assert len(counts) == 16
    assert counts.min() > 230
    assert counts.max() < 270


@pytest.mark.parametrize("values", [np.zeros(50), np.repeat([0.0, 1.0], 30), np.array([np.nan, 2.0])])
def test_edges_ascend_strictly_even_where_values_repeat(values: np.ndarray) -> None:
    """A constant stream leaves bins above and below for values that were never seen."""
    edges = equal_mass_edges(values)
    assert len(edges) == 15
    assert all(low < high for low, high in pairwise(edges))
    known = {int(np.searchsorted(edges, value, side="right")) for value in values[np.isfinite(values)]}
    assert int(np.searchsorted(edges, np.nanmax(values) + 0.1, side="right")) not in known
    assert int(np.searchsorted(edges, np.nanmin(values) - 0.1, side="right")) not in known


def _seen(n: int, seed: int, width: int) -> DeviceSamples:
    rng = np.random.default_rng(seed)
    predictions = Predictions(
        rng.normal(size=(n, 4)).astype(np.float32), rng.normal(size=(n, width)).astype(np.float32)
    )
    pixels = rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    sources = np.array([f"digit-{row // 2}" for row in range(n)])
    contexts = np.full(n, f"part {seed}")
    return DeviceSamples(
        pixels=pixels, labels=predictions.classes, predictions=predictions, sources=sources, contexts=contexts
    )


@pytest.mark.parametrize("width", [0, 3, 20])
def test_a_reference_survives_its_bytes(width: int) -> None:
    """Written and read it is the same, for no, a narrow and a wide embedding."""
    reference = make_reference("ab" * 32, Classification(4), _seen(400, 0, width), [_seen(300, 1, width)], 1.3)
    assert read_reference(write_reference(reference)) == reference
    assert reference.contexts[0].n == 300
    assert reference.contexts[0].n_effective == 150
    assert (sum(reference.table_seen), sum(reference.table_right), reference.risk) == (300, 300, 0.0)


def test_every_context_has_its_own_counts() -> None:
    """A second context adds a row of counts under the same edges."""
    reference = make_reference("ab" * 32, Classification(4), _seen(400, 0, 9), [_seen(300, 1, 9), _seen(50, 2, 9)])
    assert [(context.name, context.n) for context in reference.contexts] == [("part 1", 300), ("part 2", 50)]
    assert sum(reference.contexts[1].counts) == 50 * len(reference.streams)


def test_every_slice_of_a_part_is_a_context_and_the_table_has_all_rows() -> None:
    """Two sites: each its own counts and independent samples; right answers and risk are of both together."""
    held = _seen(600, 1, 9)
    sites = np.repeat(["north", "south"], [240, 360])
    parts = [replace(held, contexts=sites), replace(_seen(300, 2, 9), contexts=np.full(300, "south"))]
    reference = make_reference("ab" * 32, Classification(4), _seen(400, 0, 9), parts)
    assert [(one.name, one.n, one.n_effective) for one in reference.contexts] == [
        ("north", 240, 120), ("south", 660, 330),
    ]  # fmt: skip
    assert sum(reference.table_seen) == 600
    whole = make_reference(
        "ab" * 32, Classification(4), _seen(400, 0, 9), [replace(held, contexts=np.full(600, "all"))]
    )
    assert (whole.table_right, whole.risk) == (reference.table_right, reference.risk)


def _context(name: str, level: int, n: int = 400) -> Context:
    """Return a context of one stream, ``n`` samples around bin ``level``."""
    bins = np.clip(np.random.default_rng([level, n]).normal(level, 1, n), 0, 15).astype(int)
    return Context(name=name, n=n, n_effective=n, counts=tuple(np.bincount(bins, minlength=16).tolist()))


def test_more_slices_than_contexts_are_joined_by_likeness_and_none_is_lost() -> None:
    """Of twenty sites at eight levels those of one level are one context, whatever their order."""
    sites = [_context(f"site-{i:02d}", 1 + 2 * (i % 7)) for i in range(19)] + [_context("other", 15)]
    found = joined_contexts(sites)
    assert len(found) == 8
    assert sum(one.n for one in found) == 20 * 400
    assert [one.name for one in found if "other" in one.name] == ["other"]
    assert "site-00, site-07, site-14" in {one.name for one in found}
    assert {one.counts for one in joined_contexts(sites[::-1])} == {one.counts for one in found}


def test_a_slice_of_few_sources_joins_the_one_that_is_most_like_it() -> None:
    """99 sources are no context of their own, 100 are; nor is a single small one lost."""
    near, far = _context("near", 4), _context("far", 12)
    assert [one.name for one in joined_contexts([near, far, _context("few", 5, 99)], least_sources=100)] == [
        "near, few", "far",
    ]  # fmt: skip
    assert len(joined_contexts([near, far, _context("some", 5, 100)], least_sources=100)) == 3
    assert [one.name for one in joined_contexts([_context("few", 5, 9)], least_sources=100)] == ["few"]


def test_joining_a_thousand_slices_keeps_a_name_that_can_be_shown() -> None:
    """The name of a joined context is cut, its counts are not."""
    found = joined_contexts([_context(f"site-{i:04d}", i % 16, 100) for i in range(1000)])
    assert len(found) == 8
    assert sum(one.n_effective for one in found) == 100_000
    assert max(len(one.name) for one in found) == 120


def test_temperature_of_overconfident_logits_is_above_one() -> None:
    """Logits three times too large are found out."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 3)) * 2
    weights = np.exp(logits)
    labels = np.array([rng.choice(3, p=row / row.sum()) for row in weights])
    assert temperature((3 * logits).astype(np.float32), labels) == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize("width", [0, 9])
def test_a_regression_has_streams_of_its_values(width: int) -> None:
    """No classes, no table of right answers; each value in 16 bins of equal mass; it survives its bytes."""
    seen = replace(_seen(400, 0, width), labels=np.zeros((400, 6), np.float32))
    values = np.random.default_rng(3).normal(300, 5, (400, 6)).astype(np.float32)
    seen = replace(seen, predictions=Predictions(values, seen.predictions.embedding))
    reference = make_reference("ab" * 32, Regression(6), seen, [seen])
    names = [spec.name for spec in reference.streams]
    assert names[-4:] == ["value_0", "value_1", "value_2", "value_3"]
    assert (reference.classes, reference.table_seen, reference.risk) == (0, (), 0.0)
    assert min(reference.contexts[0].counts[-16:]) >= 20
    assert read_reference(write_reference(reference)) == reference


def test_a_reference_states_the_limit_of_support_of_its_contexts() -> None:
    """Of the rows that made the limit at most the stated share is beyond it; of inputs of another kind most are."""
    reference = make_reference("ab" * 32, Classification(4), _seen(600, 0, 20), [_seen(400, 1, 20), _seen(400, 2, 20)])
    support, projection = Support.of(reference), drift_counters.projection_of(reference, Classification(4))

    def beyond(seed: int, scale: float = 1.0) -> int:
        seen = _seen(400, seed, 20)
        embedding = seen.predictions.embedding * scale
        rows = drift_counters.values(seen.pixels, seen.predictions.logits, embedding, projection).tolist()
        return sum(support.distance(row) > support.limit for row in rows)

    assert reference.support_rate == 0.01
    assert 0 < beyond(1) + beyond(2) <= 8
    assert beyond(3, scale=4.0) > 390


def test_too_few_independent_rows_state_no_limit_of_support() -> None:
    """A rate that can't be kept is not stated."""
    reference = make_reference("ab" * 32, Classification(4), _seen(400, 0, 9), [_seen(36, 1, 9)])
    assert (reference.support_limit, reference.support_rate) == (0.0, 0.0)
