"""The log of acts verified a part at a time, as a page does: whole, going on, broken, and begun anew."""

from __future__ import annotations

import pytest

from server.access import chain_watch
from server.access.chain_watch import ANEW_MS, NOTED_MS, ChainWatch
from server.people import SERVER_ACTOR
from server.store.people.audit_log import AUDIT_HEAD, AUDIT_LOG
from tests.server.access.conftest import House


@pytest.fixture
def watch(house: House, monkeypatch: pytest.MonkeyPatch) -> ChainWatch:
    """A log of five acts of which a call checks two."""
    monkeypatch.setattr(chain_watch, "STEP", 2)
    for number in range(5):
        house.log.add(SERVER_ACTOR, "policy.change", f"s{number}", number)
    return ChainWatch(log=house.log, clock=house.clock)


def checked(watch: ChainWatch, calls: int = 1) -> tuple[int, bool, int]:
    """Return how far the chain is verified after some calls, whether that is its end, and where it breaks."""
    state = [watch.step() for _ in range(calls)][-1]
    return state.finding.count, state.over, state.finding.broken_seq


def forge(house: House, seq: int) -> None:
    """Change one record as somebody may who writes the database."""
    with house.database.begin() as connection:
        connection.execute(AUDIT_LOG.update().where(AUDIT_LOG.c.seq == seq).values(subject="forged"))


def test_a_long_log_is_verified_over_several_calls(watch: ChainWatch, house: House) -> None:
    """Each reads no more than its part; afterwards only what is new."""
    assert [checked(watch) for _ in range(3)] == [(2, False, 0), (4, False, 0), (5, True, 0)]
    assert watch.step().finding.head_sha256 == house.log.head()[1]
    house.log.add(SERVER_ACTOR, "policy.change", "s5", 9)
    assert checked(watch) == (6, True, 0)


def test_an_empty_log_is_whole(house: House) -> None:
    """There is nothing that could be wrong."""
    assert checked(ChainWatch(log=house.log, clock=house.clock)) == (0, True, 0)


def test_a_forged_record_is_found_and_stays_found(watch: ChainWatch, house: House) -> None:
    """Also while nobody reads the page; somebody has to begin anew."""
    forge(house, 4)
    assert checked(watch, 2) == (3, True, 4)
    house.clock.now_ms += 2 * ANEW_MS
    assert checked(watch) == (3, True, 4)
    watch.again()
    assert [checked(watch), checked(watch)] == [(2, False, 0), (3, True, 4)]


def test_a_record_forged_after_it_was_checked_is_found_within_the_hour(watch: ChainWatch, house: House) -> None:
    """What was verified once is not verified for ever."""
    assert checked(watch, 3) == (5, True, 0)
    forge(house, 1)
    assert checked(watch) == (5, True, 0)
    house.clock.now_ms += ANEW_MS
    assert checked(watch) == (0, True, 1)


def test_a_cut_end_is_found_though_all_was_verified(watch: ChainWatch, house: House) -> None:
    """The head was there before; also if somebody takes the head back to a record that is left."""
    assert checked(watch, 3) == (5, True, 0)
    with house.database.begin() as connection:
        connection.execute(AUDIT_LOG.delete().where(AUDIT_LOG.c.seq > 3))
    assert (watch.step().finding.broken_seq, watch.step().finding.why) == (
        5,
        "it was whole, and is gone or another now",
    )
    watch.again()
    assert "the end was cut off" in [watch.step() for _ in range(3)][-1].finding.why


def test_a_head_that_was_taken_back_is_found(watch: ChainWatch, house: House) -> None:
    """The records that were verified are more than it says."""
    assert checked(watch, 3) == (5, True, 0)
    third = house.log.after(2, 1)[0]
    with house.database.begin() as connection:
        connection.execute(AUDIT_LOG.delete().where(AUDIT_LOG.c.seq > 3))
        connection.execute(AUDIT_HEAD.update().values(seq=3, sha256=third.sha256))
    assert watch.step().finding.broken_seq == 5


def test_the_time_is_noted_once_a_minute(watch: ChainWatch, house: House) -> None:
    """A page that is drawn anew at each look loses the click that is under way."""
    first = [watch.step() for _ in range(3)][-1]
    house.clock.now_ms += NOTED_MS - 1
    assert watch.step() == first
    house.clock.now_ms += 1
    assert watch.step().at_ms == house.clock.now_ms
