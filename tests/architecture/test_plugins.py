"""Plug-in folders: what lies in one is a plug-in by its declarations, and what is none begins with ``_``."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AGREED = {
    "compressor/data": {"load", "READS"},
    "compressor/networks": {"build"},
    "compressor/quantize": {"quantize", "READS"},
    "compressor/steps": {"Settings", "LEVEL"},
    "edge_agent/front_ends": {"decode", "complete", "SUFFIXES", "OPTIONS"},
    "edge_agent/runtimes": {"load"},
    "edge_agent/sources": {"open_source", "Settings"},
}


def _names(file: Path) -> set[str]:
    """Return what a module defines or imports at its top."""
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
