"""``scripts/crash-matrix``: kill -9, EIO and ENOSPC at every durable system call of an update; exit 0: nothing broken.

One run of an update is traced by strace; each call that changes the device's state directory is a point, named by the
call and its number within the run. Then, for each point and each fault, the run is repeated on a fresh copy of the
state with that fault injected there, checked as it stands, started again without a fault, and checked again.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import click

from edge_agent.device.disk import RealDisk
from edge_agent.device.record_file import Condition, condition
from edge_agent.updater.storage.slots import NAMES, Slots
from scripts.crashes.device import INPUTS_A_TURN, TURN_S, Plan, run_device
from scripts.crashes.scene import Scene, make_scene
from wire.shadow import ShadowOrder

CALLS = (
    "openat", "open", "creat", "write", "pwrite64", "writev", "pwritev", "pwritev2", "fsync", "fdatasync", "rename",
    "renameat", "renameat2", "unlink", "unlinkat", "link", "linkat", "symlink", "symlinkat", "truncate", "ftruncate",
    "fallocate", "mkdir", "mkdirat", "rmdir", "chmod", "fchmod", "fchmodat",
)  # fmt: skip
FAULTS = {"kill": "signal=KILL", "eio": "error=EIO", "enospc": "error=ENOSPC"}
DOCUMENTED = ("slots/boots.json",)
"""Files that a device has only after a fault."""
QUICK_POINTS = 12  # of each scenario and fault
LIMIT_S = 60.0
_CALL = re.compile(r"(\w+)\((.*)")
_PATHS = re.compile(r'"([^"]*)"|<([^>]*)>')
_WRITES = re.compile(r"O_(CREAT|WRONLY|RDWR|TRUNC)")
_HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """An update to the release ``to``. ``before``: the releases that the device has; ``bad``: its child only fails.

    ``shadow``: how the device compares the release first, with ``disagreed`` of ten inputs that have another label.
    ``end`` is the update's last phase, ``kept`` the release that is current then.
    """

    name: str
    before: tuple[int, ...] = (1, 2)
    to: int = 3
    bad: bool = False
    shadow: ShadowOrder | None = None
    disagreed: int = 0
    end: str = "committed"
    kept: str = "m-3"


SCENARIOS = (
    Scenario(name="commit"),
    Scenario(name="roll_back", bad=True, end="rolled_back", kept="m-2"),
    Scenario(name="first_install", before=()),
    Scenario(name="patch", to=4, kept="m-4"),
    Scenario(name="shadow", shadow=ShadowOrder(3.0, 0.2, required=True), disagreed=1),
    Scenario(name="shadow_refused", shadow=ShadowOrder(3.0, 0.2), disagreed=3, end="refused", kept="m-2"),
)


@dataclass(frozen=True, slots=True)
class Point:
    """The ``number``-th ``call`` of the run, counted as strace counts; ``path`` is relative to the state."""

    call: str
    number: int
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome of one fault in one scenario; ``points`` of ``of`` were tried, ``missed`` were never reached."""

    scenario: str
    fault: str
    points: int
    of: int
    missed: int
    calls: dict[str, int]
    violations: list[dict[str, object]]


@dataclass(slots=True)
class Run:
    """What the runner saw of one run."""

    status: int = 0
    accepted: set[tuple[str, str, int]] = field(default_factory=set)
    stored: set[tuple[str, str, int]] = field(default_factory=set)
    end: dict[str, object] = field(default_factory=dict)
    refused: str = ""
    errors: str = ""
    injected: bool = False
    points: list[Point] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """One scenario below ``folder``; ``start_ms``: the device's clock at its first start."""

    scene: Scene
    scenario: Scenario
    folder: Path
    start_ms: int

    @property
    def template(self) -> Path:
        """The state before the update."""
        return self.folder / "template"

    @property
    def state(self) -> Path:
        """The state that the runs of this process work on."""
        return self.folder / f"state-{os.getpid()}"

    def prepare(self) -> tuple[list[Point], frozenset[str]]:
        """Install the releases before; return the points of the traced update, and the files that it leaves.

        Raises:
            RuntimeError: If that doesn't end as it must: a fault of this script, or of the machine.
        """
        self.scene.enrol(self.state)
        for version in self.scenario.before:
            self._ends_well(self.run(self.plan(version, version), set()), "committed")
        shutil.copytree(self.state, self.template)
        traced = self.run(self.update(), set(), trace=["-e", f"trace={','.join(f'?{name}' for name in CALLS)}"])
        self._ends_well(traced, self.scenario.end)
        return traced.points, frozenset({*_files(self.state), *DOCUMENTED})

    def _ends_well(self, run: Run, phase: str) -> None:
        if run.status or run.end.get("phase") != phase or run.accepted - run.stored:
            raise RuntimeError(f"Expected {phase} without a fault, got {run.end} {run.refused} {run.errors}")

    def plan(self, version: int, hour: int) -> Plan:
        """Return the plan to install a release, at an hour after the first start."""
        releases = self.scene.releases
        bad = frozenset({releases[self.scenario.to - 1].artifact} if self.scenario.bad else ())
        wish, start_ms = releases[version - 1].desired, self.start_ms + hour * _HOUR_MS
        if version == self.scenario.to:
            wish = replace(wish, shadow=self.scenario.shadow)
        disagreed = self.scenario.disagreed
        return Plan(state=self.state, releases=releases, start_ms=start_ms, wish=wish, bad=bad, disagreed=disagreed)

    def update(self, hour: int = 10) -> Plan:
        """Return the plan of the update under test."""
        return self.plan(self.scenario.to, hour)

    def violations(self, point: Point, fault: str, usual: frozenset[str]) -> tuple[list[str], bool]:
        """Inject ``fault`` at ``point``; return which invariants did not hold, and whether it was injected.

        ``usual``: the files that a device may have.
        """
        shutil.rmtree(self.state, ignore_errors=True)
        shutil.copytree(self.template, self.state)
        inject = f"inject={point.call}:{FAULTS[fault]}:when={point.number}"
        first = self.run(self.update(), set(), trace=["-e", f"trace={point.call}", "-e", inject])
        hit = first.injected or (fault == "kill" and first.status == -signal.SIGKILL)
        found = []
        if fault == "kill" and hit and first.status != -signal.SIGKILL:
            found.append(f"the killed process ended with {first.status}")
        if fault != "kill" and first.errors:
            found.append(f"ended with a traceback: {first.errors.splitlines()[-1][:200]}")
        if fault != "kill" and first.end and first.end["phase"] != self.scenario.end:
            found.append(f"ended {first.end['phase']} [{first.end['code']}] {first.end['text']} beside the fault")
        found += self._current(done=False)
        second = self.run(self.update(11), first.stored)
        if second.status or second.errors:
            found.append(f"did not start again: {second.refused} {second.errors.splitlines()[-1:]}")
        elif second.end["phase"] != self.scenario.end:
            found.append(f"ended {second.end['phase']} [{second.end['code']}] {second.end['text']} after a restart")
        found += self._current(done=True)
        compared, compared_s = second.end.get("compared", 0), second.end.get("compared_s", 0.0)
        wanted_s = self.scenario.shadow.seconds if self.scenario.shadow else 0.0
        if compared != INPUTS_A_TURN * compared_s / TURN_S or compared_s < wanted_s:
            found.append(f"counted {compared} inputs in {compared_s} s of its shadow, which was to last {wanted_s} s")
        served, current = second.end.get("serving"), self._slots().current()
        if current is not None and served != current.sha256:
            found.append(f"serves {str(served)[:12]}, but {current.release} is current")
        lost = (first.accepted | second.accepted) - first.stored - second.stored
        if lost:
            found.append(f"lost accepted rows: {sorted(lost)[:5]}")
        rubbish = set(_files(self.state)) - usual
        if rubbish:
            found.append(f"left behind: {', '.join(sorted(rubbish))}")
        return found, hit

    def _slots(self) -> Slots:
        return Slots(self.state, RealDisk())

    def _current(self, *, done: bool) -> list[str]:
        """Check that old or new is current and whole; ``done``: the right one, and nothing else is held."""
        slots, found = self._slots(), []
        current = slots.current()
        old = f"m-{self.scenario.before[-1]}" if self.scenario.before else ""
        allowed = {self.scenario.kept} if done else {old, f"m-{self.scenario.to}"}
        name = current.release if current is not None else ""
        when = "after a restart" if done else "at once"
        if name not in allowed:
            found.append(f"{name or 'nothing'} is current {when}, not {' or '.join(sorted(allowed)) or 'nothing'}")
        if current is not None and condition(slots.bundle(current.sha256), current.sha256) is not Condition.WHOLE:
            found.append(f"the bundle of {name} is not whole {when}")
        if done and self.scenario.end != "committed":
            previous, way_back = slots.previous(), f"m-{self.scenario.before[-2]}"
            if previous is None or previous.release != way_back:
                found.append(f"{previous.release if previous else 'nothing'} is the release before, not {way_back}")
        if done:
            wanted = {one.sha256 for one in map(slots.read, NAMES) if one is not None}
            held = {path.name for path in (self.state / "blobs" / "sha256").glob("*")}
            if held != wanted:
                found.append(f"holds blobs {sorted(held ^ wanted)} more or less than the slots name")
        return found

    def run(self, plan: Plan, stored: set[tuple[str, str, int]], trace: Sequence[str] = ()) -> Run:
        """Run the device in a child of this process, with strace on it if ``trace`` has arguments for it."""
        log, errors = (self.folder / f"{name}-{os.getpid()}" for name in ("trace", "errors"))
        log.unlink(missing_ok=True)
        notes, go = os.pipe(), os.pipe()
        pid = os.fork()
        if not pid:
            _be_device(plan, stored, notes, go, errors)
        os.close(notes[1])
        os.close(go[0])
        tracer = None
        if trace:
            command = ["strace", "-y", "-s0", *trace, "-o", str(log), "-p", str(pid)]
            tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
            line = tracer.stderr.readline() if tracer.stderr is not None else b""
            if b"attached" not in line:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise RuntimeError(f"Expected strace to attach, got: {line.decode(errors='replace')}")
        os.write(go[1], b"\n")
        os.close(go[1])
        run = Run()
        with os.fdopen(notes[0], "rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                note = json.loads(line)
                run.accepted |= {tuple(row) for row in note.get("accepted", ())}
                run.stored |= {tuple(row) for row in note.get("stored", ())}
                run.refused = note.get("refused_to_run", run.refused)
                run.end = note if "phase" in note else run.end
        run.status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if tracer is not None:
            tracer.communicate(timeout=LIMIT_S)
            run.points, run.injected = _parse(log.read_text(errors="replace"), self.state)
        run.errors = errors.read_text() if run.status not in {0, 1, -signal.SIGKILL} else ""
        return run


def _be_device(
    plan: Plan, stored: set[tuple[str, str, int]], notes: tuple[int, int], go: tuple[int, int], errors: Path
) -> None:
    """Become the device; never returns."""
    status = 2
    try:
        os.close(notes[0])
        os.close(go[1])
        signal.alarm(round(LIMIT_S))
        log = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.read(go[0], 1)  # strace is attached
        status = run_device(plan, stored, notes[1])
    except BaseException:  # noqa: BLE001 - the outermost frame of a process
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def _parse(text: str, state: Path) -> tuple[list[Point], bool]:
    """Return the points of a trace, and whether something was injected."""
    counts: Counter[str] = Counter()
    points = []
    for line in text.splitlines():
        found = _CALL.match(line)
        if found is None:
            continue
        call, rest = found[1], found[2]
        counts[call] += 1
        paths = [one or two for one, two in _PATHS.findall(rest)]
        inside = [path for path in paths if path.startswith(f"{state}/") or path == str(state)]
        changes = " = -1 " not in rest and (call not in {"openat", "open"} or _WRITES.search(rest))
        if inside and changes:
            points.append(Point(call, counts[call], os.path.relpath(inside[0], state)))
    return points, "(INJECTED)" in text


def _files(state: Path) -> list[str]:
    return [str(path.relative_to(state)) for path in state.rglob("*")]


def _judged(matrix: Matrix, usual: frozenset[str], task: tuple[str, Point]) -> tuple[str, Point, list[str], bool]:
    fault, point = task
    return (fault, point, *matrix.violations(point, fault, usual))


def _judge_all(
    matrix: Matrix, faults: Sequence[str], sample: tuple[random.Random, int] | None, jobs: int
) -> Iterator[Verdict]:
    """Print and yield the outcome of each fault of one scenario."""
    matrix.folder.mkdir()
    points, usual = matrix.prepare()
    calls = Counter(point.call for point in points)
    name = matrix.scenario.name
    print(f"{name}: {len(points)} points: {', '.join(f'{n} {call}' for call, n in calls.most_common())}", flush=True)
    tasks = []
    for fault in faults:
        chosen = sample[0].sample(points, min(sample[1], len(points))) if sample else points
        tasks += [(fault, point) for point in chosen]
    reached, missed, bad = Counter[str](), Counter[str](), []
    with get_context("fork").Pool(jobs) as pool:
        for fault, point, found, hit in pool.imap_unordered(partial(_judged, matrix, usual), tasks):
            reached[fault] += hit
            missed[fault] += not hit
            for sentence in found:
                print(f"  {fault} at {point.call} {point.number} ({point.path}): {sentence}", flush=True)
                bad.append({"fault": fault, **asdict(point), "violation": sentence})
    for fault in faults:
        broken = [one for one in bad if one["fault"] == fault]
        print(f"  {fault}: {reached[fault]} points, {missed[fault]} not reached, {len(broken)} violations", flush=True)
        yield Verdict(
            scenario=name, fault=fault, points=reached[fault], of=len(points), missed=missed[fault],
            calls=dict(calls), violations=broken,
        )  # fmt: skip


@click.command()
@click.option(
    "--quick", is_flag=False, flag_value=QUICK_POINTS, default=0, type=click.IntRange(0),
    help=f"Only so many points of each scenario and fault ({QUICK_POINTS} without a number).",
)  # fmt: skip
@click.option("--seed", default=1, show_default=True, help="Which sample.")
@click.option("--scenario", "names", multiple=True, type=click.Choice([one.name for one in SCENARIOS]))
@click.option("--fault", "faults", multiple=True, type=click.Choice(sorted(FAULTS)))
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1, 64), help="Runs at once.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the result to this file too.")
def main(
    *,
    quick: int,
    seed: int,
    names: tuple[str, ...],
    faults: tuple[str, ...],
    jobs: int,
    json_file: Path | None,
) -> None:
    """Inject kill -9, EIO and ENOSPC at every durable system call of an update, and check what must hold."""
    if shutil.which("strace") is None:
        print("Expected strace, found none: apt-get install strace", file=sys.stderr)
        sys.exit(2)
    folder, started_s = Path(tempfile.mkdtemp(prefix="crash-matrix-")), time.monotonic()
    scene = make_scene(folder)
    sample = (random.Random(seed), quick) if quick else None  # noqa: S311 - no secret
    scene.serve()
    verdicts: list[Verdict] = []
    try:
        for scenario in SCENARIOS:
            if not names or scenario.name in names:
                matrix = Matrix(
                    scene=scene, scenario=scenario, folder=folder / scenario.name, start_ms=time.time_ns() // 10**6
                )
                verdicts += _judge_all(matrix, faults or tuple(FAULTS), sample, jobs)
    finally:
        scene.stop()
        shutil.rmtree(folder)
    tried, missed = (sum(getattr(one, name) for one in verdicts) for name in ("points", "missed"))
    violations = sum(len(one.violations) for one in verdicts)
    print(f"{tried} faults, {missed} not reached, {violations} violations in {time.monotonic() - started_s:.0f} s")
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(one) for one in verdicts], indent=1) + "\n")
    sys.exit(1 if violations or missed or not tried else 0)


if __name__ == "__main__":
    main()
