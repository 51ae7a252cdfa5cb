"""Step ``distill``: trains towards the teacher's logits and, optionally, its embedding.

Usually after ``prune``: the teacher is the network as it was trained, before the first step. Inputs without labels,
if there are any, are learnt by the teacher's answers alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from compressor.steps._base import NETWORK, Applied, Bench, Network
from wire.settings import Bound

LEVEL = NETWORK


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``[[compress]] step = "distill"``.

    ``temperature``: of both softmaxes (unused in a regression). ``weight``: of the teacher's logits (or a regression's
    values) against the labels, 0 to 1. ``feature_weight``: of the embedding's direction; 0 is off. ``learning_rate``:
    peak of the schedule. ``allow_unchanged``: no error if the step finds nothing to do.
    """

    step: str = "distill"
    epochs: Annotated[int, Bound(1, 10_000)] = 5
    temperature: Annotated[float, Bound(0.1, 100)] = 4.0
    weight: Annotated[float, Bound(0, 1)] = 0.7
    feature_weight: Annotated[float, Bound(0, 1000)] = 0.0
    learning_rate: Annotated[float, Bound(1e-8, 10)] = 0.002
    allow_unchanged: bool = False


def unread(settings: Settings) -> Mapping[str, str]:
    """Return the keys that other settings make unused, with the reason."""
    return {} if settings.weight else {"temperature": "with weight = 0"}


def apply(network: Network, bench: Bench, settings: Settings) -> Applied:
    """Return ``network``, trained towards ``bench.teacher``; notes give the agreement before and after on search rows.

    Raises:
        TrainError: If there is no teacher, or training fails.
    """
    if not (settings.weight or settings.feature_weight or settings.allow_unchanged):
        return Applied(
            network=network, nothing="weight and feature_weight are 0, so that the teacher counts for nothing"
        )
    from compressor.train import distillation  # noqa: PLC0415 - torch is loaded only to train

    teacher = distillation.teacher_of(network, bench)
    before = distillation.agreement(network, teacher, bench.search, "before")
    mixture = distillation.Mixture(settings.temperature, settings.weight, settings.feature_weight)
    train = replace(bench.settings, epochs=settings.epochs, learning_rate=settings.learning_rate)
    network = distillation.distil(network, bench, train, mixture)
    if bench.unlabelled is not None:
        before["unlabelled_inputs"] = float(len(bench.unlabelled))
    return Applied(network=network, notes=before | distillation.agreement(network, teacher, bench.search, "after"))
