"""What devices say of themselves, read again only where a device changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from server.fleet import signs as module
from server.fleet.fleet import Device
from server.fleet.signs import DeviceSign, DeviceSigns, signs
from wire.messages import ANSWERS_NOTHING, DeviceState, Reported, UpdatePhase, UpdateStatus

CALM = Device(
    device="cam-1", site="berlin", attributes={}, state=DeviceState.READY, reported=Reported(), desired=None,
    desired_gen=0, desired_release="", last_seen_ms=5, enrolled_ms=1,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, []),
        ({"last_seen_ms": 0, "state": DeviceState.LOST}, [DeviceSign.NEVER_SEEN]),
        ({"state": DeviceState.LOST}, [DeviceSign.LOST]),
        ({"state": DeviceState.DISCONNECTED}, [DeviceSign.DISCONNECTED]),
        ({"state": DeviceState.DEGRADED}, [DeviceSign.DEGRADED]),
        ({"reported": None}, []),
        ({"reported": Reported(safe_mode=True)}, [DeviceSign.DEGRADED]),
        ({"state": DeviceState.DEGRADED, "reported": Reported(reason=ANSWERS_NOTHING)}, [DeviceSign.ANSWERS_NOTHING]),
        ({"clock_skew_ms": -9}, [DeviceSign.CLOCK_OFF]),
        ({"reported": Reported(update=UpdateStatus(phase=UpdatePhase.ROLLED_BACK))}, [DeviceSign.UPDATE_FAILED]),
        ({"reported": Reported(update=UpdateStatus(phase=UpdatePhase.DEFERRED))}, []),
        (
            {"reported": Reported(update=UpdateStatus(phase=UpdatePhase.REFUSED, code="metadata_rollback"))},
            [DeviceSign.UPDATE_FAILED, DeviceSign.METADATA_OLDER],
        ),
    ],
)
def test_each_sign_alone(changes: dict[str, object], shown: list[DeviceSign]) -> None:
    """And none of a device of which nothing is the matter."""
    assert list(signs(replace(CALM, **changes))) == shown  # type: ignore[arg-type]


def test_only_devices_that_changed_are_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that left is forgotten, and looked at when it is back."""
    looked = []

    def counted(device: Device) -> Iterator[DeviceSign]:
        looked.append(device.device)
        return signs(device)

    monkeypatch.setattr(module, "signs", counted)
    fleet, known = [replace(CALM, device=f"d{index}") for index in range(4)], DeviceSigns()
    assert known.of(fleet)[DeviceSign.LOST] == []
    lost = replace(fleet[2], state=DeviceState.LOST)
    assert known.of([fleet[0], lost, fleet[3]])[DeviceSign.LOST] == [lost]
    assert known.of(fleet)[DeviceSign.LOST] == []
    assert looked == ["d0", "d1", "d2", "d3", "d2", "d1", "d2"]
