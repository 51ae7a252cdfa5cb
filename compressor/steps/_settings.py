"""The settings common to all steps, and conditions on them that a field's type can't express, for recipes and steps.

Ranges that depend on nothing are in the field's type (``wire.settings.Bound``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from compressor.errors import RecipeError
from wire.errors import SettingsError
from wire.settings import Bound, OneOf


class Settings(Protocol):
    """The settings of one step in a recipe."""

    @property
    def step(self) -> str:
        """The step's name, equal to its file's name."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A value and its condition: between ``low`` and ``high``, or ``one_of`` some names."""

    where: str
    value: float | str
    low: float = 0
    high: float = 0
    one_of: tuple[str, ...] = ()

    def require(self) -> None:
        """Check the value.

        Raises:
            RecipeError: If the condition is not met.
        """
        try:
            if isinstance(self.value, str):
                OneOf(self.one_of).check(self.where, self.value)
            else:
                Bound(self.low, self.high).check(self.where, self.value)
        except SettingsError as error:
            raise RecipeError(str(error)) from error
