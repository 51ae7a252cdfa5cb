"""Plug-in folders: a file with the declarations is a plug-in, all others begin with ``_``."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compressor import formats
from compressor.errors import PluginError
from compressor.recipe.read import recipe_of
from edge_agent import declarations, runtimes

ROOT = Path(__file__).parents[2]
AGREED = {
    "compressor/data": {"load", "READS"},
    "compressor/formats": {"Format"},
    "compressor/networks": {"build"},
    "compressor/quantize": {"quantize", "READS"},
    "compressor/steps": {"Settings", "LEVEL"},
    "edge_agent/front_ends": {"decode", "SUFFIXES", "Settings"},
    "edge_agent/runtimes": {"load"},
    "edge_agent/sinks": {"open_sink", "Settings"},
    "edge_agent/sources": {"open_source", "Settings"},
}


def _names(file: Path) -> set[str]:
    """Return the names that a module defines or imports at its top."""
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("folder", AGREED)
def test_a_file_of_a_plug_in_folder_is_a_plug_in_or_begins_with_an_underscore(folder: str) -> None:
    """A helper without an underscore would be offered to people as a plug-in."""
    files = [file for file in (ROOT / folder).glob("*.py") if not file.name.startswith("_")]
    assert files
    assert {file.name: AGREED[folder] - _names(file) for file in files if AGREED[folder] - _names(file)} == {}


NAMED = re.compile(r"(onnxruntime|ai[-_]edge[-_]litert|tflite[-_]runtime)(\.[\w.]+)?|(model)?\.(onnx|ort|tflite)")
"""What a runtime's file alone may name: packages as modules and distributions, and endings of model files."""
MAKES_THE_FORMAT = {
    "compressor/formats": "the build host's half of a runtime",
    "compressor/tflite": "rewrites TFLite",
    "compressor/clean": "compares the answers of an ONNX file before and after each mend",
    "compressor/importing": "compares an ONNX file with the network made of it, node by node",
    "compressor/quantize": "onnxruntime's quantizers rewrite ONNX",
    "compressor/measurement/onnx_graph.py": "asks onnxruntime's optimiser",
    "compressor/api.py": "writes the ONNX file of a model in memory",
    "wire/manifest.py": "the artifact of a manifest from before there was the field",
}


def _named(file: Path) -> Iterator[str]:
    """Yield the names of a runtime in a module: imports, and strings that consist of one."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if NAMED.fullmatch(alias.name))
        elif isinstance(node, ast.ImportFrom) and NAMED.fullmatch(node.module or ""):
            yield str(node.module)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and NAMED.fullmatch(node.value):
            yield node.value


def test_nothing_but_its_file_names_the_package_or_format_of_a_runtime() -> None:
    """The compressor's parts that make the format are listed, each with its reason; none is listed in vain."""
    own = {ROOT / "edge_agent/runtimes" / f"{one.name}.py" for one in declarations.runtimes()}
    files = [
        file for folder in ("wire", "edge_agent", "server", "compressor") for file in (ROOT / folder).rglob("*.py")
    ]
    found = {str(file.relative_to(ROOT)): sorted(set(_named(file))) for file in files if file not in own}
    found = {name: names for name, names in found.items() if names}
    allowed = {name for name in found if any(name.startswith(listed) for listed in MAKES_THE_FORMAT)}
    assert {name: names for name, names in found.items() if name not in allowed} == {}
    assert [listed for listed in MAKES_THE_FORMAT if not any(name.startswith(listed) for name in allowed)] == []


OFFERED = [one for one in declarations.runtimes() if one.offered]
NAMES = {one.name for one in OFFERED} | {ending for one in OFFERED for ending in one.formats.values()}
HALVES = ("edge_agent/runtimes", "compressor/formats", "compressor/export", "compressor/tflite")
"""Where a format's own code stands."""
NO_QUESTION = {
    "compressor/recipe/model.py": "declares the keys of [model]",
    "compressor/api.py": "writes a recipe for the ONNX file that it has written",
}


def _asked(tree: ast.AST) -> Iterator[str]:
    """Yield the lines that ask for the runtime or format: comparisons, tables by name, fields with its name."""
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = []
        if isinstance(node, ast.Compare | ast.MatchValue):
            parts = [node]
        elif isinstance(node, ast.Dict):
            parts = list(node.keys)
        elif isinstance(node, ast.Subscript):
            parts = [node.slice]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {"get", "pop"}:
            parts = list(node.args[:1])
        for part in (one for whole in parts if whole is not None for one in ast.walk(whole)):
            names = getattr(part, "value", None), getattr(part, "attr", None), getattr(part, "id", None)
            if (names[0].__hash__ and {names[0]} & NAMES) or {*names[1:]} & {"BASELINE", *map(str.upper, NAMES)}:
                yield f"{node.lineno}: {ast.unparse(node)[:80]}"
        if isinstance(node, ast.If | ast.IfExp):
            fields = {one.attr for one in ast.walk(node.test) if isinstance(one, ast.Attribute)}
            yield from (f"{node.lineno}: .{name}" for name in sorted(fields & NAMES))


def test_no_code_asks_which_runtime_or_format_it_is() -> None:
    """A third one is one file a side; ``compressor.formats`` and ``edge_agent.declarations`` have the differences."""
    found = {}
    for folder in ("wire", "edge_agent", "server", "compressor"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            where = file.relative_to(ROOT).as_posix()
            if not where.startswith(HALVES) and where not in NO_QUESTION:
                found[where] = list(_asked(ast.parse(file.read_text(encoding="utf-8"))))
    assert {where: lines for where, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    [
        "if target.runtime == 'onnx': pass", "x = runtime in {'litert', name}", "a = {'onnx': 1}",
        "b = table['tflite']", "c = table.get('ort')", "d = runtime == LITERT", "e = item.runtime == formats.BASELINE",
        "f = 1 if model.onnx else 2",
        "match name:\n    case 'litert': pass",
    ],
)  # fmt: skip
def test_each_way_of_asking_for_a_runtime_is_found(line: str) -> None:
    """The rule can fail."""
    assert list(_asked(ast.parse(line)))


@pytest.mark.parametrize("line", ["run.export(w, 2, formats.BASELINE)", "a = formats.named(x).rescues", "b = 'onnx'"])
def test_using_a_format_is_no_question_which_it_is(line: str) -> None:
    """Reading a field of the format is allowed."""
    assert not list(_asked(ast.parse(line)))


def test_declarations_are_read_without_loading_a_runtime() -> None:
    """The control process reports the installed runtimes and stays small."""
    code = (
        "import sys; from edge_agent.device import hardware; found = hardware.runtimes()\n"
        "sys.exit(str([name for name in ('numpy', 'onnxruntime', 'importlib.metadata') if name in sys.modules] or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_a_runtime_says_its_packages_formats_and_layout() -> None:
    """By value for those that are there; the distribution that is installed is the one with a version."""
    found = {
        one.name: (dict(one.packages), dict(one.formats), one.layout, one.offered) for one in declarations.runtimes()
    }
    assert found["onnx"] == ({"onnxruntime": "onnxruntime"}, {"": "onnx", "ort": "ort"}, "NCHW", True)
    assert found["litert"][1:] == ({"": "tflite"}, "NHWC", True)
    assert found["memory"] == ({}, {}, "NCHW", False)
    onnx = declarations.runtime("onnx")
    assert (onnx.installed, onnx.version.split()[0]) == (True, "onnxruntime")
    missing = declarations.RuntimeFile(name="x", packages={"not_here": "not-here", "numpy": "numpy"})
    assert (missing.installed, missing.distribution) == (True, "numpy")
    missing = declarations.RuntimeFile(name="x", packages={"not_here": "not-here"})
    assert (missing.installed, missing.distribution, missing.version) == (False, "not-here", "")


def test_a_declaration_with_a_type_is_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it were ignored, the runtime would count as installed and without formats."""
    text = 'PACKAGES: dict[str, str] = {"not_here": "not-here"}\nFORMATS: dict[str, str] = {"": "x"}\nLAYOUT: str\n'
    (tmp_path / "typed.py").write_text(text)
    monkeypatch.setattr(runtimes.__spec__, "submodule_search_locations", [str(tmp_path)])
    found = declarations.runtime("typed")
    assert (found.installed, dict(found.formats), found.layout) == (False, {"": "x"}, "NCHW")


@pytest.mark.parametrize("text", ["PACKAGES = dict(a='b')\n", "def load(:\n"])
def test_a_file_of_a_runtime_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Every recipe and every start of an agent reads all declarations: an error that names no file helps nobody."""
    (tmp_path / "broken.py").write_text(text)
    monkeypatch.setattr(runtimes.__spec__, "submodule_search_locations", [str(tmp_path)])
    with pytest.raises(PluginError, match=r"as literals in broken\.py of .*: correct or remove the file"):
        recipe_of({"model": {"name": "m"}})


def test_a_file_of_a_format_that_does_not_import_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every recipe asks all formats whether it brings a file of theirs."""
    (tmp_path / "broken.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(tmp_path)])
    monkeypatch.setattr(formats.__spec__, "submodule_search_locations", [*formats.__path__])
    with pytest.raises(PluginError, match=r"'broken' to import, got RuntimeError: no licence in broken\.py, line 1"):
        recipe_of({"model": {"name": "m"}})
