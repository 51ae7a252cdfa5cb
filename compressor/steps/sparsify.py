"""``[[compress]] step = "sparsify"``: zeros in the weights, anywhere or N of every M.

They make the download smaller once it is compressed. They make nothing faster: onnxruntime and LiteRT run dense.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from compressor.recipe.toml_fields import Checked
from compressor.steps._settings import Settings as StepSettings
from compressor.steps.base import NETWORK, Applied, Bench, Network

if TYPE_CHECKING:
    pass

LEVEL = NETWORK
UNSTRUCTURED = "unstructured"
_N_OF_M = re.compile(r"([1-9]\d?):([1-9]\d?)")


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the step.

    ``pattern``: ``unstructured``, or ``N:M`` (``2:4``, ``1:4``): N of every M neighbouring inputs stay. ``sparsity``:
    share of zeros in each masked layer, for ``unstructured``. ``rounds``: zeros grow along the cubic schedule, with an
    epoch of fine-tuning after each round and ``fine_tune_epochs`` after the last.
    ``allow_unchanged``: the step may find nothing to do; without it that is an error.
    """

    step: str = "sparsify"
    pattern: str = UNSTRUCTURED
    sparsity: float = 0.5
    rounds: int = 3
    fine_tune_epochs: int = 3
    allow_unchanged: bool = False


def n_of_m(pattern: str) -> tuple[int, int]:
    """Return N and M of ``pattern``; (1, 1) where it is no ``N:M`` with N below M, such as ``unstructured``."""
    found = _N_OF_M.fullmatch(pattern)
    n, m = (int(found[1]), int(found[2])) if found else (1, 1)
    return (n, m) if n < m else (1, 1)


def checks(settings: Settings) -> list[Checked]:
    """Return what the settings must be."""
    where = "[[compress]] sparsify"
    patterns: tuple[str, ...] = (UNSTRUCTURED, "2:4", "1:4")
    if n_of_m(settings.pattern) != (1, 1):
        patterns = (*patterns, settings.pattern)
    return [
        Checked(f"{where} pattern", settings.pattern, one_of=patterns),
        Checked(f"{where} sparsity", settings.sparsity, 0.01, 0.99),
        Checked(f"{where} rounds", settings.rounds, 1, 100),
        Checked(f"{where} fine_tune_epochs", settings.fine_tune_epochs, 0, 10_000),
    ]


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
