"""Training data, checked before the first step: the error names a bad row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from compressor.errors import TrainError
from compressor.evaluating import evaluating

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Inputs, float32 (N, C, H, W), and labels, int64 (N,), of a network with ``classes`` logits.

    For a regression: ``y`` float32 (N, classes), numbers in standard deviations.
    """

    x: torch.Tensor
    y: torch.Tensor
    classes: int

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.y)

    def to(self, device: torch.device) -> Samples:
        """Return the samples on ``device``."""
        return Samples(self.x.to(device), self.y.to(device), self.classes)

    @property
    def numeric(self) -> bool:
        """Whether the labels are numbers to predict, not classes."""
        return self.y.is_floating_point()


def checked(network: nn.Module, inputs: Floats, labels: Labels, what: str = "training") -> Samples:
    """Return the samples as tensors.

    Args:
        network: Returns (logits, embedding); its logits give the number of classes.
        inputs: float32, (N, C, H, W).
        labels: int64, (N,), class indices; or for a regression float32, (N, D), in standard deviations.
        what: The kind of rows for errors, such as "held".

    Raises:
        TrainError: If there are fewer than two, labels are missing or out of range, or a value is not finite; for a
            regression, if the network outputs another number of values.
    """
    if len(inputs) != len(labels) or len(inputs) < 2:  # noqa: PLR2004 - batch normalisation needs two
        message = (
            f"Expected at least 2 {what} inputs with as many labels, got {len(inputs)} and {len(labels)}: "
            "add samples, or give this split a larger share in [data] shares"
        )
        raise TrainError(message)
    _check_finite(inputs, what)
    x, y = torch.from_numpy(np.ascontiguousarray(inputs)), torch.from_numpy(np.ascontiguousarray(labels))
    outputs = _classes(network, x[:2])
    if labels.ndim > 1:
        _check_finite(labels, what, "values")
        _check_width(labels, outputs, what)
        return Samples(x, y, outputs)
    _check_range(labels, outputs, what)
    return Samples(x, y, outputs)


def check_learnable(samples: Samples) -> None:
    """Check that the labels have at least two classes, or are numbers that differ.

    Raises:
        TrainError: If all are of one class, or one number: any network would be right without learning.
    """
    if samples.numeric:
        same = (samples.y == samples.y[0]).all(dim=0)
        if bool(same.any()):
            message = f"Expected training values that differ, got the same in all {len(samples)} rows of value"
            raise TrainError(f"{message} {int(same.float().argmax())}: nothing can be learnt from a constant")
        return
    present = torch.unique(samples.y)
    if len(present) < 2:  # noqa: PLR2004 - two classes make a choice
        message = (
            f"Expected training labels of at least two classes, got only class {int(present[0])} in "
            f"{len(samples)} rows: add samples of another class"
        )
        raise TrainError(message)


def _check_finite(inputs: Floats, what: str, kind: str = "inputs") -> None:
    for row, values in enumerate(inputs):  # row by row, so that memory does not grow with the data
        finite = np.isfinite(values)
        if not finite.all():
            message = f"Expected finite {what} {kind}, got {values[~finite][0]} in row {row}: mend or leave out the row"
            raise TrainError(message)


def _check_width(values: Labels, outputs: int, what: str) -> None:
    if values.shape[1] != outputs:
        message = f"Expected {what} values (N, {outputs}), as the network gives, got {values.shape}"
        raise TrainError(f"{message}: build the network with {values.shape[1]} outputs")


def _check_range(labels: Labels, classes: int, what: str) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        message = (
            f"Expected {what} labels of 0 to {classes - 1}, got {labels[wrong[0]]} in row {wrong[0]}: "
            "mend the label, or build the network with more classes"
        )
        raise TrainError(message)


def _classes(network: nn.Module, x: torch.Tensor) -> int:
    with torch.no_grad(), evaluating(network):
        return int(network(x)[0].shape[1])
