#!/usr/bin/env python3
"""Prints how fast a server takes in what devices say when they come back: ``reconnect.py [--quick] [--json F]``.

10,000 devices (with ``--quick`` 2,000) that ran before, with SQLite and the server's own settings. Messages come from
memory, and what the server sends is encoded and passed to a transport that only counts it: neither mosquitto nor the
client of the broker takes part, and everything runs in one thread. A second and core: messages by CPU time.
``state``: of all devices, each with the time of the connection. ``reported``, the same: what the broker retained, after
a restart of the server. ``reported``, new: after a restart of the devices, another boot. ``get``: each is answered
with its ``desired``. Coming back: the three of each device, one device after the other, as 10,000 connect at once.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from scripts.bench.idle import prepare  # noqa: E402 - found through the line above
from scripts.bench.ingest import TARGET_PER_S_AND_CORE, CountingTransport  # noqa: E402 - found through the line above
from scripts.bench.rows import Row, told  # noqa: E402 - found through the line above
from server.app.server import ServerApp, keep_what_is_loaded  # noqa: E402 - found through the line above
from server.fleet.fleet import Device  # noqa: E402 - found through the line above
from wire.codec import encode  # noqa: E402 - found through the line above
from wire.messages import DeviceState, Get, Reported, State  # noqa: E402 - found through the line above
from wire.transport import Incoming  # noqa: E402 - found through the line above

DEVICES, FEW = 10_000, 2_000


@dataclass(frozen=True, slots=True)
class Returning:
    """All devices as the server knows them, and what they say at ``now_ms`` after boot number ``boot``."""

    devices: tuple[Device, ...]

    def states(self, now_ms: int, boot: int) -> Iterator[Incoming]:
        """Return the state of each."""
        for device in self.devices:
            message = State(state=DeviceState.READY, at_ms=now_ms, boot=f"{boot:016x}", agent_version="1.0")
            yield _of(device, "state", message)

    def reports(self, now_ms: int, boot: int) -> Iterator[Incoming]:
        """Return the whole document of each."""
        for device in self.devices:
            known = device.reported or Reported()
            yield _of(device, "reported", replace(known, at_ms=now_ms, boot=f"{boot:016x}", agent_version="1.0"))

    def gets(self, now_ms: int) -> Iterator[Incoming]:
        """Return the request of each for its ``desired``."""
        for device in self.devices:
            yield _of(device, "get", Get(at_ms=now_ms))

    def coming_back(self, now_ms: int, boot: int) -> Iterator[Incoming]:
        """Return all three of each device, one device after the other."""
        for three in zip(self.states(now_ms, boot), self.reports(now_ms, boot), self.gets(now_ms), strict=True):
            yield from three


def _of(device: Device, leaf: str, message: object) -> Incoming:
    return Incoming(f"tf/1/{device.site}/{device.device}/{leaf}", encode(message))


def _rate(app: ServerApp, messages: Iterable[Incoming], now_ms: int) -> float:
    """Return the messages a second and core."""
    waiting, size = list(messages), app.config.ingest.batch_messages
    start_s = time.process_time()
    for first in range(0, len(waiting), size):
        app.parts.ingest.handle(waiting[first : first + size], now_ms)
    return len(waiting) / (time.process_time() - start_s)


def measure(folder: Path, count: int) -> list[Row]:
    """Return the figures of ``count`` devices."""
    app = ServerApp.open(prepare(folder, count).path, transport=CountingTransport(), pages=False)
    app.connect()
    now_ms = app.clock()
    app.turn(now_ms)
    crowd, ingest = Returning(app.parts.fleet.devices()), app.parts.ingest
    keep_what_is_loaded()
    rates = {"state": _rate(app, crowd.states(now_ms, 1), now_ms)}
    rates["reported, new"] = _rate(app, crowd.reports(now_ms, 1), now_ms)
    rates["reported, the same"] = _rate(app, crowd.reports(now_ms, 1), now_ms)
    rates["get"] = _rate(app, crowd.gets(now_ms), now_ms)
    rates["coming back: state, reported, get"] = _rate(app, crowd.coming_back(now_ms, 2), now_ms)
    expected, accepted = 7 * count, ingest.figures.accepted
    app.stop()
    judged = {"state", "reported, new", "reported, the same"}
    rows = [
        Row(f"{count:,} devices: {name}, messages a second and core", rate, None,
            f">= {TARGET_PER_S_AND_CORE:g}" if name in judged else "",
            rate >= TARGET_PER_S_AND_CORE if name in judged else None)
        for name, rate in rates.items()
    ]  # fmt: skip
    rows.append(Row(f"{count:,} devices: messages stored (reference: sent)", accepted, expected, "all",
                    accepted == expected))  # fmt: skip
    return rows


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help=f"{FEW:,} devices.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the rows there.")
def main(json_file: Path | None, *, quick: bool) -> None:
    """Print how fast devices are taken in that come back; exit 1 if a target is missed."""
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), FEW if quick else DEVICES)
    sys.exit(told(rows, json_file))


if __name__ == "__main__":
    main()
