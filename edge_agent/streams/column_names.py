"""The names of columns that arrive, compared with those that a release reads. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

REORDERED = "columns_reordered"
"""The code of a report: columns came in another order and were read by their names."""
_SHOWN, _LONGEST = 8, 40  # names in a message, and characters of one


def listed(names: Sequence[str]) -> str:
    """Return ``names`` for a message: the first, shortened."""
    shown = ", ".join(name[:_LONGEST] for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


@lru_cache(maxsize=8)  # each line of a source has the same names
def misfit(wanted: tuple[str, ...], given: tuple[str, ...], found: tuple[str, ...]) -> str:
    """Return what is wrong with ``given``, taken of the names ``found``, as names of ``wanted``; "" if only the order.

    A name that is in ``found`` twice is wrong if it was taken: which column is meant?
    """
    parts = (
        ("missing", [name for name in wanted if name not in found]),
        ("not of the model", [name for name in given if name not in wanted]),
        ("twice", [name for name in dict.fromkeys(given) if found.count(name) > 1]),
    )
    return "; ".join(f"{what}: {listed(names)}" for what, names in parts if names)
