"""What a person on site does to a device by command: each through the running agent, or in its place if none runs.

Decides who acts. What is allowed is decided by the updater alone, so that both ways follow the same rules.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from edge_agent.config import UpdateConfig
from edge_agent.control.requests import ask
from edge_agent.device.disk import RealDisk
from edge_agent.device.lock import AgentLock, holder
from edge_agent.errors import RequestRefusedError
from edge_agent.updater.children import ChildProber
from edge_agent.updater.ports import MemoryFetcher, MemoryProber, MemoryVerifier, Refusal, ThreadWorker
from edge_agent.updater.storage.slots import Records, Slots
from edge_agent.updater.updater import UpdatePorts, Updater
from wire.messages import BenchmarkAnswer

_START_S = 120.0  # to open a large model on a slow disk


def act_as_owner(state: Path) -> None:
    """Become the owner of ``state`` if this is root: the agent could not read files of root.

    Raises:
        RequestRefusedError: If there is no state directory.
    """
    try:
        found = state.stat()
    except OSError as error:
        text = f"Expected the state directory of an agent, got: {error}: give it by --state"
        raise RequestRefusedError("no_state", text) from error
    if os.geteuid() == 0 and found.st_uid != 0:
        os.setegid(found.st_gid)
        os.seteuid(found.st_uid)


def roll_back(state: Path) -> tuple[str, str]:
    """Go back to the release before; return the names of the release that was left, and of the one that serves now.

    Raises:
        RequestRefusedError: If the device refuses, or the agent doesn't answer.
        IdentityInUseError: If an agent starts at the same moment.
        OSError: If the files can't be written.
    """
    if not (state / "slots").exists():
        text = f"Expected the state directory of an agent that has had a release, got {state}: give it by --state"
        raise RequestRefusedError("no_release", text)
    current = Slots(state, RealDisk()).current()
    leaving = current.sha256 if current is not None else ""
    if holder(state):
        answer = ask(state, "rollback", {"leaving": leaving})
        if not answer.ok:
            raise RequestRefusedError(answer.code, answer.text)
        return str(answer.data.get("left")), str(answer.data.get("current"))
    lock = AgentLock(state)
    try:
        disk = RealDisk()
        ports = UpdatePorts(  # nothing is installed
            verifier=MemoryVerifier({}), fetcher=MemoryFetcher({}, state), prober=MemoryProber(),
            worker=ThreadWorker(lambda _job: None), hardware="", runtimes=(),
        )  # fmt: skip
        updater = Updater(
            state=state, disk=disk, ports=ports, config=UpdateConfig(), activate=lambda _release: None,
            changed=lambda _record: None,
        )  # fmt: skip
        updater.record, _ = Records(state, disk).read()
        found = updater.recall(leaving, round(time.time() * 1000))
    finally:
        lock.release()
    if isinstance(found, Refusal):
        raise RequestRefusedError(found.code, found.text)
    return found.left.release, found.current.release


def benchmark(bundle: Path | None, state: Path | None, seconds: float) -> BenchmarkAnswer:
    """Return the figures of ``bundle``, or of the release that is current on ``state``, timed in a fresh process.

    Raises:
        RequestRefusedError: If there is no release, or the bundle can't be run here.
    """
    shared = state is not None and holder(state) != 0
    current = Slots(state, RealDisk()).current() if state is not None else None
    if bundle is None and (current is None or state is None):
        text = f"Expected a current release in {state}, got none: assign one, or name a bundle"
        raise RequestRefusedError("no_release", text)
    path = bundle or Slots(state or Path(), RealDisk()).bundle(current.sha256 if current is not None else "")
    result = ChildProber(seconds + _START_S, least_s=seconds, gently=shared).probe(path)
    if not result.runs:
        raise RequestRefusedError(result.code or "child_crashed", f"{path}: {result.text}")
    return BenchmarkAnswer(
        release=current.release if current is not None and bundle is None else path.name, runs=result.runs,
        p50_ms=result.latency_p50_ms, p95_ms=result.latency_p95_ms, p99_ms=result.latency_p99_ms,
        peak_memory_bytes=result.peak_memory_bytes, shared=shared,
    )  # fmt: skip
