"""The rules of the house that no linter checks."""

import ast
from collections import Counter
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


FIELDS_BY_PLACE = 3
FROM_A_ROW = {"Shares", "Splits", "Table", "Point", "Epoch"}
"""Of the compressor: made from the values of one row, a product or a kept file, by their place there."""


@pytest.mark.parametrize("package", PACKAGES)
def test_fields_of_a_dataclass_with_more_than_three_are_named(package: str) -> None:
    """Four positional values can't be told apart, and an inserted field would shift them."""
    assert [
        f"{_name(path)} {node.name}"
        for path in SOURCES
        if path.is_relative_to(ROOT / package)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name not in FROM_A_ROW and _fields_by_place(node) > FIELDS_BY_PLACE
    ] == []


def _fields_by_place(node: ast.ClassDef) -> int:
    """Return how many fields of a dataclass may be given by their place."""
    decorators = [ast.unparse(one) for one in node.decorator_list]
    if not any("dataclass" in one and "kw_only=True" not in one for one in decorators):
        return 0
    fields = [
        one
        for one in node.body
        if isinstance(one, ast.AnnAssign)
        and "ClassVar" not in ast.unparse(one.annotation)
        and "kw_only=True" not in ast.unparse(one)
    ]
    names = [ast.unparse(one.annotation) for one in fields]
    return names.index("KW_ONLY") if "KW_ONLY" in names else len(fields)


AGREED_CLASSES = {"Settings", "Format"}
"""Each plug-in of some kinds has one of its own by this name."""


def test_a_class_name_stands_in_one_file_of_the_project() -> None:
    """Two meanings of one name are confused in conversations and imports."""
    places: dict[str, set[str]] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name not in AGREED_CLASSES:
                places.setdefault(node.name, set()).add(_name(path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


ROOMS_MAY_HAVE = 14
PLUG_IN_ROOMS = {
    "data",
    "networks",
    "steps",
    "quantize",
    "tasks",
    "sources",
    "sinks",
    "runtimes",
    "transports",
    "front_ends",
    "versions",  # migrations, found by Alembic: a released one stays for good
}


@pytest.mark.parametrize("package", ["compressor", "edge_agent", "server"])
def test_a_folder_is_one_room(package: str) -> None:
    """At most 14 files a folder, plug-in folders aside; ``wire`` stays flat."""
    rooms = Counter(path.parent for path in SOURCES if path.is_relative_to(ROOT / package))
    full = {_name(room): count for room, count in rooms.items() if count > ROOMS_MAY_HAVE}
    assert {room: count for room, count in full.items() if Path(room).name not in PLUG_IN_ROOMS} == {}


def _modules() -> dict[str, Path]:
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in SOURCES}


def _imports(path: Path, modules: dict[str, Path]) -> set[str]:
    """Return the modules of ours that a file imports: at its top, late, or for types alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {name if name in modules else node.module for name in inner}
    return found & modules.keys()


def test_no_module_imports_itself_by_way_of_others() -> None:
    """No import circles, late imports and imports for types counted."""
    modules = _modules()
    left = {name: _imports(path, modules) - {name} for name, path in modules.items()}
    while free := {name for name, imports in left.items() if not imports & left.keys()}:
        left = {name: imports for name, imports in left.items() if name not in free}
    assert {name: sorted(imports & left.keys()) for name, imports in left.items()} == {}
