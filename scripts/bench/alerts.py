#!/usr/bin/env python3
"""Tries for some minutes whether alerts are lost: ``alerts.py [--minutes 10] [--seed 0] [--json F]``.

A real server process opens and ends alerts all the time and sends them to two receivers on loopback: one that is well,
and one that refuses, hangs, trickles, breaks off after it took a notice, or is not there, in turns of some seconds. The
server is killed (SIGKILL) every 10 s or so and started again. At the end the faults stop, and the outbox is held
against what the receivers got: every notice, in the order of its alert, with a right signature. The waits between
tries are at most 5 s here, in place of 10 minutes. Exit code 1 if anything was lost, out of order or not ours.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]
SECRET = "0123456789abcdef" * 2
FAULTS = ("well", "refuses", "hangs", "trickles", "breaks off", "is away")
_LONGEST_MS = 5_000
_DRAIN_S = 120.0
_SERVER = """
import random, sys, threading, time
from pathlib import Path
from server.alerts import delivery
from server.alerts.model import AlertCause, AlertKind, AlertSeverity
from server.app.server import ServerApp
from wire.memory_broker import MemoryBroker, MemoryTransport
delivery.LONGEST_WAIT_MS, delivery._LONGEST_ROUTE_WAIT_MS = int(sys.argv[3]), 2_000
app = ServerApp.open(Path(sys.argv[1]), transport=MemoryTransport(broker=MemoryBroker(), client_id="s"), pages=False)
kept = tuple(one for one in app.parts.services if type(one).__name__ != "AlertWatch")  # it knows of no such causes
object.__setattr__(app.parts, "services", kept)
app.start()
drawn = random.Random(int(sys.argv[2]))
print("up", flush=True)
while not Path(sys.argv[1], "settle").exists():
    time.sleep(1.0)
    there = [number for number in range(6) if drawn.random() < 0.5]
    app.parts.alerts.settle([
        AlertCause(key=f"server:{n}", kind=AlertKind.SERVER, severity=drawn.choice(list(AlertSeverity)), title=f"c{n}",
                   cause="-", action="-") for n in there], app.clock())
threading.Event().wait()
"""


@dataclass
class Sink:
    """A receiver; ``fault``: how it behaves now. ``heard``: time, key and alert of each notice that it took."""

    port: int = 0
    fault: str = "well"
    heard: list[tuple[float, str, int]] = field(default_factory=list)
    foreign: int = 0
    _server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Listen, on the same port as before."""
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sink.take(self)

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: object) -> None:
                """A client that went away is no news here."""

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def be(self, fault: str) -> None:
        """Behave so from now on."""
        if fault == "is away":
            self.stop()
        elif self._server is None:
            self.start()
        self.fault = fault

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        fault, body = self.fault, handler.rfile.read(int(handler.headers["content-length"]))
        signed = handler.headers["Tinyfleet-Timestamp"].encode() + b"." + body
        made = "v1=" + hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
        self.foreign += not hmac.compare_digest(made, handler.headers["Tinyfleet-Signature"])
        if fault == "hangs":
            time.sleep(3)
            return
        if fault in ("refuses", "trickles"):
            handler.send_response(500)
            handler.end_headers()
            for _ in range(20 if fault == "trickles" else 0):
                time.sleep(0.2)
                handler.wfile.write(b"x")
            return
        self.heard.append((time.time(), handler.headers["Idempotency-Key"], json.loads(body)["alert"]["id"]))
        if fault == "breaks off":  # it took the notice, and the server never hears so
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        handler.send_response(204)
        handler.end_headers()


@dataclass
class Soak:
    """One run in ``folder``."""

    folder: Path
    drawn: random.Random
    sinks: dict[str, Sink]
    kills: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def start(self) -> subprocess.Popen[str]:
        """Start the server and wait until it is up."""
        arguments = (str(self.folder), str(self.drawn.getrandbits(30)), str(_LONGEST_MS))
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen([sys.executable, "-c", _SERVER, *arguments], stdout=subprocess.PIPE, text=True,
                                   env=environment, stderr=subprocess.DEVNULL)  # fmt: skip
        if process.stdout is None or process.stdout.readline() != "up\n":
            raise click.ClickException("Expected the server to start, got none: run it by hand on a fresh directory")
        return process

    def run(self, minutes: float) -> None:
        """Disturb the server and a receiver for ``minutes``, then let everything be delivered."""
        end_s, process = time.monotonic() + 60 * minutes, self.start()
        next_fault_s, next_kill_s = time.monotonic(), time.monotonic() + 8
        while time.monotonic() < end_s:
            now_s = time.monotonic()
            if now_s >= next_fault_s:
                fault = self.drawn.choice(FAULTS)
                self.sinks["faulty"].be(fault)
                self.faults[fault] += 1
                next_fault_s = now_s + self.drawn.uniform(1, 4)
            if now_s >= next_kill_s:
                _kill(process)
                self.kills += 1
                process = self.start()
                next_kill_s = time.monotonic() + self.drawn.uniform(3, 15)
            time.sleep(0.05)
        self.sinks["faulty"].be("well")
        (self.folder / "settle").touch()
        until_s = time.monotonic() + _DRAIN_S
        while time.monotonic() < until_s and self.rows("delivered_ms = 0"):
            time.sleep(0.5)
        _kill(process)

    def rows(self, where: str = "1") -> list[tuple[str, int, str, int, int]]:
        """Return route, alert, key, when it was made and when it was delivered of what is in the outbox."""
        with closing(sqlite3.connect(self.folder / "fleet.db", timeout=30)) as connection:
            query = f"SELECT route, alert, key, created_ms, delivered_ms FROM alert_outbox WHERE {where} ORDER BY id"  # noqa: S608 - ours
            return list(connection.execute(query))

    def found(self) -> dict[str, float]:
        """Return what came of it."""
        rows = self.rows()
        result: dict[str, float] = {"notices": len(rows), "kills": self.kills, "undelivered": 0, "lost": 0}
        result |= {"unknown": 0, "out of order": 0, "twice": 0, "wrong signature": 0, "steady_p95_s": 0.0}
        for name, sink in self.sinks.items():
            mine = [row for row in rows if row[0] == name]
            first: dict[str, float] = {}
            for at_s, key, _ in sink.heard:
                first.setdefault(key, at_s)
            keys = {row[2] for row in mine}
            result["undelivered"] += sum(row[4] == 0 for row in mine)
            result["lost"] += len(keys - first.keys())
            result["unknown"] += len(first.keys() - keys)
            result["twice"] += len(sink.heard) - len(first)
            result["wrong signature"] += sink.foreign
            for alert in {row[1] for row in mine}:
                times = [first[row[2]] for row in mine if row[1] == alert and row[2] in first]
                result["out of order"] += times != sorted(times)
            if name == "steady":
                late = sorted(first[row[2]] - row[3] / 1000 for row in mine if row[2] in first)
                result["steady_p95_s"] = round(late[int(0.95 * len(late))], 3) if late else 0.0
        return result


def _kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(20)


def _prepare(folder: Path, sinks: dict[str, Sink]) -> None:
    from compressor.release.keys import init_keys  # noqa: PLC0415 - found through the path that main sets
    from server.app.state_directory import init_state  # noqa: PLC0415 - likewise
    from server.trust.online_keys import init_online_keys  # noqa: PLC0415 - likewise
    from server.trust.roots import install_root  # noqa: PLC0415 - likewise

    state = init_state(folder / "state")
    install_root(state.path, init_keys(folder / "keys", init_online_keys(state.path)))
    secret = folder / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    state.config.write_text("".join(
        f'[[alerts.route]]\nname = "{name}"\nurl = "http://127.0.0.1:{sink.port}/"\nsecret_file = "{secret}"\n'
        "timeout_s = 1.0\n" for name, sink in sinks.items()
    ))  # fmt: skip


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0.05), default=10.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the faults.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures there, too.")
def main(minutes: float, seed: int, file: Path | None) -> None:
    """Print what was sent, what came twice, and what was lost."""
    sys.path.insert(0, str(ROOT))
    sinks = {"steady": Sink(), "faulty": Sink()}
    for sink in sinks.values():
        sink.start()
    with tempfile.TemporaryDirectory() as folder:
        _prepare(Path(folder), sinks)
        soak = Soak(Path(folder, "state"), random.Random(seed), sinks)  # noqa: S311 - drawn faults, no secret
        soak.run(minutes)
        found = soak.found()
    click.echo(f"faults: {dict(soak.faults)}")
    for name, value in found.items():
        click.echo(f"{name:<16} {value:g}")
    if file is not None:
        file.write_text(json.dumps({"minutes": minutes, "seed": seed, "faults": soak.faults, **found}))
    bad = [name for name in ("undelivered", "lost", "unknown", "out of order", "wrong signature") if found[name]]
    if bad or not found["notices"]:
        raise click.ClickException(f"Expected nothing of {', '.join(bad) or 'silence'}, got some")


if __name__ == "__main__":
    main()
