#!/usr/bin/env python3
"""Drift reports per second and core into SQLite and PostgreSQL: decode, aggregate, store, acknowledge.

Measures only the ingest thread, with the server's code: reports come from memory, and acknowledgements are encoded
and passed to a transport that only counts them, so neither mosquitto nor the broker client (paho's own thread) takes
part. The stores are SQLite (WAL) with the server's own settings, and a private PostgreSQL (skipped, with a word,
where there is none), whose own CPU time is not counted: it may run elsewhere. The reports are those of an hourly
window with 60 inferences, 23 streams and 10 classes. "a core" divides by CPU time, "wall" by the clock. The reference
writes the same reports as bare rows, one transaction per batch, into SQLite or by COPY: no ingest could be faster.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.bench.postgres import MISSING, private_postgres, programs
from server.app.server import ServerApp, keep_what_is_loaded
from server.app.state_directory import init_state
from server.store.database import connect
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
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        found["SQLite"] = measure(Path(folder) / "sqlite", options.devices, windows)
        if programs() is None:
            sys.stdout.write(f"without PostgreSQL: {MISSING}\n")
        else:
            with private_postgres() as url:
                found["PostgreSQL"] = measure(Path(folder) / "postgresql", options.devices, windows, url)
    for name in found["SQLite"]:
        sys.stdout.write(f"{name:32}" + "".join(f" {figures[name]:14,.1f}" for figures in found.values()) + "\n")
    rows = []
    for store, figures in found.items():
        ours, bare = figures["reports_per_s_and_core"], figures["bare_rows_per_s"]
        share = ours / TARGET_PER_S_AND_CORE
        sys.stdout.write(f"{'reached' if share >= 1 else 'missed'}: {share:.0%} of the target, into {store}\n")
        rows.append({
            "what": f"drift reports a second and core into {store}, against bare rows a second", "ours": ours,
            "reference": bare, "ratio": ours / bare, "target": f">= {TARGET_PER_S_AND_CORE:g}", "met": share >= 1,
        })  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    return 0 if all(row["met"] for row in rows) else 1


def measure(folder: Path, devices: int, windows: int, url: str = "") -> dict[str, float]:
    """Return the figures of ``devices`` x ``windows`` reports into the database at ``url``, "" for SQLite."""
    state = init_state(folder / "state")
    init_online_keys(state.path)
    if url:
        state.config.write_text(f'[store]\nurl = "{url}"\n', encoding="utf-8")
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
        "bare_rows_per_s": _copied(url, notices, size) if url else _bare(folder / "bare.db", notices, size),
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


def _copied(url: str, notices: list[Incoming], size: int) -> float:
    """Return how many rows of the same bytes a bare COPY stores a second, a transaction each ``size`` rows."""
    engine = connect(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE bare (topic text, payload bytea)")
    started_s = time.perf_counter()
    for start in range(0, len(notices), size):
        with (
            engine.begin() as connection,
            closing(connection.connection.cursor()) as cursor,
            cursor.copy("COPY bare (topic, payload) FROM STDIN (FORMAT BINARY)") as copy,
        ):
            copy.set_types(["text", "bytea"])
            for item in notices[start : start + size]:
                copy.write_row((item.topic, item.payload))
    elapsed_s = time.perf_counter() - started_s
    engine.dispose()
    return len(notices) / elapsed_s


if __name__ == "__main__":
    sys.exit(main())
