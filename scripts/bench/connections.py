#!/usr/bin/env python3
"""Prints the cost of many connected devices for a server and its broker: ``connections.py [--quick] [--json F]``.

A real ``fleet-server run`` with mosquitto on loopback, and one real MQTT 5 connection (paho, without its threads) for
each of 2,000 devices, with its own name and password. All connect at once, publish ``state`` and ``reported``, ask for
their ``desired`` and send one drift report of 23 streams; each is done when it has its ``desired`` and the server has
acknowledged the report as stored. Afterwards they only keep the
connection alive, every 5 s instead of 30. Then server and broker are killed and started again after some seconds: every
device reconnects by the agent's own rule (full jitter, 1 s to 5 min), as after a boot of its own, and sends its next
report. The figures include the
work of the devices, which share the cores.
"""

from __future__ import annotations

import os
import random
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import paho.mqtt.client as paho
import sqlalchemy as sa
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from edge_agent.config import TransportConfig  # noqa: E402 - found through the line above
from scripts.bench.processes import used_s  # noqa: E402 - found through the line above
from scripts.bench.rows import Row, told  # noqa: E402 - found through the line above
from server.app.state_directory import ServerPorts, StateDirectory, init_state  # noqa: E402 - found through the line above
from server.broker.process import free_port  # noqa: E402 - found through the line above
from server.fleet.identity.credentials import hash_password, new_secret  # noqa: E402 - found through the line above
from server.store.database import open_database  # noqa: E402 - found through the line above
from server.store.fleet import DEVICES  # noqa: E402 - found through the line above
from server.store.monitoring.windows import WINDOWS  # noqa: E402 - found through the line above
from server.trust.online_keys import init_online_keys  # noqa: E402 - found through the line above
from wire.codec import decode, encode  # noqa: E402 - found through the line above
from wire.drift_report import DriftReport, encode_report  # noqa: E402 - found through the line above
from wire.histogram import Counters, Shape  # noqa: E402 - found through the line above
from wire.messages import Ack, Desired, DeviceState, Get, Reported, State, Stream  # noqa: E402 - found through the line above

SHAPE, SITE, BOOT = Shape(23, 10), "bench", "ab" * 8  # of the reports: their numbers go on
HOUR_MS = 3_600_000
KEEP_ALIVE_S, HELD_S = 5, 15.0
PATIENCE_S, AWAY_S, LIMIT_S = 300.0, 10.0, 60.0
PACE, CHANCE = TransportConfig(), random.Random(1)  # noqa: S311 - jitter is no secret


@dataclass(slots=True)
class Device:
    """One device with its own connection; ``losses``: how often the broker closed it; ``seq``: of its report.

    ``acknowledged``, ``told``: since it came back, the report was acknowledged, and it got its ``desired``.
    """

    name: str
    password: str
    selector: selectors.BaseSelector
    number: int
    seq: int = 0
    connected: bool = False
    acknowledged: bool = False
    told: bool = False
    losses: int = 0
    failures: int = 0
    again_s: float = float("inf")
    refused: str = ""
    client: paho.Client = field(init=False)

    def connect(self, host: str, port: int) -> None:
        """Open the connection; messages follow when the broker has accepted it."""
        client = self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=self.name, protocol=paho.MQTTv5)
        client.username_pw_set(self.name, self.password)
        client.on_connect, client.on_message, client.on_disconnect = self._up, self._heard, self._down
        client.on_socket_open = lambda _, __, raw: self.selector.register(raw, selectors.EVENT_READ, self)
        client.on_socket_close = lambda _, __, raw: self.selector.unregister(raw)
        client.on_socket_register_write = lambda _, __, raw: self.selector.modify(raw, _BOTH, self)
        client.on_socket_unregister_write = lambda _, __, raw: self.selector.modify(raw, selectors.EVENT_READ, self)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 3600
        self.again_s = float("inf")
        try:
            client.connect(host, port, KEEP_ALIVE_S, clean_start=False, properties=properties)
        except OSError:
            self._back_off()

    def _up(self, client: paho.Client, _: object, __: object, reason: object, ___: object) -> None:
        if getattr(reason, "is_failure", False):
            self.refused = str(reason)
            return
        self.connected, self.failures, base = True, 0, f"tf/1/{SITE}/{self.name}"
        client.subscribe([(f"{base}/desired", 1), (f"{base}/cmd/#", 1)])
        state = State(state=DeviceState.READY, at_ms=_now_ms(), boot=self.boot)
        reported = Reported(gen=1, at_ms=_now_ms(), boot=self.boot, attributes={"number": str(self.number)})
        client.publish(f"{base}/state", encode(state), qos=1, retain=True)
        client.publish(f"{base}/reported", encode(reported), qos=1, retain=True)
        client.publish(f"{base}/get", encode(Get(at_ms=_now_ms())), qos=1)
        client.publish(f"{base}/tele/drift", _report(self.number, self.seq), qos=1)

    @property
    def boot(self) -> str:
        """The boot: another one after server and broker were away."""
        return f"{self.seq:016x}"

    @property
    def done(self) -> bool:
        """Whether it has all that it waits for."""
        return self.acknowledged and self.told

    def _heard(self, _: object, __: object, message: paho.MQTTMessage) -> None:
        self.told |= message.topic.endswith("/desired") and decode(Desired, message.payload).gen == 1
        if message.topic.endswith("/cmd/ack"):
            marks = decode(Ack, message.payload).watermarks
            self.acknowledged |= any(mark.stream is Stream.DRIFT and mark.through_seq >= self.seq for mark in marks)

    def _down(self, *_: object) -> None:
        self.losses += 1
        self.connected = False
        self._back_off()

    def _back_off(self) -> None:
        """Wait as ``edge_agent.transports.mqtt`` does."""
        self.failures += 1
        ceiling_s = min(PACE.max_backoff_s, PACE.min_backoff_s * 2 ** min(self.failures, 30))
        self.again_s = time.monotonic() + CHANCE.uniform(0.0, ceiling_s)


_BOTH = selectors.EVENT_READ | selectors.EVENT_WRITE


@dataclass(slots=True)
class Crowd:
    """All devices, served by one thread."""

    devices: list[Device]
    selector: selectors.BaseSelector
    _kept_s: float = 0.0

    def serve(self, until: Callable[[], bool], limit_s: float) -> float:
        """Serve all connections until ``until`` holds, at most ``limit_s``; return the seconds taken."""
        start_s = time.monotonic()
        while not until() and time.monotonic() - start_s < limit_s:
            self._turn(0.2)
        return time.monotonic() - start_s

    def connect(self, host: str, port: int) -> float:
        """Connect all at once; return the seconds until the broker has accepted all of them."""
        start_s = time.monotonic()
        for place, device in enumerate(self.devices):
            device.connect(host, port)
            if place % 20 == 0:
                self._turn(0.0)
        self.serve(
            lambda: all(device.connected or device.refused or device.losses for device in self.devices), PATIENCE_S
        )
        return time.monotonic() - start_s

    def reconnect(self, host: str, port: int, until: Callable[[], bool], limit_s: float) -> float:
        """Let each device that is due try again, until ``until`` holds; return the seconds taken."""

        def done() -> bool:
            now_s = time.monotonic()
            for device in self.devices:
                if device.again_s <= now_s:
                    device.connect(host, port)
            return until()

        return self.serve(done, limit_s)

    def _turn(self, wait_s: float) -> None:
        for key, events in self.selector.select(wait_s):
            client = key.data.client
            if events & selectors.EVENT_READ:
                client.loop_read()
            if events & selectors.EVENT_WRITE and client.socket() is not None:
                client.loop_write()
        if time.monotonic() - self._kept_s >= 1.0:
            self._kept_s = time.monotonic()
            for device in self.devices:
                if device.connected:
                    device.client.loop_misc()


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of one run."""

    devices: int
    connected: int
    connected_s: float
    stored_s: float
    windows: int
    ready: int
    reports: int
    reports_again: int
    acknowledged: int
    losses: int
    server_cpu_s: float
    idle_cpu_ratio: float
    server_bytes: int
    broker_bytes: int
    back_s: float
    back: int


def measure(folder: Path, count: int) -> Figures:
    """Run a server with ``count`` devices."""
    state = init_state(folder / "state")
    init_online_keys(state.path)
    state.keep_ports(ServerPorts(free_port("127.0.0.1"), free_port("127.0.0.1")))
    passwords = _enrol(state, count)
    server = _serve(state, folder)
    selector = selectors.DefaultSelector()
    try:
        host, port = _address(server, folder)
        _raise_limit(count)
        broker = int((state.broker / "mosquitto.pid").read_text())
        devices = [Device(name, password, selector, n) for n, (name, password) in enumerate(passwords.items())]
        crowd, before_s = Crowd(devices, selector), used_s(server.pid)
        connected_s = crowd.connect(host, port)
        connected = sum(device.connected for device in devices)
        stored_s = connected_s + crowd.serve(lambda: all(device.done for device in devices), PATIENCE_S)
        busy_s = used_s(server.pid) - before_s
        start_s, end_s = time.monotonic(), used_s(server.pid)
        held_s = crowd.serve(lambda: time.monotonic() - start_s >= HELD_S, HELD_S)
        idle_ratio = (used_s(server.pid) - end_s) / held_s
        windows, ready, reports = _stored(state, devices)
        memory = [_peak_bytes(pid) for pid in (server.pid, broker)]
        before = [sum(getattr(device, name) for device in devices) for name in ("done", "losses")]
        for pid in (server.pid, broker):
            os.kill(pid, signal.SIGKILL)
        server.wait()
        for device in devices:
            device.seq, device.acknowledged, device.told = 1, False, False
        crowd.reconnect(host, port, lambda: False, AWAY_S)
        server = _serve(state, folder)
        _address(server, folder)
        back_s = crowd.reconnect(host, port, lambda: all(device.done for device in devices), PATIENCE_S)
        back, again = sum(device.connected and device.done for device in devices), _stored(state, devices)[2]
        return Figures(
            count, connected, connected_s, stored_s, windows, ready, reports, again, before[0], before[1], busy_s,
            idle_ratio, memory[0], memory[1], back_s, back,
        )  # fmt: skip
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()


def _serve(state: StateDirectory, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "server.cli", "run", str(state.path)], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        stderr=(folder / "server.log").open("a"), start_new_session=True,
    )  # fmt: skip


def _address(server: subprocess.Popen[str], folder: Path) -> tuple[str, int]:
    """Return host and port of the broker, once the server has started it."""
    assert server.stdout is not None  # noqa: S101 - it is a pipe
    said = [server.stdout.readline() for _ in range(2)]
    if not said[1]:
        message = f"Expected a server that runs, got: {(folder / 'server.log').read_text()}"
        raise click.ClickException(message)
    host, _, port = said[1].split()[1].rpartition(":")
    return host, int(port)


def _enrol(state: StateDirectory, count: int) -> dict[str, str]:
    """Register the devices in one transaction; return their passwords by name."""
    passwords = {f"cam-{index:05d}": new_secret() for index in range(count)}
    rows = [
        {
            "device": name,
            "site": SITE,
            "attributes": {},
            "password_hash": hash_password(password),
            "enrolled_ms": 1,
            "desired": encode(Desired(gen=1)).decode(),
            "desired_gen": 1,
        }
        for name, password in passwords.items()
    ]
    database = open_database(state.database_url)
    with database.begin() as connection:
        connection.execute(DEVICES.insert(), rows)
    database.close()
    return passwords


def _raise_limit(count: int) -> None:
    """Raise this process's limit for ``count`` clients; the server, started before, keeps the caller's limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * count + 200  # paho holds a pair of sockets beside each connection
    if hard != resource.RLIM_INFINITY and hard < wanted:
        message = f"Expected a hard limit of at least {wanted} open files, got {hard}: raise it"
        raise click.ClickException(message)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _report(number: int, seq: int) -> bytes:
    counters = Counters(SHAPE, 60, tuple((number + place) % 7 for place in range(SHAPE.total)))
    start_ms = (_now_ms() // HOUR_MS - 1) * HOUR_MS
    return encode_report(
        DriftReport(
            boot=BOOT,
            seq=seq,
            oldest_seq=0,
            window_start_ms=start_ms + seq * HOUR_MS,
            window_len_ms=HOUR_MS,
            context=0,
            artifact="cd" * 16,
            ref_id="ef" * 16,
            counters=counters,
        )
    )


def _stored(state: StateDirectory, devices: Sequence[Device]) -> tuple[int, int, int]:
    """Return how many devices have a stored window, the state ready, and a report of the boot that they have now."""
    database = open_database(state.database_url)
    with database.begin() as connection:
        windows = connection.execute(sa.select(sa.func.count(sa.distinct(WINDOWS.c.device)))).scalar_one()
        rows = connection.execute(sa.select(DEVICES.c.device, DEVICES.c.state, DEVICES.c.reported)).all()
    database.close()
    boots = {name: decode(Reported, text.encode()).boot for name, _, text in rows if text}
    ready = sum(said == DeviceState.READY.value for _, said, _ in rows)
    return int(windows), ready, sum(boots.get(device.name) == device.boot for device in devices)


def _peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def rows_of(figures: Figures) -> list[Row]:
    """Return the rows."""
    name, count = f"{figures.devices:,} devices", figures.devices
    return [
        Row(f"{name}: connected (reference: devices)", figures.connected, count, "all", figures.connected == count),
        Row(f"{name}: s until all are connected", figures.connected_s),
        Row(f"{name}: windows stored (reference: sent)", figures.windows, count, "all", figures.windows == count),
        Row(f"{name}: states stored (reference: sent)", figures.ready, count, "all", figures.ready == count),
        Row(f"{name}: reports of themselves stored (reference: sent)", figures.reports, count, "all",
            figures.reports == count),
        Row(f"{name}: window acknowledged and told what to run (reference: devices)", figures.acknowledged, count,
            "all", figures.acknowledged == count),
        Row(f"{name}: s until everything is stored and acknowledged", figures.stored_s),
        Row(f"{name}: connections lost, {HELD_S:g} s of keep-alive included", figures.losses, None, "0",
            figures.losses == 0),
        Row(f"{name}: back after server and broker were killed (reference: devices)", figures.back, count, "all",
            figures.back == count),
        Row(f"{name}: reports of themselves stored since (reference: sent)", figures.reports_again, count, "all",
            figures.reports_again == count),
        Row(f"{name}: s until all are back, their next report acknowledged", figures.back_s, None, f"<= {LIMIT_S:g} s",
            figures.back_s <= LIMIT_S),
        Row(f"{name}: CPU s of the server until then", figures.server_cpu_s),
        Row(f"{name}: CPU of the server while they only keep alive, cores", figures.idle_cpu_ratio),
        Row(f"{name}: peak memory of the server, MB", figures.server_bytes / 1e6),
        Row(f"{name}: peak memory of mosquitto, MB", figures.broker_bytes / 1e6),
    ]  # fmt: skip


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="200 devices.")
@click.option("--devices", type=click.IntRange(1), default=None, help="So many instead of 2,000.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the rows there.")
def main(json_file: Path | None, devices: int | None, *, quick: bool) -> None:
    """Print the cost of many connections; exit 1 if something did not arrive."""
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), devices or (200 if quick else 2000))
    sys.exit(told(rows_of(figures), json_file))


if __name__ == "__main__":
    main()
