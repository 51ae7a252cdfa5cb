"""Texts that are too long are cut with a mark for readers, and refused as keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from server.ingest.faults import shortened
from wire.messages import DeviceState, Event, Response, Severity, State

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet

BOOT = "ab" * 8


def test_a_cut_text_says_how_long_it_was() -> None:
    """Both sides of the limit; the mark counts."""
    assert shortened("x" * 500, 500) == "x" * 500
    cut = shortened("y" * 5213, 500)
    assert (len(cut), cut.lstrip("y")) == (500, "... (cut from 5,213 characters)")


def test_texts_of_a_device_are_marked_where_they_are_cut(fleet: MemoryFleet) -> None:
    """Of an event and of an answer; one that fits stays as it is."""
    device = fleet.enrol()
    command = fleet.app.parts.fleet.send_command("cam-1", "selftest", {}, 60.0)
    device.say(
        "event",
        Event(
            boot=BOOT, seq=0, oldest_seq=0, at_ms=7, kind="update", code="long", severity=Severity.INFO, text="t" * 2001
        ),
    )
    device.say(
        "event",
        Event(
            boot=BOOT, seq=1, oldest_seq=0, at_ms=7, kind="update", code="fits", severity=Severity.INFO, text="t" * 2000
        ),
    )
    device.say("res", Response(id=command, ok=False, code="c" * 64, text="t" * 5213))
    fleet.turn()
    found = {event.code: event.text for event in fleet.app.parts.events.latest(5)}
    assert found["long"].endswith("t... (cut from 2,001 characters)")
    assert found["fits"] == "t" * 2000
    answer = fleet.app.parts.fleet.command(command)
    assert answer is not None
    assert answer.text.endswith("... (cut from 5,213 characters)")
    assert answer.code == "c" * 64


@pytest.mark.parametrize("names", [("k" * 65, "code"), ("kind", "c" * 65), ("kind", "a\u0007b")])
def test_an_event_of_no_name_is_kept_under_another(fleet: MemoryFleet, names: tuple[str, str]) -> None:
    """Cut, two kinds would become one; the text stays, and the number is acknowledged."""
    device = fleet.enrol()
    kind, code = names
    named = {"kind": kind, "code": code, "severity": Severity.INFO, "text": "what happened"}
    device.say("event", Event(boot=BOOT, seq=0, oldest_seq=0, at_ms=7, **named))
    device.say(
        "event",
        Event(
            boot=BOOT, seq=1, oldest_seq=0, at_ms=7, kind="k" * 64, code="c" * 64, severity=Severity.INFO, text="fits"
        ),
    )
    fleet.turn()
    kept, refused = fleet.app.parts.events.latest(2)
    assert (kept.kind, kept.code) == ("k" * 64, "c" * 64)
    assert (refused.kind, refused.code, refused.seq) == ("ingest", "event_name_refused", 0)
    assert "at most 64 printable characters" in refused.text
    assert refused.text.endswith(": what happened")


def test_a_boot_that_is_too_long_is_refused_with_an_event(fleet: MemoryFleet) -> None:
    """Two boots with the same beginning would be one; the message is not attributed to another."""
    device = fleet.enrol()
    command = fleet.app.parts.fleet.send_command("cam-1", "selftest", {}, 60.0)
    device.say("state", State(state=DeviceState.READY, at_ms=0, boot="b" * 65))
    device.say(
        "event",
        Event(
            boot="b" * 65,
            seq=0,
            oldest_seq=0,
            at_ms=7,
            kind="update",
            code="staged",
            severity=Severity.INFO,
            text="text",
        ),
    )
    device.say("res", Response(id=command, ok=True, code="c" * 65))
    fleet.turn()
    assert fleet.app.parts.fleet.device("cam-1").state != DeviceState.READY
    assert fleet.app.parts.ingest.figures.refused == 3
    assert "staged" not in fleet.codes()
    answer = fleet.app.parts.fleet.command(command)
    assert answer is not None
    assert answer.answered_ms == 0
