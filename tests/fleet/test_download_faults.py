"""Broker and server die, or answer errors, in the middle of a download: it goes on where it was."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from wire.canonical import sha256_file

if TYPE_CHECKING:
    import socket

    from conftest import Device, Fleet, Relay, Wait

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
        upwards = sink.getpeername()[1] == relay.server_port
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
