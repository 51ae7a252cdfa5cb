"""``[[compress]] step = "prune"``: fewer channels, by dependency graph, steered by measured MACs or latency.

Narrows layers and trains what is left; module names stay. The classes of the output layer are never pruned; the
embedding may narrow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from compressor.recipe.toml_fields import Checked
from compressor.steps._settings import Settings as StepSettings
from compressor.steps.base import NETWORK, Applied, Bench, Network

if TYPE_CHECKING:
    pass

LEVEL = NETWORK
IMPORTANCES = ("magnitude", "taylor", "bn_scale")


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the step.

    ``macs_ratio``: share of the multiply-accumulates that stays, counted, at most. ``importance``: ``magnitude``,
    ``taylor`` or ``bn_scale``. ``rounds``: prune a bit, fine-tune, again. ``fine_tune_epochs``: after the last round;
    1 after each before. ``round_to``: widths are multiples of it, which runtimes with wide registers like.
    ``latency_ratio``: if above 0, prune until the exported network takes at most this share of its time before, in
    onnxruntime on one thread, whatever ``macs_ratio`` says. ``max_layer_ratio``: share of a layer's channels that may
    go at most. ``sensitivity``: measure and note what each layer costs. ``protect_sensitive``: points of accuracy (of
    100) that a layer may cost at half its channels before it is left alone; 0 protects none.
    ``allow_unchanged``: the step may find nothing to do; without it that is an error.
    """

    step: str = "prune"
    macs_ratio: float = 0.5
    importance: str = "magnitude"
    rounds: int = 3
    fine_tune_epochs: int = 3
    round_to: int = 8
    latency_ratio: float = 0.0
    max_layer_ratio: float = 0.8
    sensitivity: bool = False
    protect_sensitive: float = 0.0
    allow_unchanged: bool = False


def checks(settings: Settings) -> list[Checked]:
    """Return what the settings must be."""
    where = "[[compress]] prune"
    return [
        Checked(f"{where} macs_ratio", settings.macs_ratio, 0.01, 0.99),
        Checked(f"{where} importance", settings.importance, one_of=IMPORTANCES),
        Checked(f"{where} rounds", settings.rounds, 1, 100),
        Checked(f"{where} fine_tune_epochs", settings.fine_tune_epochs, 0, 10_000),
        Checked(f"{where} round_to", settings.round_to, 1, 1024),
        Checked(f"{where} latency_ratio", settings.latency_ratio, 0, 0.99),
        Checked(f"{where} max_layer_ratio", settings.max_layer_ratio, 0.01, 0.99),
        Checked(f"{where} protect_sensitive", settings.protect_sensitive, 0, 100),
    ]


def unread(settings: Settings) -> Mapping[str, str]:
    """Return the keys that the other settings leave without use, and why."""
    return {"macs_ratio": "with latency_ratio, which decides alone"} if settings.latency_ratio else {}


def apply(network: Network, bench: Bench, settings: StepSettings) -> Applied:
    """Return ``network`` narrowed, and what that changed.

    Raises:
        PruneError: If the wanted share can't be reached, or there is nothing to prune or to judge with.
        TrainError: If fine-tuning diverges.
    """
    from compressor.prune.structured import prune  # noqa: PLC0415 - it imports torch

    return prune(network, bench, cast("Settings", settings))
