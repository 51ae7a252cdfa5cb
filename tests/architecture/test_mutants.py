"""``scripts/mutants``: its sample, its reasons, and one small run."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import libcst as cst
import pytest

from scripts.mutation import __main__ as mutants
from scripts.mutation import operators

ROOT = Path(__file__).resolve().parents[2]
ONE = {"file": "a.py", "was": "x < 1", "became": "x <= 1", "name": "a.x_f__mutmut_1", "line": 3}


def _changed(code: str) -> list[str]:
    """Return the mutations of the expression or statement ``code``."""
    node = cst.parse_module(code).body[0]
    nodes = [node]
    for one in nodes:
        nodes.extend(one.children)
    return [
        cst.Module([]).code_for_node(new)
        for one in nodes
        for kind, change in operators.OPERATORS
        if isinstance(one, kind)
        for new in change(one)
    ]


@pytest.mark.parametrize(
    ("code", "mutated"),
    [
        ("disk.remove(path)", "pass"),
        ("raise error", "pass"),
        ("if late:\n    pass", "if False:\n    pass\n"),
        ("min(a, b)", "max(a, b)"),
        ("wait(limit=3)", "wait()"),
        ("'stuck'", "'XXstuck'"),
        ("0.05", repr(0.05 * 1.5)),
        ("'DELETE FROM rows WHERE seq <= ?'", "'DELETE FROM rows WHERE seq < ?'"),
        ("'SELECT id FROM rows ORDER BY id DESC'", "'SELECT id FROM rows ORDER BY id'"),
    ],
)
def test_a_change_of_each_kind_is_made(code: str, mutated: str) -> None:
    """These kinds were real holes; mutmut alone makes none of them."""
    assert mutated in _changed(code)


@pytest.mark.parametrize("code", ["'Expected a file, got none'", "'CREATE INDEX i ON rows (a)'", "f(None)", "x = None"])
def test_wording_and_none_are_left_alone(code: str) -> None:
    """Messages are for people, and mypy refuses a None that may not be."""
    assert not [new for new in _changed(code) if new not in {"pass", "f()"}]


def test_what_a_small_module_can_not_give_comes_from_the_others() -> None:
    """300 are 300, as long as there are so many."""
    assert mutants.shares({"a": 2, "b": 9, "c": 9}, 12) == {"a": 2, "b": 5, "c": 5}
    assert mutants.shares({"a": 2, "b": 1}, 12) == {"a": 2, "b": 1}


def test_a_seed_draws_the_same_mutants_again() -> None:
    """Another seed draws others."""
    many = [ONE | {"line": line} for line in range(100)]
    assert mutants.chosen(many, 9, "0") == mutants.chosen(many, 9, "0") != mutants.chosen(many, 9, "1")


@pytest.mark.parametrize(
    ("known", "status", "told"), [([], "", 1), ([mutants.key(ONE)], "killed", 1), ([mutants.key(ONE)], "survived", 0)]
)
def test_a_reason_that_fits_nothing_any_more_is_named(known: list, status: str, told: int) -> None:
    """The line changed, or a test kills the mutant by now."""
    rows = [ONE | {"status": status}] if status else []
    assert len(mutants.stale({mutants.key(ONE): "equivalent"}, known, rows, {"a.py"})) == told


def test_every_reason_is_one_line_and_every_pattern_finds_a_file() -> None:
    """A moved module would silently no longer be mutated."""
    assert all(reason and "\n" not in reason for reason in mutants.allowed().values())
    for scope in mutants.scopes().values():
        assert all(list(ROOT.glob(pattern)) for pattern in (*scope.sources, *scope.tests)), scope.name


def test_the_help_teaches_without_anything_installed() -> None:
    """The definition of a survivor, the next step, and commands to copy."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "scripts.mutation", "--help"], cwd=ROOT, check=False, capture_output=True
    )
    assert (done.returncode, b"scripts/mutants --quick" in done.stdout) == (0, True)


def test_a_stop_while_the_engine_starts_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes when the process exists and ``Popen`` has not returned yet."""
    (tmp_path / "scripts" / "mutation").mkdir(parents=True)
    (tmp_path / "scripts" / "mutation" / "engine.py").write_text("import time\ntime.sleep(60)\n")
    started: list[subprocess.Popen[str]] = []

    class Stopped(subprocess.Popen):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)
            started.append(self)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)  # the program has no other thread

    monkeypatch.setattr(subprocess, "Popen", Stopped)
    before = signal.signal(signal.SIGTERM, mutants.stop)
    try:
        with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
            mutants.engine(tmp_path, "run")
        assert started[0].returncode == -signal.SIGKILL
        assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGTERM, before)
        started[0].kill()


FORKS = """
import fcntl, os, signal, time
held = open("lock", "w")
fcntl.flock(held, fcntl.LOCK_EX)
if os.fork():
    os.kill(os.getppid(), signal.SIGHUP)
time.sleep(60)
"""


def test_an_interrupted_engine_is_killed_with_its_forks(tmp_path: Path) -> None:
    """The lock is held by both processes until both are gone."""
    (tmp_path / "scripts" / "mutation").mkdir(parents=True)
    (tmp_path / "scripts" / "mutation" / "engine.py").write_text(FORKS)
    before = signal.signal(signal.SIGHUP, mutants.stop)
    try:
        with pytest.raises(SystemExit, match=str(128 + signal.SIGHUP)):
            mutants.engine(tmp_path, "run")
    finally:
        signal.signal(signal.SIGHUP, before)
    with (tmp_path / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_run_leaves_no_process_and_no_folder(tmp_path: Path, number: signal.Signals) -> None:
    """Stopped while its engine lists the mutants: a process in the copy of the checkout."""
    default = f"--default-signal={signal.Signals(number).name.removeprefix('SIG')}"  # under nohup SIGHUP is ignored
    command = ["env", default, sys.executable, "-m", "scripts.mutation", "--quick"]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path)}) as process:
        until = time.monotonic() + 60
        while not _inside(tmp_path) and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(timeout=60) == 128 + number
    assert (_inside(tmp_path), list(tmp_path.iterdir())) == ([], [])


def _inside(folder: Path) -> list[str]:
    """Return the processes that work in ``folder``."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if place.readlink().is_relative_to(folder):
                found.append(place.parent.name)
        except OSError:  # ended meanwhile
            continue
    return found


@pytest.mark.nightly
def test_a_quick_run_finds_each_mutant_killed_or_excused(tmp_path: Path) -> None:
    """All steps: copy, mutate, run the module's tests, report."""
    command = [sys.executable, "-m", "scripts.mutation", "--quick", "--json", str(tmp_path / "run.json")]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(json.loads((tmp_path / "run.json").read_text())["mutants"]) == mutants.QUICK
