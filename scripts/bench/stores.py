#!/usr/bin/env python3
"""Prints the database of a fleet after a year with retention, and what its housekeeping costs: ``stores.py [--quick]``.

Size: the bytes of a row of each table are measured in SQLite, indexes included (``dbstat``), on rows that the server's
own code wrote: windows of 23 streams and 10 classes at 60 inferences an hour, evidence of the drift service,
measurements of an agent's default intervals. How many rows a device has after a year follows from the settings'
defaults. Sizes of all fleets, 100,000 devices too, are these products: they assume that a row costs the same in a
larger file, and leave out tables with a few rows a device.

Housekeeping: a database with one day of hourly windows of each device that is old enough to be merged, and an hour of
expired evidence and measurements; the services' ``turn`` is called until nothing is left. CPU, and the longest turn,
which is how long the write lock is held. 100,000 devices are extrapolated by the slope that the others show.
``--plots FOLDER`` writes both as stores.html.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import sqlalchemy as sa

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from scripts.bench.fleet import Site  # noqa: E402 - found through the line above
from scripts.bench.rows import Row, told  # noqa: E402 - found through the line above
from server.app.retention import Housekeeping  # noqa: E402 - found through the line above
from server.config import ServerConfig  # noqa: E402 - found through the line above
from server.drift.checkpoints import SPANS  # noqa: E402 - found through the line above
from server.ingest.packed_counts import pack  # noqa: E402 - found through the line above
from server.ingest.window_spans import WindowSpans  # noqa: E402 - found through the line above
from server.store.database import Database, open_database  # noqa: E402 - found through the line above
from server.store.monitoring.checkpoints import BASELINES, CHECKPOINTS  # noqa: E402 - found through the line above
from server.store.monitoring.evidence import EVIDENCE  # noqa: E402 - found through the line above
from server.store.monitoring.ingest import BATCHES, insert_batches  # noqa: E402 - found through the line above
from server.store.monitoring.windows import WINDOWS, insert_windows  # noqa: E402 - found through the line above
from wire.histogram import BINS, Shape  # noqa: E402 - found through the line above

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPE = Shape(23, 10)
DAY_MS, HOUR_MS = 86_400_000, 3_600_000
NOW_MS = 1_000 * DAY_MS
SAMPLES, MAX_ROW_BYTES, MAX_TURN_S = 60, 900, 1.0
RELEASES = 6  # a year, each with a baseline of every device that runs it
MEASURED = (20, 24 * 5)  # devices and hours of the rows whose bytes are measured


@dataclass(frozen=True, slots=True)
class RowKind:
    """Rows of one kind: their bytes, and how many a device has after a year."""

    name: str
    row_bytes: float
    rows: float


@dataclass(frozen=True, slots=True)
class Cleaning:
    """Housekeeping of one fleet: CPU seconds of a day's merging and of an hour's deletion, and the longest turn."""

    devices: int
    merge_cpu_s: float
    delete_cpu_s: float
    longest_turn_s: float


def _windows(devices: int, hours: int, start_ms: int) -> list[dict[str, object]]:
    dice = np.random.default_rng(1)
    rows: list[dict[str, object]] = []
    for hour in range(hours):
        for i in range(devices):
            counts = np.zeros(SHAPE.total, np.uint32)
            counts[: SHAPE.streams * BINS] = dice.multinomial(
                SAMPLES, np.full(BINS, 1 / BINS), size=SHAPE.streams
            ).ravel()
            counts[SHAPE.streams * (BINS + 1) :] = dice.multinomial(SAMPLES, np.full(100, 0.01))
            at_ms = start_ms + hour * HOUR_MS
            rows.append({
                "device": f"cam-{i:06d}", "site": f"site-{i // 5:05d}", "start_ms": at_ms, "len_ms": HOUR_MS,
                "context": 0, "artifact": "ab" * 16, "ref_id": "cd" * 16, "streams": SHAPE.streams,
                "classes": SHAPE.classes, "confidence_bins": SHAPE.confidence_bins, "n": SAMPLES, "reports": 1,
                "values": pack(counts.tobytes()), "received_ms": at_ms + HOUR_MS,
            })  # fmt: skip
    return rows


def _batches(devices: int, count: int, at_ms: int) -> list[dict[str, object]]:
    infer = {"n": 60, "errors": 0, "p50_ms": 12.3, "p95_ms": 18.25, "classes": [6] * SHAPE.classes, "at": 60_000}
    hw = {"rss_bytes": 84_000_000, "celsius": 54.5, "load": 0.42, "free_bytes": 1_200_000_000, "cpu_s": 3.5}
    return [
        {"device": f"cam-{i:06d}", "stream": stream, "t0_ms": at_ms + 600_000 * number, "n": 10, "rows": [row] * 10,
         "received_ms": at_ms + 600_000 * number}
        for number in range(count) for i in range(devices) for stream, row in (("infer", infer), ("hw", hw))
    ]  # fmt: skip


def _bytes_of(database: Database, table: sa.Table) -> float:
    """Return the bytes of a row of ``table``, its indexes included."""
    with database.begin() as connection:
        names = connection.execute(sa.text("SELECT name FROM sqlite_master WHERE tbl_name = :table"),
                                   {"table": table.name}).scalars().all()  # fmt: skip
        query = sa.text("SELECT SUM(pgsize) FROM dbstat WHERE name IN :names").bindparams(
            sa.bindparam("names", expanding=True)
        )
        used = connection.execute(query, {"names": list(names)}).scalar_one()
        rows = connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
    return float(used) / max(rows, 1)


def _spans_of(database: Database, config: ServerConfig) -> WindowSpans:
    kept = config.retention
    return WindowSpans(
        database=database, hourly_ms=int(kept.hourly_days * DAY_MS), daily_ms=int(kept.daily_days * DAY_MS)
    )


def kinds(config: ServerConfig) -> list[RowKind]:
    """Return what the rows of each growing table cost, and how many of them a device has after a year."""
    devices, hours = MEASURED
    kept, telemetry_days = config.retention, config.ingest.retention_days
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(f"sqlite:///{folder}/rows.db")
        with database.begin() as connection:
            insert_windows(connection, _windows(devices, hours, NOW_MS))
            insert_batches(connection, _batches(devices, 20, NOW_MS))
        window = _bytes_of(database, WINDOWS)
        batch = _bytes_of(database, BATCHES)
        _sweep(_spans_of(database, config).turn, NOW_MS + 200 * DAY_MS)
        day = _bytes_of(database, sa.Table("window_spans", sa.MetaData(), sa.Column("device")))
        database.close()
        database = open_database(f"sqlite:///{folder}/drift.db")
        site = Site(devices, database)
        site.enrol()
        service = site.service()
        for _ in range(30):
            service.turn(site.report())
        evidence, baseline = _bytes_of(database, EVIDENCE), _bytes_of(database, BASELINES)
        with database.begin() as connection:
            slots = connection.execute(sa.select(sa.func.count(CHECKPOINTS.c.slot.distinct()))).scalar_one()
            blocks = connection.execute(sa.select(sa.func.count()).select_from(CHECKPOINTS)).scalar_one()
        checkpoint = _bytes_of(database, CHECKPOINTS) * blocks / (slots * devices)
        database.close()
    return [
        RowKind("hourly windows", window, 24 * kept.hourly_days),
        RowKind("days of windows", day, min(365 - kept.hourly_days, kept.daily_days)),
        RowKind("evidence", evidence, 24 * telemetry_days),
        RowKind("measurements", batch, 24 * 12 * min(telemetry_days, kept.measurements_days)),
        RowKind(f"baselines, {RELEASES} releases a year", baseline, RELEASES),
        RowKind("checkpoints of drift detection", checkpoint, len(SPANS) * 2),
    ]


def _sweep(turn: Callable[[int], None], now_ms: int) -> tuple[float, float]:
    """Call ``turn`` until nothing is left to do; return the CPU seconds, and the wall seconds of the longest turn."""
    cpu_s, longest_s, idle = time.process_time(), 0.0, 0
    while idle < 2:  # noqa: PLR2004 - a turn that ends a sweep does little, too
        start = time.perf_counter()
        turn(now_ms)
        took = time.perf_counter() - start
        longest_s, idle = max(longest_s, took), idle + 1 if took < 0.002 else 0  # noqa: PLR2004 - a query
    return time.process_time() - cpu_s, longest_s


def clean(devices: int, config: ServerConfig) -> Cleaning:
    """Measure the housekeeping of a fleet of ``devices``."""
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(f"sqlite:///{folder}/fleet.db")
        old_ms = NOW_MS - int(config.retention.hourly_days + 2) * DAY_MS
        portion = max(200_000 // devices, 1)
        rows = _windows(min(devices, 100), 24, old_ms)
        with database.begin() as connection:
            for first in range(0, devices, 100):
                insert_windows(connection, [
                    {**row, "device": f"cam-{first + int(str(row['device'])[4:]):06d}"} for row in rows
                ])  # fmt: skip
        merge_cpu_s, longest_s = _sweep(_spans_of(database, config).turn, NOW_MS)
        expired_ms = NOW_MS - int(config.ingest.retention_days + 1) * DAY_MS
        empty = {"ref_id": "cd" * 16, "n": 60, "phase": "judged", "log_value": 1.0, "training_log_value": 1.0,
                 "log_threshold": 14.0, "flagged": False, "fault": "", "cause": "", "streams": [{"s": "x" * 60}] * 5,
                 "summaries": {str(i): "y" * 60 for i in range(5)}}  # fmt: skip
        with database.begin() as connection:
            connection.execute(EVIDENCE.insert(), [
                {**empty, "device": f"cam-{i:06d}", "start_ms": expired_ms} for i in range(devices)
            ])  # fmt: skip
            for first in range(0, devices, portion):
                insert_batches(connection, _batches(min(portion, devices - first), 6, expired_ms))
        cleaner = Housekeeping(
            database=database, retention_days=config.ingest.retention_days,
            measurements_days=config.retention.measurements_days,
        )  # fmt: skip
        delete_cpu_s, longest_delete_s = _sweep(cleaner.turn, NOW_MS)
        database.close()
    return Cleaning(devices, merge_cpu_s, delete_cpu_s, max(longest_s, longest_delete_s))


def slope(found: list[Cleaning]) -> float:
    """Return the slope of CPU over devices, both as logarithms: 1 for a cost in proportion."""
    x = [math.log(one.devices) for one in found]
    y = [math.log(one.merge_cpu_s / 24 + one.delete_cpu_s) for one in found]
    return float(np.polyfit(x, y, 1)[0])


def rows_of(found: list[RowKind], cleaned: list[Cleaning]) -> list[Row]:
    """Return the figures, with the targets where the project has one."""
    window = found[0].row_bytes
    rows = [Row("hourly window on disk, bytes with its indexes (reference: four bytes a count)", window,
                window - len(pack(bytes(4 * SHAPE.total))) + 4 * SHAPE.total, f"<= {MAX_ROW_BYTES}",
                window <= MAX_ROW_BYTES)]  # fmt: skip
    rows += [Row(f"{one.name}: bytes a row; rows a device after a year: {one.rows:,.0f}", one.row_bytes)
             for one in found]  # fmt: skip
    a_device = sum(one.row_bytes * one.rows for one in found)
    rows += [Row(f"{devices:,} devices: GB after a year with retention", a_device * devices / 1e9)
             for devices in (100, 1_000, 10_000, 100_000)]  # fmt: skip
    for one in cleaned:
        hourly = one.merge_cpu_s / 24 + one.delete_cpu_s
        rows.append(Row(f"{one.devices:,} devices: CPU s an hour for merging and deleting", hourly))
        rows.append(Row(f"{one.devices:,} devices: longest turn, s", one.longest_turn_s, None, f"<= {MAX_TURN_S:g}",
                        one.longest_turn_s <= MAX_TURN_S))  # fmt: skip
    steep = slope(cleaned)
    rows.append(Row("slope of CPU over devices, log-log", steep, 1.0, "<= 1.2", steep <= 1.2))  # noqa: PLR2004
    last = cleaned[-1]
    more = (last.merge_cpu_s / 24 + last.delete_cpu_s) * (100_000 / last.devices) ** max(steep, 1.0)
    rows.append(Row("100,000 devices: CPU s an hour, extrapolated", more))
    return rows


def plot(found: list[RowKind], cleaned: list[Cleaning], folder: Path) -> None:
    """Write stores.html: bytes by kind, and CPU by devices."""
    import plotly.graph_objects as go  # noqa: PLC0415 - half a second, for those who ask for plots
    from plotly.subplots import make_subplots  # noqa: PLC0415 - as above

    figure = make_subplots(1, 2, subplot_titles=("GB after a year", "CPU s an hour of housekeeping"))
    sizes = [100, 1_000, 10_000, 100_000]
    for one in found:
        figure.add_trace(go.Scatter(x=sizes, y=[n * one.rows * one.row_bytes / 1e9 for n in sizes], name=one.name),
                         row=1, col=1)  # fmt: skip
    hourly = [one.merge_cpu_s / 24 + one.delete_cpu_s for one in cleaned]
    figure.add_trace(go.Scatter(x=[one.devices for one in cleaned], y=hourly, name="CPU"), row=1, col=2)
    figure.update_xaxes(type="log", title="devices").update_yaxes(type="log")
    folder.mkdir(parents=True, exist_ok=True)
    figure.write_html(folder / "stores.html", include_plotlyjs=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="Housekeeping of 100 and 1,000 devices only.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the rows there.")
@click.option("--plots", type=click.Path(path_type=Path), help="Write the plots into this folder.")
def main(json_file: Path | None, plots: Path | None, *, quick: bool) -> None:
    """Print the size of the stores after a year and the cost of housekeeping; exit 1 if a target is missed."""
    config = ServerConfig()
    found = kinds(config)
    cleaned = [clean(devices, config) for devices in ((100, 1_000) if quick else (100, 1_000, 10_000))]
    if plots is not None:
        plot(found, cleaned, plots)
    sys.exit(told(rows_of(found, cleaned), json_file))


if __name__ == "__main__":
    main()
