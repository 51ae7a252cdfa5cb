"""Result of a search. Pure data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from compressor.recipe.model import Recipe
from compressor.search.pareto import Choice, Tried, feasible


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Result of a search. ``front`` and ``choice`` are among ``tried``; ``recipe`` is the chosen one, ready to run.

    ``release``: model and version; ``allowed_drop``: 0..1, the limit for a form to be chosen.
    """

    release: str
    target: str
    allowed_drop: float
    tried: tuple[Tried, ...]
    front: tuple[Tried, ...]
    choice: Choice
    recipe: Recipe

    def document(self) -> dict[str, Any]:
        """Return everything except the recipe as JSON values; drops are 0..1, times milliseconds."""
        best = {item.number for item in self.front}
        trials = [
            {
                **asdict(item),
                "settings": dict(item.settings),
                "feasible": feasible(item, self.allowed_drop),
                "front": item.number in best,
                "latency_ratio": item.measured.latency_ratio if item.measured else None,
            }
            for item in self.tried
        ]
        return {
            "release": self.release, "target": self.target, "allowed_drop": self.allowed_drop, "trials": trials,
            "front": [item.number for item in self.front], "chosen": self.choice.tried.number,
            "reason": list(self.choice.reason),
        }  # fmt: skip
