"""A device's answers on the way out, over kill -9 of child, agent and broker: none is unaccounted for."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
from typing import TYPE_CHECKING

import pytest

from edge_agent.sinks._accounts import open_accounts

if TYPE_CHECKING:
    from conftest import Device, Fleet, Wait

pytestmark = [pytest.mark.broker, pytest.mark.slow]

SINKS = """max_boots = 50
[sinks.log]
kind = "jsonl"
max_bytes = 100000000
[sinks.up]
kind = "fleet"
max_bytes_per_day = 100000000000
queue = 20000
"""


def ids_in_log(device: Device) -> list[str]:
    """Return the ids in the device's own file."""
    return [json.loads(line)["id"] for line in (device.state / "answers" / "log.jsonl").read_text().splitlines()]


def ids_at_server(fleet: Fleet) -> list[str]:
    """Return the ids that the server has stored."""
    rows = [json.loads(rows) for (rows,) in fleet.rows("select rows from batches where stream = 'answer'")]
    return [row["id"] for batch in rows for row in batch]


def kill_something(fleet: Fleet, device: Device, chance: random.Random) -> None:
    """Kill -9 the child, the agent or the broker; start again what nobody else does."""
    what = chance.choice(["child", "agent", "broker"])
    if what == "broker":
        with contextlib.suppress(ProcessLookupError):  # killed a moment ago; the server starts it again
            fleet.kill_broker()
    elif what == "agent":
        device.program.kill()
        device.program.start()
    else:
        for pid in device.children():
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(("count", "kills"), [(300, 4), pytest.param(10_000, 25, marks=pytest.mark.nightly)])
def test_every_input_is_answered_here_and_at_the_server(
    count: int, kills: int, fleet: Fleet, wait: Wait, images: list
) -> None:
    """Each id is in the device's file and at the server, and the sums of both accounts agree."""
    device = fleet.add("dev", SINKS)
    config = (device.state / "agent.toml").read_text().replace('path = "inbox"', 'path = "inbox"\nbacklog = 20000')
    # what waited at the agent's last end is not held back: how fast a replay may be is another test
    config = config.replace("[transport]", "[transport]\nreplay_bytes_per_s = 0")
    (device.state / "agent.toml").write_text(config)
    device.program.stop()
    device.program.start()
    fleet.roll_out(fleet.release(1))
    device.reaches("committed", "tiny-1")
    chance = random.Random(4)  # noqa: S311 - which process is killed when is no secret
    device.see([images[number % len(images)] for number in range(count)])
    for left in sorted(chance.sample(range(count // 20, count), kills), reverse=True):
        wait(lambda left=left: device.unseen() <= left, f"{left} inputs left")
        kill_something(fleet, device, chance)
    wait(lambda: device.unseen() == 0, "all inputs are done")
    wanted = set(ids_in_log(device))
    wait(lambda: wanted <= set(ids_at_server(fleet)), "all answers at the server")
    device.program.stop()
    assert len(wanted) == count
    for account in open_accounts(device.state, ["log", "up"]).values():
        counts = account.counts
        assert counts["offered"] == counts["sent"] + counts["dropped"] + counts["filtered"] + counts["cut_off"]
        assert counts["dropped"] == 0
