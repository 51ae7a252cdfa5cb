"""The device of the matrix: the real agent with one thread, which takes a release to its end and reports to the runner.

Real: the agent and all of its parts, the spool, python-tuf on signed metadata, the download over HTTP, the file system.
In memory: the broker, the clock, the probe and the child (neither writes files during an update). Verification and
patching run in this process instead of a child, so that every call is one of its single thread and has a number.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.config import AgentConfig, ChildConfig, MonitorConfig, SpoolConfig, UpdateConfig
from edge_agent.control.agent import Agent, AgentParts, Notices
from edge_agent.control.supervisor import ChildEnded, ChildFrame
from edge_agent.device import last_end
from edge_agent.device.clock import FakeClock
from edge_agent.device.disk import RealDisk
from edge_agent.device.identity import read_identity
from edge_agent.device.record_file import Condition, condition
from edge_agent.errors import AgentError
from edge_agent.pipe_frames import Frame
from edge_agent.transports.memory import MemoryBroker, MemoryTransport
from edge_agent.updater.download import FetchSettings, HttpFetcher
from edge_agent.updater.ports import InlineWorker, MemoryProber, Refusal, TargetInfo
from edge_agent.updater.transfer import patched_download
from edge_agent.updater.transfer.patch_child import patched
from edge_agent.updater.transfer.patched_download import PatchedFetcher
from edge_agent.updater.updater import UpdatePorts
from edge_agent.updater.verification import run as verify
from scripts.crashes.scene import DEVICE, SITE, Release
from wire.codec import Json, decode, encode
from wire.drift_report import decode_report
from wire.messages import Ack, Batch, Desired, Event, Stream, UpdatePhase, Watermark
from wire.shadow import ShadowCounts
from wire.transport import Incoming

END = frozenset({UpdatePhase.COMMITTED, UpdatePhase.ROLLED_BACK, UpdatePhase.REFUSED})
MOST_TURNS = 120
TURN_S = 0.5
INPUTS_A_TURN = 10
CONFIG = AgentConfig(
    monitor=MonitorConfig(hw_s=4.0, infer_s=4.0, rows_a_batch=2),
    spool=SpoolConfig(commit_s=1.0, lazy_commit_s=1.0),
    child=ChildConfig(restart_min_s=0.0, restart_max_s=1.0, healthy_s=1.0),
    update=UpdateConfig(
        reserve_bytes=0, retry_min_s=0.01, retry_max_s=0.02, defer_max_s=2.0, download_attempts=3, repair_s=5.0
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the server wishes, when, and how the children behave.

    ``bad``: digests of artifacts whose child serves nothing but errors. ``disagreed``: on how many of ten inputs a
    challenger has another label than the champion.
    """

    state: Path
    releases: tuple[Release, ...]
    start_ms: int
    wish: Desired
    bad: frozenset[str] = frozenset()
    disagreed: int = 0


@dataclass(frozen=True, slots=True)
class _Verifier:
    """The verification in this process; a failure is what the parent of a child makes of it."""

    state: Path
    clock: FakeClock

    def check(self, target: str) -> TargetInfo | Refusal:
        """Return the verdict on ``target``."""
        try:
            verdict = verify(self.state, target, None, self.clock.now_ms())
        except Exception as error:  # noqa: BLE001 - a child that ends with a traceback
            return Refusal("child_crashed", f"{type(error).__name__}: {error}")
        if verdict.ok:
            return TargetInfo(verdict.sha256, verdict.length_bytes, verdict.custom)
        return Refusal(verdict.code, verdict.text, verdict.server_ms)


def _patch_here(module_and_arguments: list[str], limit_s: float) -> dict[str, Json]:
    """Do what the child that applies a patch does, and answer as it does."""
    del limit_s
    base, patch, result, length_bytes, sha256 = module_and_arguments[1:]
    code, text = patched(Path(base), Path(patch), Path(result), int(length_bytes), sha256)
    return {"ok": not code, "code": code, "text": text}


patched_download.run_child = _patch_here


@dataclass(slots=True)
class _Child:
    """A child that loads any whole bundle, and sends heartbeats; ``challenger``: what it compares, "" for none."""

    number: int
    bundle: Path
    put: Callable[[object], None]
    pid: int = 0
    challenger: str = ""

    def send(self, header: Mapping[str, object]) -> None:
        """Answer a swap at once."""
        if header["type"] == "swap":
            self.bundle, self.challenger = Path(str(header["bundle"])), ""
            self.speak("swapped", bundle=str(self.bundle))
        elif header["type"] == "shadow":
            self.challenger = str(header["bundle"])

    def speak(self, kind: str, payload: bytes = b"", **header: object) -> None:
        """Send a frame to the agent."""
        self.put(ChildFrame(self.number, Frame({"type": kind, **header}, payload)))

    def kill(self) -> None:
        """End."""
        self.put(ChildEnded(self.number, "killed"))

    stop = kill


@dataclass(slots=True)
class Device:
    """One run of the agent. ``note`` sends an observation to the runner, which outlives this process."""

    plan: Plan
    note: Callable[[Mapping[str, object]], None]
    stored: set[tuple[str, str, int]]
    broker: MemoryBroker = field(default_factory=MemoryBroker)
    notices: Notices = field(default_factory=queue.SimpleQueue)
    children: list[_Child] = field(default_factory=list)
    through: dict[tuple[str, str], int] = field(default_factory=dict)

    def run(self) -> None:
        """Run until the wish has ended and everything was acknowledged, then end in order."""
        plan, clock = self.plan, FakeClock(wall_ms=self.plan.start_ms)
        identity, disk, blobs = read_identity(plan.state), RealDisk(), plan.state / "blobs" / "sha256"
        settings = FetchSettings(
            base_url=identity.http_url, username="d", password="p", attempts=CONFIG.update.download_attempts,  # noqa: S106 - no secret
            retry_min_s=CONFIG.update.retry_min_s, retry_max_s=CONFIG.update.retry_max_s,
        )  # fmt: skip
        worker = InlineWorker(self.notices.put)
        ports = UpdatePorts(
            verifier=_Verifier(plan.state, clock),
            fetcher=PatchedFetcher(HttpFetcher(settings, blobs, disk), blobs, disk),
            prober=MemoryProber(), worker=worker, hardware="x86_64", runtimes=("onnx",),
        )  # fmt: skip
        parts = AgentParts(
            clock=clock, transport=MemoryTransport(broker=self.broker, client_id=DEVICE), launch=self._launch,
            disk=disk, ports=ports, notices=self.notices,
        )  # fmt: skip
        server = MemoryTransport(broker=self.broker, client_id="server")
        server.start(lambda notice: self._hear(server, notice), subscriptions=("tf/1/#",))
        boot = f"{plan.start_ms:016x}"
        agent = Agent(identity, CONFIG, plan.state, boot, parts)
        agent.updater.chance = random.Random(1)  # noqa: S311 - the same waits each time
        told: set[tuple[str, str, int]] = set()
        agent.start()
        try:
            for turn in itertools.count():
                agent.turn()
                worker.work()
                self._beat()
                clock.advance(TURN_S)
                rows = set(agent.spool._database.execute("SELECT stream, boot, seq FROM rows"))  # noqa: SLF001 - what is accepted
                if rows - told:
                    self.note({"accepted": sorted(rows - told)})
                    told |= rows
                record = agent.updater.record
                ended = record.desired.gen == plan.wish.gen and record.phase in END
                if turn >= MOST_TURNS or (ended and turn > 12 and not agent._repair.code and not agent.spool.count()):  # noqa: PLR2004, SLF001 - after all is looked at
                    break
            last_end.end(plan.state, disk)
        finally:
            agent.stop()
        record = agent.updater.record
        counts = record.shadow or ShadowCounts()
        self.note({
            "phase": str(record.phase), "code": record.code, "text": record.text, "turns": turn,
            "release": record.desired.release, "repair": agent._repair.code,  # noqa: SLF001
            "compared_s": counts.seconds, "compared": counts.n,
            "serving": self.children[-1].bundle.name if self.children else "",
        })  # fmt: skip

    def _launch(self, number: int, bundle: Path, put: Callable[[object], None]) -> _Child:
        self.children.append(_Child(number, bundle, put))
        if condition(bundle, bundle.name) is Condition.WHOLE:
            self.children[-1].speak("ready")
        else:
            self.children[-1].kill()
        return self.children[-1]

    def _beat(self) -> None:
        if not self.children:
            return
        child = self.children[-1]
        artifact = next((one.artifact for one in self.plan.releases if one.desired.sha256 == child.bundle.name), "")
        bad = artifact in self.plan.bad
        child.speak("beat", n=0 if bad else 10, errors=10 if bad else 0, artifact=artifact, classes=[5, 5])
        if child.challenger:
            counts = ShadowCounts(seconds=TURN_S, n=INPUTS_A_TURN, disagreed=self.plan.disagreed)
            child.speak("shadow", encode(counts), bundle=child.challenger)

    def _hear(self, server: MemoryTransport, notice: object) -> None:
        """Do what the server does: store a message, then acknowledge what has no gap."""
        if not isinstance(notice, Incoming):
            return
        leaf = notice.topic.split("/", 4)[-1]
        if leaf == "get":
            server.publish(f"tf/1/{SITE}/{DEVICE}/desired", encode(self.plan.wish), retain=True)
        if leaf != "event" and not leaf.startswith("tele/"):
            return
        stream = Stream.EVENT if leaf == "event" else Stream(leaf.removeprefix("tele/"))
        if stream is Stream.EVENT:
            message: Event | Batch = decode(Event, notice.payload)
        elif stream is Stream.DRIFT:
            message = decode_report(notice.payload)  # type: ignore[assignment]  # boot and seq are the same
        else:
            message = decode(Batch, notice.payload)
        self.stored.add((stream.value, message.boot, message.seq))
        self.note({"stored": [(stream.value, message.boot, message.seq)]})
        key = (stream.value, message.boot)
        through = max(self.through.get(key, 0), message.oldest_seq - 1)
        while (*key, through + 1) in self.stored:
            through += 1
        self.through[key] = through
        ack = Ack((Watermark(stream, message.boot, through),))
        server.publish(f"tf/1/{SITE}/{DEVICE}/cmd/ack", encode(ack))


def run_device(plan: Plan, stored: set[tuple[str, str, int]], notes: int) -> int:
    """Run the device and return its exit status; ``notes``: a descriptor to which observations are written as lines."""

    def note(found: Mapping[str, object]) -> None:
        os.write(notes, json.dumps(found).encode() + b"\n")

    try:
        Device(plan, note, set(stored)).run()
    except AgentError as error:
        note({"refused_to_run": f"{type(error).__name__}: {error}"})
        return 1
    return 0
