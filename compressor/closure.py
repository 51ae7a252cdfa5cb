"""Finds the source code that a piece of work depends on: the modules that its entry modules import, transitively.

Decides what "the code of a stage" means for cache keys and for the digests of a certificate. Reads files and imports
nothing, so that a run that finds every step in the cache does not load torch.

1. An import counts wherever it stands in a module, at the top or inside a function; one under ``TYPE_CHECKING`` does
   not, because it never runs.
2. No import statement names a plug-in. The caller names the chosen one (``plugin``), so that editing one network does
   not retrain the others.
3. Imports are followed into our packages, into the folder that contains a plug-in, and into whatever else is on the
   path without being installed (another folder of ``PYTHONPATH``, a package in editable mode). If a plug-in is part of
   an installed package, all of that package's modules count; other installed packages count by version, which the
   caller names.
4. A module that defines stages (it imports the name ``apart``) imports inside functions what only one stage needs.
   These late imports are left out, and each stage names its own as entries.
"""

from __future__ import annotations

import ast
import importlib.util
import site
import sysconfig
from collections.abc import Sequence
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from wire.canonical import sha256_hex

OURS = ("wire", "edge_agent", "compressor")


def plugin(package: str, name: str) -> str:
    """Return the module of the plug-in ``name``: a module of ``package``, or that of ``my_package.my_module:function``.

    An empty name, which some settings use for "none", gives the package itself.
    """
    return name.partition(":")[0] if ":" in name else f"{package}.{name}".rstrip(".")


def package(name: str) -> tuple[str, ...]:
    """Return the names of all modules of the package ``name``, without importing it."""
    spec = located(name)
    if spec is None:
        return ()
    found = [name]
    for folder in spec.submodule_search_locations or ():
        for path in Path(folder).rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found.append(".".join((name, *(parts[:-1] if parts[-1] == "__init__" else parts))))
    return tuple(sorted(found))


def code_digests(entries: Sequence[str], *, apart: str = "") -> dict[str, str]:
    """Return the SHA-256 of the source of every module that ``entries`` may run, by the module's name.

    For modules that import the name ``apart``, late imports are left out (rule 4). A missing module has no digest.
    """
    digests: dict[str, str] = {}
    installed = _installed()
    firsts = {name.partition(".")[0] for name in entries} - set(OURS)
    beside = {_folder(located(name)) for name in firsts} - installed - {""}  # of plug-ins that no installer manages
    seen: set[str] = set()
    waiting = [(name, True) for name in entries]
    while waiting:
        name, entered = waiting.pop()
        first = name.partition(".")[0]
        ours = first in OURS
        if name in seen or not (ours or entered or _of_a_person(_folder(located(first)), beside, installed)):
            continue
        spec = located(name)
        if spec is None:
            continue
        seen.add(name)
        waiting.append((_within(name), entered))
        if entered and name == first and not ours:
            waiting += [(found, True) for found in package(name)]
        if spec.origin is None or not spec.origin.endswith(".py"):  # a folder without __init__.py, or compiled
            continue
        source = Path(spec.origin).read_bytes()
        digests[name] = sha256_hex(source)
        at_once, late = _imported(source, name if spec.submodule_search_locations is not None else _within(name))
        waiting += [(found, False) for found in (*at_once, *(late if apart not in at_once else ()))]
    return dict(sorted(digests.items()))


def _within(name: str) -> str:
    """Return the package that contains the module ``name``, "" for a top-level one."""
    return name.rpartition(".")[0]


def _of_a_person(folder: str, beside: set[str], installed: set[str]) -> bool:
    """Return whether no installer manages ``folder``, so that its modules change without a new version."""
    return folder in beside or (folder not in installed | {""} and not any(Path(folder).glob("*.dist-info")))


def _installed() -> set[str]:
    """Return the folders of installed packages and of the standard library."""
    paths = sysconfig.get_paths()
    found = {paths["purelib"], paths["platlib"], paths["stdlib"], paths["platstdlib"], site.getusersitepackages()}
    return {str(Path(path).resolve()) for path in (*found, *site.getsitepackages())}


def _folder(spec: ModuleSpec | None) -> str:
    """Return the folder of the path that contains a top-level module or package."""
    if spec is None:
        return ""
    if spec.submodule_search_locations is not None:
        return str(Path(next(iter(spec.submodule_search_locations))).resolve().parent)
    return str(Path(spec.origin).resolve().parent) if spec.origin else ""


def located(name: str) -> ModuleSpec | None:
    """Return the spec of the module ``name``, without importing its parent packages."""
    first, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(first) if first else None
    except ValueError:  # a module such as __main__ that was loaded without a spec
        return None
    for part in rest:
        folders = spec.submodule_search_locations if spec is not None else None
        if spec is None or not folders:
            return None
        name = f"{spec.name}.{part}"
        try:
            spec = PathFinder.find_spec(name, folders)
        except KeyError:  # nested folders without __init__.py: Python expects the outer one to be imported already
            spec = ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [str(Path(folder) / part) for folder in folders]
    return spec


@lru_cache(maxsize=2048)
def _imported(source: bytes, at: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the modules that ``source`` in the package ``at`` imports: at import time, and late (inside functions)."""
    found: tuple[list[str], list[str]] = ([], [])
    try:
        waiting: list[tuple[ast.AST, bool]] = [(ast.parse(source), False)]
    except (SyntaxError, ValueError):  # importing it fails anyway, with an error that names the line
        return (), ()
    while waiting:
        node, late = waiting.pop()
        if isinstance(node, ast.Import):
            found[late].extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, at)
            found[late].extend((base, *(f"{base}.{alias.name}" for alias in node.names)))
        inside = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        below = node.orelse if isinstance(node, ast.If) and for_types else ast.iter_child_nodes(node)
        waiting += [(child, inside) for child in below]
    return tuple(found[0]), tuple(found[1])


def _base(node: ast.ImportFrom, at: str) -> str:
    """Return the full name of the module that ``node`` imports from, in the package ``at``."""
    if not node.level:
        return node.module or ""
    parts = at.split(".")
    return ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])
