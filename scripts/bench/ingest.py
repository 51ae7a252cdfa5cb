#!/usr/bin/env python3
"""Drift reports per second and core into SQLite: decode, aggregate, store, acknowledge, with the server's code.

Measures only the ingest thread: reports come from memory, and acknowledgements are encoded and passed to a transport
that only counts them, so neither mosquitto nor the broker client (paho's own thread) takes part. The store is SQLite
(WAL) with the server's own settings, where a large fleet has PostgreSQL; the reports are those of an hourly window with
60 inferences, 23 streams and 10 classes. "a core" divides by CPU time, "wall" by the clock. The reference writes the
same reports as bare rows into the same SQLite, one transaction per batch: no ingest could be faster.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

from server.app.server import ServerApp, keep_what_is_loaded
from server.app.state_directory import init_state
from server.trust.online_keys import init_online_keys
from wire.drift_report import DriftReport, encode_report
from wire.histogram import BINS, Counters, Shape
from wire.transport import Incoming, Listener, Will

SHAPE = Shape(23, 10)
HOUR_MS = 3_600_000
TARGET_PER_S_AND_CORE = 5_000


class CountingTransport:
    """Counts published messages and drops them."""

    def __init__(self) -> None:
        """Start at zero."""
        self.published = 0

    def start(self, listener: Listener, *, subscriptions: tuple[str, ...], will: Will | None = None) -> None:
        """Connect to nothing."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int | None:  # noqa: ARG002 - required by the protocol
        """Count one message."""
        self.published += 1
        return self.published

    def idle_s(self) -> float:
        """Return 0: the broker has just responded."""
        return 0.0

    def stop(self) -> None:
        """Do nothing."""


def main() -> int:
    """Measure, print, and return whether the target was met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    parser.add_argument("--quick", action="store_true", help="fewer reports")
    parser.add_argument("--devices", type=int, default=1000)
    options = parser.parse_args()
    windows = 2 if options.quick else 20
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.devices, windows)
    for name, value in figures.items():
        sys.stdout.write(f"{name:32} {value:12,.1f}\n")
    share = figures["reports_per_s_and_core"] / TARGET_PER_S_AND_CORE
    sys.stdout.write(f"{'reached' if share >= 1 else 'missed'}: {share:.0%} of the target, into SQLite\n")
    if options.json:
        ours, bare = figures["reports_per_s_and_core"], figures["bare_rows_per_s"]
        row = {"what": "drift reports a second and core into SQLite, against bare rows a second", "ours": ours,
               "reference": bare, "ratio": ours / bare, "target": f">= {TARGET_PER_S_AND_CORE:g}",
               "met": share >= 1}  # fmt: skip
        options.json.write_text(json.dumps([row], indent=1))
    return 0 if share >= 1 else 1


def measure(folder: Path, devices: int, windows: int) -> dict[str, float]:
    """Return the figures of ``devices`` x ``windows`` reports."""
    state = init_state(folder / "state")
    init_online_keys(state.path)
    transport = CountingTransport()
    app = ServerApp.open(state.path, transport=transport, pages=False)
    app.connect()
    names = [f"dev-{index:05d}" for index in range(devices)]
    for name in names:
        app.parts.enrolment.enrol(app.parts.enrolment.claim("bench", name, {}))
    now_ms = app.clock()
    notices = _notices(names, windows, now_ms)
    size = app.config.ingest.batch_messages
    batches = [notices[start : start + size] for start in range(0, len(notices), size)]
    keep_what_is_loaded()
    rss_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    for batch in batches:
        app.parts.ingest.handle(batch, now_ms)
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    accepted = app.parts.ingest.figures.accepted
    app.stop()
    return {
        "reports": accepted,
        "report_bytes": sum(len(notice.payload) for notice in notices) / len(notices),
        "acknowledgements": transport.published,
        "reports_per_s_wall": accepted / wall_s,
        "reports_per_s_and_core": accepted / cpu_s,
        "target_per_s_and_core": TARGET_PER_S_AND_CORE,
        "bare_rows_per_s": _bare(folder / "bare.db", notices, size),
        "memory_growth_bytes": 1024.0 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - rss_before),
    }


def _notices(names: list[str], windows: int, now_ms: int) -> list[Incoming]:
    dice = random.Random(0)  # noqa: S311 - made-up counts
    bodies = [_counters(dice) for _ in range(50)]
    start_ms = (now_ms // HOUR_MS - windows) * HOUR_MS
    found = []
    for window in range(windows):
        for index, name in enumerate(names):
            report = DriftReport(
                boot="ab" * 8,
                seq=window,
                oldest_seq=0,
                window_start_ms=start_ms + window * HOUR_MS,
                window_len_ms=HOUR_MS,
                context=0,
                artifact="cd" * 16,
                ref_id="ef" * 16,
                counters=bodies[(window + index) % len(bodies)],
            )
            found.append(Incoming(f"tf/1/bench/{name}/tele/drift", encode_report(report)))
    return found


def _counters(dice: random.Random) -> Counters:
    values = [0] * SHAPE.total
    for _ in range(60):
        for stream in range(SHAPE.streams):
            values[stream * BINS + dice.randrange(BINS)] += 1
        values[SHAPE.streams * (BINS + 1) + dice.randrange(SHAPE.classes) * SHAPE.confidence_bins + 9] += 1
    return Counters(SHAPE, 60, tuple(values))


def _bare(path: Path, notices: list[Incoming], size: int) -> float:
    engine = sa.create_engine(f"sqlite:///{path}")
    table = sa.Table("bare", sa.MetaData(), sa.Column("topic", sa.Text), sa.Column("payload", sa.LargeBinary))
    table.metadata.create_all(engine)
    started_s = time.perf_counter()
    for start in range(0, len(notices), size):
        rows = [{"topic": item.topic, "payload": item.payload} for item in notices[start : start + size]]
        with engine.begin() as connection:
            connection.execute(table.insert(), rows)
    elapsed_s = time.perf_counter() - started_s
    engine.dispose()
    return len(notices) / elapsed_s


if __name__ == "__main__":
    sys.exit(main())
