"""The sink to the fleet's server: a budget of bytes, and rows in the spool."""

from __future__ import annotations

from edge_agent.control.child_inbox import read_answers
from edge_agent.pipe_frames import Frame
from edge_agent.sinks.fleet import Settings, ToFleet
from wire.answers import AnswerRecord
from wire.canonical import canonical_bytes
from wire.codec import encode, to_document

RECORD = AnswerRecord(id="0123456789", label="cat")
SIZE = len(encode(RECORD))


def sink(now: list[float], budget: int) -> tuple[ToFleet, list[str]]:
    """Return a sink of ``budget`` bytes a day at the time ``now``, and the ids that it hands over."""
    taken: list[str] = []
    settings = Settings(max_bytes_per_day=budget)
    return ToFleet(
        settings=settings,
        to_agent=lambda records: taken.extend(record.id for record in records),
        monotonic_s=lambda: now[0],
    ), taken


def test_an_hour_s_share_may_go_at_once_and_no_more() -> None:
    """Of ten answers the budget of an hour takes three; the rest is dropped."""
    now = [0.0]
    to, taken = sink(now, 24 * 3 * SIZE)
    assert (to.send([RECORD] * 10), len(taken)) == (3, 3)
    assert to.send([RECORD]) == 0


def test_the_budget_grows_steadily_up_to_an_hour_s_share() -> None:
    """After 20 minutes there is room for one, after a week for three."""
    now = [0.0]
    to, _ = sink(now, 24 * 3 * SIZE)
    to.send([RECORD] * 3)
    now[0] = 1199.0
    assert to.send([RECORD]) == 0
    now[0] = 1201.0
    assert to.send([RECORD]) == 1
    now[0] = 604_800.0
    assert to.send([RECORD] * 10) == 3


def test_a_budget_whose_hour_is_less_than_an_answer_lets_some_pass() -> None:
    """As many as the day allows, and one at once at most."""
    now = [0.0]
    to, taken = sink(now, 1024)
    for minute in range(24 * 60):
        now[0] = minute * 60.0
        assert to.send([RECORD] * 3) <= 1
    assert 1024 / SIZE - 1 < len(taken) <= (1024 + 1024 / 24) / SIZE


def test_a_frame_of_answers_becomes_rows() -> None:
    """What the child sends is checked field by field, and keys of a newer child stay."""
    rows = [{**to_document(RECORD), "newer": 1}]
    frame = Frame({"type": "answers"}, canonical_bytes({"rows": rows}))
    assert read_answers(frame) == rows
