"""A real child with a real broker and program: kill -9 of any of them, and each input's answer still arrives."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.sinks._accounts import open_accounts
from tests.edge_agent.inference.conftest import ChildProcess

pytestmark = pytest.mark.broker
LIMIT_S = 60.0
HOOK = """
import json, os, sys
out = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
open(sys.argv[1] + ".pid", "w").write(str(os.getpid()))
for line in sys.stdin:
    os.write(out, (json.loads(line)["id"] + "\\n").encode())
    print(flush=True)
"""


class Broker(Protocol):
    """The fixture of ``conftest.py``."""

    port: int
    process: subprocess.Popen[bytes]

    def start(self) -> None:
        """Start it."""


@pytest.fixture
def published(broker: Broker) -> Iterator[Callable[[], set[str]]]:
    """A subscriber that is back within milliseconds; returns the ids that came so far."""
    found: list[bytes] = []
    there: queue.SimpleQueue[None] = queue.SimpleQueue()
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.reconnect_delay_set(0.01, 0.01)  # type: ignore[arg-type]
    client.on_connect = lambda client, *_: client.subscribe("tinyfleet/+/answer")
    client.on_subscribe = lambda *_: there.put(None)
    client.on_message = lambda _client, _data, message: found.append(message.payload)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    there.get(timeout=LIMIT_S)
    yield lambda: {json.loads(payload)["id"].partition("@")[0] for payload in list(found)}
    client.disconnect()
    client.loop_stop()


@pytest.fixture
def started(bundle: Callable, child: Callable, drop: Callable, tiny: dict, tmp_path: Path) -> Callable:
    """Put images into the folder; return how to start a child with given sinks, which returns once it is ready."""
    some = [tiny["png"](image) for image in tiny["images"](16)]
    (tmp_path / "hook.py").write_text(HOOK)

    def build(names: set[str]) -> Callable[[dict[str, object]], ChildProcess]:
        drop({name: some[number % 16] for number, name in enumerate(sorted(names))})

        def start(sinks: dict[str, object]) -> ChildProcess:
            running: ChildProcess = child(bundle(), sinks=sinks, backlog=20_000)
            running.until("ready")
            return running

        return start

    return build


def kill_hook(tmp_path: Path) -> None:
    """Kill -9 the program that wrote its number, if it is still that program."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        pid = int((tmp_path / "got.pid").read_text() or "0")
        if str(tmp_path).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_each_input_reaches_broker_and_program_over_kills_of_all(
    count: int, started: Callable, tmp_path: Path, broker: Broker, published: Callable[[], set[str]]
) -> None:
    """No id is missing at either, some come twice, the folder is empty, and both accounts are complete."""
    names = {f"{number:05}.png" for number in range(count)}
    start = started(names)
    command = [sys.executable, "-S", str(tmp_path / "hook.py"), str(tmp_path / "got")]
    sinks = {
        "hook": {"kind": "exec", "command": command, "confirm": True, "queue": 20_000},
        "site": {"kind": "mqtt", "port": broker.port, "queue": 20_000},
    }
    chance = random.Random(11)  # noqa: S311 - moments of kills are no secret
    for _ in range(2 if count < 1000 else 5):
        running = start(sinks)
        running.until("beat", lambda frame: frame.header["n"] > 0 or not any((tmp_path / "inbox").iterdir()))
        time.sleep(chance.uniform(0.0, 0.1))
        broker.process.kill()
        broker.process.wait(LIMIT_S)
        broker.start()
        kill_hook(tmp_path)
        time.sleep(chance.uniform(0.0, 0.3))
        running.process.kill()
        running.process.wait(LIMIT_S)
    last = start(sinks)
    last.until("beat", lambda _: not any((tmp_path / "inbox").iterdir()))
    assert last.end() == 0
    assert {name.partition("@")[0] for name in (tmp_path / "got").read_text().split()} == published() == names
    for account in open_accounts(tmp_path / "state", list(sinks)).values():
        counts = account.counts
        assert counts["offered"] == counts["sent"] + counts["cut_off"]
