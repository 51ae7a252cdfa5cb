"""Fleets on the real bundles, through the real drift service: rows of ``drift.py``.

``compressor run`` builds the bundle of a recipe of ``models/``. Each item of its own test data (the rows that it was
neither trained nor calibrated on) is counted once, by itself, by the device's code: preprocessing, runtime, stream
values and counters. A window is the sum of the items that were drawn for it, sent as the report that a device sends,
decoded and stored as ingest does it, and judged by ``DriftService`` with its defaults on SQLite.

Windows of independent draws have no drift at all: what is found there is false.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor.data import load
from compressor.data._split import split
from compressor.data._table import Table
from compressor.recipe.read import read_recipe
from edge_agent.inference import drift_counters
from edge_agent.inference.preprocess import resize_pixels, to_batch
from edge_agent.inference.served_model import ServedModel, load_model
from scripts.bench.scenarios import Scenario
from server.drift.config import DriftConfig
from server.drift.detection.detector_bank import Observation
from server.drift.detection.movement import ScoreColumns
from server.drift.detection.reference import training_profile
from server.drift.detection.slot_update import FoldState, fold_slot
from server.drift.ledger import StoredVerdict
from server.drift.service import DriftService
from server.fleet.fleet import Fleet, Outbox
from server.ingest.drift_batches import WindowReport, decode_many
from server.ingest.windows import Windows, fold
from server.registry.events import EventLog
from server.registry.versions import Release
from server.store.database import open_database
from server.store.fleet import insert_device
from wire.drift_report import DriftReport, encode_report
from wire.errors import WireError
from wire.histogram import BINS, Counters
from wire.memory_broker import MemoryBroker, MemoryTransport
from wire.reference import Reference
from wire.tuf_target import TargetCustom

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = {
    "digits": ("digits", ""),
    "meter digits": ("meter_digits", "meter-digits/meter-digits-dev.zip"),
    "spoken digits": ("spoken_digits", "fsdd/fsdd-4speakers.zip"),
}
"""By name: the folder in ``models/``, and the file below ``--data``."""
POOLED = frozenset({"site", "cohort", "fleet"})
_START_H = 438_000  # 19 December 2019, a Thursday, like the first of January 1970
_HOUR_MS = 3_600_000
_AT_ONCE = 256
_SAMPLES = 60  # of a window
_SHORT, _STEPS = 12, 5  # windows of a baseline, and judged ones, where only the time of a step counts
_STEP_S, _REPORT_BYTES, _MANY = 2.0, 800, 1000
_METERS, _READINGS = 20, 12  # an hour, of five digits each
_HARM, _FOUND, _FALSE = 0.02, 0.90, 0.05
_AT_TRAINED, _INSTALLED_WINDOWS, _MOVED_WINDOWS = 60, 48, 24


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedItems:
    """N items of test data, each counted by itself by the device's code.

    ``counters`` (N, shape.total): of each; ``slices``, ``labels``, and ``right``: whether the model was; each (N,).
    """

    reference: Reference
    counters: NDArray[np.float32]
    slices: NDArray[np.str_]
    labels: NDArray[np.int64]
    right: NDArray[np.bool_]

    def of(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> CountedItems:
        """Return these rows."""
        return CountedItems(
            reference=self.reference, counters=self.counters[rows], slices=self.slices[rows], labels=self.labels[rows],
            right=self.right[rows],
        )  # fmt: skip

    def windows(self, drawn: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the counters (D, shape.total) of windows of the items ``drawn`` (D, n)."""
        devices, count = len(drawn), len(self.counters)
        flat = (np.arange(devices)[:, None] * count + drawn).ravel()
        often = np.bincount(flat, minlength=devices * count).reshape(devices, count).astype(np.float32)
        return np.rint(often @ self.counters).astype(np.int64)


def counted(model: ServedModel, table: Table) -> CountedItems:
    """Return the items of ``table`` as a device counts them that serves ``model``."""
    pre, rows = model.manifest.preprocessing, []
    for start in range(0, len(table), _AT_ONCE):
        pixels = [resize_pixels(image, pre) for image in table.images[start : start + _AT_ONCE]]
        outputs = [model.runtime.run(to_batch([one], pre)) for one in pixels]  # one at a time, as on the device
        embedding = (
            None if model.embedding_index is None else np.concatenate([o[model.embedding_index] for o in outputs])
        )
        rows.append(drift_counters.values(pixels, np.concatenate([o[0] for o in outputs]), embedding, model.projection))
    values, counters = np.concatenate(rows), []
    for row in values:
        model.counter.count(row[None])
        counters.append(model.counter.take().values)
    return CountedItems(
        reference=model.reference, counters=np.array(counters, np.float32), slices=table.slices, labels=table.labels,
        right=values[:, -1].astype(np.int64) == table.labels,
    )  # fmt: skip


def items_of(recipe: Path, out: Path, data: Path | None = None) -> CountedItems:
    """Build the bundle of ``recipe`` into ``out``, whose cache makes the next call quick; return its test data.

    That is all rows that were neither trained nor calibrated on, with those of slices that are not trained on.
    """
    command = [str(Path(sys.executable).with_name("compressor")), "run", str(recipe), "--out", str(out)]
    subprocess.run(
        [*command, *(["--data", str(data.resolve())] if data else [])], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
    )
    asked = read_recipe(recipe) if data is None else read_recipe(recipe).with_data(data.resolve())
    table = load(asked.data)
    splits = split(table, asked.train.seed, slices=asked.data.train_slices)
    rows = np.sort(np.concatenate([splits.gate, splits.reference, splits.other]))
    return counted(load_model(min(out.glob("*.tfb")), threads=1), table.take(rows))


@dataclass(frozen=True, slots=True)
class _Shelf:
    """One reference, published."""

    reference_: Reference

    def reference(self, ref_id: str) -> Reference | None:
        """Return it if ``ref_id`` is its own."""
        return self.reference_ if self.reference_.ref_id.startswith(ref_id) else None

    def releases(self) -> tuple[Release, ...]:
        """Return its release."""
        return (
            Release(
                name="model-1", model="model", version=1, target="gateway", path="p", sha256="0" * 64, length_bytes=1,
                certificate={}, custom=TargetCustom(ref_id=self.reference_.ref_id), registered_ms=0,
            ),
        )  # fmt: skip


@dataclass(slots=True, kw_only=True)
class ServedFleet:
    """Devices whose windows reach the real drift service, an hour after the other.

    ``places``: the attributes of each device, ``site`` among them; ``sizes``: the bytes of each report so far.
    """

    reference: Reference
    places: Mapping[str, Mapping[str, str]]
    service: DriftService
    hour: int = _START_H
    sizes: list[int] = field(default_factory=list)

    def window(self, counters: NDArray[np.int64], n: int) -> None:
        """Let the windows ``counters`` (D, shape.total) of ``n`` samples of all devices arrive, and judge them."""
        artifact, ref_id = self.reference.artifact_sha256[:32], self.reference.ref_id[:32]  # a digest: 4 ms
        payloads = [
            encode_report(
                DriftReport(
                    boot="00" * 8, seq=self.hour - _START_H, oldest_seq=0, window_start_ms=self.hour * _HOUR_MS,
                    window_len_ms=_HOUR_MS, context=0, artifact=artifact, ref_id=ref_id,
                    counters=Counters(self.reference.shape, n, tuple(row)),
                )
            )
            for row in counters.tolist()
        ]  # fmt: skip
        self.sizes += map(len, payloads)
        self.hour += 1
        reports: list[tuple[str, str, WindowReport]] = []
        for (device, place), report in zip(self.places.items(), decode_many(payloads), strict=True):
            if isinstance(report, WireError):
                raise report
            reports.append((place["site"], device, report))
        with self.service.database.begin() as connection:
            problems = fold(connection, reports, self.hour * _HOUR_MS)
        if problems:
            raise problems[0]
        self.service.turn(self.hour * _HOUR_MS + self.service.config.grace_ms)

    def verdicts(self) -> tuple[StoredVerdict, ...]:
        """Return all verdicts so far."""
        return self.service.verdicts.latest(1_000_000)


@contextmanager
def served(
    reference: Reference, places: Mapping[str, Mapping[str, str]], config: DriftConfig | None = None
) -> Iterator[ServedFleet]:
    """Yield devices at ``places`` with a release of ``reference``, and a new server for them."""
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(f"sqlite:///{folder}/fleet.db")
        with database.begin() as connection:
            for device, place in places.items():
                insert_device(connection, {
                    "device": device, "site": place["site"],
                    "attributes": {name: value for name, value in place.items() if name != "site"},
                    "password_hash": "", "enrolled_ms": 0, "state": "ready",
                })  # fmt: skip
        outbox = Outbox(MemoryTransport(broker=MemoryBroker(), client_id="server"))
        service = DriftService(
            database=database, windows=Windows(database), references=_Shelf(reference), events=EventLog(database),
            fleet=Fleet(database=database, outbox=outbox, clock=lambda: 0), config=config or DriftConfig(),
        )  # fmt: skip
        yield ServedFleet(reference=reference, places=places, service=service)
        database.close()


def quiet_fleet(
    items: CountedItems, devices: int, windows: int, seed: int = 1, config: DriftConfig | None = None
) -> dict[str, float]:
    """Return the verdicts until ``windows`` windows after the baselines, of 60 independent draws on each device."""
    places = {f"d{i:05d}": {"site": f"site-{i // 3}", "lens": f"lens-{i % 4}"} for i in range(devices)}
    dice, start_s = np.random.default_rng([seed, devices]), time.process_time()
    with served(items.reference, places, config) as fleet:
        for _ in range(fleet.service.config.baseline_windows + windows):
            fleet.window(items.windows(dice.integers(len(items.counters), size=(devices, _SAMPLES))), _SAMPLES)
        found = fleet.verdicts()
        first = min((one.first_window_ms // _HOUR_MS - _START_H for one in found), default=0)
        return {
            "pool_verdicts": sum(one.kind in POOLED for one in found),
            "device_verdicts": sum(one.kind not in POOLED for one in found),
            "first_verdict_after_windows": first, "windows": windows, "report_bytes_most": max(fleet.sizes),
            "report_bytes_median": float(np.median(fleet.sizes)), "cpu_s": time.process_time() - start_s,
        }  # fmt: skip


def evidence_step(items: CountedItems, devices: int) -> dict[str, float]:
    """Return the CPU seconds of the evidence of one slot of ``devices`` devices with baselines, the pools included."""
    reference, dice = items.reference, np.random.default_rng(1)
    key, settings = (reference.ref_id[:32], reference.artifact_sha256[:32]), _short().settings
    classes = tuple(place for place, stream in enumerate(reference.streams) if stream.categorical)
    state, streams = FoldState(), len(reference.streams)
    state.open_bank(key, ScoreColumns(streams, classes), training_profile(reference))
    places = {f"d{i:05d}": {"site": f"site-{i // 100}", "lens": f"lens-{i % 4}"} for i in range(devices)}
    steps: list[float] = []
    for slot in range(_SHORT + _STEPS):
        drawn = np.concatenate([
            items.windows(dice.integers(len(items.counters), size=(min(1000, devices - first), _SAMPLES)))
            for first in range(0, devices, 1000)
        ])  # fmt: skip
        counts = drawn[:, : streams * BINS].reshape(devices, streams, BINS)
        seen = [Observation(device, row) for device, row in zip(places, counts, strict=True)]
        start_s = time.process_time()
        fold_slot(state, slot, {key: seen}, places, settings)
        steps.append(time.process_time() - start_s)
    return {"cpu_s": float(np.median(steps[_SHORT:])), "devices": devices, "streams": streams}


def rolling_counters(items: CountedItems, baseline: int, windows: int, seed: int = 1) -> dict[str, float]:
    """Return what 20 meters raise whose counters roll on: without drift, but their digits stay for hours to months.

    A meter at a training site shows five digits in each of 12 readings an hour; its last digit advances 0.3 to 3 times
    an hour. The images of a digit are drawn from those of its site.
    """
    dice = np.random.default_rng([seed, 20])
    sites = sorted(set(items.slices[items.labels >= 0].tolist()))
    homes = [sites[i % len(sites)] for i in range(_METERS)]
    by_digit = {(site, digit): np.flatnonzero((items.slices == site) & (items.labels == digit))
                for site in sites for digit in range(10)}  # fmt: skip
    value, pace = dice.uniform(0, 1e5, _METERS), np.exp(dice.uniform(np.log(0.3), np.log(3.0), _METERS))
    places = {f"d{i:05d}": {"site": f"site-{i // 2}"} for i in range(_METERS)}
    flagged: set[str] = set()
    first = 10**6
    with served(items.reference, places, DriftConfig(baseline_windows=baseline, provisional_windows=0)) as fleet:
        for hour in range(baseline + windows):
            drawn = np.empty((_METERS, _SAMPLES), np.int64)
            for meter, site in enumerate(homes):
                shown = (value[meter] + pace[meter] * np.arange(_READINGS)[:, None] / _READINGS) // 10.0 ** np.arange(5)
                rows = [by_digit[site, int(digit)] for digit in (shown % 10).ravel()]
                drawn[meter] = [row[int(dice.random() * len(row))] for row in rows]
            value += pace
            fleet.window(items.windows(drawn), _SAMPLES)
            told = {device for one in fleet.service.verdicts.open() if one.kind not in POOLED for device in one.devices}
            first = min(first, hour + 1 - baseline) if told - flagged else first
            flagged |= told
        found = fleet.verdicts()
    return {
        "device_verdicts_a_day": sum(one.kind not in POOLED for one in found) / windows * 24,
        "devices": len(flagged), "first_after_windows": first,
        "pool_verdicts": sum(one.kind in POOLED for one in found),
    }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Sites:
    """The sites of a bundle's test data: those trained on, and all others with enough items; accuracy of each."""

    items: CountedItems
    trained: tuple[str, ...]

    @property
    def gate(self) -> float:
        """The accuracy at the training sites."""
        return float(self.items.right[np.isin(self.items.slices, self.trained)].mean())

    @property
    def others(self) -> dict[str, float]:
        """The accuracy at each other site of at least 60 items."""
        names = [name for name in sorted(set(self.items.slices.tolist())) if name not in self.trained]
        sizes = {name: self.items.slices == name for name in names}
        return {name: float(self.items.right[rows].mean()) for name, rows in sizes.items() if rows.sum() >= _SAMPLES}

    def harmed(self) -> frozenset[str]:
        """Return the other sites whose accuracy is more than two points below that at the gate."""
        return frozenset(name for name, right in self.others.items() if right < self.gate - _HARM)

    def drawn(self, homes: Sequence[str], n: int, dice: np.random.Generator) -> NDArray[np.int64]:
        """Return ``n`` items of the home of each device, (D, n)."""
        rows = {home: np.flatnonzero(self.items.slices == home) for home in set(homes)}
        return np.stack([rows[home][dice.integers(len(rows[home]), size=n)] for home in homes])


def installed_sites(sites: Sites, n: int, seed: int = 1) -> dict[str, float]:
    """Return the share of devices called a new place within 48 windows of ``n`` samples from their installation.

    At sites unseen in training, harmed and not, and at training sites.
    """
    dice, harmed = np.random.default_rng([seed, n]), sites.harmed()
    homes = [*sites.others, *(sites.trained[i % len(sites.trained)] for i in range(_AT_TRAINED))]
    devices = [f"d{i:05d}" for i in range(len(homes))]
    places = {device: {"site": f"site-{i}"} for i, device in enumerate(devices)}
    with served(sites.items.reference, places) as fleet:
        for _ in range(_INSTALLED_WINDOWS):
            fleet.window(sites.items.windows(sites.drawn(homes, n, dice)), n)
        new = {device for one in fleet.verdicts() if one.kind == "new_place" for device in one.devices}
        any_ = {device for one in fleet.verdicts() for device in one.devices}
    called = {home: device in new for home, device in zip(sites.others, devices, strict=False)}
    at_trained = devices[len(sites.others) :]
    return {
        "new_place_harmed_ratio": sum(called[home] for home in harmed) / max(len(harmed), 1),
        "new_place_trained_ratio": sum(device in new for device in at_trained) / len(at_trained),
        "new_place_unharmed_ratio": sum(called[home] for home in called.keys() - harmed)
        / max(len(called) - len(harmed), 1),
        "harmed_sites": len(harmed), "other_sites": len(called) - len(harmed), "any_verdict_devices": len(any_),
        "accuracy_gate": sites.gate, "accuracy_worst": min(sites.others.values()),
    }  # fmt: skip


def moved_sites(sites: Sites, n: int, seed: int = 1) -> dict[str, float]:
    """Return when devices are heard that were commissioned at a training site and then moved to each unseen one."""
    dice, harmed, others = np.random.default_rng([seed, n, 1]), sites.harmed(), tuple(sites.others)
    before = [sites.trained[i % len(sites.trained)] for i in range(len(others) + _AT_TRAINED)]
    after = [*others, *before[len(others) :]]
    devices = [f"d{i:05d}" for i in range(len(before))]
    places = {device: {"site": f"site-{i}"} for i, device in enumerate(devices)}
    first: dict[str, int] = {}
    with served(sites.items.reference, places) as fleet:
        for _ in range(fleet.service.config.provisional_windows):
            fleet.window(sites.items.windows(sites.drawn(before, n, dice)), n)
        early = {device for one in fleet.verdicts() for device in one.devices}
        for window in range(1, _MOVED_WINDOWS + 1):
            fleet.window(sites.items.windows(sites.drawn(after, n, dice)), n)
            for one in fleet.service.verdicts.open():
                for device in one.devices if one.kind != "fleet" else ():
                    first.setdefault(device, window)
    heard = {home: first.get(device, 10**6) for home, device in zip(others, devices, strict=False)}
    return {
        "median_windows_harmed": float(np.median([heard[home] for home in harmed])),
        "heard_harmed_ratio": sum(heard[home] <= _MOVED_WINDOWS for home in harmed) / max(len(harmed), 1),
        "heard_unharmed_ratio": sum(heard[home] <= _MOVED_WINDOWS for home in heard.keys() - harmed)
        / max(len(heard) - len(harmed), 1),
        "most_windows": max(heard.values()), "false_devices": len(first.keys() - set(devices[: len(others)])),
        "before_moving": len(early), "harmed_sites": len(harmed),
    }  # fmt: skip


def rows(data: Path | None, *, quick: bool, seed: int = 1) -> Iterable[Scenario]:
    """Yield the rows of each bundle that needs no data, or whose data are below ``data``; it is built when wanted."""
    sizes, windows = ((12,), 50) if quick else ((2, 6, 12, 30, 100, 1000), 1000)
    config = _short() if quick else None
    for name, (folder, file) in BUNDLES.items():
        if quick and data is None:
            continue  # to build a bundle takes longer than all other rows
        at = data / file if data is not None and file else None
        if file and (at is None or not at.is_file()):
            print(f"left out {name}: needs --data DIR with {file}", file=sys.stderr)
            continue
        items = _lazily(folder, at)
        for devices in sizes:
            many = devices >= _MANY  # a report takes a millisecond
            judged, own = (windows // 5, DriftConfig(baseline_windows=72)) if many else (windows, config)
            yield Scenario(
                name=f"real {name}, {devices} devices",
                asked=f"<= 1 pool verdict in {judged} windows, reports <= 800 B",
                measure=lambda items=items, devices=devices, judged=judged, own=own: quiet_fleet(
                    items(), devices, judged, seed, own
                ),
                holds=lambda f: f["pool_verdicts"] <= 1 and f["report_bytes_most"] <= _REPORT_BYTES,
            )  # fmt: skip
        if name == "digits":
            yield Scenario(
                name="evidence step", asked="10,000 devices x 23 streams in <= 2 CPU s",
                measure=lambda items=items: evidence_step(items(), 1_000 if quick else 10_000),
                holds=lambda f: f["cpu_s"] <= _STEP_S,
            )  # fmt: skip
        if name == "meter digits":
            yield from _meter_rows(items, quick=quick, seed=seed)


def _meter_rows(items: Callable[[], CountedItems], *, quick: bool, seed: int) -> Iterable[Scenario]:
    trained = read_recipe(ROOT / "models" / "meter_digits" / "recipe.toml").data.train_slices
    sites = lambda: Sites(items=items(), trained=tuple(trained))  # noqa: E731 - built when it is wanted
    at_home = lambda: items().of(np.isin(items().slices, trained))  # noqa: E731
    for days in (3,) if quick else (3, 14):
        yield Scenario(
            name=f"real meter digits, counters roll on, {days} days", asked="printed: 20 of 20 devices before",
            measure=lambda days=days: rolling_counters(at_home(), 24 * days, 24 if quick else 240, seed),
        )  # fmt: skip
    for n in (60,) if quick else (60, 12):
        yield Scenario(
            name=f"real meter digits, installed sites, n {n}",
            asked="new_place: >= 90 % of harmed, <= 5 % at training sites" if n == _SAMPLES else "printed",
            measure=lambda n=n: installed_sites(sites(), n, seed),
            holds=lambda f, n=n: n != _SAMPLES
            or (f["new_place_harmed_ratio"] >= _FOUND and f["new_place_trained_ratio"] <= _FALSE),
        )  # fmt: skip
        yield Scenario(
            name=f"real meter digits, moved sites, n {n}", asked="all harmed heard, no other device",
            measure=lambda n=n: moved_sites(sites(), n, seed),
            holds=lambda f: f["heard_harmed_ratio"] == 1 and f["false_devices"] == 0,
        )  # fmt: skip


def _lazily(folder: str, data: Path | None) -> Callable[[], CountedItems]:
    return lru_cache(maxsize=1)(
        lambda: items_of(ROOT / "models" / folder / "recipe.toml", ROOT / ".tinyfleet" / "bench" / folder, data)
    )


def _short() -> DriftConfig:
    return DriftConfig(baseline_windows=_SHORT)
