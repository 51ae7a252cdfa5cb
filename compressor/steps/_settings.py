"""The settings common to all steps, for recipes and steps."""

from __future__ import annotations

from typing import Protocol


class Settings(Protocol):
    """The settings of one step in a recipe."""

    @property
    def step(self) -> str:
        """The step's name, equal to its file's name."""
