"""A sink's queue and thread: nothing waits for a slow sink, and every answer is accounted for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_agent.sinks._accounts import open_accounts
from edge_agent.sinks._delivery import Delivery
from edge_agent.sinks._filters import SinkSettings
from tests.edge_agent.sinks.receiver import Receiver, until
from wire.answers import AnswerRecord


def delivery(sink: Receiver, state: Path | None = None, **keys: object) -> Delivery:
    """Return a delivery to ``sink`` that reports nothing."""
    settings = SinkSettings(**keys)  # type: ignore[arg-type]
    return Delivery("log", sink, settings, open_accounts(state, ["log"])["log"], lambda _code, _text: None)


def offer(to: Delivery, *numbers: int) -> None:
    """Offer answers with these ids."""
    for number in numbers:
        to.offer(AnswerRecord(id=str(number), label=str(number % 2)), 0.0)


def test_answers_arrive_in_order_and_are_settled() -> None:
    """Offered answers are sent, and the last number is settled."""
    sink = Receiver()
    to = delivery(sink)
    offer(to, *range(1000))
    to.close(10)
    assert sink.ids == [str(number) for number in range(1000)]
    assert (to.settled, to.account.counts["sent"], to.account.open, sink.closed) == (1000, 1000, 0, True)


def test_a_stuck_sink_loses_the_oldest_and_stops_nobody() -> None:
    """Beyond the queue's length the oldest waiting answers are dropped and counted; the newest arrive."""
    sink = Receiver()
    to = delivery(sink, queue=3)
    sink.gate.clear()
    offer(to, 0)
    assert sink.entered.wait(10)
    offer(to, *range(1, 11))
    assert to.settled == 0
    sink.gate.set()
    to.close(10)
    assert sink.ids == ["0", "8", "9", "10"]
    assert to.account.counts == {"offered": 11, "filtered": 0, "sent": 4, "dropped": 7, "cut_off": 0}


def test_what_a_broken_sink_refused_comes_again() -> None:
    """A failed batch is offered again, and none of it is lost."""
    sink = Receiver()
    sink.broken = 1
    to = delivery(sink)
    offer(to, 1, 2, 3)
    until(lambda: sink.ids)
    to.close(10)
    assert sink.ids == ["1", "2", "3"]


def test_what_a_failing_sink_delivered_is_sent_and_the_rest_comes_again() -> None:
    """Of a batch of three the first two are counted at the failure; only the third comes again."""
    sink = Receiver()
    sink.fails_after = 2
    to = delivery(sink)
    sink.gate.clear()
    offer(to, 0)
    assert sink.entered.wait(10)
    offer(to, 1, 2, 3)
    sink.gate.set()
    until(lambda: len(sink.ids) == 4)
    to.close(10)
    assert (sink.ids, to.account.counts["sent"], to.account.open) == (["0", "1", "2", "3"], 4, 0)


@pytest.mark.parametrize(
    ("fault", "lost"), [(KeyError("a person's mistake"), 1), (SystemExit(3), 1), (None, 0), (3, 0), (-1, 0)]
)
def test_a_sink_from_outside_may_raise_or_return_anything(fault: object, lost: int) -> None:
    """Its thread goes on. What it raises without declaring it loses the batch, which would make it raise again."""
    sink, told = Receiver(), []
    sink.fault = fault
    to = Delivery("log", sink, SinkSettings(), open_accounts(None, ["log"])["log"], lambda *said: told.append(said))
    offer(to, 1)
    until(lambda: sink.fault == "")
    offer(to, 2)
    until(lambda: not to.account.open)
    assert (len(sink.ids), to.account.counts["dropped"], to.settled) == (2 - lost, lost, 2)
    assert [code for code, _ in told] == ["sink_failed"]


def test_a_sink_that_raises_each_time_is_reported_once() -> None:
    """Thirty events a second would push the telemetry out of the spool; after a success the next one is reported."""
    sink, told = Receiver(), []
    to = Delivery("log", sink, SinkSettings(), open_accounts(None, ["log"])["log"], lambda *said: told.append(said))
    for number in range(6):
        sink.fault = "" if number == 3 else KeyError(number)
        offer(to, number)
        until(lambda: not to.account.open)
    assert [text[:18] for _, text in told] == ["log: KeyError: 0: ", "log: KeyError: 4: "]
    assert to.account.counts["dropped"] == 5


def test_filtered_answers_are_settled_and_counted() -> None:
    """A filtered answer is through, but not before those ahead of it."""
    sink = Receiver()
    to = delivery(sink, changes_only=True)
    sink.gate.clear()
    offer(to, 1, 3, 5)
    assert to.settled == 0
    sink.gate.set()
    to.close(10)
    assert (sink.ids, to.settled, to.account.counts["filtered"]) == (["1"], 3, 2)


def test_what_a_kill_cut_off_is_counted_at_the_next_start(tmp_path: Path) -> None:
    """The counts outlive the process; open ones become cut off, and the sums agree."""
    sink = Receiver()
    sink.gate.clear()
    offer(delivery(sink, tmp_path), *range(7))
    after = open_accounts(tmp_path, ["other", "log"])["log"]
    assert (after.counts["offered"], after.counts["cut_off"], after.open) == (7, 7, 0)
    sink.gate.set()


def test_a_file_of_another_size_or_content_starts_from_zero(tmp_path: Path) -> None:
    """A damaged file never ends serving."""
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "accounts").write_bytes(b"x" * 10)
    assert open_accounts(tmp_path, ["log"])["log"].counts["offered"] == 0


def test_a_sink_that_raises_anything_loses_a_batch_and_not_its_thread() -> None:
    """Code from outside may be wrong for one answer; the next ones arrive, and the lost ones are counted."""
    sink = Receiver()
    real, raised = sink.send, []

    def send(records: Sequence[AnswerRecord]) -> int:
        if not raised:
            raised.append(len(records))
            raise ZeroDivisionError
        return real(records)

    sink.send = send
    to = delivery(sink)
    offer(to, 1)
    while not raised:
        assert to._thread.is_alive()
    offer(to, 2, 3)
    to.close(10)
    assert (sink.ids, to.account.counts["dropped"], to.settled) == (["2", "3"], 1, 3)
