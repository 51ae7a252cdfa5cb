"""Training data, checked before the first step: the error names a bad row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from compressor import tasks
from compressor.errors import TrainError
from compressor.evaluating import evaluating
from compressor.portions import Inputs
from compressor.steps._base import Rows
from compressor.tasks import Task
from compressor.train.lazy_tensor import LazyTensor, as_tensor

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Samples:
    """Inputs, float32 (N, C, H, W), and labels of ``task``, for a network with ``outputs`` outputs.

    ``x``: a tensor, or one that is made batch by batch.
    ``y``: class indices, int64 (N,); or a row of numbers, float32 (N, outputs).
    """

    x: torch.Tensor | LazyTensor
    y: torch.Tensor
    outputs: int
    task: Task

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.y)

    def to(self, device: torch.device) -> Samples:
        """Return the samples on ``device``."""
        return Samples(x=self.x.to(device), y=self.y.to(device), outputs=self.outputs, task=self.task)


def checked(network: nn.Module, rows: Rows, what: str = "training") -> Samples:
    """Return ``rows`` as tensors; ``what``: the kind of rows for errors, such as "held".

    ``network`` returns (logits, embedding); its logits give the number of outputs.

    Raises:
        TrainError: If there are fewer than two, labels are missing or do not fit the task, or a value is not finite.
    """
    inputs, labels = rows.inputs, rows.labels
    if len(inputs) != len(labels) or len(inputs) < 2:  # noqa: PLR2004 - batch normalisation needs two
        message = (
            f"Expected at least 2 {what} inputs with as many labels, got {len(inputs)} and {len(labels)}: "
            "add samples, or give this split a larger share in [data] shares"
        )
        raise TrainError(message)
    _check_finite(inputs, what)
    x, y = as_tensor(inputs), torch.from_numpy(np.ascontiguousarray(labels))
    with torch.no_grad(), evaluating(network):
        outputs = int(network(x[:2])[0].shape[1])
    task = tasks.of_labels(labels, rows.task)
    task.training.check(labels, outputs, what)
    return Samples(x=x, y=y, outputs=outputs, task=task)


def check_learnable(samples: Samples) -> None:
    """Check that there is something to learn.

    Raises:
        TrainError: If all labels are the same: any network would be right without learning.
    """
    samples.task.training.check_learnable(samples.y)


def _check_finite(inputs: Inputs, what: str) -> None:
    rows = inputs if isinstance(inputs, np.ndarray) else inputs[:1]  # those made from pixels by one finite scale
    for row, values in enumerate(rows):  # row by row: memory does not grow with the data
        finite = np.isfinite(values)
        if not finite.all():
            message = f"Expected finite {what} inputs, got {values[~finite][0]} in row {row}: mend or leave out the row"
            raise TrainError(message)
