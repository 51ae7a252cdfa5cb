"""The fleet is healthy only if every signal is."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from server.app.overall import Level, Signals, overall

QUIET = Signals(devices=70)
NAMES = [field.name for field in fields(Signals) if field.name != "devices"]


def test_a_fleet_of_which_nothing_is_the_matter_is_well() -> None:
    """Healthy means that there are devices and no signal reports anything."""
    assert overall(QUIET).level is Level.WELL
    assert overall(QUIET).concerns == ()


@pytest.mark.parametrize("signal", NAMES)
def test_each_signal_alone_turns_it_off(signal: str) -> None:
    """The signal and the affected devices are named."""
    found = overall(replace(QUIET, **{signal: ("one-of-them",)}))
    assert found.level is not Level.WELL
    assert [concern.signal for concern in found.concerns] == [signal]
    assert "one-of-them" in found.text


@pytest.mark.parametrize("signal", NAMES)
def test_each_signal_is_heard_beside_all_others(signal: str) -> None:
    """None hides another: the sentence has all, the worst first."""
    everything = {name: (f"x-{name}",) for name in NAMES}
    found = overall(replace(QUIET, **everything))
    assert signal in {concern.signal for concern in found.concerns}
    levels = [list(Level).index(concern.level) for concern in found.concerns]
    assert (levels, found.level) == (sorted(levels, reverse=True), found.concerns[0].level)


def test_no_device_is_not_well_but_unknown() -> None:
    """An empty table proves nothing."""
    assert overall(Signals()).level is Level.UNKNOWN


def test_many_names_are_counted() -> None:
    """A sentence stays readable with 68 of 70 lost."""
    found = overall(replace(QUIET, lost=tuple(f"cam-{number}" for number in range(68))))
    assert (found.level, found.concerns[0].text[:16]) == (Level.ALARM, "68 devices are l")
    assert found.text.endswith("cam-5 and 62 more")
