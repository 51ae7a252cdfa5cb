"""One row of ``drift.py``: a name, a measurement that is made when the row is wanted, and its target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


def _printed(_: Mapping[str, float]) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """``measure`` returns the figures by name, ours first; ``holds``: whether they meet the target ``asked``."""

    name: str
    measure: Callable[[], Mapping[str, float]]
    asked: str = "printed"
    holds: Callable[[Mapping[str, float]], bool] = _printed
