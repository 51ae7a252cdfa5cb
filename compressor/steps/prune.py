"""``[[compress]] step = "prune"``: fewer channels, by dependency graph, steered by measured MACs or latency.

Narrows layers and trains what is left; module names stay. The classes of the output layer are never pruned; the
embedding may narrow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from compressor.prune.settings import PruneSettings as Settings
from compressor.recipe.toml_fields import Checked
from compressor.steps._base import NETWORK, Applied, Bench, Network
from compressor.steps._settings import Settings as StepSettings

LEVEL = NETWORK
IMPORTANCES = ("magnitude", "taylor", "bn_scale")


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
