"""The two wheels, built from copies of the tracked files; nothing generated is left in the checkout.

``pyproject.toml`` of the slim wheel is derived from the whole one's: one place states versions and dependencies.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from wire.installation import FULL, SLIM

SLIM_PACKAGES = ("wire", "edge_agent")
_PACKAGES = ("wire", "compressor", "edge_agent", "server")
_FILES = ("pyproject.toml", "README.md", "LICENSE")
_EXTRAS = ("onnx", "litert")
_PROGRAM = "edge-agent"
_SETUPTOOLS = 77  # of [build-system] in pyproject.toml
TRY = Path("edge_agent") / "try"


def build(root: Path, trial: Path, out: Path, work: Path) -> list[Path]:
    """Return the two wheels in ``out``, built in ``work``; ``trial`` holds the files for ``edge-agent try``.

    Raises:
        CalledProcessError: If git or the build fails.
    """
    out.mkdir(parents=True, exist_ok=True)
    wheels = []
    for name, packages in ((FULL, _PACKAGES), (SLIM, SLIM_PACKAGES)):
        tree = work / name
        _stage(root, tree, packages)
        shutil.copytree(trial, tree / TRY)
        if name == SLIM:
            project = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))
            (tree / "pyproject.toml").write_text(toml(slim(project)), encoding="utf-8")
        wheels.append(_wheel(root, tree, out))
    return wheels


def slim(project: Mapping[str, object]) -> dict[str, object]:
    """Return the document of the slim wheel: the device's packages, extras and program."""
    table, tool = dict(project["project"]), project["tool"]["setuptools"]
    extras, programs = table["optional-dependencies"], table["scripts"]
    table |= {
        "name": SLIM,
        "description": "The device's part of tinyfleet: runs a small model, watches for drift, updates itself.",
        "optional-dependencies": {name: extras[name] for name in _EXTRAS},
        "scripts": {_PROGRAM: programs[_PROGRAM]},
    }
    found = {"find": {"include": [f"{name}*" for name in SLIM_PACKAGES]}}
    return {
        "build-system": project["build-system"],
        "project": table,
        "tool": {"setuptools": {**tool, "packages": found}},
    }


def toml(document: Mapping[str, object], path: tuple[str, ...] = ()) -> str:
    """Return ``document`` of tables, strings and lists of strings or of flat tables as TOML.

    Source: TOML 1.0: a JSON string is a basic string, a JSON array of strings an array.
    """
    tables = {key: value for key, value in document.items() if isinstance(value, Mapping)}
    lines = [f"{json.dumps(key)} = {_value(value)}\n" for key, value in document.items() if key not in tables]
    head = f"[{'.'.join(json.dumps(part) for part in path)}]\n" if path else ""
    return head + "".join(lines) + "".join(toml(value, (*path, key)) for key, value in tables.items())


def _value(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_value(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def _stage(root: Path, tree: Path, packages: Sequence[str]) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *_FILES, *packages], cwd=root, check=True, capture_output=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, tree / name)


def committed_s(root: Path) -> int:
    """Return the time of the commit that is checked out, in seconds since 1970: that of all files that are built.

    Raises:
        CalledProcessError: If git fails.
    """
    command = ["git", "log", "-1", "--format=%ct"]
    return int(subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout)


def _wheel(root: Path, tree: Path, out: Path) -> Path:
    """Return the wheel of ``tree``; its times are those of the commit, so that it is the same each time."""
    new = tree.with_name(f"{tree.name}-wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(new), str(tree)]
    if int(importlib.metadata.version("setuptools").partition(".")[0]) >= _SETUPTOOLS:
        command.append("--no-build-isolation")  # nothing is downloaded
    subprocess.run(command, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": str(committed_s(root))})
    built = next(new.glob("*.whl"))
    return Path(shutil.copy2(built, out / built.name))
