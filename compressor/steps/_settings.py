"""What every step's settings have. Recipes and steps both need it."""

from __future__ import annotations

from typing import Protocol


class Settings(Protocol):
    """The settings of one step in a recipe."""

    @property
    def step(self) -> str:
        """The step's name, which is its file's."""
