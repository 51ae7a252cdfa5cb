"""The operators of mutants: those of mutmut that a type checker does not reject anyway, and four of our own.

Left out of mutmut's, because ``mypy --strict`` runs before every test: an argument or a value that becomes ``None``.
Left out because it does not affect behaviour: the wording of messages (strings that are not identifiers).
Added, because real holes were of these kinds: a removed statement, a condition that is never met, ``min`` for
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
"""Lines that are not mutated at all: log messages are for people."""


def _number(node: cst.BaseNumber) -> Iterator[cst.BaseNumber]:
    """Change a float by half, not by one: a threshold of 1.05 instead of 0.05 fails every test."""
    if isinstance(node, cst.Float) and 0 < node.evaluated_value < 1:
        yield node.with_changes(value=repr(node.evaluated_value * 1.5))
    else:
        yield from mutators.operator_number(node)


def _identifier(node: cst.BaseString) -> Iterator[cst.BaseString]:
    """Change a string that programs compare: a code, a key, a name."""
    if isinstance(node, cst.SimpleString) and _IDENTIFIER.fullmatch(node.value):
        yield node.with_changes(value=f"{node.value[0]}XX{node.value[1:]}")


def _sql(node: cst.SimpleString | cst.FormattedStringText) -> Iterator[cst.CSTNode]:
    """Change one bound or order in an SQL statement."""
    if not _SQL.search(node.value) or "CREATE " in node.value:
        return
    for pattern, instead in _SQL_CHANGES:
        for found in pattern.finditer(node.value):
            yield node.with_changes(value=node.value[: found.start()] + instead + node.value[found.end() :])


def _removed(node: cst.Expr | cst.Raise) -> Iterator[cst.Pass]:
    """Remove a call or a ``raise``."""
    if isinstance(node, cst.Raise) or isinstance(node.value, cst.Call | cst.Await | cst.Yield):
        yield cst.Pass()


def _never(node: cst.If) -> Iterator[cst.If]:
    """Replace a condition by one that is never met."""
    yield node.with_changes(test=cst.Name("False"))


def _swapped(node: cst.Call) -> Iterator[cst.Call]:
    """Swap ``min`` and ``max``, or ``any`` and ``all``."""
    if isinstance(node.func, cst.Name) and node.func.value in _SWAPPED:
        yield node.with_changes(func=cst.Name(_SWAPPED[node.func.value]))


def _default_instead(node: cst.Call) -> Iterator[cst.Call]:
    """Remove a keyword argument, so that its default applies."""
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
    """Install these as mutmut's operators in this process."""
    mutators.mutation_operators[:] = OPERATORS
