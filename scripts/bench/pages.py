#!/usr/bin/env python3
"""Times every list and page of a server with a year of 10,000 devices: ``pages.py [--quick] [--json FILE]``.

``year.py`` fills the database, ``fleet-server run`` serves it in its own process with its own broker, and nothing else
asks it. An answer's time is that of the whole answer over loopback, as one caller after the other sees it; bytes are of
the body without compression. A visit is the page and its socket, as a browser holds it; the memory of one is what the
server's resident set grows by when many are open, over their number. The reference is the figure of November, where one
is known.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING

import click
import httpx
import socketio

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from scripts.bench.rows import Row, told  # noqa: E402 - found through the line above
from scripts.bench.year import make_state  # noqa: E402 - found through the line above

P95_S, ANSWER_BYTES, VISITOR_BYTES = 0.2, 300_000, 2_000_000
START_S, SETTLE_S, A_ROUTE_S, LEAST, TWENTIETHS, OK = 120.0, 6.0, 8.0, 3, 20, 200
NOVEMBER_PAGE_BYTES, NOVEMBER_PAGE_S, NOVEMBER_VISITOR_BYTES = 2_400_000, 13.0, 240_000_000
LISTS = (
    "/api/devices?limit=200", "/api/devices?limit=200&search=dev-07", "/api/devices?limit=200&condition=drifting",
    "/api/devices?limit=200&release=cam-23", "/api/devices?ended=true&limit=200", "/api/releases",
    "/api/releases/cam-24", "/api/rollouts?limit=50", "/api/rollouts/{rollout}",
    "/api/rollouts/{rollout}/members?limit=500",
    "/api/rollouts/{rollout}/members?standing=failed&limit=200", "/api/events", "/api/events?device=dev-00007",
    "/api/events?search=number%2077", "/api/evidence", "/api/evidence?device=dev-00007", "/api/pools",
    "/api/verdicts", "/api/verdicts?open=true", "/api/verdicts?device=dev-00007", "/api/places",
    "/api/commissions?limit=500", "/api/samples",
    "/api/samples?unlabelled=true", "/api/samples?device=dev-00007", "/api/audit", "/api/retraining", "/api/jobs",
    "/api/overall", "/api/overall/unjudged?limit=500", "/api/devices/dev-00007/telemetry",
    "/api/devices/dev-00007/usage", "/api/search?text=dev-07", "/api/search?text=cam", "/api/drift/map",
    "/api/drift/map?by=camera", "/api/drift/map?by=device&stream=s1", "/api/software?limit=200",
    "/api/software?search=onnx", "/api/software/devices?name=onnxruntime&limit=500",
    "/api/software/devices?name=package-7&version=1.21.*&limit=500",
)  # fmt: skip
PAGES = (
    "/", "/?search=dev-07", "/?condition=drifting", "/rollouts", "/rollouts/{rollout}", "/events", "/samples",
    "/retraining", "/device/dev-00007", "/search?text=dev-07", "/drift", "/drift?by=device",
    "/software", "/software/devices?name=onnxruntime", "/releases", "/release/cam-24", "/alerts", "/jobs", "/acts",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs: its address, its token and its process."""

    url: str
    token: str
    pid: int

    @property
    def rss_bytes(self) -> int:
        """The resident set of its process."""
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines())
        return int(fields["VmRSS"].split()[0]) * 1024

    @property
    def cpu_s(self) -> float:
        """The seconds of a processor that it has taken."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(state: Path) -> Iterator[Served]:
    """Serve ``state`` on free ports until the end of the block."""
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    ports = [str(port) for port in free_ports()]  # devices that are enrolled have ports, so it picks none itself
    options = ["--http-port", ports[0], "--broker-port", ports[1]]
    command = [sys.executable, "-m", "server.cli", "run", str(state), *options]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            words = process.stdout.readline().split() if process.stdout else []
            if words[:1] != ["http"]:
                message = f"Expected 'http URL' from fleet-server run, got {words!r}: run it on {state} to see why"
                raise SystemExit(message)
            yield Served(words[1], (state / "operator.token").read_text().strip(), process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def free_ports() -> tuple[int, int]:
    """Return two ports of the loopback that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        return first.getsockname()[1], second.getsockname()[1]


def p95(times_s: Sequence[float]) -> float:
    """Return the 95th percentile of ``times_s``."""
    return max(times_s) if len(times_s) < TWENTIETHS else quantiles(times_s, n=TWENTIETHS)[-1]


def timed(
    served: Served, client: httpx.Client, paths: Sequence[str], count: int, was: tuple[float, int] | None = None
) -> list[Row]:
    """Return the times and sizes of ``paths``, each asked ``count`` times or for some seconds.

    The processor's time is that of the whole server meanwhile, with what it does beside.

    ``was``: the seconds and bytes of November.
    """
    rows = []
    for path in paths:
        times_s, size, begun_s = [], 0, time.monotonic()
        client.get(path)
        cpu_s = served.cpu_s
        while len(times_s) < count and (len(times_s) < LEAST or time.monotonic() - begun_s < A_ROUTE_S):
            start_s = time.perf_counter()
            answer = client.get(path)
            times_s.append(time.perf_counter() - start_s)
            size = max(size, len(answer.content))
        cpu_s = (served.cpu_s - cpu_s) / len(times_s)
        if answer.status_code != OK:
            rows.append(Row(f"{path}: HTTP status", answer.status_code, OK, str(OK), met=False))
            continue
        slow, median = p95(times_s), sorted(times_s)[len(times_s) // 2]
        rows.append(Row(f"{path}: ms, median", median * 1e3))
        rows.append(Row(f"{path}: CPU ms of the server", cpu_s * 1e3))
        rows.append(Row(f"{path}: ms, p95 of {len(times_s)}", slow * 1e3, was and was[0] * 1e3,
                        f"<= {P95_S * 1e3:g}", slow <= P95_S))  # fmt: skip
        rows.append(Row(f"{path}: kB", size / 1e3, was and was[1] / 1e3,
                        f"<= {ANSWER_BYTES / 1e3:g}", size <= ANSWER_BYTES))  # fmt: skip
    return rows


async def visits(served: Served, path: str, cookies: dict[str, str], count: int) -> float:
    """Return the growth of the server in bytes for each of ``count`` visits of ``path`` that are open at once."""
    async with httpx.AsyncClient(base_url=served.url, cookies=cookies, timeout=120) as client:
        opened: list[socketio.AsyncClient] = []

        async def come(visitors: int) -> int:
            for _ in range(visitors):
                page = await client.get(path)
                opened.append(await visit(served, page, cookies))
            await asyncio.sleep(SETTLE_S)
            return served.rss_bytes

        try:
            before = await come(LEAST)  # what the first visitors load stays loaded
            return (await come(count) - before) / count
        finally:
            for one in opened:
                await one.disconnect()


async def visit(served: Served, page: httpx.Response, cookies: dict[str, str]) -> socketio.AsyncClient:
    """Open the socket of ``page`` as its script does; it stays open until it is disconnected."""
    found = re.search(r"client_id['\"]?: *['\"]([0-9a-f-]+)", page.text)
    if found is None:
        raise SystemExit(f"Expected the id of a client in {page.url}, got a page without: see NiceGUI's index.html")
    query = {"client_id": found[1], "next_message_id": "0", "implicit_handshake": "true", "tab_id": str(uuid.uuid4()),
             "document_id": str(uuid.uuid4())}  # fmt: skip
    client = socketio.AsyncClient(reconnection=False)
    address = f"{served.url}?{'&'.join(f'{name}={value}' for name, value in query.items())}"
    headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()), "Origin": served.url}
    await client.connect(address, headers=headers, socketio_path="/_nicegui_ws/socket.io", transports=["websocket"])
    return client


def measure(served: Served, count: int, old: int) -> list[Row]:
    """Return the rows of one server: ``count`` requests of each address, and ``old`` visitors at once."""
    headers = {"Authorization": f"Bearer {served.token}"}
    with httpx.Client(base_url=served.url, headers=headers, timeout=300) as client:
        begun_s = time.monotonic()
        while not client.get("/api/health").is_success and time.monotonic() - begun_s < START_S:
            time.sleep(0.5)
        listed = client.get("/api/rollouts?release=cam-24").json()["rollouts"]
        rollout = listed[0]["id"]
        rows = timed(served, client, [path.format(rollout=rollout) for path in LISTS], count)
    with httpx.Client(base_url=served.url, timeout=300) as client:
        client.post("/login", data={"token": served.token})
        cookies = dict(client.cookies)
        for path in PAGES:
            was = (NOVEMBER_PAGE_S, NOVEMBER_PAGE_BYTES) if path == "/" else None
            rows += timed(served, client, [path.format(rollout=rollout)], count, was)
    for path in ("/", "/rollouts", "/events"):
        grown = asyncio.run(visits(served, path, cookies, old))
        rows.append(Row(f"{path}: MB of the server a visitor, of {old}", grown / 1e6,
                        NOVEMBER_VISITOR_BYTES / 1e6 if path == "/" else None, f"<= {VISITOR_BYTES / 1e6:g}",
                        grown <= VISITOR_BYTES))  # fmt: skip
    rows.append(Row("resident set of the server at the end, MB", served.rss_bytes / 1e6))
    return rows


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="1,000 devices, less telemetry, and few requests; no figure is judged.")
@click.option("--devices", "count", type=click.IntRange(100, 99_999), default=10_000, show_default=True)
@click.option("--requests", type=click.IntRange(3), default=40, show_default=True, help="Of each address.")
@click.option("--state", type=click.Path(path_type=Path, exists=True), help="One that year.py has made, to save time.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the rows there.")
def main(count: int, requests: int, state: Path | None, json_file: Path | None, *, quick: bool) -> None:
    """Print times, sizes and memory of lists and pages; exit 1 if a target is missed."""
    with tempfile.TemporaryDirectory() as folder:
        path = state or Path(folder, "state")
        if state is None:
            make_state(path, 1_000 if quick else count, quick=quick)
        with served(path) as server:
            rows = measure(server, 5 if quick else requests, 6 if quick else 20)
    sys.exit(told([row.unjudged() for row in rows] if quick else rows, json_file))


if __name__ == "__main__":
    main()
