"""Bytes on air and to the disk, by day: what the kernel counted, once each, over days, restarts and wrong clocks."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edge_agent.config import TransportConfig
from edge_agent.device.disk import RealDisk
from edge_agent.telemetry.byte_meter import AirBytes, ByteMeter
from edge_agent.telemetry.usage import REPORT_S, UsageLedger
from edge_agent.transports.mqtt import MqttSettings, MqttTransport
from edge_agent.updater.download import FetchSettings, HttpFetcher
from edge_agent.updater.ports import FetchOrder, FetchProgress
from edge_agent.updater.verification import MetadataFetcher
from wire.canonical import sha256_hex
from wire.transport import Delivered

if TYPE_CHECKING:
    from conftest import Broker

DAY_MS = 86_400_000
NOON_MS = 1_795_000_000_000 // DAY_MS * DAY_MS + DAY_MS // 2
BUNDLE = bytes(range(256)) * 4000


@contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield both ends of a TCP connection on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
        with near, far:
            yield near, far


def test_counts_what_the_kernel_moved_with_40_bytes_a_segment() -> None:
    """5,000 bytes out and 100 in, in a few segments."""
    meter = ByteMeter()
    with connected() as (near, far):
        key = meter.watch(near)
        near.sendall(b"x" * 5000)
        far.recv(5000, socket.MSG_WAITALL)
        far.sendall(b"y" * 100)
        near.recv(100, socket.MSG_WAITALL)
        seen = meter.read()
        meter.settle(key)
    assert 5000 + 3 * 40 <= seen.sent <= 5000 + 10 * 40
    assert 100 + 2 * 40 <= seen.received <= 100 + 10 * 40
    assert meter.read().sent >= seen.sent


def test_a_connection_that_was_closed_first_is_still_counted() -> None:
    """Libraries close theirs when it suits them."""
    meter = ByteMeter()
    with connected() as (near, _):
        key = meter.watch(near)
        near.sendall(b"x" * 1000)
    meter.settle(key)
    meter.settle(key)
    assert meter.read().sent >= 1000


def test_what_is_not_tcp_counts_nothing() -> None:
    """A socket pair has no segments."""
    meter = ByteMeter()
    near, far = socket.socketpair()
    with near, far:
        meter.settle(meter.watch(near))
    assert (meter.read(), meter.watch(near)) == (AirBytes(), -1)


def test_the_connection_to_the_broker_is_counted(broker: Broker) -> None:
    """20 messages of 1,000 bytes; after the end nothing is missing."""
    meter, done, count = ByteMeter(), threading.Event(), 0

    def listen(notice: object) -> None:
        nonlocal count
        count += isinstance(notice, Delivered)
        if count >= 20:
            done.set()

    settings = MqttSettings(
        host="127.0.0.1", port=broker.port, client_id="dev", username="", password="",
        pace=TransportConfig(inflight_messages=50), meter=meter,
    )  # fmt: skip
    transport = MqttTransport(settings)
    transport.start(listen, subscriptions=())
    sent, give_up = 0, threading.Event()
    while sent < 20 and not give_up.wait(0.01):
        sent += transport.publish("t", b"x" * 1000) is not None
    assert done.wait(10.0)
    open_ = meter.read()
    transport.stop()
    assert 20_000 < open_.sent <= meter.read().sent < 25_000
    assert 100 < open_.received < 5_000


class Bundles(BaseHTTPRequestHandler):
    """Serves one bundle and metadata."""

    def do_GET(self) -> None:
        """Send it."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(BUNDLE)))
        self.end_headers()
        self.wfile.write(BUNDLE)

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    """The address of a server of bundles."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bundles)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with closing(server.socket):
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_download_is_counted(tmp_path: Path, url: str) -> None:
    """The bundle, headers, and no more than a few percent for segments."""
    settings = FetchSettings(base_url=url, username="dev", password="secret")
    order = FetchOrder(sha256=sha256_hex(BUNDLE), length_bytes=len(BUNDLE))
    assert HttpFetcher(settings, tmp_path, RealDisk()).fetch(order, FetchProgress()) is None
    assert len(BUNDLE) < settings.meter.read().received < 1.1 * len(BUNDLE)


def test_metadata_is_counted(url: str) -> None:
    """Of a child, which reports it with its verdict."""
    fetcher = MetadataFetcher()
    assert b"".join(fetcher.fetch(f"{url}/tuf/1.root.json")) == BUNDLE
    assert len(BUNDLE) < fetcher.meter.read().received < 1.1 * len(BUNDLE)


def ledger(day: str = "", sent: int = 0) -> tuple[UsageLedger, ByteMeter]:
    """Return a ledger with its meter."""
    made = UsageLedger(meter=ByteMeter())
    made.restore({"today": {"day": day, "sent_bytes": sent}, "yesterday": 5})
    return made, made.meter


def test_a_day_adds_up_and_ends_with_one_complete_report() -> None:
    """What is read after midnight belongs to the new day."""
    made, meter = ledger()
    meter.add(AirBytes(10, 1))
    first = made.add(NOON_MS, 0.0, 100, known=True)
    assert first is not None
    assert (first.sent_bytes, first.received_bytes, first.written_bytes) == (10, 1, 100)
    meter.add(AirBytes(5, 5))
    assert made.add(NOON_MS + 60_000, 60.0, 50, known=True) is None
    meter.add(AirBytes(3, 3))
    over = made.add(NOON_MS + DAY_MS // 2, 120.0, 7, known=True)
    assert over is not None
    assert (over.sent_bytes, over.written_bytes, over.day) == (15, 150, first.day)
    assert (made.today.sent_bytes, made.today.written_bytes) == (3, 7)


@pytest.mark.parametrize(("after_s", "due"), [(REPORT_S - 1, False), (REPORT_S, True)])
def test_reports_every_ten_minutes(after_s: float, *, due: bool) -> None:
    """A report with each reading would be most of what is sent."""
    made, _ = ledger()
    made.add(NOON_MS, 0.0, 0, known=True)
    assert (made.add(NOON_MS + 1, after_s, 0, known=True) is not None) is due


def test_a_day_goes_on_after_a_restart_and_a_wrong_clock_files_nothing() -> None:
    """The figures wait until the day is known."""
    kept, _ = ledger()
    kept.add(NOON_MS, 0.0, 0, known=True)
    made, meter = ledger(kept.today.day, 40)
    meter.add(AirBytes(2, 0))
    assert made.add(7000, 0.0, 9, known=False) is None
    made.add(NOON_MS, 1.0, 1, known=True)
    assert (made.today.day, made.today.sent_bytes, made.today.written_bytes) == (kept.today.day, 42, 10)
    assert made.yesterday.day == ""
