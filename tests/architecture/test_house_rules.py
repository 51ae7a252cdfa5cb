"""The rules of the house that no linter knows."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("wire", "compressor", "edge_agent", "server")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
GRAB_BAGS = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base_utils"}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_modules_are_nouns_of_the_domain() -> None:
    """No grab bags."""
    assert [_name(path) for path in SOURCES if path.stem in GRAB_BAGS] == []


@pytest.mark.parametrize("path", TESTS, ids=_name)
def test_every_test_says_in_one_sentence_what_it_shows(path: Path) -> None:
    """A test's docstring is the specification."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    assert [node.name for node in tests if not ast.get_docstring(node)] == []


def test_every_package_ships_its_types() -> None:
    """Type checkers of users see our annotations."""
    assert all((ROOT / package / "py.typed").exists() for package in PACKAGES)
