"""The command line of ``scripts/mutants``: sample, run, compare with the allowed survivors, and report."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[2]
SCOPE = Path(__file__).with_name("scope.toml")
ALLOWED = ROOT / "tests" / "mutants_allowed.toml"
QUICK = 6
KILLED_S = 10
STOPS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
STATUSES = ("killed", "survived", "timed out")
TEACH = f"""
A mutant is the code with one small change: < for <=, a call left out, a condition that is never met, another number.
The tests of its module run on it. If none fails, the mutant survives: nothing guards that line.

What to do about a survivor, best first:
  1. write the test that fails on it;
  2. remove the code, if nothing needs it;
  3. name it in tests/mutants_allowed.toml with a reason of one line (an equivalent mutant: no input tells the two
     apart; speed or wording only). The key is the file and the line before and after, not its number.
An entry there that fits no mutant any more, or whose mutant is killed, is named too, and removed by you.

examples:
  scripts/mutants                              300 mutants, spread evenly; nightly (about half an hour on two cores)
  scripts/mutants --quick                      {QUICK} mutants of one module, in less than a minute
  scripts/mutants --modules spool --sample 40  while you write the tests of one module
  scripts/mutants --modules spool --only 'if len(rows) > limit'   the mutants of one line
  scripts/mutants --json mutants.json          each mutant with file, line and outcome

Exit code: 0 if every survivor has its reason and no entry is stale, 1 if not, 2 if tests fail without a mutant.
Ctrl-C and SIGTERM stop it and leave nothing behind: neither processes nor the copy of the checkout.
"""
LANE = "not slow and not broker and not browser and not nightly"  # of scripts/test --fast
MUTMUT = """
[tool.mutmut]
source_paths = ["wire", "compressor", "edge_agent", "server"]
only_mutate = {sources}
also_copy = ["scripts", "models", "docs"]
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["-p", "no:cacheprovider", "-p", "no:xdist", "-m", "{lane}"]
do_not_mutate_patterns = {patterns}
timeout_multiplier = 6.0
timeout_constant = 2.0
use_git_change_detection = false
track_dependencies = false
"""


@dataclass(frozen=True, slots=True)
class Scope:
    """The sources mutated under one name, and their tests."""

    name: str
    sources: tuple[str, ...]
    tests: tuple[str, ...]


def scopes(path: Path = SCOPE) -> dict[str, Scope]:
    """Return the table of ``scope.toml``."""
    tables = tomllib.loads(path.read_text())
    return {name: Scope(name, tuple(table["sources"]), tuple(table["tests"])) for name, table in tables.items()}


def key(mutant: Mapping[str, object]) -> tuple[str, str, str]:
    """Return the key that an entry of ``mutants_allowed.toml`` and its mutant share."""
    return str(mutant["file"]), str(mutant["was"]), str(mutant["became"])


def allowed(path: Path = ALLOWED) -> dict[tuple[str, str, str], str]:
    """Return the reason for each allowed survivor."""
    entries = tomllib.loads(path.read_text()).get("allowed", []) if path.exists() else []
    return {key(entry): str(entry["reason"]) for entry in entries}


def shares(counts: Mapping[str, int], wanted: int) -> dict[str, int]:
    """Distribute ``wanted`` evenly; what exceeds a small module's mutants goes to the others."""
    left, given = dict(counts), dict.fromkeys(counts, 0)
    while wanted and any(left.values()):
        for name in [name for name, rest in left.items() if rest][:wanted]:
            given[name] += 1
            left[name] -= 1
            wanted -= 1
    return given


def chosen(mutants: Sequence[dict[str, object]], count: int, seed: str) -> list[dict[str, object]]:
    """Return ``count`` of ``mutants``, always the same for one ``seed``."""
    return random.Random(seed).sample(list(mutants), count)  # noqa: S311 - a sample is no secret


@contextmanager
def copied() -> Iterator[Path]:
    """Yield a copy of this checkout's files known to git; nothing is written here."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    with tempfile.TemporaryDirectory(prefix="tinyfleet-mutants-") as name:
        copy = Path(name)
        for file in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / file).is_file():
                (copy / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, copy / file)
        yield copy


def set_up(copy: Path, scope: Scope) -> None:
    """Make ``copy`` one in which mutmut mutates the sources of ``scope``, whatever it was set up for before."""
    from scripts.mutation.operators import TEXT_LINES  # noqa: PLC0415 - needs mutmut, --help does not

    settings = MUTMUT.format(
        sources=json.dumps(scope.sources), tests=json.dumps(scope.tests), patterns=json.dumps(TEXT_LINES), lane=LANE
    )
    shutil.rmtree(copy / "mutants", ignore_errors=True)
    (copy / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text() + settings)


def engine(copy: Path, *arguments: str) -> str:
    """Run ``engine.py`` in ``copy``; return what it printed.

    The engine and its forks are a session of their own, which is killed if the wait is interrupted: they would go on
    testing, and write into ``copy`` while it is removed.

    Raises:
        SystemExit: With 2, if it fails; the end of its output is shown.
    """
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONHASHSEED": "0"}
    program = [sys.executable, "-m", "scripts.mutation.engine", *arguments]
    pipe = subprocess.PIPE
    held = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # else a stop may fall between its start and the next line
    try:
        process = subprocess.Popen(
            program, cwd=copy, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        raise
    with process:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            printed, errors = process.communicate()
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate(timeout=KILLED_S)  # until the last fork has closed its output
    if process.returncode:
        sys.stderr.write("\n".join((printed + errors).replace("\r", "\n").splitlines()[-40:]) + "\n")
        raise SystemExit(2)
    return printed


def run_scope(scope: Scope, copy: Path, sample: Sequence[dict[str, object]], jobs: int) -> list[dict[str, object]]:
    """Return each of ``sample`` with its ``status``."""
    names, result = copy / "names.json", copy / "result.json"
    names.write_text(json.dumps([mutant["name"] for mutant in sample]))
    engine(copy, "run", str(names), str(result), str(jobs))
    statuses = json.loads(result.read_text())
    return [mutant | {"module": scope.name, "status": statuses[mutant["name"]]} for mutant in sample]


def table(rows: Sequence[Mapping[str, object]], names: Sequence[str]) -> str:
    """Return the outcome by module, as text."""
    lines = [f"{'module':12} {'mutants':>8} {'killed':>8} {'survived':>9} {'timed out':>10}"]
    for name in [*names, "all"]:
        mine = [row for row in rows if name in ("all", row["module"])]
        killed, survived, late = (sum(row["status"] == status for row in mine) for status in STATUSES)
        lines.append(f"{name:12} {len(mine):8} {killed:8} {survived:9} {late:10}")
    return "\n".join(lines)


def stale(
    reasons: Mapping[tuple[str, str, str], str],
    known: Sequence[tuple[str, str, str]],
    rows: Sequence[Mapping[str, object]],
    files: set[str],
) -> list[str]:
    """Return the entries of ``files`` without a matching mutant, or whose mutants were all killed in this run."""
    existing = set(known)
    by_key: dict[tuple[str, str, str], set[object]] = {}
    for row in rows:
        by_key.setdefault(key(row), set()).add(row["status"])
    told = []
    for entry in reasons:
        if entry[0] in files and entry not in existing:
            told.append(f"{entry[0]}: no mutant turns {entry[1]!r} into {entry[2]!r} any more")
        elif by_key.get(entry) == {"killed"}:
            told.append(f"{entry[0]}: a test kills {entry[1]!r} -> {entry[2]!r} now")
    return told


def arguments() -> argparse.ArgumentParser:
    """Return the options."""
    parser = argparse.ArgumentParser(
        prog="scripts/mutants",
        description="Change the code that decides, one small place at a time, and see whether its tests notice.",
        epilog=TEACH,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ", ".join(scopes())
    parser.add_argument("--modules", default="", metavar="A,B", help=f"only these of: {names}")
    parser.add_argument("--sample", type=int, default=300, metavar="N", help="so many mutants in all (300)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another seed draws others (0)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only mutants of lines that contain this text")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="so many mutants at once (2)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} mutants of the planner, or of --modules")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every mutant with its outcome there")
    return parser


def stop(number: int, _frame: FrameType | None) -> None:
    """Leave the program as an exception does, so that the engine is killed and the copy removed.

    Raises:
        SystemExit: With the shell's exit code for the signal ``number``.
    """
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main() -> int:
    """Run the requested mutants; return the exit code."""
    parser = arguments()
    options = parser.parse_args()
    known = scopes()
    names = [name for name in options.modules.split(",") if name] or (["planner"] if options.quick else list(known))
    for name in names:
        if name not in known:
            parser.error(f"expected --modules of {', '.join(known)}, got {name!r}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    started, reasons = time.monotonic(), allowed()
    rows, every = [], []
    listed: dict[str, list[dict[str, object]]] = {}
    with copied() as copy:
        for name in names:
            set_up(copy, known[name])
            found = json.loads(engine(copy, "list"))
            every += found
            listed[name] = [mutant for mutant in found if options.only in str(mutant["was"])]
        count = QUICK if options.quick else options.sample
        for name, share in shares({name: len(found) for name, found in listed.items()}, count).items():
            begun, sample = time.monotonic(), chosen(listed[name], share, f"{options.seed} {name}")
            if not sample:
                continue
            set_up(copy, known[name])
            rows += run_scope(known[name], copy, sample, options.jobs)
            print(f"{name}: {share} of {len(listed[name])} in {time.monotonic() - begun:.0f} s", file=sys.stderr)
    old = stale(reasons, [key(mutant) for mutant in every], rows, {str(mutant["file"]) for mutant in every})
    open_survivors = [row for row in rows if row["status"] == "survived" and key(row) not in reasons]
    for row in (row for row in rows if row["status"] == "survived"):
        reason = reasons.get(key(row), "NO REASON: write a test, or name it in tests/mutants_allowed.toml")
        print(f"\n{row['file']}:{row['line']} survived: {reason}")
        print("\n".join([f"- {line}" for line in str(row["was"]).splitlines()]))
        print("\n".join([f"+ {line}" for line in str(row["became"]).splitlines()]))
    print(f"\n{table(rows, names)}")
    print(
        f"\nseed {options.seed}, {time.monotonic() - started:.0f} s; {len(open_survivors)} survivors without a reason"
    )
    for line in old:
        print(f"stale in {ALLOWED.relative_to(ROOT)}: {line}: remove the entry")
    if options.json:
        options.json.write_text(json.dumps({"seed": options.seed, "mutants": rows}, indent=1) + "\n")
    return 1 if open_survivors or old else 0


if __name__ == "__main__":
    raise SystemExit(main())
