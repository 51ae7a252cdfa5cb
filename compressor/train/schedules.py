"""Learning rate schedules.

Decides rates only; ``TrainRecipe.schedule`` names the schedule. ``one_cycle`` is torch's, which also cycles momentum;
the others are factors on the peak rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from compressor.errors import TrainError
from compressor.recipe.model import TrainRecipe

Schedule = torch.optim.lr_scheduler.LRScheduler
_RISING_RATIO = 0.25
_DROP = 0.1
_DROPS_AT = (0.5, 0.75)


def schedule(optimizer: torch.optim.Optimizer, settings: TrainRecipe, steps: int) -> Schedule:
    """Return the schedule of the settings.

    Args:
        optimizer: The optimizer whose rate changes.
        settings: ``schedule``, ``learning_rate`` (the peak), ``epochs``, ``warm_up_epochs``.
        steps: Steps of the optimizer in one epoch.

    Raises:
        TrainError: If the schedule is unknown.
    """
    total = max(2, settings.epochs * steps)
    warm_up = min(settings.warm_up_epochs * steps, total - 1)
    if settings.schedule == "one_cycle":
        rising = warm_up / total if warm_up else _RISING_RATIO
        if rising * total == 1:  # torch divides by the number of steps before the peak, counted from 0
            rising = 1.5 / total
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings.learning_rate, total_steps=total, pct_start=rising
        )
    if settings.schedule not in _FACTORS:
        message = f"Expected a schedule of one_cycle, {', '.join(_FACTORS)}, got {settings.schedule!r}"
        raise TrainError(message)
    factor = _FACTORS[settings.schedule]

    def at(step: int) -> float:
        return (step + 1) / (warm_up + 1) if step < warm_up else factor((step - warm_up) / (total - warm_up))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, at)


def _cosine(progress: float) -> float:
    """Return the factor of half a cosine. Source: Loshchilov and Hutter, SGDR, 2017, equation 5 without restarts."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def _step(progress: float) -> float:
    """Return a tenth for each drop passed. Source: He et al., 2015, section 4.2 (drops at 1/2 and 3/4)."""
    return _DROP ** sum(progress >= drop for drop in _DROPS_AT)


def _constant(progress: float) -> float:
    del progress
    return 1.0


_FACTORS: dict[str, Callable[[float], float]] = {"cosine": _cosine, "step": _step, "constant": _constant}
