"""One gate of a recipe or certificate: its limit, its confidence and where it is measured. Pure data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GateRecipe:
    """One line of ``[gates]``: at most ``max``, at least ``min``, at this ``confidence``.

    ``on`` of a recipe: a target's name, or ``device:ID`` or ``TARGET@device:ID``: on that device too, through its
    agent. A certificate keeps the line for the one target that it stands for: there ``on`` is the device that the gate
    was judged on, "" for the host.
    """

    name: str = ""
    max: float | None = None
    min: float | None = None
    confidence: float = 0.95
    on: str = ""

    @property
    def limit(self) -> float | None:
        """The limit that is given, ``max`` or ``min``."""
        return self.max if self.max is not None else self.min
