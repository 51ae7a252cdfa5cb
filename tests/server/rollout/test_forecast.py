"""What a rollout takes over the network, before it starts and beside what was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from server.dashboard.progress import rollout_card
from server.fleet.fleet import Device
from server.registry.versions import Release
from server.rollout.figures.forecast import Forecast, at_assignment, forecast_of, foreseen, total
from server.rollout.model import Group, Member, MemberStanding, Rollout, RolloutPhase
from wire.messages import DeviceState, InstalledRelease, Reported
from wire.tuf_target import Delta, TargetCustom

_DELTAS = (
    Delta(base_sha256="old", sha256="p1", length_bytes=70), Delta(base_sha256="older", sha256="p2", length_bytes=40),
    Delta(base_sha256="huge", sha256="p3", length_bytes=5000), Delta(base_sha256="odd", sha256="p4", length_bytes=0),
)  # fmt: skip
BUNDLE = Release(
    name="m-2", model="m", version=2, target="g", path="m-2/g.tfb", sha256="new", length_bytes=1000, certificate={},
    custom=TargetCustom(model="m", version=2, target="g", deltas=_DELTAS), registered_ms=1,
)  # fmt: skip


def _device(name: str, *held: str) -> Device:
    """Return a device that has these bundles in its slots; none: it has not reported yet."""
    slots = [InstalledRelease(release=f"r-{one}", sha256=one) for one in held]
    current, previous = (*slots, None, None)[:2]
    reported = Reported(current=current, previous=previous) if held else None
    return Device(
        device=name, site="s", attributes={"target": "g"}, reported=reported, state=DeviceState.READY, desired=None,
        desired_gen=0, desired_release="", last_seen_ms=1, enrolled_ms=1,
    )  # fmt: skip


def _rollout(*members: Member, phase: RolloutPhase = RolloutPhase.AWAITING_APPROVAL) -> Rollout:
    groups = tuple(Group(name=name, success_ratio=1, error_ratio=0) for name in ("canary", "rest"))
    return Rollout(id="r", release="m-2", groups=groups, members=members, phase=phase)


@pytest.mark.parametrize(
    ("held", "air_bytes"),
    [(("else",), 1000), (("old",), 70), (("old", "older"), 40), (("else", "older"), 40), (("huge",), 1000),
     (("odd",), 1000), (("new",), 0), (("old", "new"), 0)],
)  # fmt: skip
def test_a_device_fetches_the_shortest_patch_that_it_can_use(held: tuple[str, ...], air_bytes: int) -> None:
    """Of either slot; a patch that is longer than the bundle or empty is none; a bundle that is there costs nothing."""
    assert forecast_of(_device("d", *held), BUNDLE) == Forecast(air_bytes)


def test_of_a_device_that_never_reported_it_is_the_upper_figure_and_says_so() -> None:
    """One device alone, and beside one that has reported."""
    assert forecast_of(_device("d"), BUNDLE) == Forecast(1000, upper=1)
    assert Forecast(1000, upper=1).text == "1 kB, at most: 1 device has not reported what it has"
    made = foreseen(_rollout(Member(device="a", group=0)), {"a": _device("a")}, [BUNDLE])
    assert total(made.members) == Forecast(1000, upper=1)
    two = _rollout(Member(device="a", group=0), Member(device="b", group=1))
    made = foreseen(two, {"a": _device("a"), "b": _device("b", "old")}, [BUNDLE])
    assert [total(made.group_members(at)) for at in (0, 1)] == [Forecast(1000, upper=1), Forecast(70)]


def test_who_can_not_get_it_costs_nothing() -> None:
    """No bundle for it, gone from the fleet, over, or cancelled before it was assigned."""
    members = (Member(device="a", group=0), Member(device="b", group=0), Member(device="c", group=0))
    devices = {"a": replace(_device("a", "old"), attributes={"target": "other"}), "c": _device("c", "old")}
    gone = replace(members[2], standing=MemberStanding.CANCELLED)
    assert total(foreseen(_rollout(*members[:2], gone), devices, [BUNDLE]).members) == Forecast(0)
    over = foreseen(_rollout(*members, phase=RolloutPhase.SUCCEEDED), devices, [BUNDLE])
    assert total(over.members) == Forecast(0)


def test_what_was_forecast_stays_when_the_device_has_the_release() -> None:
    """Beside what it fetched; a second try adds to it, the same try after a crash does not."""
    told = Member(device="a", group=0, gen=3, standing=MemberStanding.COMMITTED, forecast_bytes=70, air_bytes=70)
    made = foreseen(_rollout(told, phase=RolloutPhase.RUNNING), {"a": _device("a", "new", "old")}, [BUNDLE])
    assert total(made.members) == Forecast(70)
    card = rollout_card(made, 0)
    assert card.air == card.groups[0].air == "forecast 70 B, 70 B fetched"
    device = _device("a", "old")
    assert at_assignment(Member(device="a", group=0), device, BUNDLE)["forecast_bytes"] == 70
    again = replace(told, standing=MemberStanding.WAITING)
    assert at_assignment(again, device, BUNDLE)["forecast_bytes"] == 140
    assert at_assignment(replace(told, standing=MemberStanding.ASSIGNING), device, BUNDLE) == {}


def test_an_older_server_forecast_nothing() -> None:
    """None is not 0."""
    old = Member(device="a", group=0, gen=3, standing=MemberStanding.ASSIGNED)
    assert at_assignment(replace(old, standing=MemberStanding.WAITING), _device("a", "old"), BUNDLE) == {}
    assert total((old, Member(device="b", group=0, forecast_bytes=5))) is None
    assert rollout_card(_rollout(old), 0).air == ""
