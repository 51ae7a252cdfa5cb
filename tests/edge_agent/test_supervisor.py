"""The supervisor: starts, restarts with back-off, hangs, swaps; and one real process."""

import errno
import os
import queue
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_agent.config import ChildConfig
from edge_agent.control.supervisor import ChildEnded, ChildFrame, ChildNotice, Fact, ProcessLauncher, Supervisor
from edge_agent.in_flight import IN_SOURCE, InFlight
from edge_agent.pipe_frames import Frame

OLD, NEW = Path("/blobs/old"), Path("/blobs/new")


@dataclass
class SilentChild:
    """A child that records its commands."""

    pid: int = 7
    told: list[str] = field(default_factory=list)

    def send(self, header: Mapping[str, object]) -> None:
        """Note it."""
        self.told.append(f"{header['type']} {header.get('bundle', '')}".strip())

    def kill(self) -> None:
        """Note it."""
        self.told.append("kill")

    stop = kill


@pytest.fixture
def supervisor() -> Supervisor:
    """A supervisor that serves OLD with a silent child."""
    made = Supervisor(
        launch=lambda *_: SilentChild(), put=lambda _: None, config=ChildConfig(hang_s=10, start_s=100, restart_max_s=8)
    )
    made.serve(OLD, 0.0)
    made.turn(0.0)
    return made


def said(supervisor: Supervisor, now_s: float, kind: str, **header: str) -> Fact | None:
    """Let the current child send a message."""
    return supervisor.receive(ChildFrame(supervisor.starts, Frame({"type": kind, **header})), now_s)


def test_serves_when_the_child_is_ready(supervisor: Supervisor) -> None:
    """Started is not serving."""
    assert supervisor.serving is None
    assert said(supervisor, 1.0, "ready") is Fact.SERVING
    assert supervisor.serving == OLD


def test_a_silent_child_is_hung(supervisor: Supervisor) -> None:
    """No heartbeat for the limit: killed, and a fact."""
    said(supervisor, 1.0, "ready")
    said(supervisor, 5.0, "beat")
    assert [supervisor.turn(14.9), supervisor.turn(15.0)] == [None, Fact.HUNG]
    assert supervisor.child.told == ["kill"]


def test_a_start_has_more_time_than_a_beat(supervisor: Supervisor) -> None:
    """Loading takes longer than a heartbeat."""
    assert [supervisor.turn(99.0), supervisor.turn(100.0)] == [None, Fact.HUNG]


def test_restarts_with_back_off(supervisor: Supervisor) -> None:
    """Each crash doubles the pause up to the limit."""
    pauses = []
    for _ in range(6):
        assert supervisor.receive(ChildEnded(supervisor.starts, "exit 1"), 0.0) is Fact.CRASHED
        pauses.append(supervisor._start_s)
        supervisor.turn(supervisor._start_s)
    assert pauses[0] <= 2.0
    assert 4.0 <= pauses[-1] <= 8.0


def test_swaps_into_the_running_child(supervisor: Supervisor) -> None:
    """A ready child gets the new bundle; it serves when the child confirms."""
    said(supervisor, 1.0, "ready")
    supervisor.serve(NEW, 2.0)
    assert supervisor.child.told == [f"swap {NEW}"]
    assert supervisor.serving == OLD
    assert said(supervisor, 3.0, "swapped", bundle=str(NEW)) is Fact.SERVING


def test_a_failed_swap_is_a_crash_of_the_new_release(supervisor: Supervisor) -> None:
    """The child lives on with the old model; the fact is the same."""
    said(supervisor, 1.0, "ready")
    supervisor.serve(NEW, 2.0)
    assert said(supervisor, 3.0, "fault", code="bundle_invalid", bundle=str(NEW)) is Fact.CRASHED
    assert "bundle_invalid" in supervisor.last_fault


def test_the_same_release_again_ends_no_child_that_loads_it(supervisor: Supervisor) -> None:
    """Requested twice while it starts: it is not started twice, and a silent one is still detected."""
    supervisor.serve(OLD, 1.0)
    assert supervisor.child.told == []
    assert said(supervisor, 2.0, "ready") is Fact.SERVING
    supervisor.receive(ChildEnded(supervisor.starts, "exit 1"), 3.0)
    supervisor.serve(OLD, 3.0)
    assert supervisor.turn(3.0) is None
    assert supervisor.starts == 2


def test_a_change_before_ready_starts_anew(supervisor: Supervisor) -> None:
    """A child that still loads is replaced, without blame."""
    supervisor.serve(NEW, 1.0)
    assert supervisor.child.told == ["kill"]
    assert supervisor.receive(ChildEnded(supervisor.starts, "killed"), 1.0) is None
    supervisor.turn(1.0)
    assert supervisor.starts == 2


def test_drops_notices_of_an_earlier_child(supervisor: Supervisor) -> None:
    """A late frame of a child that was replaced means nothing."""
    assert supervisor.receive(ChildEnded(0, "exit 1"), 1.0) is None
    assert supervisor.child is not None


def _on_an_input(supervisor: Supervisor, state: Path, item: str, now_s: float = 0.0) -> Fact | None:
    """Let the current child end while it works on ``item``, and the next one start."""
    held = InFlight(state)
    held._pid = supervisor.child.pid
    held.begin(item)
    fact = supervisor.receive(ChildEnded(supervisor.starts, "killed by SIGSEGV"), now_s)
    supervisor.turn(supervisor._start_s)
    return fact


def test_an_end_on_an_input_is_laid_to_the_input_first(supervisor: Supervisor, tmp_path: Path) -> None:
    """Two inputs are suspects; with the third it is the release; another release begins without suspicion."""
    supervisor.state = tmp_path
    facts = [_on_an_input(supervisor, tmp_path, f"{number}.png") for number in range(3)]
    assert facts == [Fact.INPUT, Fact.INPUT, Fact.CRASHED]
    assert supervisor.last_fault == "killed by SIGSEGV while it held 2.png"
    supervisor.serve(NEW, 0.0)
    supervisor.receive(ChildEnded(supervisor.starts, "killed"), 0.0)
    supervisor.turn(0.0)
    assert _on_an_input(supervisor, tmp_path, "3.png") is Fact.INPUT


def test_a_child_that_hangs_on_an_input_is_the_inputs_fault(supervisor: Supervisor, tmp_path: Path) -> None:
    """A picture that never finishes counts like one that crashes; it is left for the next child to set aside."""
    supervisor.state, held = tmp_path, InFlight(tmp_path)
    held._pid = supervisor.child.pid
    said(supervisor, 1.0, "ready")
    held.begin("slow.png")
    assert supervisor.turn(11.0) is Fact.INPUT
    supervisor.receive(ChildEnded(supervisor.starts, "killed by SIGKILL"), 11.0)
    assert InFlight(tmp_path).left == "slow.png"


def test_an_input_that_an_earlier_child_held_excuses_no_release(supervisor: Supervisor, tmp_path: Path) -> None:
    """A release that can't even be loaded never took it."""
    supervisor.state, held = tmp_path, InFlight(tmp_path)
    held._pid = supervisor.child.pid + 1
    held.begin("a.png")
    assert supervisor.receive(ChildEnded(supervisor.starts, "exit 1"), 0.0) is Fact.CRASHED


def test_an_input_held_by_a_child_that_was_ended_on_purpose_is_served_by_the_next(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    """A change of release while the child still loads, or the agent's own stop, sets nothing aside."""
    supervisor.state = tmp_path
    InFlight(tmp_path).begin("a.png")
    supervisor.serve(NEW, 1.0)
    supervisor.receive(ChildEnded(supervisor.starts, "killed"), 1.0)
    assert InFlight(tmp_path).left == ""


def test_a_swap_without_room_for_two_models_starts_the_new_one_alone(supervisor: Supervisor) -> None:
    """It does not count as a crash of the new release."""
    said(supervisor, 1.0, "ready")
    supervisor.serve(NEW, 2.0)
    assert said(supervisor, 3.0, "fault", code="out_of_memory", bundle=str(NEW)) is None
    assert supervisor.child.told[-1] == "kill"


def test_a_real_child_that_cannot_start_says_why(tmp_path: Path) -> None:
    """A bundle that isn't there: fault, then the end, over real pipes."""
    notices: queue.SimpleQueue[ChildNotice] = queue.SimpleQueue()
    source = f'{{"kind": "directory", "path": "{tmp_path}"}}'
    ProcessLauncher(("--source", source))(1, tmp_path / "none", notices.put)
    first, last = notices.get(timeout=30), notices.get(timeout=30)
    assert (first.frame.kind, first.frame.header["code"]) == ("fault", "bundle_invalid")
    assert last == ChildEnded(1, "exit 1")


def test_an_end_without_a_source_is_told_from_a_crash(supervisor: Supervisor) -> None:
    """Only the last word of the child that ended counts: another end afterwards is a crash again."""
    said(supervisor, 1.0, "fault", code="source_invalid", text="no folder", fatal=True)
    assert supervisor.receive(ChildEnded(supervisor.starts, "exit 1"), 1.0) is Fact.SOURCE
    supervisor.turn(supervisor._start_s)
    assert supervisor.receive(ChildEnded(supervisor.starts, "exit 1"), 9.0) is Fact.CRASHED
    assert not supervisor.without_source


def test_a_child_that_can_not_be_started_is_tried_again(supervisor: Supervisor) -> None:
    """No memory for a process is not a crash of the release: it is started again with back-off."""
    supervisor.serve(None, 1.0)
    supervisor.receive(ChildEnded(supervisor.starts, "killed"), 1.0)
    good, tries = supervisor.launch, []

    def launch(*arguments: object) -> SilentChild:
        tries.append(arguments)
        if len(tries) < 3:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return good(*arguments)

    supervisor.launch = launch
    supervisor.serve(NEW, 2.0)
    assert [supervisor.turn(2.0 + step / 10) for step in range(200)] == [None] * 200
    assert (len(tries), supervisor.child is not None) == (3, True)
    assert "launch_failed" in supervisor.last_fault


def test_a_child_that_hangs_in_code_of_a_source_from_outside_blames_no_release(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    """However often: no input is set aside for it, and no suspicion falls on the release."""
    supervisor.state = tmp_path
    mark = InFlight(tmp_path)
    mark._pid = 7
    for start in range(5):
        mark.begin(IN_SOURCE)
        assert said(supervisor, 1000.0 * start, "ready") is Fact.SERVING
        assert supervisor.turn(1000.0 * start + 10) is Fact.SOURCE
        supervisor.receive(ChildEnded(supervisor.starts, "killed"), 1000.0 * start + 11)
        supervisor.turn(1000.0 * start + 500)
    assert "correct [source] kind" in supervisor.last_fault
    assert (InFlight(tmp_path).left, InFlight(tmp_path).again) == ("", "")


def test_each_child_hears_what_the_server_says_of_the_inputs(supervisor: Supervisor) -> None:
    """Once it serves, when it changes, and the next child again; the same word twice is told once."""
    supervisor.inform("quiet")
    assert supervisor.child.told == []
    said(supervisor, 1.0, "ready")
    for state in ("quiet", "drift", "drift", ""):
        supervisor.inform(state)
    assert supervisor.child.told == ["drift"] * 3
    supervisor.inform("drift")
    ended(supervisor, 2.0, "exit 1")
    supervisor.turn(60.0)
    said(supervisor, 61.0, "ready")
    assert (supervisor.starts, supervisor.child.told) == (2, ["drift"])


@pytest.fixture
def comparing(supervisor: Supervisor) -> Supervisor:
    """A supervisor whose child serves OLD and compares NEW with it."""
    said(supervisor, 1.0, "ready")
    supervisor.compare(NEW)
    return supervisor


def ended(supervisor: Supervisor, now_s: float, reason: str) -> Fact | None:
    """Let the current child end."""
    return supervisor.receive(ChildEnded(supervisor.starts, reason), now_s)


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("killed by SIGSEGV", "challenger_crashed"),
        ("killed by SIGKILL, out of memory", "challenger_out_of_memory"),
    ],
)
def test_a_child_that_ends_beside_a_challenger_is_started_at_once_without_it(
    comparing: Supervisor, reason: str, code: str
) -> None:
    """The challenger is to blame; no back-off, and the next child is not told of it."""
    assert comparing.child.told == [f"shadow {NEW}"]
    assert ended(comparing, 2.0, reason) is Fact.CHALLENGER
    comparing.turn(2.0)
    said(comparing, 3.0, "ready")
    assert (comparing.challenger_code, comparing.serving, comparing.child.told) == (code, OLD, [])
    assert ended(comparing, 4.0, "exit 1") is Fact.CRASHED


def test_a_hang_beside_a_challenger_is_its_fault(comparing: Supervisor) -> None:
    """Missed heartbeats: killed, and started again at once."""
    assert comparing.turn(11.1) is Fact.CHALLENGER
    assert comparing.challenger_code == "challenger_hung"
    assert ended(comparing, 11.2, "killed by SIGKILL") is None
    comparing.turn(11.2)
    assert comparing.child is not None


def test_the_input_in_flight_is_served_again_after_an_end_beside_a_challenger(tmp_path: Path) -> None:
    """It is no suspect: it may have been served when the challenger crashed."""
    made = Supervisor(launch=lambda *_: SilentChild(os.getpid()), put=print, config=ChildConfig(), state=tmp_path)
    made.serve(OLD, 0.0)
    made.turn(0.0)
    said(made, 1.0, "ready")
    made.compare(NEW)
    InFlight(tmp_path).begin("a.png")
    assert ended(made, 2.0, "killed by SIGSEGV") is Fact.CHALLENGER
    assert InFlight(tmp_path).left == ""


def test_a_challenger_whose_thread_hangs_costs_the_child(comparing: Supervisor) -> None:
    """The thread can't be ended alone; one that only failed costs nothing."""
    said(comparing, 2.0, "shadow_ended", bundle=str(NEW), code="bundle_invalid")
    assert comparing.child.told == [f"shadow {NEW}"]
    comparing.compare(NEW)
    comparing.compare(None)
    said(comparing, 3.0, "shadow_ended", bundle=str(NEW), code="challenger_hung")
    assert comparing.child.told[-2:] == ["shadow", "kill"]


def test_a_challenger_is_named_again_to_the_next_champion(comparing: Supervisor) -> None:
    """A swap in the child ends its shadow; the supervisor begins it again."""
    other = Path("/blobs/other")
    comparing.serve(other, 2.0)
    said(comparing, 3.0, "swapped", bundle=str(other))
    assert comparing.child.told == [f"shadow {NEW}", f"swap {other}", f"shadow {NEW}"]
