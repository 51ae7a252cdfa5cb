"""``scripts/mutants``: its sample, its reasons, and one small run."""

import json
import subprocess
import sys
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


@pytest.mark.nightly
def test_a_quick_run_finds_each_mutant_killed_or_excused(tmp_path: Path) -> None:
    """All steps: copy, mutate, run the module's tests, report."""
    command = [sys.executable, "-m", "scripts.mutation", "--quick", "--json", str(tmp_path / "run.json")]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(json.loads((tmp_path / "run.json").read_text())["mutants"]) == mutants.QUICK
