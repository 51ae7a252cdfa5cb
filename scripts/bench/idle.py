#!/usr/bin/env python3
"""Prints what a server costs while nothing happens: ``idle.py [--quick] [--json F]``.

A fleet of 100, 1,000 and 10,000 devices that have reported and run one release, with a window of an hour each, and an
approved rollout whose first ten devices wait for their maintenance window. Nobody sends anything.
Turns: in one process without threads and broker, the CPU time of one more ``turn`` of each service, two of which are
due each second. Server: a real ``fleet-server run`` with mosquitto on loopback, its CPU time and memory as the kernel
counts them, once it has published what devices are to run and folded the windows: for 10 s, at 10,000 devices for
10 minutes.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from compressor.release.keys import TARGETS_DAYS, init_keys, read_root  # noqa: E402 - found through the line above
from compressor.release.signing import add_targets, read_signable, read_targets, sign_targets  # noqa: E402 - found through the line above
from scripts.bench.fleet import DEVICES_A_SITE, HOUR_MS, Site, key_of, make_release  # noqa: E402 - found through the line above
from scripts.bench.processes import memory_mb, used_s  # noqa: E402 - found through the line above
from scripts.bench.rows import Row, told  # noqa: E402 - found through the line above
from server.app.server import ServerApp  # noqa: E402 - found through the line above
from server.app.state_directory import ServerPorts, StateDirectory, init_state  # noqa: E402 - found through the line above
from server.broker.process import free_port  # noqa: E402 - found through the line above
from server.clock import system_now_ms  # noqa: E402 - found through the line above
from server.fleet.identity.credentials import hash_password  # noqa: E402 - found through the line above
from server.registry.blobs import Blobs  # noqa: E402 - found through the line above
from server.registry.versions import Release  # noqa: E402 - found through the line above
from server.rollout.create import RolloutOptions, window_of  # noqa: E402 - found through the line above
from server.store.database import open_database  # noqa: E402 - found through the line above
from server.store.fleet import DEVICES  # noqa: E402 - found through the line above
from server.trust.online_keys import init_online_keys  # noqa: E402 - found through the line above
from server.trust.repository import TrustRepository  # noqa: E402 - found through the line above
from server.trust.roots import install_root  # noqa: E402 - found through the line above
from wire.canonical import sha256_hex  # noqa: E402 - found through the line above
from wire.codec import encode  # noqa: E402 - found through the line above
from wire.memory_broker import MemoryBroker, MemoryTransport  # noqa: E402 - found through the line above
from wire.messages import Desired, DeviceState, InstalledRelease, Reported, UpdatePhase, UpdateStatus  # noqa: E402 - found through the line above

SIZES, WAITING, TURNS = (100, 1_000, 10_000), 10, 20
CPU_RATIO, FLAT_RATIO = 0.05, 1.02
WATCHED_S, LONG_S, STEP_S, SETTLED_S = 10.0, 600.0, 10.0, 120.0
STILL_RATIO, STILL_S = 0.2, 8  # so little for so long: a server has done what was due after its start


def prepare(folder: Path, count: int) -> StateDirectory:
    """Make the state directory of a server with ``count`` devices, a window of each, and a rollout that waits."""
    state = init_state(folder / "state")
    open_database(state.database_url).close()  # before a release is published: later an empty one counts as lost
    key = _publish(state, folder)
    app = ServerApp.open(state.path, transport=_transport(), pages=False)
    now_ms, release = app.clock(), app.parts.versions.release("m-1")
    rows = [_row(number, release, now_ms) for number in range(count)]
    with app.parts.database.begin() as connection:
        connection.execute(DEVICES.insert(), rows)
    Site(count, app.parts.database, now_ms // HOUR_MS - 2).report(key)
    first = [str(row["device"]) for row in rows[:WAITING]]
    night = window_of("03:00", "03:01", time_zone="UTC")
    app.parts.rollouts.create(RolloutOptions(release="m-2", canary=first, approved=True, window=night))
    for _ in range(2):
        app.parts.rollouts.turn(app.clock())
    app.stop()
    state.keep_ports(ServerPorts(free_port("127.0.0.1"), free_port("127.0.0.1")))
    return state


def _publish(state: StateDirectory, folder: Path) -> tuple[str, str]:
    """Publish two signed releases; return the key of the first one's windows."""
    offline, blobs = folder / "offline", Blobs(state.blobs)
    install_root(state.path, init_keys(offline, init_online_keys(state.path)))
    for version in (1, 2):
        data, _ = make_release(version)
        (folder / f"m-{version}.tfb").write_bytes(data)
        blobs.put(sha256_hex(data), [data])
    root = read_root(offline)
    targets = read_targets(offline, root)
    add_targets(targets, [read_signable(folder / f"m-{version}.tfb") for version in (1, 2)])
    signed = sign_targets(targets, targets.version + 1, offline, root, TARGETS_DAYS)
    TrustRepository(state.path, system_now_ms).publish_targets(signed, blobs.has)
    return key_of(make_release(1)[1])


def _row(number: int, release: Release, now_ms: int) -> dict[str, object]:
    running = InstalledRelease(release=release.name, sha256=release.sha256)
    update = UpdateStatus(phase=UpdatePhase.COMMITTED, gen=1, release=release.name, answered=60)
    reported = Reported(
        gen=1, current=running, update=update, runtimes=("onnx",), hardware="aarch64", boot="ab" * 8,
        attributes={"board": f"rev-{number % 7}", "serial": str(number)},
    )  # fmt: skip
    desired = Desired(
        gen=1, release=release.name, target=release.path, sha256=release.sha256, length_bytes=release.length_bytes
    )
    return {
        "device": f"cam-{number:05d}", "site": f"site-{number // DEVICES_A_SITE:05d}",
        "attributes": {"lens": "a", "target": "pi"}, "password_hash": _HASH, "enrolled_ms": 1, "last_seen_ms": now_ms,
        "state": DeviceState.READY.value, "reported": encode(reported).decode(), "desired": encode(desired).decode(),
        "desired_gen": 1,
    }  # fmt: skip


_HASH = hash_password("nobody connects")


def _transport() -> MemoryTransport:
    return MemoryTransport(broker=MemoryBroker(), client_id="server")


def turns_ms(state: StateDirectory, count: int) -> dict[str, float]:
    """Return the CPU time (ms) of one more turn of each service, the mean of some, all that was due being done."""
    app = ServerApp.open(state.path, transport=_transport(), pages=False)
    app.connect()
    now_ms = app.clock()
    for _ in range(2 + count // 400):  # what is due after a start: publish, fold, put marks in place
        app.turn(now_ms)
        now_ms += 500
    spent: dict[str, float] = {}
    for _ in range(TURNS):
        now_ms += 500
        for service in app.parts.services:
            start_s = time.process_time()
            service.turn(now_ms)
            name = type(service).__name__
            spent[name] = spent.get(name, 0.0) + 1000 * (time.process_time() - start_s) / TURNS
    app.stop()
    return spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A server that was watched: its CPU in cores, and its memory (MB of its own) after each ``STEP_S``."""

    cpu_ratio: float
    memory_mb: tuple[float, ...]

    @property
    def grown(self) -> float:
        """The memory of the last minute over that of the first whole one; of the ends if it was watched for less."""
        minute = max(1, min(round(60 / STEP_S), len(self.memory_mb) // 3))
        first = self.memory_mb[minute : 2 * minute] or self.memory_mb[:1]
        last = self.memory_mb[-minute:]
        return sum(last) / len(last) / (sum(first) / len(first))


def watch(state: StateDirectory, folder: Path, for_s: float) -> Watched:
    """Run a server on ``state``, and watch it for ``for_s`` seconds once it has settled."""
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "server.cli", "run", str(state.path)], cwd=ROOT, stdout=subprocess.PIPE, text=True,
            stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        if server.stdout is None or not server.stdout.readline():
            raise click.ClickException(f"Expected a server that runs, got: {(folder / 'server.log').read_text()}")
        _settle(server.pid)
        memory, start_s, used_before_s = [memory_mb(server.pid)["Uss"]], time.monotonic(), used_s(server.pid)
        while (left_s := for_s - (time.monotonic() - start_s)) > 0:
            time.sleep(min(STEP_S, left_s))
            memory.append(memory_mb(server.pid)["Uss"])
        cpu_ratio = (used_s(server.pid) - used_before_s) / (time.monotonic() - start_s)
        return Watched(cpu_ratio=cpu_ratio, memory_mb=tuple(memory))
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()


def _settle(pid: int) -> None:
    """Wait until the server has done what was due after its start: some seconds with little to do."""
    end_s, calm = time.monotonic() + SETTLED_S, 0
    while time.monotonic() < end_s and calm < STILL_S:
        before_s = used_s(pid)
        time.sleep(1.0)
        calm = calm + 1 if used_s(pid) - before_s < STILL_RATIO else 0


def rows_of(count: int, spent: dict[str, float], before: dict[str, float], times: float) -> list[Row]:
    """Return the figures of the turns; the reference is in proportion to the fleet before."""
    scaled = {name: value * times for name, value in before.items()}
    rows = [Row(f"{count:,} devices: one turn of all services, CPU ms (reference: in proportion)", sum(spent.values()),
                sum(scaled.values()) or None)]  # fmt: skip
    for name, value in sorted(spent.items(), key=lambda item: -item[1])[:4]:
        rows.append(Row(f"    of it {name}", value, scaled.get(name)))
    return rows


def watched_rows(count: int, for_s: float, seen: Watched) -> list[Row]:
    """Return the figures of a server that was watched for ``for_s`` seconds."""
    largest, name = count == SIZES[-1], f"{count:,} devices, idle {for_s:g} s"
    rows = [
        Row(f"{name}: CPU, cores", seen.cpu_ratio, None, f"<= {CPU_RATIO:g}" if largest else "",
            seen.cpu_ratio <= CPU_RATIO if largest else None),
        Row(f"{name}: memory at the end, MB (reference: at first)", seen.memory_mb[-1], seen.memory_mb[0]),
    ]  # fmt: skip
    if for_s == LONG_S:
        rows.append(Row(f"{name}: memory of the last minute over the second", seen.grown, None,
                        f"<= {FLAT_RATIO:g}", seen.grown <= FLAT_RATIO))  # fmt: skip
    return rows


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="Watch only 10,000 devices, and for 10 s instead of 10 minutes.")
@click.option("--turns", "only_turns", is_flag=True, help="Without the real server.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the rows there.")
def main(json_file: Path | None, *, quick: bool, only_turns: bool) -> None:
    """Print the cost of an idle server; exit 1 if a target is missed."""
    rows: list[Row] = []
    watched: list[Row] = []
    before: dict[str, float] = {}
    size = SIZES[0]
    for count in SIZES:
        for_s = LONG_S if count == SIZES[-1] and not quick else WATCHED_S
        with tempfile.TemporaryDirectory() as folder:
            state = prepare(Path(folder), count)
            spent = turns_ms(state, count)
            if not (only_turns or (quick and count != SIZES[-1])):
                watched += watched_rows(count, for_s, watch(state, Path(folder), for_s))
        rows += rows_of(count, spent, before, count / size)
        before, size = spent, count
    sys.exit(told([*rows, *watched], json_file))


if __name__ == "__main__":
    main()
