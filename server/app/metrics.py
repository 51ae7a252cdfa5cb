"""The figures of one server for Prometheus: what the overall status knows, as numbers with a bounded set of labels.

No label is the name of a device, a site or a release, so that the number of series does not grow with the fleet. The
names belong to the alert's link: ``/api/overall`` has them.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.alerts.ledger import Alerts
from server.alerts.model import AlertSeverity
from server.app.overall import WORDS, Level, Signals, overall
from server.app.situation import Situation
from server.drift.verdicts import VerdictKind
from server.errors import ServerError, TrustStoreError
from server.ingest.ingest import Ingest
from server.rollout.model import OPEN_PHASES
from server.store.backup import sqlite_file
from server.store.database import Database
from server.store.lists.devices import largest_ratio
from wire import __version__
from wire.messages import DeviceState

_FRESH_S = 5.0  # the fleet is read at most this often, however many ask
_ANSWER_S = (0.005, 0.02, 0.1, 0.2, 0.5, 2.0, 10.0)
_ELSEWHERE = "other"  # pages, their files, and paths that don't exist


@dataclass(eq=False, kw_only=True)
class FleetFigures(Collector):
    """Reads the figures when Prometheus asks. Safe to share between threads."""

    situation: Situation
    ingest: Ingest
    database: Database
    alerts: Alerts
    _kept: list[tuple[float, list[Metric]]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering reads no database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every figure; what can't be read is left out, and ``tinyfleet_readable`` is 0."""
        with self._lock:
            now_s = time.monotonic()
            if not self._kept or now_s - self._kept[0][0] >= _FRESH_S:
                self._kept[:] = [(now_s, self._read())]
            yield from self._kept[0][1]

    def _read(self) -> list[Metric]:
        build = GaugeMetricFamily("tinyfleet_build", "1, with the version of the server.", labels=["version"])
        build.add_metric([__version__], 1)
        found: list[Metric] = [build, *self._server()]
        readable = GaugeMetricFamily("tinyfleet_readable", "Whether the fleet's state could be read from the database.")
        try:
            found += self._fleet()
            readable.add_metric([], 1)
        except (sa.exc.SQLAlchemyError, ServerError, OSError):  # a sign of health says why
            readable.add_metric([], 0)
        return [*found, readable]

    def _server(self) -> Iterator[Metric]:
        now_ms, counted = self.situation.clock(), self.ingest.figures
        signs = GaugeMetricFamily(
            "tinyfleet_server_check_ok", "1 while a check of the server's health passes.", labels=["check"]
        )
        for sign in self.situation.vitals.signs(now_ms):
            signs.add_metric([sign.name], sign.ok)
        yield signs
        yield GaugeMetricFamily(
            "tinyfleet_ingest_lag_seconds",
            "Seconds for which the oldest message waits to be stored.",
            self.ingest.lag_s(),
        )
        messages = CounterMetricFamily(
            "tinyfleet_ingest_messages",
            "Messages of devices since the start, by what became of them.",
            labels=["outcome"],
        )
        for one in fields(counted):
            messages.add_metric([one.name], getattr(counted, one.name))
        yield messages
        with contextlib.suppress(OSError):  # the check `disk` says why
            free = shutil.disk_usage(self.situation.vitals.folder).free
            yield GaugeMetricFamily("tinyfleet_disk_free_bytes", "Free bytes for the state directory.", free)
        file = sqlite_file(self.database.engine)
        size = self.database.size_bytes() if file is None else _size(file)
        if size is not None:
            yield GaugeMetricFamily("tinyfleet_database_bytes", "Bytes of the database, with SQLite's log.", size)
        expires = GaugeMetricFamily(
            "tinyfleet_metadata_expires_timestamp_seconds",
            "When signed metadata expire, in Unix seconds.",
            labels=["role"],
        )
        try:
            for expiry in self.situation.trust.expiries():
                expires.add_metric([expiry.role], expiry.expires_ms / 1000)
        except TrustStoreError:
            return  # the signal `metadata` says why
        yield expires

    def _fleet(self) -> Iterator[Metric]:
        reading = self.situation.read()
        signals = self.situation.signals(reading)
        yield GaugeMetricFamily("tinyfleet_devices", "Devices of the fleet.", signals.devices)
        states = GaugeMetricFamily(
            "tinyfleet_devices_by_state", "Devices by the state that they reported last.", labels=["state"]
        )
        counted = Counter(device.state for device in reading.devices)
        for state in DeviceState:
            states.add_metric([state.value], counted[state])
        yield states
        concerns = GaugeMetricFamily(
            "tinyfleet_concern_names", "How many devices, releases or rollouts a concern of the overall status names.",
            labels=["signal", "level"],
        )  # fmt: skip
        for one in fields(Signals):
            if one.name in WORDS:
                concerns.add_metric([one.name, WORDS[one.name][0].value], len(getattr(signals, one.name)))
        yield concerns
        now = overall(signals).level
        levels = GaugeMetricFamily("tinyfleet_overall", "1 for the level of the overall status.", labels=["level"])
        for level in Level:
            levels.add_metric([level.value], level is now)
        yield levels
        with self.database.begin() as connection:
            largest = largest_ratio(connection)
        yield GaugeMetricFamily(
            "tinyfleet_drift_evidence_ratio_max", "Largest drift evidence of a device as a share of its threshold.",
            largest,
        )  # fmt: skip
        yield from self._alerts()
        verdicts = GaugeMetricFamily("tinyfleet_verdicts_open", "Open verdicts, by kind.", labels=["kind"])
        kinds = Counter(one.kind for one in self.situation.verdicts.open())
        for kind in VerdictKind:
            verdicts.add_metric([kind.value], kinds[kind])
        yield verdicts
        rollouts = GaugeMetricFamily(
            "tinyfleet_rollouts_open", "Rollouts that are not over, by phase.", labels=["phase"]
        )
        phases = Counter(one.phase for one in self.situation.rollouts.open())
        for phase in sorted(OPEN_PHASES):
            rollouts.add_metric([phase.value], phases[phase])
        yield rollouts

    def _alerts(self) -> Iterator[Metric]:
        counted = self.alerts.counts()
        there = GaugeMetricFamily("tinyfleet_alerts_open", "Alerts that are not resolved.", labels=["severity"])
        for severity in AlertSeverity:
            there.add_metric([severity.value], sum(n for (level, _), n in counted.items() if level == severity.value))
        yield there
        waiting, now_ms = self.alerts.waiting(), self.situation.clock()
        yield GaugeMetricFamily(
            "tinyfleet_alerts_undelivered", "Notices of alerts that no receiver has accepted yet.",
            sum(one.waiting for one in waiting),
        )  # fmt: skip
        oldest_ms = min((one.since_ms for one in waiting), default=now_ms)
        yield GaugeMetricFamily(
            "tinyfleet_alerts_undelivered_seconds", "For how long the oldest of them waits.",
            max(now_ms - oldest_ms, 0) / 1000,
        )  # fmt: skip


def _size(file: Path) -> int:
    parts = (file, file.with_name(file.name + "-wal"))
    return sum(part.stat().st_size for part in parts if part.exists())


def new_registry(figures: FleetFigures) -> CollectorRegistry:
    """Return a registry with ``figures`` and those of this process (CPU seconds, resident bytes, open files)."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series beside each histogram, which nothing of ours reads
    registry = CollectorRegistry(auto_describe=False)
    registry.register(figures)
    ProcessCollector(registry=registry)
    return registry


class TimedRequests:
    """ASGI middleware that measures how long each request takes, by method, route and status.

    Source: ASGI specification, version 3.0, "HTTP".
    """

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        """Measure the requests to ``app``."""
        self.app = app
        self.seconds = Histogram(
            "tinyfleet_http_request_seconds", "Seconds until a request was answered.", ("method", "route", "status"),
            registry=registry, buckets=_ANSWER_S,
        )  # fmt: skip

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began_s, status = time.perf_counter(), "500"

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            route, method = scope.get("route"), scope["method"]
            labels = ("any", _ELSEWHERE)
            if isinstance(route, Route) and route.include_in_schema and method in (route.methods or ()):
                labels = (method, route.path)
            self.seconds.labels(*labels, status).observe(time.perf_counter() - began_s)
