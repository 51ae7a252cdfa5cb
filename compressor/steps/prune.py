"""``[[compress]] step = "prune"``: removes channels by dependency graph, guided by measured MACs or latency.

Narrows layers and fine-tunes; module names stay. The outputs of the last layer (the classes) are never pruned; the
embedding may become narrower.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from compressor.prune.settings import PruneSettings as Settings
from compressor.steps._base import NETWORK, Applied, Bench, Network
from compressor.steps._settings import Settings as StepSettings

LEVEL = NETWORK


def unread(settings: Settings) -> Mapping[str, str]:
    """Return the keys that other settings make unused, with the reason."""
    return {"macs_ratio": "with latency_ratio, which decides alone"} if settings.latency_ratio else {}


def apply(network: Network, bench: Bench, settings: StepSettings) -> Applied:
    """Return ``network`` narrowed, and the changes.

    Raises:
        PruneError: If the requested share can't be reached, or there is nothing to prune or no rows to judge with.
        TrainError: If fine-tuning diverges.
    """
    from compressor.prune.structured import prune  # noqa: PLC0415 - it imports torch

    return prune(network, bench, cast("Settings", settings))
