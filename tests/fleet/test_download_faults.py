"""Broker, server, carrier and line fail in the middle of a download: it goes on where it was."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from wire.canonical import sha256_file

if TYPE_CHECKING:
    import socket

    from conftest import BadLine, Device, Fleet, Relay, Wait

pytestmark = [pytest.mark.broker, pytest.mark.slow]
BUNDLE_BYTES = 24_000_000  # more than the buffers of the connections hold
SLOWLY = (
    'max_bytes_per_s = 6000000\nstall_s = 2.0\ncarriers = ["http"]'  # the other carrier would go on: ``test_carriers``
)
ERROR = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def _downloading(fleet: Fleet, relay: Relay, wait: Wait) -> tuple[Device, str]:
    """Return a device that has a quarter of a release."""
    device = fleet.add("dev", SLOWLY, http_port=relay.port)
    release = fleet.release(1, pad_bytes=BUNDLE_BYTES)
    fleet.roll_out(release)
    wait(lambda: device.held_bytes() > BUNDLE_BYTES // 4, "a part")
    return device, release


def _came_whole_and_once(device: Device, release: str, relay: Relay, held_bytes: int) -> None:
    """Check that the release was committed with its digest, and that no request began again from the start."""
    device.reaches("committed", release)
    first, *others = relay.ranges()
    assert first == 0
    assert others == sorted(others)
    assert others[0] >= held_bytes
    for path in (device.state / "blobs" / "sha256").glob("*"):
        assert sha256_file(path) == path.name


def test_server_and_broker_killed_during_a_download(fleet: Fleet, relay: Relay, wait: Wait) -> None:
    """Both with kill -9; the agent is not restarted."""
    device, release = _downloading(fleet, relay, wait)
    held_bytes = device.held_bytes()
    fleet.server.kill()
    fleet.start()
    _came_whole_and_once(device, release, relay, held_bytes)
    assert device.program.process.poll() is None


class Interrupted:
    """What the relay does to its connections from now on, and then no more."""

    def __init__(self, relay: Relay, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
        """Apply ``fault`` to three connections; the ones that are open end now."""
        self.left, self.lock, self.fault, self.plain = 3, threading.Lock(), fault, type(relay).pump
        monkeypatch.setattr(relay, "pump", lambda source, sink: self.pump(relay, source, sink))

    def pump(self, relay: Relay, source: socket.socket, sink: socket.socket) -> None:
        """Pass bytes on in one direction, or answer the device with an error, an end or nothing."""
        try:
            upwards = sink.getpeername()[1] == relay.server_port
        except OSError:  # the other direction has ended it
            return
        with self.lock:
            bad = self.left > 0
            self.left -= bad and upwards
        if not bad:
            self.plain(relay, source, sink)
        elif upwards and self.fault == "5xx":
            source.recv(65_536)
            source.sendall(ERROR)
        elif upwards and self.fault == "silent":
            threading.Event().wait(2.5)  # longer than the agent waits for a byte


@pytest.mark.nightly
@pytest.mark.parametrize("fault", ["5xx", "cut", "silent"])
def test_errors_during_a_download(
    fleet: Fleet, relay: Relay, wait: Wait, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """HTTP 503, connections that end at once, and connections on which nothing comes."""
    device, release = _downloading(fleet, relay, wait)
    Interrupted(relay, monkeypatch, fault)
    relay.cut()
    _came_whole_and_once(device, release, relay, device.held_bytes() // 2)


LINE = ("--delay-ms", "50", "--loss", "0.02")
LINE_BYTES = 4_000_000
SHARE = 1.15  # of the bundle that may arrive: what was under way at each fault comes twice, and packets have headers


def _behind(line: BadLine, fleet: Fleet, update: str, http: int, mqtt: int) -> tuple[Device, str, int]:
    """Return a device behind ``line``, its release, and how many bytes had arrived before that was rolled out."""
    device = fleet.enrol("dev", fleet.root / "dev", f"max_bytes_per_s = 300000\nstall_s = 3.0\n{update}")
    device.redirect(mqtt_host=line.host, mqtt_port=mqtt, http_url=f"http://{line.host}:{http}")
    device.program.netns = line.netns
    device.program.start()
    release = fleet.release(1, pad_bytes=LINE_BYTES)
    fleet.roll_out(release)
    return device, release, line.received_bytes()


def _reaches(device: Device, wait: Wait, share: float) -> int:
    """Wait until the part has this share of the bundle, and not much more; return its length."""
    wait(lambda: device.held_bytes() > share * LINE_BYTES, f"{share} of the bundle")
    held_bytes = device.held_bytes()
    assert held_bytes < (share + 0.2) * LINE_BYTES
    return held_bytes


@pytest.mark.nightly
@pytest.mark.parametrize("carrier", ["http", "mqtt"])
def test_broker_and_server_killed_behind_a_bad_line(
    fleet: Fleet, bad_line: Callable[..., BadLine], wait: Wait, carrier: str
) -> None:
    """50 ms and 2 % loss each way, kill -9 of the one and then of the other: the bundle crosses the line once."""
    ports = fleet.client.base_url.port, fleet.mqtt_port
    line = bad_line(list(ports), *LINE)
    device, release, before = _behind(line, fleet, f'carriers = ["{carrier}"]', *ports)
    _reaches(device, wait, 0.2)
    fleet.kill_broker()
    _reaches(device, wait, 0.5)
    fleet.server.kill()
    fleet.start()
    device.reaches("committed", release)
    assert LINE_BYTES < line.received_bytes() - before < SHARE * LINE_BYTES
    assert sha256_file(next((device.state / "blobs" / "sha256").glob("*"))) == device.status()["current"]["sha256"]


@pytest.mark.nightly
def test_the_carrier_is_switched_and_back_behind_a_bad_line(
    fleet: Fleet, bad_line: Callable[..., BadLine], relays: Callable[[int], Relay], wait: Wait
) -> None:
    """HTTP, then chunks over MQTT, then HTTP again, all on one part; each takes over where the other ended."""
    http, mqtt = relays(fleet.client.base_url.port), relays(fleet.mqtt_port)
    line = bad_line([http.port, mqtt.port], *LINE)
    device, release, before = _behind(line, fleet, "", http.port, mqtt.port)
    _reaches(device, wait, 0.2)
    http.refuse()
    over_both = _reaches(device, wait, 0.5)
    mqtt.refuse()
    http.passes = True
    _reaches(device, wait, 0.75)
    mqtt.passes = True
    device.reaches("committed", release)
    first, *others = http.ranges()
    assert (first, len(others) > 0, min(others) >= over_both) == (0, True, True)
    assert LINE_BYTES < line.received_bytes() - before < SHARE * LINE_BYTES
    assert sha256_file(next((device.state / "blobs" / "sha256").glob("*"))) == device.status()["current"]["sha256"]
