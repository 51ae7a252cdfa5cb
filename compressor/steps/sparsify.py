"""``[[compress]] step = "sparsify"``: zeros in the weights, anywhere or N of every M.

They make the download smaller once it is compressed. They make nothing faster: onnxruntime and LiteRT run dense.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from compressor.prune.settings import UNSTRUCTURED, n_of_m
from compressor.prune.settings import SparsifySettings as Settings
from compressor.recipe.checked import Checked
from compressor.steps._base import NETWORK, Applied, Bench, Network
from compressor.steps._settings import Settings as StepSettings

LEVEL = NETWORK


def checks(settings: Settings) -> list[Checked]:
    """Return what the settings must be."""
    where = "[[compress]] sparsify"
    patterns: tuple[str, ...] = (UNSTRUCTURED, "2:4", "1:4")
    if n_of_m(settings.pattern) != (1, 1):
        patterns = (*patterns, settings.pattern)
    return [Checked(f"{where} pattern", settings.pattern, one_of=patterns)]


def unread(settings: Settings) -> Mapping[str, str]:
    """Return the keys that the other settings leave without use, and why."""
    return (
        {} if settings.pattern == UNSTRUCTURED else {"sparsity": f"with pattern = {settings.pattern!r}, which says it"}
    )


def apply(network: Network, bench: Bench, settings: StepSettings) -> Applied:
    """Return ``network`` with zeros in its weights, and what that changed.

    Raises:
        PruneError: If no layer can be masked as asked, or there is nothing to judge with.
        TrainError: If fine-tuning diverges.
    """
    from compressor.prune.masks import sparsify  # noqa: PLC0415 - it imports torch

    return sparsify(network, bench, cast("Settings", settings))
