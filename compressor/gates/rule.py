"""One gate of a recipe or certificate: its limit, its confidence and where it is measured. Pure data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRecipe:
    """One line of ``[gates]``: at most ``max``, at least ``min``, at this ``confidence``.

    ``on`` in a recipe: a target's name, or ``device:ID`` or ``TARGET@device:ID``: also on that device, through its
    agent. In a certificate the line belongs to one target, and ``on`` is the device on which the gate was judged, ""
    for the host.
    """

    name: str = ""
    max: float | None = None
    min: float | None = None
    confidence: float = 0.95
    on: str = ""

    @property
    def limit(self) -> float | None:
        """The given limit, ``max`` or ``min``."""
        return self.max if self.max is not None else self.min
