"""Byte code of a device's programs that takes less memory and room than Python's own; made when they are installed.

``python -P -X no_debug_ranges -m edge_agent.bytecode`` compiles ``wire``, ``edge_agent`` and ``paho``, where they are
installed, into their ordinary caches (``__pycache__``): without documentation, which nobody reads on a device, and
without the columns that mark an error within its line. Ours also without the annotations of functions, and with frozen
dataclasses that only hash like ones: half of such a class is code that refuses assignments, and tests have shown that
there are none. A dataclass keeps a text of one word, because without one it imports ``inspect`` to make its own. The
lines of a stack stay, and what the command line prints. Python makes its usual code of a source that has changed.
"""

from __future__ import annotations

import ast
import importlib.util
import marshal
from pathlib import Path

_OURS, _OTHERS = ("wire", "edge_agent"), ("paho",)


def compile_lean(source: Path, *, ours: bool = True) -> None:
    """Write the byte code of the module ``source`` where the import system looks for it.

    Source: PEP 552: a magic number, flags, the time and the size of the source.

    Raises:
        SyntaxError: If the file is not Python.
        OSError: If it can't be read, or the other not written.
    """
    tree = ast.parse(source.read_bytes(), source)
    if ours:
        tree = ast.fix_missing_locations(_Lean().visit(tree))
    code = compile(tree, source, "exec", dont_inherit=True, optimize=2)
    found, cache = source.stat(), Path(importlib.util.cache_from_source(str(source)))
    head = [0, int(found.st_mtime), found.st_size]
    cache.parent.mkdir(exist_ok=True)
    cache.write_bytes(
        importlib.util.MAGIC_NUMBER
        + b"".join((number & 0xFFFFFFFF).to_bytes(4, "little") for number in head)
        + marshal.dumps(code)
    )


class _Lean(ast.NodeTransformer):
    """Leaves out what only people, type checkers and tests need."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Remove the annotation of what it returns."""
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        """Remove the annotation."""
        node.annotation = None
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Give a decorated class its name as documentation, and leave the guard of a frozen one out."""
        hashed = any(isinstance(part, ast.FunctionDef) and part.name == "__hash__" for part in node.body)
        for decorator in node.decorator_list:
            given = {item.arg: item for item in decorator.keywords} if isinstance(decorator, ast.Call) else {}
            if "frozen" in given and "eq" not in given and not hashed:
                given["frozen"].arg = "unsafe_hash"  # equal values of a frozen class have equal hashes, and so here
        if node.decorator_list:
            text = ast.Assign([ast.Name("__doc__", ast.Store())], ast.Constant(node.name))
            node.body.insert(0, ast.copy_location(text, node))
        return self.generic_visit(node)


def main() -> None:
    """Compile the packages; Python leaves the columns out if it runs with ``-X no_debug_ranges``."""
    for name in (*_OURS, *_OTHERS):
        spec = importlib.util.find_spec(name)
        for folder in (spec.submodule_search_locations if spec else None) or ():
            for source in sorted(Path(folder).rglob("*.py")):
                compile_lean(source, ours=name in _OURS)


if __name__ == "__main__":
    main()
