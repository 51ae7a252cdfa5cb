"""One gate of a recipe: its limit, its confidence and where it is measured. Pure data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """One gate of the recipe, as the certificate keeps it; ``on``: the device it is judged on, "" for the host."""

    name: str = ""
    max: float | None = None
    min: float | None = None
    confidence: float = 0.95
    on: str = ""


@dataclass(frozen=True, slots=True)
class GateRecipe:
    """One line of ``[gates]``: at most ``max``, at least ``min``, at this ``confidence``, measured on target ``on``.

    ``on = "device:ID"``, or ``"TARGET@device:ID"`` for one target of several: on that device too, through its agent.
    """

    name: str
    max: float | None = None
    min: float | None = None
    confidence: float = 0.95
    on: str = ""
