#!/usr/bin/env python3
"""Fills a server's database with what a fleet leaves after a year: ``year.py STATE [--devices N] [--quick]``.

Rows go into the store's own tables in bulk, past the ingest: made in a minute or two instead of a year. Seeded, so that
two databases are alike. Devices with reports, three models with their releases, rollouts with members, events,
verdicts, samples, jobs, commands, what devices used by day, and boots are all there; of hourly telemetry (evidence,
pools, batches) the newest hours are (``--hours``), because a list reads the newest rows through an index. Windows are
of the newest two hours: a server that starts reads them back.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, product
from pathlib import Path

import click
import sqlalchemy as sa
from sqlalchemy.sql.schema import ScalarElementColumnDefault

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from compressor.release.keys import init_keys, read_root  # noqa: E402 - found through the line above
from compressor.release.signing import read_targets, sign_targets  # noqa: E402 - found through the line above
from server.app.state_directory import StateDirectory, init_state, open_state  # noqa: E402 - found through the line above
from server.store.commissions import COMMISSIONS  # noqa: E402 - found through the line above
from server.store.database import Database, insert_many, open_database  # noqa: E402 - found through the line above
from server.store.events import EVENTS  # noqa: E402 - found through the line above
from server.store.fleet import COMMANDS, DEVICES, RAN  # noqa: E402 - found through the line above
from server.store.monitoring.evidence import EVIDENCE, POOLS, VERDICTS  # noqa: E402 - found through the line above
from server.store.monitoring.ingest import BATCHES, BOOTS, PROGRESS  # noqa: E402 - found through the line above
from server.store.monitoring.usage import DEVICE_DAYS  # noqa: E402 - found through the line above
from server.store.monitoring.windows import WINDOWS  # noqa: E402 - found through the line above
from server.store.places import PLACES  # noqa: E402 - found through the line above
from server.store.registry import RELEASES  # noqa: E402 - found through the line above
from server.store.retraining import JOBS, LABEL_CHANGES, SAMPLES, TRIGGERS  # noqa: E402 - found through the line above
from server.store.rollouts import MEMBERS, ROLLOUTS  # noqa: E402 - found through the line above
from server.store.software.runs import (  # noqa: E402 - found through the line above
    SOFTWARE_COMPONENTS,
    SOFTWARE_LISTS,
    SOFTWARE_RUNS,
)
from server.trust.online_keys import init_online_keys  # noqa: E402 - found through the line above
from server.trust.repository import TrustRepository  # noqa: E402 - found through the line above
from server.trust.roots import install_root  # noqa: E402 - found through the line above
from wire.codec import encode  # noqa: E402 - found through the line above
from wire.messages import (  # noqa: E402 - found through the line above
    Desired,
    InstalledRelease,
    Reported,
    UpdatePhase,
    UpdateStatus,
)
from wire.tuf_target import TargetCustom, target_path  # noqa: E402 - found through the line above

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
DEVICES_A_SITE, AT_ONCE, RELEASES_A_MODEL, RETENTION_DAYS = 20, 20_000, 24, 90
MODELS = (("cam", 0.8), ("mic", 0.15), ("meter", 0.05))
LATE, COMMITTED, NEVER_ONE_IN, DRIFTS_ONE_IN, WAITS_ONE_IN = 0.1, 0.98, 500, 100, 10
CANARIES, LENSES, BOOTS_EACH = 20, 7, 3
IMAGES, PACKAGES = 3, 250
"""Systems that devices are installed from, and the components of each: a release in its slot makes another list."""
STATES = (("ready", 0.93), ("disconnected", 0.03), ("lost", 0.02), ("degraded", 0.01), ("updating", 0.01))
Row = dict[str, object]


@dataclass(slots=True, kw_only=True)
class Year:
    """A fleet of ``count`` devices up to ``now_ms``, with ``hours`` of telemetry and ``days`` of events."""

    count: int
    now_ms: int
    hours: int
    days: int
    drawn: random.Random = field(default_factory=lambda: random.Random(13))  # noqa: S311 - not for secrets

    @property
    def newest_ms(self) -> int:
        """The start of the newest whole hour."""
        return self.now_ms // HOUR_MS * HOUR_MS - HOUR_MS

    def device(self, index: int) -> str:
        """The id of a device."""
        return f"dev-{index:05d}"

    def site(self, index: int) -> str:
        """The site of a device."""
        return f"site-{index // DEVICES_A_SITE:03d}"

    def model(self, index: int) -> str:
        """The model of a device."""
        place = index % 20 / 20
        for name, share in MODELS:
            if (place := place - share) < 0:
                return name
        return MODELS[-1][0]

    def release(self, model: str, version: int) -> Row:
        """The row of one release; its bundle is not stored."""
        custom = TargetCustom(
            model=model, version=version, target="pi", runtime="onnx", artifact_sha256=digest(model, version, "a"),
            ref_id=digest(model, version, "r")[:32], hardware=("aarch64",), certificate={"accuracy": 0.94},
        )  # fmt: skip
        return {
            "path": target_path(model, version, "pi"), "name": f"{model}-{version}", "sha256": digest(model, version),
            "length_bytes": 1_500_000, "custom": encode(custom).decode(), "withdrawn_why": "", "withdrawn_by": "",
            "registered_ms": self.now_ms - (RELEASES_A_MODEL - version) * 15 * DAY_MS, "withdrawn_ms": 0,
        }  # fmt: skip

    def any_device(self) -> int:
        """A device drawn at random."""
        return self.drawn.randrange(self.count)


def digest(*parts: object) -> str:
    """Return a digest that stands for ``parts``."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


def releases(year: Year) -> Iterator[Row]:
    """Yield the releases of every model."""
    for model, _ in MODELS:
        yield from (year.release(model, version) for version in range(1, RELEASES_A_MODEL + 1))


def devices(year: Year) -> Iterator[Row]:
    """Yield the devices: most run the newest release of their model, some one before, some fail, some never came."""
    names, shares = zip(*STATES, strict=True)
    for index in range(year.count):
        model, state = year.model(index), year.drawn.choices(names, shares)[0]
        version = RELEASES_A_MODEL - (year.drawn.random() < LATE)
        phase = UpdatePhase.COMMITTED
        if state == "updating":
            phase = UpdatePhase.DOWNLOADING
        elif state == "degraded":
            phase = UpdatePhase.REFUSED
        reported = Reported(
            gen=9, at_ms=year.now_ms - DAY_MS, boot=digest(index)[:16], agent_version="0.2.0", hardware="aarch64",
            runtimes=("onnx", "tflite"), attributes={"camera": f"ov{index % 7}", "batch": f"b{index % 40}"},
            current=InstalledRelease(release=f"{model}-{version}", sha256=digest(model, version)),
            previous=InstalledRelease(release=f"{model}-{version - 1}", sha256=digest(model, version - 1)),
            update=UpdateStatus(
                phase=phase, gen=9, release=f"{model}-{RELEASES_A_MODEL}", since_ms=year.now_ms - DAY_MS,
                code="digest_mismatch" if phase is UpdatePhase.REFUSED else "", done_bytes=900_000,
                total_bytes=1_500_000, fetched_bytes=900_000, answered=40,
            ),
        )  # fmt: skip
        desired = Desired(
            gen=9, release=f"{model}-{RELEASES_A_MODEL}", target=target_path(model, RELEASES_A_MODEL, "pi"),
            sha256=digest(model, RELEASES_A_MODEL), length_bytes=1_500_000, attempt=9,
        )  # fmt: skip
        never = index % NEVER_ONE_IN == NEVER_ONE_IN - 1
        yield {
            "device": year.device(index), "site": year.site(index), "password_hash": "0" * 64,
            "attributes": json.dumps({"camera": f"ov{index % 7}", "batch": f"b{index % 40}"}),
            "enrolled_ms": year.now_ms - 365 * DAY_MS + index, "clock_skew_ms": 0,
            "last_seen_ms": 0 if never else year.now_ms - year.drawn.randrange(600_000),
            "state": "init" if never else state, "reported": None if never else encode(reported).decode(),
            "desired": encode(desired).decode(), "desired_gen": 9, "ended": "", "ended_ms": 0, "ended_why": "",
        }  # fmt: skip
    for index in range(year.count // 20):
        yield {
            "device": f"old-{index:05d}", "site": year.site(index), "password_hash": "", "attributes": "{}",
            "enrolled_ms": 1, "clock_skew_ms": 0, "last_seen_ms": 1, "state": "disconnected", "reported": None,
            "desired": None, "desired_gen": 0, "ended": "revoked", "ended_ms": year.now_ms - index * HOUR_MS,
            "ended_why": "stolen",
        }  # fmt: skip


def rollouts(year: Year) -> Iterator[Row]:
    """Yield one rollout a release; the newest of each model is running, paused or waiting."""
    open_phases = ("running", "paused", "awaiting_approval")
    for (model, _), phase in zip(MODELS, open_phases, strict=True):
        for version in range(1, RELEASES_A_MODEL + 1):
            groups = [
                {"name": name, "success_ratio": 0.9, "error_ratio": 0.1, "named": False} for name in ("canary", "rest")
            ]
            newest = version == RELEASES_A_MODEL
            yield {
                "id": digest(model, version, "rollout")[:16], "release": f"{model}-{version}",
                "groups": json.dumps(groups), "phase": phase if newest else "succeeded", "code": "",
                "text": "", "opened": 2 if not newest or phase != "awaiting_approval" else 0, "probation_s": 600.0,
                "deadline_s": 86_400.0, "dynamic": False, "window": "", "shadow": "", "max_bytes_per_s": 0,
                "created_ms": year.now_ms - (RELEASES_A_MODEL - version) * 15 * DAY_MS, "cautions": "", "scope": "",
                "updated_ms": year.now_ms - (RELEASES_A_MODEL - version) * 15 * DAY_MS + DAY_MS,
            }  # fmt: skip


def members(year: Year) -> Iterator[Row]:
    """Yield the members of every rollout: all devices of the model."""
    for version in range(1, RELEASES_A_MODEL + 1):
        for index in range(year.count):
            model = year.model(index)
            standing = "committed" if year.drawn.random() < COMMITTED else "failed"
            if version == RELEASES_A_MODEL and standing == "committed" and index % 10 == 0:
                standing = "assigned" if model == "cam" else "waiting"
            at_ms = year.now_ms - (RELEASES_A_MODEL - version) * 15 * DAY_MS
            yield {
                "rollout": digest(model, version, "rollout")[:16], "device": year.device(index),
                "group": int(index >= CANARIES), "standing": standing, "gen": version, "assigned_ms": at_ms,
                "settled_ms": at_ms + HOUR_MS, "code": "not_healthy" if standing == "failed" else "",
                "air_bytes": 400_000, "earlier_bytes": 0, "bundle_bytes": 0, "before": "", "tolerated": False,
                "replaced_by": "", "retried_from": "", "shadow": "", "replay": "", "answered": 40,
                "forecast_bytes": 420_000, "forecast_upper": False,
            }  # fmt: skip


def evidence(year: Year) -> Iterator[Row]:
    """Yield the evidence of every device and hour, the oldest first; in the newest hour 1 % of devices drift."""
    share = {"shape": "mean", "share_ratio": 0.2, "words": "brighter than usual"}
    streams = json.dumps([{"stream": f"s{index}", **share} for index in range(5)])
    summaries = json.dumps({f"s{index}": {"psi": 0.1, "js": 0.02, "ks": 0.1} for index in range(5)})
    for hour in range(year.hours - 1, -1, -1):
        for index in range(year.count):
            drifts = index % DRIFTS_ONE_IN == LENSES
            yield {
                "device": year.device(index), "start_ms": year.newest_ms - hour * HOUR_MS, "ref_id": digest("r")[:32],
                "n": 60, "phase": "judged", "log_value": 15.0 if drifts else year.drawn.random() * 4,
                "training_log_value": 2.0, "log_threshold": 12.3, "flagged": drifts, "new_place": False, "fault": "",
                "cause": "brighter" if drifts else "", "provisional": False, "baseline_windows": 168,
                "wanted_windows": 168, "streams": streams, "summaries": summaries,
            }  # fmt: skip


def pools(year: Year) -> Iterator[Row]:
    """Yield the evidence of the pools: the fleet, each site, each value of two attributes."""
    named = [("", "")] + [("site", year.site(index)) for index in range(0, year.count, DEVICES_A_SITE)]
    named += [("camera", f"ov{index}") for index in range(7)] + [("batch", f"b{index}") for index in range(40)]
    for hour in range(year.hours - 1, -1, -1):
        for attribute, value in named:
            yield {
                "start_ms": year.newest_ms - hour * HOUR_MS, "ref_id": digest("r")[:32], "attribute": attribute,
                "value": value, "members": DEVICES_A_SITE, "log_value": year.drawn.random() * 5, "log_threshold": 12.3,
                "alarm": False, "collecting": False,
            }  # fmt: skip


def verdicts(year: Year) -> Iterator[Row]:
    """Yield closed verdicts of the retention, then the open ones: of devices, a site, and one of 2,000 devices."""
    closed = max(year.count // 5, 20)
    for index in range(closed + 23):
        is_open = index >= closed
        concerned, kind = [year.device(year.any_device())], "device_local"
        if index == closed:
            concerned, kind = [year.device(one) for one in range(0, year.count, 5)], "cohort"
        elif index % 9 == 0:
            start = year.any_device() // DEVICES_A_SITE * DEVICES_A_SITE
            concerned, kind = [year.device(one) for one in range(start, min(start + 20, year.count))], "site"
        at_ms = year.newest_ms - (closed + 23 - index) * HOUR_MS // 2
        yield {
            "key": digest(index)[:16], "kind": kind, "first_window_ms": at_ms, "last_window_ms": at_ms + 3 * HOUR_MS,
            "windows": 3, "opened_ms": at_ms, "closed_ms": 0 if is_open else at_ms + 5 * HOUR_MS,
            "devices": json.dumps(concerned), "attributes": json.dumps({}), "cause": "brighter", "action": "look at it",
            "detail": "its pictures are brighter", "release": f"cam-{RELEASES_A_MODEL}", "model": "cam",
            "provisional": False, "dismissed_ms": 0, "dismissed_by": "", "dismissed_why": "",
            "streams": json.dumps(["s0"]), "part_of": 0,
        }  # fmt: skip


def events(year: Year) -> Iterator[Row]:
    """Yield one event a device and day, the oldest first."""
    kinds = (
        ("update", "committed", "info"), ("liveness", "silent", "warning"), ("liveness", "heard", "info"),
        ("alarm", "degraded", "error"),
    )  # fmt: skip
    for day in range(year.days - 1, -1, -1):
        for index in range(year.count):
            kind, code, severity = kinds[(index + day) % len(kinds)]
            yield {
                "at_ms": year.now_ms - day * DAY_MS - index * 8, "kind": kind, "code": code, "severity": severity,
                "text": f"Something happened, number {index}", "device": year.device(index), "data": "{}",
                "boot": digest(index)[:16], "place": 1, "seq": year.days - day,
            }  # fmt: skip


def samples(year: Year) -> Iterator[Row]:
    """Yield five samples a device; one in ten waits for a label."""
    for index in range(5 * year.count):
        device, waits = index % year.count, index % 10 == BOOTS_EACH
        at_ms = year.now_ms - (5 * year.count - index) * 60_000
        yield {
            "device": year.device(device), "boot": digest(device)[:16], "seq": index, "sha256": digest("i", index),
            "media_type": "image/png", "length_bytes": 900, "request": "", "lane": "audit", "inclusion_ratio": 0.01,
            "predicted": 1, "confidence": 0.8, "artifact_sha256": digest(year.model(device), RELEASES_A_MODEL, "a"),
            "at_ms": at_ms, "received_ms": at_ms, "label": None if waits else "1", "label_by": None if waits else "Ada",
            "labelled_ms": 0 if waits else at_ms + HOUR_MS, "claimed": "", "expired_ms": 0, "model": year.model(device),
        }  # fmt: skip


def label_changes(year: Year) -> Iterator[Row]:
    """Yield a change of one label in fifty."""
    for index in range(0, 5 * year.count, 50):
        yield {
            "sha256": digest("i", index), "label": "2", "label_by": "Ada", "labelled_ms": year.now_ms - DAY_MS,
            "new_label": "1", "changed_by": "Grace", "changed_ms": year.now_ms, "model": year.model(index % year.count),
        }  # fmt: skip


def triggers(year: Year) -> Iterator[Row]:
    """Yield one retraining a release."""
    for version in range(1, RELEASES_A_MODEL + 1):
        for model, _ in MODELS:
            yield {
                "model": model, "cause": "brighter", "words": "brighter", "verdict": version,
                "devices": json.dumps([year.device(index) for index in range(0, year.count, 50)]),
                "since_ms": year.now_ms - version * DAY_MS, "release": f"{model}-{version}", "phase": "settled",
                "approved": True, "job": digest("job", model, version)[:16], "result": f"{model}-{version + 1}",
                "rollout": "", "text": "", "asked_ms": 0, "opened_ms": year.now_ms - version * DAY_MS,
                "updated_ms": year.now_ms - version * DAY_MS + HOUR_MS,
            }  # fmt: skip


def jobs(year: Year) -> Iterator[Row]:
    """Yield the finished job of each retraining."""
    for index, (model, version) in enumerate((model, version) for version in range(1, 25) for model, _ in MODELS):
        yield {
            "id": digest("job", model, version)[:16], "retraining": index + 1, "model": model,
            "base_release": f"{model}-{version}", "base_sha256": digest(model, version), "cause": "brighter",
            "labelled": 300, "samples_sha256": digest("zip", index), "state": "done", "worker": "worker-1",
            "attempts": 1, "lease_until_ms": 0, "created_ms": year.now_ms - version * DAY_MS,
            "ended_ms": year.now_ms - version * DAY_MS + HOUR_MS, "release": f"{model}-{version + 1}", "code": "",
            "text": "", "certificate": "{}", "gate_split": "", "look": 0,
        }  # fmt: skip


def commands(year: Year) -> Iterator[Row]:
    """Yield two commands a device."""
    for index in range(2 * year.count):
        at_ms = year.now_ms - index * 60_000
        yield {
            "id": digest("command", index)[:16], "device": year.device(index % year.count), "verb": "logs",
            "issued_ms": at_ms, "expires_ms": at_ms + 60_000, "answered_ms": at_ms + 1_000, "ok": True, "code": "",
            "text": "", "data": "{}",
        }  # fmt: skip


def commissions(year: Year) -> Iterator[Row]:
    """Yield the commissions of one device in five."""
    for index in range(0, year.count, 5):
        at_ms = year.now_ms - 30 * DAY_MS + index
        yield {
            "device": year.device(index), "from_ms": at_ms, "attribute": "", "value": "", "decided_ms": at_ms,
            "decided_by": "Ada", "why": "moved",
        }  # fmt: skip


def places(year: Year) -> Iterator[Row]:
    """Yield a place of one device in twenty."""
    for index in range(0, year.count, 20):
        yield {
            "verdict": 1_000_000 + index, "device": year.device(index), "site": year.site(index), "model": "cam",
            "release": f"cam-{RELEASES_A_MODEL}", "state": "harmless", "asks": 1, "asked_ms": year.now_ms - DAY_MS,
            "request": "", "audited": 30, "wrong": 0.03, "lower_risk": 0.0, "upper_risk": 0.1, "source_risk": 0.05,
            "decided_ms": year.now_ms, "decided_by": "", "why": "", "text": "",
        }  # fmt: skip


def ran(year: Year) -> Iterator[Row]:
    """Yield what ran on each device: ten of its model's releases."""
    for version in range(RELEASES_A_MODEL - 9, RELEASES_A_MODEL + 1):
        for index in range(year.count):
            model, at_ms = year.model(index), year.now_ms - (RELEASES_A_MODEL - version) * 15 * DAY_MS
            yield {
                "device": year.device(index), "from_ms": at_ms, "release": f"{model}-{version}",
                "sha256": digest(model, version), "gen": version, "received_ms": at_ms,
            }  # fmt: skip


def software_runs(year: Year) -> Iterator[Row]:
    """Yield which list ran on each device: another one with each of the releases of ``ran``."""
    last = RELEASES_A_MODEL
    for version in range(last - 9, last + 1):
        at_ms = year.now_ms - (last - version) * 15 * DAY_MS
        for index in range(year.count):
            yield {
                "device": year.device(index), "list": digest("list", year.model(index), version, index % IMAGES),
                "from_ms": at_ms, "until_ms": 0 if version == last else at_ms + 15 * DAY_MS, "received_ms": at_ms,
            }  # fmt: skip


def software_lists(year: Year) -> Iterator[Row]:
    """Yield the lists of ``software_runs``."""
    for model, version, image in _lists():
        yield {
            "sha256": digest("list", model, version, image), "packed": b"", "left_out": 0, "first_ms": year.now_ms,
            "stored_ms": year.now_ms,
        }  # fmt: skip


def software_components(_: Year) -> Iterator[Row]:
    """Yield the components of each list: the same packages in versions of its image, and its model."""
    for model, version, image in _lists():
        of = {"list": digest("list", model, version, image), "sha256": ""}
        for place in range(PACKAGES):
            kind, name = ("runtime", "onnxruntime") if place == 0 else ("package", f"package-{place}")
            release = f"1.{20 + image}.{place % 7}"
            yield {**of, "place": place, "kind": kind, "key": name, "name": name, "version": release}
        yield {**of, "place": PACKAGES, "kind": "model", "key": model, "name": model, "version": str(version)}


def _lists() -> Iterator[tuple[str, int, int]]:
    versions = range(RELEASES_A_MODEL - 9, RELEASES_A_MODEL + 1)
    return product((model for model, _ in MODELS), versions, range(IMAGES))


def boots(year: Year) -> Iterator[Row]:
    """Yield three boots a device."""
    for place in range(BOOTS_EACH):
        for index in range(year.count):
            boot = digest(index) if place == BOOTS_EACH - 1 else digest(index, place)
            yield {"device": year.device(index), "boot": boot[:16], "place": place, "heard_ms": year.now_ms - DAY_MS}


def progress(year: Year) -> Iterator[Row]:
    """Yield the progress of three streams a device."""
    for stream in ("drift", "events", "infer"):
        for index in range(year.count):
            yield {
                "device": year.device(index), "stream": stream, "boot": digest(index)[:16], "through_seq": 2_000,
                "ahead": "", "at_ms": year.now_ms,
            }  # fmt: skip


def batches(year: Year) -> Iterator[Row]:
    """Yield a batch of telemetry a device and hour."""
    line = {"p50_ms": 11.0, "p95_ms": 14.0, "n": 60, "classes": {"0": 30, "1": 30}}
    rows = json.dumps([{"at_ms": minute * 600_000, **line} for minute in range(6)])
    for hour in range(year.hours - 1, -1, -1):
        at_ms = year.newest_ms - hour * HOUR_MS
        for index in range(year.count):
            yield {
                "device": year.device(index), "stream": "infer", "t0_ms": at_ms, "n": 6, "rows": rows,
                "received_ms": at_ms + HOUR_MS,
            }  # fmt: skip


def device_days(year: Year) -> Iterator[Row]:
    """Yield what each device used by day."""
    for day in range(year.days):
        name = time.strftime("%Y-%m-%d", time.gmtime((year.now_ms - day * DAY_MS) / 1000))
        for index in range(year.count):
            yield {
                "device": year.device(index), "day": name, "sent_bytes": 300_000, "received_bytes": 40_000,
                "written_bytes": 900_000, "dropped": "{}", "merged": 0, "received_ms": year.now_ms - day * DAY_MS,
            }  # fmt: skip


def windows(year: Year) -> Iterator[Row]:
    """Yield the windows of the newest two hours, of a reference that no release has."""
    values = b"\x01" + bytes(count % 9 for count in range(168))  # 4 streams, 10 classes with 10 bins: a byte each
    for hour in range(1, -1, -1):
        at_ms = year.newest_ms - hour * HOUR_MS
        for index in range(year.count):
            yield {
                "device": year.device(index), "site": year.site(index), "start_ms": at_ms, "len_ms": HOUR_MS,
                "context": -1, "artifact": digest("x")[:32], "ref_id": digest("r")[:32], "streams": 4, "classes": 10,
                "confidence_bins": 10, "n": 60, "reports": 60, "values": values, "received_ms": at_ms + HOUR_MS,
            }  # fmt: skip


TABLES: Mapping[sa.Table, Callable[[Year], Iterable[Row]]] = {
    RELEASES: releases, DEVICES: devices, ROLLOUTS: rollouts, MEMBERS: members, EVIDENCE: evidence, POOLS: pools,
    VERDICTS: verdicts, EVENTS: events, SAMPLES: samples, LABEL_CHANGES: label_changes, TRIGGERS: triggers,
    JOBS: jobs, COMMANDS: commands, COMMISSIONS: commissions, PLACES: places, RAN: ran, BOOTS: boots,
    PROGRESS: progress, BATCHES: batches, DEVICE_DAYS: device_days, WINDOWS: windows, SOFTWARE_LISTS: software_lists,
    SOFTWARE_COMPONENTS: software_components, SOFTWARE_RUNS: software_runs,
}  # fmt: skip


def defaults(table: sa.Table) -> dict[str, object]:
    """Return the values of columns that a row may leave out, but rows in bulk may not."""
    known = {column.name: column.default for column in table.c}
    return {name: default.arg for name, default in known.items() if isinstance(default, ScalarElementColumnDefault)}


def fill(database: Database, year: Year) -> dict[str, int]:
    """Insert the rows of ``year``; return how many each table got, by name."""
    counts = {}
    for table, rows in TABLES.items():
        lines, count, usual = iter(rows(year)), 0, defaults(table)
        with database.begin() as connection:
            while some := list(islice(lines, AT_ONCE)):
                insert_many(connection, table, [{**usual, **row} for row in some])
                count += len(some)
        counts[table.name] = count
    return counts


def make_state(
    path: Path, count: int, *, quick: bool, hours: int | None = None
) -> tuple[StateDirectory, dict[str, int]]:  # fmt: skip
    """Make a server's state directory at ``path`` with a year of ``count`` devices; return it and the rows by table."""
    state = init_state(path)
    keys = state.path / "build-keys"
    install_root(state.path, init_keys(keys, init_online_keys(state.path)))
    root = read_root(keys)
    TrustRepository(state.path).publish_targets(
        sign_targets(read_targets(keys, root), 1, keys, root, 365), lambda _: True
    )  # a server with releases does not start without signed metadata; no device asks for these
    year = Year(
        count=count, now_ms=time.time_ns() // 1_000_000, hours=hours or (2 if quick else 72),
        days=7 if quick else RETENTION_DAYS,
    )  # fmt: skip
    database = open_database(state.database_url)
    try:
        return state, fill(database, year)
    finally:
        database.close()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("path", metavar="STATE", type=click.Path(path_type=Path))
@click.option("--devices", "count", type=click.IntRange(1, 99_999), default=10_000, show_default=True)
@click.option("--hours", type=click.IntRange(1), help="Hours of telemetry: 72, with --quick 2.")
@click.option("--quick", is_flag=True, help="Fewer rows of telemetry and events.")
def main(path: Path, count: int, hours: int | None, *, quick: bool) -> None:
    """Make the state directory STATE of a server with a year of a fleet; ``fleet-server run STATE`` serves it."""
    start_s = time.monotonic()
    state, counts = make_state(path, count, quick=quick, hours=hours)
    for name, rows in counts.items():
        print(f"{name:<20}{rows:>12,}")
    print(f"{open_state(state.path).path}: {sum(counts.values()):,} rows in {time.monotonic() - start_s:.0f} s")


if __name__ == "__main__":
    main()
