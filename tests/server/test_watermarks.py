"""Contiguous watermarks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.ingest.watermarks import AHEAD_LIMIT, Acceptance, StreamProgress, from_text, to_text


def test_the_watermark_stops_at_the_first_gap() -> None:
    """A missing row may still arrive, so it is not acknowledged."""
    progress = StreamProgress()
    assert [progress.offer(seq, 0) for seq in (0, 1, 3)] == [Acceptance.NEW] * 3
    assert (progress.through_seq, progress.ahead) == (1, {3})
    progress.offer(2, 0)
    assert (progress.through_seq, progress.ahead) == (3, set())


def test_the_watermark_passes_what_the_device_no_longer_holds() -> None:
    """Numbers below ``oldest_seq`` were dropped by the spool and will never come."""
    progress = StreamProgress()
    assert progress.offer(7, 5) is Acceptance.NEW
    assert progress.through_seq == 4
    assert progress.offer(4, 5) is Acceptance.DUPLICATE


def test_a_gap_of_any_length_keeps_memory_bounded() -> None:
    """A device can't make the server remember more than a few thousand numbers."""
    progress = StreamProgress()
    offers = [progress.offer(seq, 0) for seq in range(2, 2 * AHEAD_LIMIT)]
    assert offers.count(Acceptance.NEW) == AHEAD_LIMIT
    assert offers[-1] is Acceptance.TOO_FAR_AHEAD
    assert progress.offer(0, 0) is Acceptance.NEW


@given(st.permutations(range(12)), st.lists(st.integers(0, 11)))
def test_every_number_is_new_once_in_any_order(order: list[int], again: list[int]) -> None:
    """Reordering and redelivery change neither the accepted rows nor the final watermark."""
    progress = StreamProgress()
    offers = [progress.offer(seq, 0) for seq in [*order[:6], *again, *order[6:], *again]]
    assert offers.count(Acceptance.NEW) == 12
    assert (progress.through_seq, progress.ahead) == (11, set())


def test_what_lies_ahead_survives_the_store() -> None:
    """The numbers are equal after writing and reading the text."""
    assert from_text(to_text({5, 3, 9})) == {3, 5, 9}
    assert from_text("") == set()
