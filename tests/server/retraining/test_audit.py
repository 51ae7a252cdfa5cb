"""The steady audit: whom it asks, for how many, and what a device of a person's choice is asked once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from server.errors import AuditOffError, UnknownDeviceError
from server.retraining.config import AuditConfig, RetrainingConfig
from server.store.fleet import update_device
from server.store.monitoring.windows import insert_windows
from wire.codec import encode
from wire.messages import InstalledRelease, Reported

if TYPE_CHECKING:
    from tests.server.retraining.conftest import Site

HOUR_MS = 3_600_000
NOW_MS = 100 * HOUR_MS


def serve(site: Site, images: dict[str, int], now_ms: int = NOW_MS) -> None:
    """Let the devices report model-1, and send a day of windows with so many inferences an hour."""
    for device, n in images.items():
        reported = Reported(current=InstalledRelease(release="model-1"))
        rows: list[dict[str, object]] = [{
            "device": device, "site": "west", "start_ms": now_ms - hour * HOUR_MS, "len_ms": HOUR_MS, "context": 0,
            "artifact": "a", "ref_id": "r", "streams": 1, "classes": 1, "confidence_bins": 1, "n": n, "reports": 1,
            "values": b"", "received_ms": now_ms,
        } for hour in range(1, 25)]  # fmt: skip
        with site.audit.database.begin() as connection:
            update_device(connection, device, {"reported": encode(reported).decode()})
            insert_windows(connection, rows)


def test_a_busy_device_is_asked_for_more_by_the_same_probability(site: Site) -> None:
    """Five a day over both: 5 of 240 and 2,160 inferences; the settings have room for the bytes."""
    serve(site, {"d1": 10, "d2": 90})
    site.audit.turn(NOW_MS)
    site.audit.turn(NOW_MS)
    asked = [command.arguments for command in site.commands()]
    assert [(one["request"], one["lane"], one["ratio"]) for one in asked] == [("audit", "audit", 5 / 2400)] * 2
    assert [one["at_most"] for one in asked] == [10, 26]
    assert site.service.fleet.device("d1").desired.config == {"sample_bytes_per_day": 1024 * 1024}  # type: ignore[union-attr]


def test_it_asks_once_a_day_also_after_a_restart(site: Site) -> None:
    """A day later the next request; the time of the last one is in the database."""
    serve(site, {"d1": 10})
    for hour in range(24):
        restarted = replace(site.audit, _due=type(site.audit._due)(), _next_ms=0)
        restarted.turn(NOW_MS + hour * HOUR_MS)
        restarted.turn(NOW_MS + hour * HOUR_MS + 1)
    assert len(site.commands()) == 1
    serve(site, {"d1": 10}, NOW_MS + 24 * HOUR_MS)
    site.audit.turn(NOW_MS + 24 * HOUR_MS)
    site.audit.turn(NOW_MS + 24 * HOUR_MS)
    assert len(site.commands()) == 2


@pytest.mark.parametrize(
    "config", [AuditConfig(), AuditConfig(enabled=True, models={"model": 0}), AuditConfig(enabled=True)]
)
def test_nobody_is_asked_unless_it_is_on_and_there_is_something_to_draw_from(site: Site, config: AuditConfig) -> None:
    """Off by default, off for this model, or no device has sent a window."""
    site.audit.config = config
    serve(site, {"d1": 10} if config != AuditConfig(enabled=True) else {"d1": 0})
    site.audit.turn(NOW_MS)
    site.audit.turn(NOW_MS)
    assert site.commands() == []


def test_one_device_is_asked_once(site: Site) -> None:
    """Thirty, spread over a day where its rate is known, else from the next window."""
    site.audit.fleet.clock = lambda: NOW_MS
    serve(site, {"d1": 10})
    first, second = site.audit.ask_once("d1"), site.audit.ask_once("d2", 12)
    asked = {str(command.arguments["request"]): command.arguments for command in site.commands()}
    assert (asked[first]["at_most"], asked[first]["ratio"]) == (30, pytest.approx(1.3 * 30 / 240))
    assert (asked[second]["count"], "ratio" in asked[second]) == (12, False)
    assert site.service.fleet.device("d1").desired.config == {"sample_bytes_per_day": 2 * 1024 * 1024}  # type: ignore[union-attr]


def test_a_device_is_not_asked_where_nobody_allowed_it(site: Site) -> None:
    """The error names both settings; an unknown device has its own."""
    site.audit.config, site.audit.retraining = AuditConfig(), RetrainingConfig()
    with pytest.raises(AuditOffError, match=r"\[audit\] enabled = true"):
        site.audit.ask_once("d1")
    with pytest.raises(UnknownDeviceError):
        site.audit.ask_once("nobody")
