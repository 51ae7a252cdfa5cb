"""Training on tags: the binary cross-entropy of each."""

import torch
from torch import nn

from compressor.errors import TrainError
from compressor.tasks._loss import TaskLoss


class TagLoss(TaskLoss):
    """The mean binary cross-entropy over rows and tags."""

    def forward(self, x, outputs, targets):  # noqa: ANN001, ANN201 - as a person writes it
        """Return the mean loss."""
        del x
        return nn.functional.binary_cross_entropy_with_logits(outputs[0], targets)

    def towards(self, outputs, wanted, temperature, weight):  # noqa: ANN001, ANN201 - as above
        """Return the loss against the teacher's probabilities."""
        soft = torch.sigmoid(wanted / temperature)
        return weight * nn.functional.binary_cross_entropy_with_logits(outputs / temperature, soft)


def check(labels, outputs, what) -> None:  # noqa: ANN001 - as above
    """Check that there is a column for each output."""
    if labels.shape[1] != outputs:
        message = f"Expected {what} tags (N, {outputs}), got {labels.shape}"
        raise TrainError(message)


def check_learnable(y) -> None:  # noqa: ANN001 - as above
    """Check that no tag is on all rows or on none."""
    if bool((y == y[0]).all(dim=0).any()):
        raise TrainError("Expected tags that differ between rows, got one that doesn't")


def loss(settings, y, outputs):  # noqa: ANN001, ANN201 - as above
    """Return the loss."""
    del settings, y, outputs
    return TagLoss()


def goodness(outputs, targets) -> float:  # noqa: ANN001 - as above
    """Return the sum over rows of the share of right tags."""
    return float(((outputs > 0) == (targets > 0.5)).float().mean(dim=1).sum())


def loss_sum(outputs, targets):  # noqa: ANN001, ANN201 - as above
    """Return the sum over rows of the mean loss of a tag."""
    return nn.functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(dim=1).sum()


def agreement(outputs, wanted):  # noqa: ANN001, ANN201 - as above
    """Return the sum over rows of the share of equal tags."""
    return {"teacher_tags_{}_ratio": float(((outputs > 0) == (wanted > 0)).float().mean(dim=1).sum())}
