"""The share of sources in each split. A data set recommends its own; a recipe may override them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shares:
    """The share of sources in each split; they sum to 1.

    A 1-point margin at 95 % needs about 2,350 gate rows at 3.8 % discordance, a drift reference at least 2,000 rows;
    calibration needs a few hundred.
    """

    train: float = 0.435
    calibration: float = 0.02
    gate: float = 0.295
    reference: float = 0.25


DEFAULT_SHARES = Shares()
