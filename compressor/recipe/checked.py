"""Conditions on a value of a recipe that its field's type can't express: a range that depends on other values.

Ranges that depend on nothing are in the field's type (``wire.settings.Bound``).
"""

from __future__ import annotations

from dataclasses import dataclass

from compressor.errors import RecipeError
from wire.errors import SettingsError
from wire.settings import Bound, OneOf


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
