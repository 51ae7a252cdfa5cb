"""Which changes a mutant may be: those of mutmut that a type checker does not refuse anyway, and four of our own.

Left out of mutmut's, because ``mypy --strict`` runs before every test: an argument or a value that becomes ``None``.
Left out because no behaviour hangs on it: the wording of messages (strings that are no identifiers).
Added, because real holes were of these kinds: a statement that is gone, a condition that is never met, ``min`` for
``max`` and ``any`` for ``all``, and bounds and order inside SQL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import libcst as cst
from mutmut.mutation import mutators

_IDENTIFIER = re.compile(r"[\"'][a-z][a-z0-9_.]*[\"']")
_SQL = re.compile(r"\b(SELECT|DELETE|UPDATE|INSERT|WHERE|ORDER BY)\b")
_SQL_CHANGES = (
    (re.compile(r"<="), "<"),
    (re.compile(r">="), ">"),
    (re.compile(r"(?<![<>!])=(?!=)"), "!="),
    (re.compile(r"\s>(?!=)"), " >="),
    (re.compile(r" DESC\b"), ""),
    (re.compile(r"\bmin\("), "max("),
    (re.compile(r"\bmax\("), "min("),
)
_SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any"}
TEXT_LINES = (r"(?i)\b_?log(ger)?\.(debug|info|warning|error|exception)\(",)
"""Lines that are not mutated at all: what is logged is for a person."""


def _number(node: cst.BaseNumber) -> Iterator[cst.BaseNumber]:
    """Change a float by half, not by one: a threshold of 1.05 for 0.05 fails anywhere."""
    if isinstance(node, cst.Float) and 0 < node.evaluated_value < 1:
        yield node.with_changes(value=repr(node.evaluated_value * 1.5))
    else:
        yield from mutators.operator_number(node)


def _identifier(node: cst.BaseString) -> Iterator[cst.BaseString]:
    """Change a string that programs compare: a code, a key, a name."""
    if isinstance(node, cst.SimpleString) and _IDENTIFIER.fullmatch(node.value):
        yield node.with_changes(value=f"{node.value[0]}XX{node.value[1:]}")


def _sql(node: cst.SimpleString | cst.FormattedStringText) -> Iterator[cst.CSTNode]:
    """Change one bound or order in a statement of SQL."""
    if not _SQL.search(node.value) or "CREATE " in node.value:
        return
    for pattern, instead in _SQL_CHANGES:
        for found in pattern.finditer(node.value):
            yield node.with_changes(value=node.value[: found.start()] + instead + node.value[found.end() :])


def _removed(node: cst.Expr | cst.Raise) -> Iterator[cst.Pass]:
    """Leave a call or a ``raise`` out."""
    if isinstance(node, cst.Raise) or isinstance(node.value, cst.Call | cst.Await | cst.Yield):
        yield cst.Pass()


def _never(node: cst.If) -> Iterator[cst.If]:
    """Let a condition never be met."""
    yield node.with_changes(test=cst.Name("False"))


def _swapped(node: cst.Call) -> Iterator[cst.Call]:
    """Take the other of ``min`` and ``max``, ``any`` and ``all``."""
    if isinstance(node.func, cst.Name) and node.func.value in _SWAPPED:
        yield node.with_changes(func=cst.Name(_SWAPPED[node.func.value]))


def _default_instead(node: cst.Call) -> Iterator[cst.Call]:
    """Leave a keyword argument out, so that its default holds."""
    for i, argument in enumerate(node.args):
        if argument.keyword is not None:
            yield node.with_changes(args=[*node.args[:i], *node.args[i + 1 :]])


OPERATORS = [
    (cst.BaseNumber, _number),
    (cst.SimpleString, _identifier),
    (cst.SimpleString, _sql),
    (cst.FormattedStringText, _sql),
    (cst.Name, mutators.operator_name),
    (cst.AugAssign, mutators.operator_augmented_assignment),
    (cst.UnaryOperation, mutators.operator_remove_unary_ops),
    (cst.Call, mutators.operator_symmetric_string_methods_swap),
    (cst.Call, _default_instead),
    (cst.Call, _swapped),
    (cst.CSTNode, mutators.operator_keywords),
    (cst.CSTNode, mutators.operator_swap_op),
    (cst.Match, mutators.operator_match),
    (cst.IfExp, mutators.operator_if_exp),
    (cst.Expr, _removed),
    (cst.Raise, _removed),
    (cst.If, _never),
]


def install() -> None:
    """Make these the operators of mutmut in this process."""
    mutators.mutation_operators[:] = OPERATORS
