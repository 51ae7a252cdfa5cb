"""Outside of the rooms of tasks, no code asks which task it is: it asks the task."""

import ast
import inspect
import pkgutil
from pathlib import Path

import pytest

import compressor.tasks
import edge_agent.tasks

ROOT = Path(__file__).parents[2]
ROOMS = (ROOT / "compressor" / "tasks", ROOT / "edge_agent" / "tasks")
SOURCES = [
    path
    for package in ("compressor", "edge_agent", "wire", "server")
    for path in sorted((ROOT / package).rglob("*.py"))
    if not any(path.is_relative_to(room) for room in ROOMS)
]
NAMES = {
    module.name
    for package in (compressor.tasks, edge_agent.tasks)
    for module in pkgutil.iter_modules(package.__path__)
    if not module.name.startswith("_")
}
LABEL = "number"
"""The value of ``[data] label`` that stands for a regression."""
STAND_FOR_IT = {"numeric", "is_regression", "is_classification", *(f"is_{name}" for name in NAMES)}
LAYOUT = {"compressor/data/_table.py"}
"""Where labels are checked and joined as a column of indices or a row of numbers for each name, of whatever task."""


def asked(tree: ast.AST, *, layout: bool = False) -> list[str]:
    """Return the lines of ``tree`` that ask which task it is; ``layout``: it may look at the shape of labels."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            constants = {one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and one.value.__hash__}
            shape = any(isinstance(one, ast.Attribute) and one.attr == "ndim" for one in ast.walk(node))
            labels = "labels" in ast.unparse(node)
            if constants & {*NAMES, LABEL} or (shape and labels and not layout):
                found.append(f"{node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.MatchValue) and ast.unparse(node.value).strip("'") in {*NAMES, LABEL}:
            found.append(f"{node.lineno}: case {ast.unparse(node)}")
        name = {ast.Attribute: "attr", ast.Name: "id", ast.arg: "arg", ast.keyword: "arg", ast.FunctionDef: "name"}
        own = getattr(node, name.get(type(node), ""), None)
        if own in STAND_FOR_IT or (isinstance(node, ast.Attribute) and own in NAMES):
            found.append(f"{node.lineno}: {own}")
        if isinstance(node, ast.ImportFrom | ast.Import):
            modules = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            found += [f"{node.lineno}: {one}" for one in modules if one.rpartition("tasks.")[2].split(".")[0] in NAMES]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_asks_which_task_it_is(path: Path) -> None:
    """Neither by its name, nor by the words and shapes for it; only ``tasks.of`` maps a recipe to its task."""
    where = path.relative_to(ROOT).as_posix()
    if where == "server/drift/verdicts.py":  # the release that made a device worse
        pytest.skip("its ``regression`` is that of a release")
    assert asked(ast.parse(path.read_text(encoding="utf-8")), layout=where in LAYOUT) == []


@pytest.mark.parametrize(
    "line",
    [
        "if task.name == 'regression': pass", "x = 'classification' in names", "a = recipe.regression",
        "f(numeric=True)", "def f(numeric): pass", "b = data.label == 'number'", "c = table.labels.ndim > 1",
        "from compressor.tasks.regression import evidence", "from compressor.tasks import classification",
        "match name:\n    case 'regression': pass",
    ],
)  # fmt: skip
def test_each_way_of_asking_is_found(line: str) -> None:
    """The rule can fail."""
    assert asked(ast.parse(line))


@pytest.mark.parametrize("line", ["a = tasks.of(data).measure", "b = task.name", "c = frame.kind == 'beat'"])
def test_asking_the_task_is_no_question_which_it_is(line: str) -> None:
    """Reading a field of the task is allowed."""
    assert not asked(ast.parse(line))


@pytest.mark.parametrize("name", compressor.tasks.known())
def test_every_task_drafts_a_first_recipe(name: str) -> None:
    """For `compressor init`: which rows it claims, its parts of a recipe, and how many rows must calibrate."""
    module = compressor.tasks.named(name).drafting
    for wanted, asks in inspect.getmembers(compressor.tasks.Drafting, inspect.isfunction):
        if not wanted.startswith("_"):
            given = inspect.signature(getattr(module, wanted)).parameters
            assert list(given) == list(inspect.signature(asks).parameters)[1:]
    assert 0 <= module.CALIBRATION_SHARE < 0.5


def test_both_sides_have_the_same_tasks() -> None:
    """A folder a side."""
    assert set(compressor.tasks.known()) == set(edge_agent.tasks.names())
    for name in compressor.tasks.known():
        assert compressor.tasks.named(name).device in edge_agent.tasks.names()


@pytest.mark.parametrize("name", [*compressor.tasks.known(), *sorted(compressor.tasks.UNLABELLED)])
@pytest.mark.parametrize(
    ("part", "protocol"),
    [
        ("targets", compressor.tasks.Targets), ("training", compressor.tasks.Training),
        ("judging", compressor.tasks.Judging), ("reporting", compressor.tasks.Reporting),
    ],
)  # fmt: skip
def test_every_part_offers_the_functions_of_its_protocol(name: str, part: str, protocol: type) -> None:
    """With the same arguments in the same order, so that a caller need not know whose they are."""
    module = getattr(compressor.tasks.named(name), part)
    for wanted, asks in inspect.getmembers(protocol, inspect.isfunction):
        if wanted.startswith("_"):
            continue
        given, needed = inspect.signature(getattr(module, wanted)), list(inspect.signature(asks).parameters)[1:]
        assert len(given.parameters) >= len(needed), wanted
        assert all(one.default is not inspect.Parameter.empty for one in list(given.parameters.values())[len(needed) :])
