"""How streams ordinarily move, by value: batches, memory, what devices share, and what may move without evidence."""

from __future__ import annotations

import numpy as np
import pytest

from server.drift.checkpoints import packed_ordinary, read_ordinary
from server.drift.detection.evidence import memory_at
from server.drift.detection.movement import LENGTHS, FleetMovement, Movement, Ordinary, ScoreColumns, shared
from server.drift.detection.reference import (
    CLASS_THETAS,
    THETAS,
    Floats,
    class_log_normaliser,
    log_normaliser,
    shapes,
)
from wire.histogram import BINS

COLUMNS = ScoreColumns(1)
UNIFORM = np.full(BINS, 1 / BINS)


def _ordinary(movement: Movement, counts: list[Floats]) -> Ordinary:
    """Return how one device moved whose windows had these counts, (1, 16) each; None for a missing window."""
    together = np.zeros((1, 1, BINS), np.int64)
    movement.admit(["d"])
    for slot, window in enumerate(counts):
        movement.close(slot)
        movement.add(slot, ["d"], window[None].astype(np.int64))
        movement.close(slot + 1)
        together += window[None].astype(np.int64)
    return movement.ordinary(["d"], together, np.array([len(counts)]), FleetMovement.empty(movement.columns))


def test_a_change_from_window_to_window_is_memory_at_every_length() -> None:
    """Five days low and high by turns of six hours: batches of six windows differ most, those of one hardly."""
    low, high = np.zeros((1, BINS)), np.zeros((1, BINS))
    low[0, 4], high[0, 11] = 60, 60
    found = _ordinary(Movement(columns=COLUMNS), [low if slot // 6 % 2 else high for slot in range(120)])
    assert found.ratios[0, :, 0] == pytest.approx([60 * 19 / 119 * 2, 60 * 2 * 19 / 59 * 2, 60 * 4, 720], rel=0.3)
    assert found.memory[0, 0] == pytest.approx(found.ratios[0, :, 0].max())
    assert found.pairs[0].tolist() == [119, 59, 29, 19]


def test_independent_windows_have_no_memory_and_do_not_move() -> None:
    """All ratios are about 1, and what six hours differ is what chance explains."""
    dice = np.random.default_rng(1)
    found = _ordinary(Movement(columns=COLUMNS), [dice.multinomial(60, UNIFORM)[None] for _ in range(240)])
    assert found.ratios[0, 0] == pytest.approx(1, abs=0.3)
    assert (found.movement < 0.1).all()


def test_a_baseline_is_read_as_it_was_written() -> None:
    """Of other columns it is not."""
    dice = np.random.default_rng(2)
    found = _ordinary(Movement(columns=COLUMNS), [dice.multinomial(60, UNIFORM)[None] for _ in range(72)])
    again = read_ordinary(packed_ordinary(found), COLUMNS)
    assert again is not None
    assert packed_ordinary(again) == packed_ordinary(found)
    assert read_ordinary(packed_ordinary(found), ScoreColumns(2)) is None


def test_a_gap_of_a_day_is_bridged_and_a_longer_one_is_not() -> None:
    """Batches of one window that lie 24 windows apart still are a pair."""
    for gap, pairs in ((24, 1), (25, 0)):
        movement = Movement(columns=COLUMNS)
        movement.admit(["d"])
        for slot in (0, gap):
            movement.add(slot, ["d"], np.full((1, 1, BINS), 5))
            movement.close(slot + 1)
        assert movement.pairs[0, 0] == pairs
    assert LENGTHS[0] == 1


def test_eight_devices_share_what_their_middle_does() -> None:
    """Less two standard errors; seven share nothing."""
    alike = np.full((8, 1), 0.5) + np.linspace(-0.01, 0.01, 8)[:, None]
    assert shared(alike)[0][0] == pytest.approx(0.5, abs=0.02)
    assert shared(alike[:7])[0][0] == 0
    rare = np.where(np.arange(100) % 5 > 0, -0.05, 0.2)[:, None]  # a count of 0 or 1 of 4 samples: mean 0, median not
    assert shared(rare)[0][0] != 0
    assert shared(rare, np.array([4.0]))[0][0] == 0
    assert shared(np.random.default_rng(3).normal(0, 1, (100, 1)))[0][0] == pytest.approx(0, abs=0.1)


def test_memory_is_a_time() -> None:
    """At ten times the rate ten times as many samples are worth an independent one; one is never less than one."""
    assert memory_at(np.array([19.0]), np.array([10.0]))[0] == pytest.approx(190, rel=0.01)
    assert memory_at(np.array([1.0]), np.array([10.0]))[0] == 1
    assert memory_at(np.array([19.0]), np.array([0.1]))[0] == pytest.approx(2, abs=0.3)


@pytest.mark.parametrize("sd", [-0.3, -0.1, 0.0, 0.1, 0.3])
def test_a_stream_that_moves_no_further_than_allowed_gives_no_evidence(sd: float) -> None:
    """E[exp(g)] is at most Z for every tilt, also of spread, tails and ends, which move with the mean."""
    scores = np.random.default_rng(4).standard_normal(400_000)
    edges = np.quantile(scores, np.arange(1, BINS) / BINS)
    p = np.bincount(np.searchsorted(edges, scores + sd), minlength=BINS) / len(scores)
    shape = shapes(UNIFORM[None])
    allowed = np.abs(shape[0] @ p)[None].max(initial=0.35) * np.ones((1, 8))
    log_z = log_normaliser(UNIFORM[None], np.full((1, 1), 4000.0), shape, z=4, epsilon=0, moved=allowed)
    growth = np.exp(shape[..., None] * np.array(THETAS))[0]  # (8, 16, 3)
    assert (np.log(np.einsum("fbt,b->ft", growth, p)) <= log_z.reshape(8, 3)).all()


def test_a_class_that_moves_no_further_than_allowed_gives_no_evidence() -> None:
    """Both more and less of it."""
    p = np.full((1, BINS), 1 / BINS)
    sd = np.sqrt(p * (1 - p))
    log_z = class_log_normaliser(p, np.full((1, 1), 1e9), moved=0.2, z=4, epsilon=0).reshape(BINS, -1)
    for share in (p - 0.2 * sd, p, p + 0.2 * sd):
        assert (np.log(1 + share[0, 0] * (np.exp(CLASS_THETAS) - 1)) <= log_z[0] + 1e-9).all()


@pytest.mark.parametrize(("moves", "lowest", "highest"), [(0.0, 0.0, 0.03), (0.3, 0.25, 0.45)])
def test_movement_by_chance_alone_is_none(moves: float, lowest: float, highest: float) -> None:
    """A hundred devices, three days, samples that remember: chance is not movement, and weather of 0.3 sd is."""
    dice, days, lags = np.random.default_rng(3), np.full(100, 3.0), np.tile([1, 1, 1, 1, 0, 0], (100, 1))
    noise = 0.1  # of the squared difference of two batches
    pairs = 12 - np.array([1, 2, 4, 8, 16, 32])
    differences = [dice.normal(0, np.sqrt(noise + moves**2), (100, max(count, 1))) for count in pairs]
    squares = np.stack([(one**2).mean(axis=1) - noise for one in differences], axis=1)
    fleet, moved = FleetMovement.empty(COLUMNS), np.repeat(squares[..., None] * lags[..., None], COLUMNS.count, axis=2)
    fleet.add_moved(moved, lags.astype(float))
    found = fleet.movement(moved, lags.astype(float), np.full((100, COLUMNS.count), noise), days)
    assert lowest <= np.median(found) <= highest
