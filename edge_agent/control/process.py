"""The control process from its arguments to SIGTERM; ``__main__`` starts it."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import types
from pathlib import Path

from edge_agent.config import config_from
from edge_agent.control.agent import run
from edge_agent.control.assembly import build_agent
from edge_agent.device.identity import read_identity
from edge_agent.device.lock import AgentLock
from edge_agent.exits import STOPS, coded
from edge_agent.logs import log_to_ring, log_to_stderr
from wire.canonical import canonical_bytes
from wire.software import parse_software


class _until_signal:  # noqa: N801 - reads as the condition it is
    """True once SIGTERM or SIGINT has arrived."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        for number in STOPS:
            signal.signal(number, self._stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # the command line blocked them before it became this process

    def _stop(self, _number: int, _frame: types.FrameType | None) -> None:
        self._stopping.set()

    def __call__(self) -> bool:
        return self._stopping.is_set()


def main() -> None:
    """Run the agent that the first argument describes until SIGTERM; ``checked`` is an open file with the rest."""
    stopped = _until_signal()
    options = json.loads(sys.argv[1])
    with open(options["checked"], "rb") as file:  # noqa: PTH123 - a descriptor
        file.seek(0)
        checked = json.loads(file.read())
    state = Path(options["state"])
    log_to_stderr(logging.DEBUG if options["verbose"] else logging.INFO)
    with coded(state):
        config = config_from(checked["config"])
        identity = read_identity(state)
        lock = AgentLock(state)
        log_to_ring(state, [identity.password])
        software = parse_software(canonical_bytes(checked["software"]))
        run(build_agent(identity, config, state, runtimes=tuple(checked["runtimes"]), software=software), stopped)
        lock.release()
