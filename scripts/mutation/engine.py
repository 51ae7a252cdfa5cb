"""Uses mutmut as a library inside a copy of the repository: lists the mutants of a module, and runs some of them.

mutmut 3 writes all mutants of a file into one module behind switches, so that one import serves them all: a mutant
costs a fork and the tests that reach its function. It has no sampling (github.com/boxed/mutmut/issues/278) and does not
mutate decorated functions, nor what runs at import (constants, defaults of fields).
"""

from __future__ import annotations

import functools
import gc
import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut import __main__ as mutmut
from mutmut.configuration import config
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.file_mutation import create_mutations, deep_replace
from mutmut.mutation.trampoline_templates import mangle_function_name
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files
from mutmut.utils.format_utils import get_mutant_name
from mutmut.workers import isolation

from scripts.mutation import operators

OWN = frozenset({"wire", "compressor", "edge_agent", "server"})
_TIMED_OUT = frozenset({"timeout"})
_SURVIVED = frozenset({"survived", "no tests", "not checked", "skipped"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change: ``was`` and ``became`` are the lines that differ, without indentation."""

    name: str
    file: str
    line: int
    was: str
    became: str


def mutants() -> Iterator[Mutant]:
    """Yield every mutant of the configured files, in the order of mutmut's numbers."""
    for path in sorted(walk_mutatable_files()):
        yield from _of_file(path)


def _of_file(path: Path) -> Iterator[Mutant]:
    module, mutations, _, _ = create_mutations(str(path), path.read_text())
    places = MetadataWrapper(module, unsafe_skip_copy=True).resolve(PositionProvider)
    classes = {
        method: statement.name.value
        for statement in module.body
        if isinstance(statement, cst.ClassDef) and isinstance(statement.body, cst.IndentedBlock)
        for method in statement.body.body
    }
    numbers: dict[cst.CSTNode, int] = {}
    for mutation in mutations:
        function = mutation.contained_by_top_level_function
        if not isinstance(function, cst.FunctionDef):
            continue
        numbers[function] = numbers.get(function, 0) + 1
        mangled = mangle_function_name(name=function.name.value, class_name=classes.get(function))
        mutated = deep_replace(function, mutation.original_node, mutation.mutated_node)
        before = module.code_for_node(function).splitlines()
        after = module.code_for_node(cast("cst.FunctionDef", mutated)).splitlines()
        head = _alike(before, after)
        tail = _alike(before[head:][::-1], after[head:][::-1])
        yield Mutant(
            name=get_mutant_name(path, f"{mangled}__mutmut_{numbers[function]}"),
            file=str(path),
            line=places[function].start.line - len(function.leading_lines) - len(function.decorators) + head,
            was=_joined(before[head : len(before) - tail]),
            became=_joined(after[head : len(after) - tail]),
        )


def _alike(left: list[str], right: list[str]) -> int:
    """Return how many leading lines are equal."""
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def _joined(lines: list[str]) -> str:
    return "\n".join(line.strip() for line in lines)


def forget() -> None:
    """Discard state that the run without a mutant left in this process: values of test modules, cached results.

    A mutant is tested in a fork of the process that has run the tests once. What was computed there would hide it.
    """
    for name, module in list(sys.modules.items()):
        if f"{os.sep}tests{os.sep}" in (getattr(module, "__file__", None) or "") and "site-packages" not in str(module):
            del sys.modules[name]
    for one in gc.get_objects():
        if isinstance(one, functools._lru_cache_wrapper) and one.__module__.partition(".")[0] in OWN:  # noqa: SLF001
            one.cache_clear()


class _Fresh(mutmut.PytestRunner):
    """mutmut's test runner, without state of an earlier run."""

    def run_tests(self, *, mutant_name: str | None, tests: Iterable[str]) -> int:
        """Run ``tests``."""
        forget()
        return super().run_tests(mutant_name=mutant_name, tests=tests)


def run(names: list[str], jobs: int) -> dict[str, str]:
    """Run the tests that reach each mutant; return ``killed``, ``survived`` or ``timed out`` by name.

    Raises:
        SystemExit: If the tests fail without a mutant.
    """
    isolation.PytestRunner = mutmut.PytestRunner = _Fresh
    mutmut._run(names, jobs)  # noqa: SLF001 - the command line of mutmut does only this; the version is pinned
    exits: dict[str, int | None] = {}
    for path in walk_mutatable_files():
        data = SourceFileMutationData(path=path)
        data.load()
        exits |= data.exit_code_by_key
    return {name: _status(status_by_exit_code[exits[name]]) for name in names}


def _status(status: str) -> str:
    if status in _TIMED_OUT:
        return "timed out"
    return "survived" if status in _SURVIVED else "killed"


def main() -> int:
    """``list`` prints the mutants as JSON; ``run NAMES RESULT JOBS`` runs those whose names are in a file."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # its parent starts it with those that stop it held back
    operators.install()
    command, *arguments = sys.argv[1:]
    if command == "list":
        print(json.dumps([asdict(mutant) for mutant in mutants()]))
        return 0
    names, result, jobs = Path(arguments[0]), Path(arguments[1]), int(arguments[2])
    os.environ.setdefault("PYTHONHASHSEED", "0")
    config()  # read here, in the folder of the copy's pyproject.toml
    result.write_text(json.dumps(run(json.loads(names.read_text()), jobs)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
