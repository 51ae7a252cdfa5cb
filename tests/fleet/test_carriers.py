"""Bundles by patch and by either carrier, on a whole fleet: real broker, real server, real agent, kill -9."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from compressor.release.publish import publish

if TYPE_CHECKING:
    from conftest import Device, Fleet, Relay, Wait

pytestmark = [pytest.mark.broker, pytest.mark.slow]
SLOWLY = "max_bytes_per_s = 400000"


def texts(device: Device) -> str:
    """Return the texts of the update events that the operator sees."""
    events = device.fleet.events(device=device.name)
    return "\n".join(event["text"] for event in events if event["kind"] == "update")


def test_a_download_that_loses_http_goes_on_over_mqtt(fleet: Fleet, relay: Relay, wait: Wait) -> None:
    """The relay to the HTTP port is cut in the middle; the broker brings the rest of the same part."""
    device = fleet.add("dev", SLOWLY, http_port=relay.port)
    release = fleet.release(1, pad_bytes=1_200_000)
    fleet.roll_out(release)
    wait(lambda: device.held_bytes() > 300_000, "a part")
    relay.refuse()
    device.reaches("committed", release)
    wait(lambda: "fetched over mqtt, http failed" in texts(device), "the event that names the carrier")
    assert relay.ranges() == [0]


def test_killed_in_the_middle_of_a_pull_it_goes_on_over_http(fleet: Fleet, relay: Relay, wait: Wait) -> None:
    """After kill -9 only the rest of what came over MQTT is requested, by the other carrier."""
    device = fleet.add("dev", f'{SLOWLY}\ncarriers = ["mqtt", "http"]', http_port=relay.port)
    release = fleet.release(1, pad_bytes=1_200_000)
    fleet.roll_out(release)
    wait(lambda: device.held_bytes() > 300_000, "a part")
    device.program.kill()
    held_bytes = device.held_bytes()
    assert held_bytes < 1_200_000
    config = device.state / "agent.toml"
    config.write_text(config.read_text().replace(f'{SLOWLY}\ncarriers = ["mqtt", "http"]', 'carriers = ["http"]'))
    device.program.start()
    device.reaches("committed", release)
    assert relay.ranges() == [held_bytes]


def test_a_device_that_has_the_base_fetches_the_patch(fleet: Fleet, relay: Relay, wait: Wait) -> None:
    """The full bundle of the second release never leaves the server; the event names the patch."""
    device = fleet.add("dev", http_port=relay.port)
    base = fleet.build(1, pad_bytes=500_000)
    fleet.roll_out(fleet.release(1, pad_bytes=500_000))
    device.reaches("committed", "tiny-1")
    fetched = len(relay.ranges())
    new = fleet.build(2, pad_bytes=500_000)
    done = publish(
        [new], keys=fleet.keys, server_url=str(fleet.client.base_url), token=fleet.builder_token, bases=[base]
    )
    ((length_bytes, share),) = next(iter(done.patches.values()))
    assert share < 0.02
    fleet.roll_out("tiny-2")
    device.reaches("committed", "tiny-2")
    wait(lambda: f"made from a patch of {length_bytes} bytes" in texts(device), "the event that names the patch")
    assert len(relay.ranges()) == fetched + 1
