"""The public names of the Python API with their signatures: a change here is a change for every notebook."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from pathlib import Path
from types import ModuleType

import pytest

PINNED = Path(__file__).with_name("public_names.txt")
MODULES = ("compressor.api", "edge_agent.api", "server.client")


def _signature(made: object) -> str:
    """Return names, kinds, types and whether there is a default, without the default's text."""
    parameters = inspect.signature(made).parameters.values()  # type: ignore[arg-type]
    parts, starred = [], False
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        default = "" if parameter.default is parameter.empty else " = ..."
        parts.append(f"{parameter.name}: {parameter.annotation}{default}" if parameter.name != "self" else "self")
    returned = inspect.signature(made).return_annotation  # type: ignore[arg-type]
    arrow = "" if returned is inspect.Signature.empty else f" -> {returned}"
    return f"({', '.join(parts)}){arrow}"


def public_names(module: ModuleType) -> tuple[str, ...]:
    """Return every public name of ``module``: functions and methods with signatures, fields with their types."""
    found = []
    for name in sorted(module.__all__):
        made = getattr(module, name)
        if not inspect.isclass(made):
            found.append(f"{name}{_signature(made)}" if inspect.isfunction(made) else name)
        elif not made.__module__.startswith(module.__name__):  # another module's, which pins it itself
            found.append(f"class {name}")
        else:
            found += [f"class {name}", *(f"  {line}" for line in _members(made))]
    return tuple(found)


def _members(made: type) -> list[str]:
    if dataclasses.is_dataclass(made):
        lines = [
            f"{field.name}: {field.type}{'' if _required(field) else ' = ...'}" for field in dataclasses.fields(made)
        ]
    else:
        lines = [f"__init__{_signature(made.__init__)}"]  # type: ignore[misc]
    for name, member in sorted(vars(made).items()):
        if name.startswith("_") and name != "_repr_html_":
            continue
        if isinstance(member, property):
            lines.append(f"{name} -> {inspect.signature(member.fget).return_annotation}")  # type: ignore[arg-type]
        elif inspect.isfunction(member):
            lines.append(f"{name}{_signature(member)}")
    return lines


def _required(field: dataclasses.Field[object]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def test_public_names_and_signatures_are_those_that_were_promised() -> None:
    """A change must also change the list, the guide and the changelog."""
    found = [line for name in MODULES for line in (f"{name}:", *public_names(importlib.import_module(name)), "")]
    assert found == PINNED.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", MODULES)
def test_the_guide_names_every_public_name(name: str) -> None:
    """The table at the end of the page has exactly the names that the module exports."""
    guide = (Path(__file__).parents[2] / "docs" / "reference" / "python-api.md").read_text(encoding="utf-8")
    (row,) = [line for line in guide.partition("## Names")[2].splitlines() if line.startswith(f"| `{name}` ")]
    assert sorted(row.split("`")[3::2]) == sorted(importlib.import_module(name).__all__)
