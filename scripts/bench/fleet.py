#!/usr/bin/env python3
"""Prints the server's cost of one evidence step at 100, 1,000 and 10,000 devices: ``fleet.py [--quick] [--json F]``.

Each fleet has 23 streams, hourly windows of 60 samples in a SQLite file, five devices per site, and its own process.
A step is one whole turn of the drift service with one due slot, the least of three: windows read, health checks,
detectors, pools, e-BH, rows of evidence, verdicts. Restart: a new service on the same file, until it has caught up.
Both also at 8,192 and 8,193 devices, where a cache of the fleet's reports once began to miss.
Rollout: a whole server starts with a month of windows of 30 devices to fold and one approved rollout; the seconds until
its device is assigned, and how many hours were folded by then (the order is tested: ``tests/server/test_restart.py``).
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import click
import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from scripts.bench.rows import Row, told  # noqa: E402 - found through the line above
from server.app.server import ServerApp, keep_what_is_loaded  # noqa: E402 - found through the line above
from server.app.state_directory import init_state  # noqa: E402 - found through the line above
from server.drift.config import DriftConfig  # noqa: E402 - found through the line above
from server.drift.service import DriftService  # noqa: E402 - found through the line above
from server.fleet.fleet import Fleet, Outbox  # noqa: E402 - found through the line above
from server.ingest.packed_counts import pack  # noqa: E402 - found through the line above
from server.ingest.windows import Windows  # noqa: E402 - found through the line above
from server.registry.events import EventLog  # noqa: E402 - found through the line above
from server.registry.versions import Release  # noqa: E402 - found through the line above
from server.rollout.create import RolloutOptions  # noqa: E402 - found through the line above
from server.store.database import Database, open_database  # noqa: E402 - found through the line above
from server.store.fleet import DEVICES  # noqa: E402 - found through the line above
from server.store.monitoring.windows import insert_windows  # noqa: E402 - found through the line above
from server.trust.online_keys import init_online_keys  # noqa: E402 - found through the line above
from wire.bundle import build_bundle  # noqa: E402 - found through the line above
from wire.canonical import sha256_hex  # noqa: E402 - found through the line above
from wire.codec import encode  # noqa: E402 - found through the line above
from wire.histogram import BINS  # noqa: E402 - found through the line above
from wire.manifest import Manifest, Preprocessing, TensorSpec  # noqa: E402 - found through the line above
from wire.memory_broker import MemoryBroker, MemoryTransport  # noqa: E402 - found through the line above
from wire.messages import DeviceState, Reported  # noqa: E402 - found through the line above
from wire.reference import Context, Reference, StreamSpec, write_reference  # noqa: E402 - found through the line above
from wire.tuf_target import TargetCustom, target_path  # noqa: E402 - found through the line above

NAMES = (
    *("luma_mean", "luma_sd", "dark_ratio", "clipped_ratio", "laplacian_log", "noise", "red_green", "blue_yellow"),
    *("gradient_x", "gradient_y", "residual", *(f"projection_{i}" for i in range(8))),
    *("confidence", "entropy", "margin", "predicted"),
)
OUTPUTS = ("confidence", "entropy", "margin", "predicted")
KEY = ("a1" * 16, "b1" * 16)
SAMPLES, COMMISSIONED, STEPS, DEVICES_A_SITE = 60, 3, 3, 5
ROLLOUT_DEVICES, ROLLOUT_S, HANGS_S = 30, 2.0, 60.0
HOUR_MS = 3_600_000
_PASSED = b'{"schema": 1, "verdict": "pass", "gates": [], "figures": {}}'


@dataclass(frozen=True, slots=True)
class Shelf:
    """The registry: one release."""

    made: Reference

    def reference(self, ref_id: str) -> Reference | None:
        """Return the one reference."""
        return self.made if ref_id == KEY[0] else None

    def releases(self) -> tuple[Release, ...]:
        """Return the one release."""
        return (
            Release(
                name="m-1",
                model="m",
                version=1,
                target="pi",
                path="p",
                sha256="0" * 64,
                length_bytes=1,
                certificate={},
                custom=TargetCustom(ref_id=KEY[0] * 2),
                registered_ms=0,
            ),
        )


@dataclass(slots=True)
class Site:
    """A simulated fleet in a database; ``hour`` is the next window."""

    devices: int
    database: Database
    hour: int = 1000
    dice: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))

    def enrol(self) -> None:
        """Register the devices, each with a report of its own."""
        rows = [
            {"device": f"cam-{i:05d}", "site": f"site-{i // DEVICES_A_SITE:05d}", "attributes": {"lens": "a"},
             "password_hash": "", "enrolled_ms": 0, "state": "ready",
             "reported": encode(Reported(gen=i, attributes={"board": f"rev-{i % 7}", "serial": str(i)})).decode()}
            for i in range(self.devices)
        ]  # fmt: skip
        with self.database.begin() as connection:
            connection.execute(DEVICES.insert(), rows)

    def report(self, key: tuple[str, str] = KEY) -> int:
        """Store every device's window of the next hour; return the time (UTC ms) at which it is due.

        ``key``: the first 32 hex digits of the reference's and of the artifact's digest.
        """
        streams, start_ms = len(NAMES), self.hour * HOUR_MS
        counts = self.dice.multinomial(SAMPLES, np.full(BINS, 1 / BINS), size=(self.devices, streams))
        words = np.zeros((self.devices, streams * (BINS + 1) + 1), np.uint32)
        words[:, : streams * BINS], words[:, -1] = counts.reshape(self.devices, -1), SAMPLES
        rows: list[dict[str, object]] = [
            {"device": f"cam-{i:05d}", "site": f"site-{i // DEVICES_A_SITE:05d}", "start_ms": start_ms,
             "len_ms": HOUR_MS, "context": 0, "artifact": key[1], "ref_id": key[0], "streams": streams, "classes": 1,
             "confidence_bins": 1, "n": SAMPLES, "reports": 1, "values": pack(words[i].tobytes()),
             "received_ms": start_ms + HOUR_MS}
            for i in range(self.devices)
        ]  # fmt: skip
        with self.database.begin() as connection:
            insert_windows(connection, rows)
        self.hour += 1
        return self.hour * HOUR_MS + 120_000

    def service(self) -> DriftService:
        """Return a new drift service on the database."""
        fleet = Fleet(
            database=self.database,
            outbox=Outbox(MemoryTransport(broker=MemoryBroker(), client_id="server")),
            clock=lambda: 0,
        )
        config = DriftConfig(baseline_windows=COMMISSIONED)
        windows, events = Windows(self.database), EventLog(self.database)
        return DriftService(
            database=self.database,
            windows=windows,
            fleet=fleet,
            references=Shelf(_reference()),
            events=events,
            config=config,
        )


def _reference() -> Reference:
    kinds = {name: "output" if name in OUTPUTS else "embedding" if "proj" in name else "input" for name in NAMES}
    return Reference(
        artifact_sha256=KEY[1] * 2,
        streams=tuple(StreamSpec(name=name, kind=kinds[name]) for name in NAMES),
        contexts=(Context(name="default", n=2000, n_effective=2000, counts=(125,) * (BINS * len(NAMES))),),
        classes=1,
        confidence_bins=1,
        table_right=(1,),
        table_seen=(1,),
        edges=(tuple(float(i) for i in range(BINS - 1)),) * len(NAMES),
    )


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a fleet: CPU seconds of a step and of a completing one, seconds until a restarted service caught up."""

    devices: int
    step_cpu_s: float
    completing_cpu_s: float
    restart_s: float
    peak_bytes: int
    before_bytes: int
    stored_bytes: int


def measure(devices: int, steps: int) -> Cost:
    """Commission a fleet of ``devices``, run ``steps`` windows, then restart."""
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(f"sqlite:///{folder}/fleet.db")
        site = Site(devices, database)
        site.enrol()
        before_bytes, service = _peak_bytes(), site.service()
        keep_what_is_loaded()
        cpu_s = [_turn_s(service, site.report()) for _ in range(COMMISSIONED + steps)]
        peak_bytes = _peak_bytes()
        again, start = site.service(), time.perf_counter()
        again.turn(site.hour * HOUR_MS + 120_000)
        restart_s = time.perf_counter() - start
        stored = sum(file.stat().st_size for file in Path(folder).iterdir())
        database.close()
    judged = min(cpu_s[COMMISSIONED:])  # other load on the machine only adds time
    return Cost(devices, judged, cpu_s[COMMISSIONED - 1], restart_s, peak_bytes, before_bytes, stored)


@dataclass(frozen=True, slots=True)
class Assigned:
    """What a server does first after a start: seconds until a rollout's device is assigned, and hours folded then."""

    seconds: float
    hours: int
    folded: int


def assign(hours: int) -> Assigned:
    """Start a server with one approved rollout, and ``hours`` windows of each device to fold."""
    with tempfile.TemporaryDirectory() as folder:
        state, broker = init_state(Path(folder) / "state"), MemoryBroker()
        init_online_keys(state.path)
        app = ServerApp.open(state.path, transport=MemoryTransport(broker=broker, client_id="server"), pages=False)
        site = Site(ROLLOUT_DEVICES, app.parts.database, app.clock() // HOUR_MS - hours)
        site.enrol()
        with app.parts.database.begin() as connection:
            values = {"state": DeviceState.READY.value, "last_seen_ms": app.clock(), "attributes": {"target": "pi"}}
            connection.execute(DEVICES.update().values(values))
        data, custom = make_release()
        app.parts.versions.blobs.put(sha256_hex(data), [data])
        path = target_path("m", 1, "pi")
        app.parts.versions.register(path, custom, sha256=sha256_hex(data), length_bytes=len(data), now_ms=1)
        for _ in range(hours):
            site.report(key_of(custom))
        app.parts.rollouts.create(RolloutOptions(release="m-1", canary=["cam-00000"], approved=True))
        app.stop()
        app = ServerApp.open(state.path, transport=MemoryTransport(broker=broker, client_id="server"), pages=False)
        start, first = time.perf_counter(), app.clock() // HOUR_MS - hours
        app.start()
        while not app.parts.fleet.device("cam-00000").desired_gen and time.perf_counter() - start < HANGS_S:
            time.sleep(0.005)
        took_s, slot = time.perf_counter() - start, app.parts.drift._moment.state.slot  # noqa: SLF001 - nothing public says it
        app.stop()
    return Assigned(took_s, hours, min(max(slot + 1 - first, 0), hours))


def make_release(version: int = 1) -> tuple[bytes, TargetCustom]:
    """Return the bundle of a release whose reference is that of the windows, and what signed metadata says of it."""
    artifact = b"int8 model %d" % version
    reference = replace(_reference(), artifact_sha256=sha256_hex(artifact))
    manifest = Manifest(
        model="m",
        version=version,
        target="pi",
        inputs=(TensorSpec(name="x"),),
        outputs=(TensorSpec(name="logits"),),
        preprocessing=Preprocessing(width=8, height=8),
        labels=("0",),
    )
    files = {"model.onnx": artifact, "reference.bin": write_reference(reference), "gate.json": _PASSED}
    custom = TargetCustom(
        model="m",
        version=version,
        target="pi",
        runtime="onnx",
        artifact_sha256=reference.artifact_sha256,
        ref_id=reference.ref_id,
    )
    return build_bundle(manifest, files), custom


def key_of(custom: TargetCustom) -> tuple[str, str]:
    """Return the key of the windows that are counted with a release."""
    return custom.ref_id[:32], custom.artifact_sha256[:32]


def _turn_s(service: DriftService, now_ms: int) -> float:
    start = time.process_time()
    service.turn(now_ms)
    return time.process_time() - start


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def rows_of(cost: Cost, base: Cost) -> list[Row]:
    """Return the figures of one fleet; the reference is the cost of ``base``, a smaller fleet, scaled to this size."""
    name, times = f"{cost.devices:,} devices x {len(NAMES)} streams", cost.devices / base.devices
    budget_s = max(2.0 * cost.devices / 10_000, 0.1)
    return [
        Row(f"{name}: CPU s a step (reference: in proportion to {base.devices:,})", cost.step_cpu_s,
            base.step_cpu_s * times, f"<= {budget_s:g}", cost.step_cpu_s <= budget_s),
        Row(f"{name}: CPU s of the step that completes all baselines", cost.completing_cpu_s,
            base.completing_cpu_s * times),
        Row(f"{name}: s until a restarted service has caught up", cost.restart_s, base.restart_s * times),
        Row(f"{name}: peak memory of the process, MB (reference: before the first step)", cost.peak_bytes / 1e6,
            cost.before_bytes / 1e6),
        Row(f"{name}: database, MB", cost.stored_bytes / 1e6),
    ]  # fmt: skip


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="100 and 1,000 devices only, and a week of windows before the rollout.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the rows there.")
def main(json_file: Path | None, *, quick: bool) -> None:
    """Print the cost of an evidence step and the time to a rollout after a start; exit 1 if a target is missed."""
    sizes = (100, 1000) if quick else (100, 1000, 10_000, 8192, 8193)
    costs: dict[int, Cost] = {}
    for devices in sizes:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
            costs[devices] = alone.submit(measure, devices, STEPS).result()
    rows = [row for devices in sizes[:3] for row in rows_of(costs[devices], costs[min(devices, 1000)])]
    if not quick:
        ours, reference = costs[8193].step_cpu_s, costs[8192].step_cpu_s
        rows.append(Row("8,193 devices against 8,192: CPU s a step", ours, reference, "ratio <= 1.2",
                        ours <= 1.2 * reference))  # fmt: skip
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
        done = alone.submit(assign, 168 if quick else 720).result()
    what = f"s from a start to an approved rollout's assignment, {done.folded} of {done.hours} hours folded"
    rows.append(Row(what, done.seconds, None, f"<= {ROLLOUT_S:g}", done.seconds <= ROLLOUT_S))
    sys.exit(told(rows, json_file))


if __name__ == "__main__":
    main()
