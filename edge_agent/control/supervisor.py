"""Starts, watches and restarts the inference child, and swaps its release.

Decides when a child counts as hung, when it is restarted, whether a release is loaded by a hot swap or a start, and
whether a crash is attributed to the input in flight (``Suspicion``), to an absent source, or to the release.
Does not decide what a crash of the release means for an update (``agent`` reports it to the updater).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from edge_agent.config import ChildConfig
from edge_agent.device.memory_limit import end_text, oom_kills
from edge_agent.errors import FrameError, SourceError
from edge_agent.in_flight import IN_SOURCE, clear_held, read_held
from edge_agent.pipe_frames import Frame, encode_frame, read_frame
from wire.codec import Json

CHALLENGER_HUNG = "challenger_hung"
MAX_INPUTS = 3
FORGIVEN_AFTER = 100


@dataclass(frozen=True, slots=True)
class Suspicion:
    """How many inputs have crashed the child under one release.

    The first suspect is the input in flight: it is set aside, and the release continues. If the release crashes on
    several inputs, it is to blame itself: from the ``MAX_INPUTS``-th on, where every ``FORGIVEN_AFTER`` inputs served
    in between take one off. Without an input in flight (while loading, or between two inputs) the release is to blame
    at once.
    """

    inputs: int = 0

    def after(self, served: int) -> Suspicion:
        """Return the suspicion after one more crash, before which the child had served ``served`` inputs."""
        return Suspicion(max(0, self.inputs - served // FORGIVEN_AFTER) + 1)

    @property
    def of_the_release(self) -> bool:
        """Whether the release is to blame."""
        return self.inputs >= MAX_INPUTS


_LOG = logging.getLogger(__name__)
_STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class ChildFrame:
    """A frame from child ``number``."""

    number: int
    frame: Frame


@dataclass(frozen=True, slots=True)
class ChildEnded:
    """Child ``number`` has ended."""

    number: int
    reason: str


ChildNotice = ChildFrame | ChildEnded
Listener = Callable[[ChildNotice], None]


class Child(Protocol):
    """A running child."""

    @property
    def pid(self) -> int:
        """Its process id; 0 for none."""

    def send(self, header: Mapping[str, Json]) -> None:
        """Send a frame; a broken pipe is no error, because a notice reports the child's end."""

    def kill(self) -> None:
        """End it now."""

    def stop(self) -> None:
        """End it in order, or by force after a while."""


Launch = Callable[[int, Path, Listener], Child]


class Fact(StrEnum):
    """The supervisor's observation, for the judgement of health."""

    CRASHED = "crashed"
    HUNG = "hung"
    INPUT = "ended_on_input"
    """The child ended, crashed or hung on the input in flight: the input is set aside, the release is not to blame."""
    SOURCE = "ended_on_source"
    """The child found no source to open, or code of one from outside hung or ended it: no release can change that."""
    CHALLENGER = "ended_beside_challenger"
    """The child ended or hung while it ran a challenger beside the release: it is started again without."""
    SERVING = "serving"


@dataclass(slots=True, kw_only=True)
class Supervisor:
    """Keeps one child serving ``wanted``. In ``state`` the child marks the input in flight; None: it marks nothing."""

    launch: Launch
    put: Listener
    config: ChildConfig
    chance: random.Random = field(default_factory=random.Random)
    wanted: Path | None = None
    serving: Path | None = None
    safe_mode: bool = False
    child: Child | None = None
    starts: int = 0
    last_fault: str = ""
    without_source: bool = False
    state: Path | None = None
    challenger: Path | None = None
    drift: str = ""
    """The state of the inputs by the server, for the answers; "" for unknown."""
    challenger_code: str = ""
    """Why the last challenger ended, after ``Fact.CHALLENGER``."""
    _comparing: bool = False
    _suspicion: Suspicion = field(default_factory=Suspicion)
    _failures: int = 0
    _start_s: float = 0.0
    _limit_s: float = float("inf")
    _doomed: bool = False
    _keep_held: bool = False
    _fatal: str = ""
    _fatal_code: object = ""
    _bundle: Path | None = None

    def serve(self, bundle: Path | None, now_s: float) -> None:
        """Make ``bundle`` the release to serve: by a hot swap if a child is ready, otherwise by a start."""
        if bundle == self.wanted and bundle == self.serving:
            return
        loading = self.child is not None and self.serving is None and not self._doomed
        if bundle is not None and bundle == self.wanted and bundle == self._bundle and loading:
            return
        ready = self.child is not None and self.serving is not None and not self._doomed
        self.wanted, self._failures, self._start_s = bundle, 0, now_s
        self._suspicion = Suspicion()
        if bundle is not None and ready and self.child is not None:
            self._limit_s = now_s + self.config.start_s
            self.child.send({"type": "swap", "bundle": str(bundle)})
        elif self.child is not None:
            self._end()

    def compare(self, bundle: Path | None) -> None:
        """Run ``bundle`` as a challenger beside the release that serves; None: none any more."""
        if bundle == self.challenger:
            return
        self.challenger = bundle
        if self._comparing or bundle is not None:
            self._send_challenger()

    def inform(self, drift: str) -> None:
        """Let answers name ``drift`` as the state of the inputs."""
        if drift != self.drift:
            self.drift = drift
            self._send_drift()

    def _send_drift(self) -> None:
        if self.child is not None and self.serving is not None:
            self.child.send({"type": "drift", "state": self.drift})

    def _send_challenger(self) -> None:
        """Tell the child about the challenger, once it serves what it should."""
        if self.child is not None and self.serving is not None and self.serving == self.wanted and not self._doomed:
            self._comparing = self.challenger is not None
            self.child.send({"type": "shadow", "bundle": str(self.challenger or "")})

    def turn(self, now_s: float) -> Fact | None:
        """Start the child when due; kill it when it sends nothing for too long."""
        if self.child is None:
            if self.wanted is not None and now_s >= self._start_s:
                self._start(self.wanted, now_s)
            return None
        if now_s < self._limit_s or self._doomed:
            return None
        _LOG.warning("child hung pid=%s", self.child.pid)
        self.last_fault = f"no heartbeat for {self.config.hang_s:g} s"
        blamed = self._blamed(Fact.HUNG, self.child.pid)
        self._end(keep_held=blamed is not Fact.CHALLENGER)
        return blamed

    def receive(self, notice: ChildNotice, now_s: float) -> Fact | None:
        """Handle a notice; stale ones are dropped."""
        if notice.number != self.starts or self.child is None:
            return None
        if isinstance(notice, ChildEnded):
            return self._ended(notice, now_s)
        frame = notice.frame
        if self.serving is not None and self.serving == self.wanted:
            self._limit_s = now_s + self.config.hang_s
        if frame.kind == "ready":
            return self._serves(self._bundle, now_s)
        if frame.kind == "swapped":
            return self._serves(Path(str(frame.header.get("bundle", ""))), now_s)
        if frame.kind == "fault":
            return self._fault(frame, now_s)
        if frame.kind == "shadow_ended":
            if frame.header.get("bundle") == str(self.challenger):
                self.challenger = None
            self._comparing = self.challenger is not None
            if frame.header.get("code") == CHALLENGER_HUNG:  # its thread runs on, and holds its memory
                self._end()
        return None

    def healthy(self) -> None:
        """Reset the count of failures: the child has run long enough."""
        self._failures = 0

    def stop(self) -> None:
        """Stop the child for good."""
        child, self.child, self.wanted, self.serving = self.child, None, None, None
        if child is not None:
            child.stop()
            self._forgive()

    def _serves(self, bundle: Path | None, now_s: float) -> Fact | None:
        self.serving, self.without_source = bundle, False
        self._limit_s = now_s + self.config.hang_s
        if self.drift:
            self._send_drift()
        if self.wanted is not None and bundle != self.wanted and self.child is not None:
            self._limit_s = now_s + self.config.start_s
            self.child.send({"type": "swap", "bundle": str(self.wanted)})
            return None
        if self.challenger is not None:
            self._send_challenger()
        return Fact.SERVING

    def _fault(self, frame: Frame, now_s: float) -> Fact | None:
        self.last_fault = f"{frame.header.get('code')}: {frame.header.get('text')}"
        if frame.header.get("fatal") is True:
            self._fatal, self._fatal_code = self.last_fault, frame.header.get("code")
        if "bundle" not in frame.header or Path(str(frame.header["bundle"])) != self.wanted:
            return None
        self._limit_s = now_s + self.config.hang_s
        if frame.header.get("code") in {"swap_busy", "out_of_memory"}:  # two models at once: alone it may fit
            self._end()
            return None
        return Fact.CRASHED

    def _ended(self, notice: ChildEnded, now_s: float) -> Fact | None:
        expected, pid = self._doomed, self.child.pid if self.child is not None else 0
        self.child, self.serving, self._doomed = None, None, False
        if expected:
            if not self._keep_held:
                self._forgive()
            return None
        self.last_fault = f"{notice.reason}; {self._fatal}" if self._fatal else notice.reason
        self.without_source = self._fatal_code == SourceError.code
        blamed = Fact.SOURCE if self.without_source else self._blamed(Fact.CRASHED, pid)
        if blamed is Fact.CHALLENGER:
            self._start_s = now_s
            return blamed
        self._failures = 1 if blamed is Fact.INPUT else self._failures + 1
        ceiling_s = min(self.config.restart_max_s, self.config.restart_min_s * 2.0 ** min(self._failures, 30))
        slow = self.safe_mode and blamed is Fact.CRASHED
        pause_s = self.config.restart_max_s if slow else self.chance.uniform(ceiling_s / 2, ceiling_s)
        self._start_s = now_s + pause_s
        _LOG.warning("child ended reason=%s restart_s=%.1f", self.last_fault, pause_s)
        return blamed

    def _blamed(self, fact: Fact, pid: int) -> Fact:
        """Return ``fact``, or ``INPUT`` if the input in flight of child ``pid`` is the first suspect."""
        held = read_held(self.state) if self.state is not None else None
        if held is not None and (held.pid != pid or not held.item):
            held = None
        if held is not None and held.item == IN_SOURCE:
            self.last_fault = f"{self.last_fault} while it waited for {IN_SOURCE}: correct [source] kind"
            return Fact.SOURCE
        if self._comparing:  # whoever was at fault: the release that serves is known to run without a challenger
            self._comparing, self.challenger = False, None
            memory = "out of memory" in self.last_fault or self._fatal_code == "out_of_memory"
            ended = "challenger_out_of_memory" if memory else "challenger_crashed"
            self.challenger_code = CHALLENGER_HUNG if fact is Fact.HUNG else ended
            self._forgive()
            return Fact.CHALLENGER
        if held is None:
            return fact
        self._suspicion = self._suspicion.after(held.served)
        self.last_fault = f"{self.last_fault} while it held {held.item}"
        return fact if self._suspicion.of_the_release else Fact.INPUT

    def _forgive(self) -> None:
        """Let the next child serve this one's input in flight: it was ended on purpose."""
        if self.state is not None:
            clear_held(self.state)

    def _start(self, bundle: Path, now_s: float) -> None:
        self.starts += 1
        self._bundle, self._doomed, self.serving, self._fatal = bundle, False, None, ""
        self._comparing = False
        self._fatal_code = ""
        self._limit_s = now_s + self.config.start_s
        try:
            self.child = self.launch(self.starts, bundle, self.put)
        except OSError as error:  # memory or process table full: temporary, and no evidence about the release
            self._failures += 1
            self.last_fault = f"launch_failed: {error}"
            ceiling_s = min(self.config.restart_max_s, self.config.restart_min_s * 2.0 ** min(self._failures, 30))
            self._start_s = now_s + self.chance.uniform(ceiling_s / 2, ceiling_s)
            _LOG.warning("child not started error=%s restart_s=%.1f", error, self._start_s - now_s)

    def _end(self, *, keep_held: bool = False) -> None:
        self._doomed, self._keep_held = True, keep_held
        self.serving = None
        if self.child is not None:
            self.child.kill()


@dataclass(slots=True, kw_only=True)
class ProcessChild:
    """``python -m edge_agent.inference.child`` with frames on its pipes; a thread of its own reads them."""

    number: int
    process: subprocess.Popen[bytes]
    put: Listener
    oom_kills: int = 0
    """The count of OOM kills when this child was started."""
    _heard: threading.Event = field(default_factory=threading.Event)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def send(self, header: Mapping[str, Json]) -> None:
        """Send a frame; frames to a child are small, so the pipe takes them at once."""
        try:
            if self.process.stdin is not None:
                self.process.stdin.write(encode_frame(header))
                self.process.stdin.flush()
        except (OSError, ValueError) as error:
            _LOG.warning("frame could not be sent to the child type=%s error=%s", header.get("type"), error)

    def kill(self) -> None:
        """End it now."""
        self.process.kill()

    def stop(self) -> None:
        """End it in order, or by force after a while; its last frames have become notices then."""
        self.send({"type": "stop"})
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._heard.wait(_STOP_S)

    def listen(self) -> None:
        """Turn frames into notices until the pipe ends; runs in a thread."""
        reason = ""
        try:
            while self.process.stdout is not None and (frame := read_frame(self.process.stdout)) is not None:
                self.put(ChildFrame(self.number, frame))
        except (FrameError, OSError, ValueError) as error:
            reason = str(error)
            self.process.kill()
        self._heard.set()
        exit_code = self.process.wait()
        ended = end_text(exit_code, out_of_memory=oom_kills() > self.oom_kills)
        self.put(ChildEnded(self.number, f"{ended}: {reason}" if reason else ended))
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # unwritten data has no reader any more
                if pipe is not None:
                    pipe.close()


@dataclass(frozen=True, slots=True)
class ProcessLauncher:
    """Starts the child; ``arguments`` are those of ``edge_agent.inference.child`` besides the bundle."""

    arguments: tuple[str, ...]

    def __call__(self, number: int, bundle: Path, put: Listener) -> Child:
        """Return the started child.

        Raises:
            OSError: If no process can be started.
        """
        command = [sys.executable, "-m", "edge_agent.inference.child", "--bundle", str(bundle), *self.arguments]
        killed = oom_kills()
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child = ProcessChild(number=number, process=process, put=put, oom_kills=killed)
        try:
            threading.Thread(target=child.listen, name=f"child-{number}", daemon=True).start()
        except RuntimeError as error:
            process.kill()
            process.wait()
            raise OSError(errno.EAGAIN, f"no thread for a child: {error}") from error
        return child
