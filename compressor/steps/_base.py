"""Input and result of a step of level ``network``.

A step changes weights and may narrow layers; it never adds, renames or removes modules, so a state dict with its shapes
is enough to store the result (``train.checkpoint`` fits a fresh network to the shapes). Batch norms that a step folds
stay as identities. Learned ranges are stored beside the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from compressor import tasks

if TYPE_CHECKING:
    from torch import nn

    from compressor.portions import Inputs
    from compressor.recipe.model import TrainRecipe
    from compressor.tasks import Task

Network: TypeAlias = "nn.Module"
Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
NETWORK, ARTIFACT = "network", "artifact"


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Labelled inputs after the device's preprocessing: float32 (N, C, H, W) and int64 (N,).

    ``inputs`` of many rows are not in memory: take some rows, or ``portions.portions`` of all. For a regression
    ``labels`` are float32 (N, D), in standard deviations. ``task``: a name for ``tasks.named``; "": the task of such
    labels.
    """

    inputs: Inputs
    labels: NDArray[Any]
    task: str = ""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.labels)

    @property
    def of_task(self) -> Task:
        """The task of the labels."""
        return tasks.of_rows(self)


def _silent(note: str) -> None:
    del note


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Bench:
    """Data and settings for a step.

    ``train``: rows to learn from; ``calibration``: rows for ranges; ``search``: rows for the step's own choices and
    early stopping (shares no row with the gate split, which no step ever sees). ``settings`` is ``[train]``: batch,
    optimizer, augmentation, seed, and ``fine_tune_*`` for a step's own training. ``teacher`` is the network as it was
    trained, before the first step, in evaluation mode. ``unlabelled``: inputs as in ``train``, for which only the
    teacher has answers (None: there are none). ``tell`` takes a short note for the progress bar.
    """

    train: Rows
    calibration: Rows
    search: Rows
    settings: TrainRecipe
    teacher: Network | None = None
    unlabelled: Inputs | None = None
    tell: Callable[[str], None] = _silent


@dataclass(frozen=True, slots=True, eq=False)
class Applied:
    """Result of a step.

    ``ranges``: learned (low, high) of activations by the name of the FX node that outputs them in
    ``torch.fx.symbolic_trace(network)`` (``quantize._learned_ranges`` finds the same tensors in an exported file by
    value); ``notes``: measurements of the step for report and card, as text or numbers. ``nothing``: the reason why the
    step changed nothing, empty if it changed something.
    """

    network: Network
    _: KW_ONLY
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    nothing: str = ""

    def finite(self) -> bool:
        """Return whether every weight is a finite number."""
        return all(bool(value.isfinite().all()) for value in self.network.state_dict().values())
