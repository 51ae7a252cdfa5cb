"""Byte code that is made when a device is installed: smaller, and the same answers."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent import bytecode

SOURCE = '''"""Some text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """A point."""

    x: int = 0
    y: float = 1.0


@dataclass(frozen=True)
class Named:
    """One with a hash of its own."""

    name: str = ""

    def __hash__(self) -> int:
        """Return 7."""
        return 7


def fail(point: Point) -> str:
    """Raise."""
    raise ValueError(str(point))
'''
ASKED = """
import json, sys, traceback, some
try:
    some.fail(some.Point(3))
except ValueError as error:
    stack = traceback.format_exc()
print(json.dumps({
    "texts": [some.__doc__, some.fail.__doc__, some.Point.__doc__], "annotations": some.fail.__annotations__,
    "stack": stack, "equal": some.Point(3) == some.Point(3), "other": some.Point(3) == some.Point(4),
    "hashed": len({some.Point(3), some.Point(3), some.Point(4)}), "own": hash(some.Named("a")),
}))
"""


def imported(folder: Path) -> dict[str, object]:
    """Return what a new process finds in the module there."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    printed = subprocess.check_output([sys.executable, "-c", ASKED], text=True, env=environment)
    return dict(json.loads(printed))


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """The source of a module, compiled."""
    (source := tmp_path / "some.py").write_text(SOURCE)
    bytecode.compile_lean(source)
    return source


def test_lean_code_has_no_texts_and_gives_the_same_answers(module: Path) -> None:
    """Documentation and annotations are gone; equality, hashes, texts of values and the lines of a stack are not."""
    found = imported(module.parent)
    assert (found["texts"], found["annotations"]) == ([None, None, "Point"], {})
    assert (found["equal"], found["other"], found["hashed"], found["own"]) == (True, False, 2, 7)
    line = SOURCE.splitlines().index("    raise ValueError(str(point))") + 1
    assert f'some.py", line {line}, in fail' in str(found["stack"])
    assert "ValueError: Point(x=3, y=1.0)" in str(found["stack"])


def test_a_source_that_has_changed_is_compiled_by_python_again(module: Path) -> None:
    """The header holds time and size of the source (PEP 552): nothing old is run."""
    module.write_text(SOURCE.replace("Some text.", "Another text."))
    assert imported(module.parent)["texts"] == ["Another text.", "Raise.", "A point."]


def test_code_of_another_python_is_not_asked_for(module: Path) -> None:
    """The cache is named after this Python, as its import system does."""
    cache = Path(importlib.util.cache_from_source(str(module)))
    assert cache.read_bytes()[:4] == importlib.util.MAGIC_NUMBER


@pytest.mark.slow
def test_both_packages_run_from_lean_code(tmp_path: Path) -> None:
    """A copy of them: every module compiles, and a message is read and written as by this process."""
    root = Path(bytecode.__file__).parents[1]
    for name in ("wire", "edge_agent"):
        for source in (root / name).rglob("*.py"):
            copy = tmp_path / source.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(source.read_bytes())
            bytecode.compile_lean(copy)
    asked = (
        "import wire, edge_agent.control.process, edge_agent.cli\n"
        "from wire.codec import decode, encode\nfrom wire.messages import Desired, MaintenanceWindow\n"
        "message = Desired(gen=3, release='a-1', window=MaintenanceWindow(days=('mon',)))\n"
        "assert wire.__doc__ is None and decode(Desired, encode(message)) == message\n"
        "print(encode(message).decode())"
    )
    run = [[sys.executable, "-c", asked.replace("wire.__doc__ is None and", text)] for text in ("", "wire.__doc__ and")]
    lean = subprocess.check_output(run[0], text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)}, cwd=tmp_path)
    assert lean == subprocess.check_output(run[1], text=True, cwd=root)
