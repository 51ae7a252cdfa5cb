"""The coding of windows: exact at every size of count, told from rows of older versions, and damage is found."""

from __future__ import annotations

import numpy as np
import pytest

from server.ingest.packed_counts import is_whole, pack, pack_merged, unpack, unpack_many
from wire.errors import HistogramError
from wire.histogram import Shape

TOTAL = Shape(23, 10).total


def _counts(n: int, total: int = TOTAL, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).multinomial(n, np.full(total, 1 / total)).astype(np.uint32)


@pytest.mark.parametrize("top", [0, 1, 255, 256, 65_535, 65_536, 2**32 - 1])
@pytest.mark.parametrize("large", [1, 3, 200, TOTAL])
def test_every_count_comes_back(top: int, large: int) -> None:
    """Both sides of each bound, for one large count and for many."""
    counts = _counts(60)
    counts[TOTAL - large :] = top
    assert unpack(pack(counts.tobytes()), TOTAL).tolist() == counts.tolist()
    assert unpack(pack_merged(counts.astype(np.int64)), TOTAL).tolist() == counts.tolist()


@pytest.mark.parametrize("total", [0, 1, 2, 3, 5, 7, 11, 18])
def test_a_small_shape_is_never_taken_for_a_row_without_a_version(total: int) -> None:
    """Rows of older versions are told by their length, whatever is in them."""
    for top in (0, 255, 256, 70_000):
        counts = np.full(total, top, np.uint32)
        row, merged = pack(counts.tobytes()), pack_merged(counts.astype(np.int64))
        assert len(row) != 4 * total or not total
        assert len(merged) != 4 * total
        assert unpack(row, total).tolist() == unpack(merged, total).tolist() == [top] * total


def test_an_hour_of_sixty_inferences_takes_a_byte_a_count() -> None:
    """An hour of thousands takes two; a merged month stays below both."""
    assert len(pack(_counts(60).tobytes())) == 1 + TOTAL
    assert len(pack(_counts(400_000).tobytes())) == 1 + 2 * TOTAL
    assert len(pack_merged(_counts(44_000).astype(np.int64))) < 1 + TOTAL


def test_a_merged_window_may_hold_more_than_32_bits() -> None:
    """A busy device passes 2^32 inferences in a month; beyond 63 bits is refused."""
    counts = np.array([2**40, 0, 5], np.int64)
    assert unpack(pack_merged(counts), 3).tolist() == [2**40, 0, 5]
    with pytest.raises(HistogramError, match="merged window"):
        pack_merged(np.array([-1], np.int64))


def test_rows_of_an_older_version_are_read_among_others() -> None:
    """Four bytes a count, without a version: alone, and beside rows of every other coding."""
    counts = [_counts(60, seed=seed) for seed in range(4)]
    counts[2][7] = 90_000
    old = [one.tobytes() for one in counts]
    mixed = [old[0], pack(old[1]), pack(old[2]), pack_merged(counts[3].astype(np.int64))]
    for rows in (old, [pack(one) for one in old[:2]], mixed):
        found = unpack_many(rows, TOTAL)
        assert found.dtype == np.int64
        assert found.tolist() == [one.tolist() for one in counts[: len(rows)]]


@pytest.mark.parametrize("damaged", [
    b"", b"\0" * 8, b"\x01" * TOTAL, b"\x01" * (TOTAL + 4), b"\x02" * (TOTAL + 1), b"\x03\x05abcde",
    b"\x09" * (1 + TOTAL), b"\x01" * (1 + TOTAL) + b"\xff" * 8,
])  # fmt: skip
def test_a_damaged_row_is_found(damaged: bytes) -> None:
    """Another length, an unknown version, a place beyond the last count."""
    assert not is_whole(damaged, TOTAL)
    with pytest.raises(HistogramError):
        unpack_many([pack(_counts(60).tobytes()), damaged], TOTAL)
