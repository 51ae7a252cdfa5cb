"""``[[compress]] step = "sparsify"``: zeros in the weights, unstructured or N of every M.

They make the compressed download smaller, but inference no faster: onnxruntime and LiteRT use dense kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from compressor.prune.settings import UNSTRUCTURED, n_of_m
from compressor.prune.settings import SparsifySettings as Settings
from compressor.steps._base import NETWORK, Applied, Bench, Network
from compressor.steps._settings import Settings as StepSettings
from wire.settings import OneOf

LEVEL = NETWORK


def check(settings: Settings) -> None:
    """Check ``pattern``.

    Raises:
        SettingsError: If it is neither ``unstructured`` nor N of every M.
    """
    if n_of_m(settings.pattern) == (1, 1):
        OneOf((UNSTRUCTURED, "2:4", "1:4")).check("[[compress]] sparsify pattern", settings.pattern)


def unread(settings: Settings) -> Mapping[str, str]:
    """Return the keys that other settings make unused, with the reason."""
    return (
        {} if settings.pattern == UNSTRUCTURED else {"sparsity": f"with pattern = {settings.pattern!r}, which says it"}
    )


def apply(network: Network, bench: Bench, settings: StepSettings) -> Applied:
    """Return ``network`` with zeros in its weights, and the changes.

    Raises:
        PruneError: If no layer can be masked as requested, or there are no rows to judge with.
        TrainError: If fine-tuning diverges.
    """
    from compressor.prune.masks import sparsify  # noqa: PLC0415 - it imports torch

    return sparsify(network, bench, cast("Settings", settings))
