"""A small fleet of Gaussian streams whose windows go into a real store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from server.drift.config import DriftConfig
from server.drift.service import DriftService
from server.fleet.fleet import Fleet, Outbox
from server.ingest.drift_batches import WindowReport, decode_one
from server.ingest.windows import Windows, fold
from server.registry.events import EventLog
from server.registry.versions import Release
from server.store.database import Database, open_database
from server.store.fleet import insert_device
from wire.drift_report import DriftReport, encode_report
from wire.errors import WireError
from wire.histogram import BINS, Counters, Shape
from wire.memory_broker import MemoryBroker, MemoryTransport
from wire.reference import Context, Reference, StreamSpec
from wire.tuf_target import TargetCustom

WINDOW_MS = 10_000
NAMES = (("luma_mean", "input"), ("laplacian_log", "input"), ("noise", "input"), ("confidence", "output"))
EDGES = np.quantile(np.random.default_rng(0).standard_normal(200_000), np.arange(1, BINS) / BINS)
OLD, NEW = ("a1" * 16, "b1" * 16), ("a2" * 16, "b2" * 16)


def _reference(key: tuple[str, str], sites: Mapping[str, float], classes: int = 1) -> Reference:
    drawn = np.random.default_rng(1).standard_normal(4000)
    contexts = []
    for name, luma in sites.items():
        rows = [np.bincount(np.searchsorted(EDGES, drawn + mean), minlength=16) for mean in (luma, 0, 0, 0)]
        counts = tuple(int(n) for n in np.concatenate(rows))
        contexts.append(Context(name=name, n=4000, n_effective=4000, counts=counts))
    return Reference(
        artifact_sha256=key[1] * 2,
        streams=tuple(StreamSpec(name=name, kind=kind) for name, kind in NAMES),
        contexts=tuple(contexts),
        classes=classes,
        confidence_bins=1,
        table_right=(1,) * classes,
        table_seen=(1,) * classes,
        edges=(tuple(EDGES),) * len(NAMES),
    )


def _decoded(report: DriftReport) -> WindowReport:
    found = decode_one(encode_report(report))
    if isinstance(found, WireError):
        raise found
    return found


@dataclass(slots=True)
class Shelf:
    """References by id, as the registry has them; ``sites``: the contexts, by the mean of their brightness.

    ``model`` and ``classes`` are of the second release.
    """

    sites: Mapping[str, float] = field(default_factory=lambda: {"default": 0.0})
    model: str = "model"
    classes: int = 1

    def reference(self, ref_id: str) -> Reference | None:
        """Return the reference of a known id."""
        known = ((OLD, 1), (NEW, self.classes))
        return next((_reference(key, self.sites, classes) for key, classes in known if key[0] == ref_id), None)

    def releases(self) -> tuple[Release, ...]:
        """Return two releases."""
        return tuple(
            Release(
                name=f"model-{number}",
                model="model" if key == OLD else self.model,
                version=number,
                target="pi",
                path="p",
                sha256="0" * 64,
                length_bytes=1,
                certificate={},
                custom=TargetCustom(ref_id=key[0] * 2),
                registered_ms=0,
            )
            for number, key in enumerate((OLD, NEW), start=1)
        )


@dataclass(slots=True)
class FleetWorld:
    """Six devices at two sites; ``live`` lets windows pass and runs a turn of the service."""

    database: Database
    service: DriftService
    shifts: dict[str, Mapping[str, float]] = field(default_factory=dict)
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)
    classes: int = 1
    absent: set[str] = field(default_factory=set)
    constant: set[str] = field(default_factory=set)
    slot: int = 100
    devices: Mapping[str, str] = field(
        default_factory=lambda: {f"d{i}": "north" if i < 3 else "south" for i in range(6)}
    )
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(5))

    def enrol(self) -> FleetWorld:
        """Register all devices."""
        with self.database.begin() as connection:
            for device, site in self.devices.items():
                insert_device(connection, {
                    "device": device, "site": site, "attributes": {"lens": f"lens-{device[-1]}"}, "password_hash": "",
                    "enrolled_ms": 0, "state": "ready",
                })  # fmt: skip
        return self

    def report(self, device: str, slot: int, n: int = 60) -> DriftReport:
        """Return one window of one device."""
        rows = []
        for name, _ in NAMES:
            values = self.rng.standard_normal(n) + self.shifts.get(device, {}).get(name, 0.0)
            bins = np.full(n, 7) if device in self.constant else np.searchsorted(EDGES, values)
            rows.append(np.bincount(bins, minlength=BINS))
        ref_id, artifact = self.keys.get(device, OLD)
        classes = self.classes if (ref_id, artifact) == NEW else 1
        table = (n, *[0] * (classes - 1))
        values = (*(int(v) for v in np.concatenate(rows)), *[0] * len(NAMES), *table)
        counters = Counters(Shape(len(NAMES), classes, 1), n, values)
        return DriftReport(
            boot="00" * 8,
            seq=slot,
            oldest_seq=0,
            window_start_ms=slot * WINDOW_MS,
            window_len_ms=WINDOW_MS,
            context=0,
            artifact=artifact,
            ref_id=ref_id,
            counters=counters,
        )

    def arrive(self, device: str, report: DriftReport, now_ms: int) -> None:
        """Let one report reach the store."""
        with self.database.begin() as connection:
            fold(connection, [(self.devices[device], device, _decoded(report))], now_ms)

    def live(self, windows: int) -> int:
        """Let ``windows`` windows pass; return the time (UTC ms) after them."""
        for _ in range(windows):
            end_ms = (self.slot + 1) * WINDOW_MS
            here = [device for device in self.devices if device not in self.absent]
            reports = [(self.devices[device], device, _decoded(self.report(device, self.slot))) for device in here]
            with self.database.begin() as connection:
                fold(connection, reports, end_ms)
            self.slot += 1
            self.service.turn(end_ms + self.service.config.grace_ms)
        return self.slot * WINDOW_MS

    def kinds(self) -> set[str]:
        """Return the kinds of the open verdicts."""
        return {verdict.kind.value for verdict in self.service.verdicts.open()}


@pytest.fixture
def world(store_url: str) -> FleetWorld:
    """Six healthy devices on two sites, nothing reported yet."""
    database = open_database(store_url)
    return FleetWorld(database, drift_service(database)).enrol()


def drift_service(database: Database) -> DriftService:
    """Return a drift service on ``database`` with short windows and baselines of twelve."""
    outbox = Outbox(MemoryTransport(broker=MemoryBroker(), client_id="server"))
    config = DriftConfig(window_ms=WINDOW_MS, baseline_windows=12, grace_ms=1_000, silence_ms=30_000)
    fleet = Fleet(database=database, outbox=outbox, clock=lambda: 0)
    return DriftService(
        database=database,
        windows=Windows(database),
        fleet=fleet,
        references=Shelf(),
        events=EventLog(database),
        config=config,
    )


@pytest.fixture
def restarted() -> Callable[[FleetWorld], DriftService]:
    """Return a function that makes a new service on the same store."""
    return lambda world: drift_service(world.database)
