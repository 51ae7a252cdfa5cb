"""``[[compress]] step = "prune"``: fewer channels, by dependency graph, steered by measured MACs or latency.

Narrows layers and trains what is left; module names stay. The classes of the output layer are never pruned; the
embedding may narrow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from compressor.prune.settings import PruneSettings as Settings
from compressor.steps._base import NETWORK, Applied, Bench, Network
from compressor.steps._settings import Settings as StepSettings

LEVEL = NETWORK


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
