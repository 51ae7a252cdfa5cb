"""What a person on site does to a device by command: each through the running agent, or in its place if none runs.

Decides who acts. What is allowed is decided by the updater alone, so that both ways follow the same rules.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from edge_agent.config import UpdateConfig
from edge_agent.control.requests import ask, put
from edge_agent.control.status_file import read_status
from edge_agent.device import hardware
from edge_agent.device.disk import RealDisk
from edge_agent.device.lock import AgentLock, holder
from edge_agent.errors import AgentError, RequestRefusedError
from edge_agent.updater.children import ChildProber
from edge_agent.updater.ports import MemoryFetcher, MemoryProber, MemoryVerifier, ThreadWorker
from edge_agent.updater.storage.imported import FOLDER
from edge_agent.updater.storage.slots import Records, Slots
from edge_agent.updater.storage.stick import DeviceKind, stage
from edge_agent.updater.updater import UpdatePorts, Updater
from wire.codec import to_document
from wire.messages import BenchmarkAnswer, Command, Desired, UpdatePhase

_PAUSE_S = 0.2
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
    return found.left.release, found.current.release


def bring(state: Path, at: Path, probation_s: float, note: Callable[[str], None]) -> str:
    """Install a release from the folder or zip ``at``; return how far it got, in words.

    It ends when the release is on probation, waits for something, or waits for an agent to start.

    Raises:
        RequestRefusedError: If it is refused, before or by the agent.
        OSError: If it can't be read, or the state directory can't be written.
    """
    if not (state / "root.json").exists():
        text = f"Expected the state directory of an enrolled device, got {state}: give it by --state"
        raise RequestRefusedError("no_state", text)
    disk = RealDisk()
    records = Records(state, disk)
    before, _ = records.read()
    if before.in_flight and (before.imported or before.phase in {UpdatePhase.STAGED, UpdatePhase.PROBATION}):
        text = f"Expected no update of this kind under way, got {before.desired.release}, {before.phase}"
        raise RequestRefusedError("busy", f"{text}: import it when that has ended (edge-agent status)")
    kind = DeviceKind(hardware=_hardware_class(state), runtimes=hardware.runtimes())
    target, signed = stage(state, at, kind, disk, UpdateConfig().reserve_bytes)
    release = f"{signed.custom.model}-{signed.custom.version}"
    wish = Desired(
        release=release, target=target.target, sha256=signed.sha256, length_bytes=signed.length_bytes,
        probation_s=probation_s,
    )  # fmt: skip
    note(f"{release}: {signed.length_bytes} bytes, signed for this device")
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, state / FOLDER, ignore_errors=True)
        if not holder(state):
            put(state, Command(id=os.urandom(8).hex(), verb="import", arguments=to_document(wish)))
            undo.pop_all()
            return f"{release} is installed when an agent starts on {state}"
        ask(state, "import", to_document(wish))
        undo.pop_all()
    return _follow(records, signed.sha256, release, note)


def _follow(records: Records, sha256: str, release: str, note: Callable[[str], None]) -> str:
    """Follow the update's record to its probation or its end."""
    seen, until_s = "", time.monotonic() + _START_S * 5
    while time.monotonic() < until_s:
        record, _ = records.read()
        if record.desired.sha256 != sha256:
            raise RequestRefusedError("superseded", f"Expected {release} to be installed, got {record.desired.release}")
        if record.phase in {UpdatePhase.REFUSED, UpdatePhase.ROLLED_BACK}:
            raise RequestRefusedError(record.code or str(record.phase), record.text)
        if record.phase is UpdatePhase.DEFERRED:
            return f"{release} waits: [{record.code}] {record.text}"
        if record.phase is UpdatePhase.COMMITTED:
            return f"{release} is committed"
        if record.phase is UpdatePhase.PROBATION:
            return f"{release} serves, on probation for {record.desired.probation_s:.0f} s: edge-agent status shows it"
        if str(record.phase) != seen:
            note(seen := str(record.phase))
        time.sleep(_PAUSE_S)
    raise RequestRefusedError("stuck", f"Expected {release} to be installed in time, got {seen}: see edge-agent status")


def _hardware_class(state: Path) -> str:
    """Return the class that the agent reported last, which ``agent.toml`` may set; else the processor's."""
    try:
        reported = read_status(state).document.get("hardware")
    except AgentError:
        reported = ""
    return str(reported or "") or hardware.hardware_class()


def benchmark(bundle: Path | None, state: Path | None, seconds: float) -> BenchmarkAnswer:
    """Return the figures of ``bundle``, or of the release that is current on ``state``, timed in a fresh process.

    Raises:
        RequestRefusedError: If there is no release, or the bundle can't be run here.
    """
    shared = state is not None and holder(state) != 0
    slots = Slots(state, RealDisk()) if state is not None else None
    current = slots.current() if slots is not None else None
    if bundle is not None:
        name, path = bundle.name, bundle
    elif slots is not None and current is not None:
        name, path = current.release, slots.bundle(current.sha256)
    else:
        text = f"Expected a current release in {state}, got none: assign one, or name a bundle"
        raise RequestRefusedError("no_release", text)
    result = ChildProber(seconds + _START_S, least_s=seconds, gently=shared).probe(path)
    if not result.runs:
        raise RequestRefusedError(result.code or "child_crashed", f"{path}: {result.text}")
    return result.figures(name, shared=shared)
