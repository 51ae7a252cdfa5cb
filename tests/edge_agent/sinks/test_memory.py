"""Sinks in a child whose memory is limited: their threads must not use up the limit."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from edge_agent.inference.answers import open_answers
from edge_agent.sinks import SinkSurroundings

MIB = 1024 * 1024


def data_bytes() -> int:
    """Return what counts against ``RLIMIT_DATA``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmData:"))


def test_sixteen_sinks_take_little_of_the_limit_on_memory() -> None:
    """Thirty-two threads with stacks of 8 MiB would take 256 MiB; threads of others keep the size they had."""
    with tempfile.TemporaryDirectory(prefix="tf-") as name:
        before = data_bytes()
        answers = open_answers({f"s{n}": {"kind": "unix"} for n in range(16)}, SinkSurroundings(state=Path(name)))
        grown = data_bytes() - before
        assert len(answers.deliveries) == 16
        answers.close()
    assert 0 <= grown < 48 * MIB
    assert threading.stack_size() == 0
