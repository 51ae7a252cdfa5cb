"""Training on boxes: focal loss of the centres, L1 of size and place, F1 as the score, pictures moved with their boxes.

The outputs are a grid (N, classes + 4, h, w), as ``edge_agent/decoders/centres.py`` reads it. A box gives each cell
near its centre a target between 0 and 1, by a normal curve of a width that follows its size; cells above ``_NEAR`` also
learn its size and place.

Source: X. Zhou et al., Objects as Points, 2019, equations 1 to 3 (alpha 2, beta 4); Z. Liu et al.,
Training-Time-Friendly Network, 2020, section 3 (several cells near the centre learn the box). The weights were tried on
blood cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compressor.errors import TrainError
from compressor.recipe.model import TrainRecipe
from compressor.statistics import detections
from compressor.tasks._loss import TaskLoss
from edge_agent import decoders
from edge_agent.decoders.centres import OFFSET_STEPS, SIZE_STEPS

if TYPE_CHECKING:
    from compressor.train.augmentation import Drawn

Outputs = tuple[torch.Tensor, torch.Tensor]
_BOX = 4
_NEAR = 0.45
_SPREAD, _LEAST_SPREAD = 0.15, 0.6  # of the curve: of the box's side, and in cells
_SIZE_WEIGHT, _PLACE_WEIGHT = 0.5, 0.25  # of an error of one unit of the outputs
_SURE = 0.3
_SMALLER, _LARGER = 0.4, 0.15  # how much of a picture is cut away, or added around it, at strength 1
_LEAST_LEFT = 0.35  # of a box's area, after a cut


class CentreLoss(TaskLoss):
    """Focal loss of centres, L1 of size and place near them."""

    def forward(self, x: torch.Tensor, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of a grid against boxes, float32 (N, M, 5)."""
        del x
        return rows_loss(outputs[0], targets).mean()

    def towards(self, outputs: torch.Tensor, wanted: torch.Tensor, temperature: float, weight: float) -> torch.Tensor:
        """Return ``weight`` times the loss against a teacher's grid: its scores, and its boxes where it is sure."""
        del temperature
        classes = outputs.shape[1] - _BOX
        sure = torch.sigmoid(wanted[:, :classes])
        scores = nn.functional.binary_cross_entropy_with_logits(outputs[:, :classes], sure, reduction="none")
        there = sure.amax(dim=1, keepdim=True)
        apart = (outputs[:, classes:] - wanted[:, classes:]).abs() * there
        boxes = max(float(there.sum()), 1.0)
        return weight * (scores.sum() + _PLACE_WEIGHT * apart.sum()) / boxes


def rows_loss(grid: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Return the loss of each row, (N,), of a grid (N, classes + 4, h, w) against boxes (N, M, 5)."""
    classes = grid.shape[1] - _BOX
    heat, near, wanted = _targets(boxes, classes, grid.shape[2], grid.shape[3])
    logits = grid[:, :classes]
    probability = torch.sigmoid(logits).clamp(1e-6, 1 - 1e-6)
    centre = heat >= 1
    hit = torch.where(centre, (1 - probability) ** 2 * probability.log(), 0.0)
    miss = torch.where(centre, 0.0, (1 - heat) ** 4 * probability**2 * (1 - probability).log())
    count = centre.sum(dim=(1, 2, 3)).clamp(min=1)
    focal = -(hit + miss).sum(dim=(1, 2, 3)) / count
    apart = (grid[:, classes:] - wanted).abs() * near[:, None]
    weights = near.sum(dim=(1, 2)).clamp(min=1e-6)
    size = apart[:, :2].sum(dim=(1, 2, 3)) / weights
    place = apart[:, 2:].sum(dim=(1, 2, 3)) / weights
    return focal + _SIZE_WEIGHT * size + _PLACE_WEIGHT * place


def _targets(boxes: torch.Tensor, classes: int, height: int, width: int) -> tuple[torch.Tensor, ...]:
    """Return the targets of a grid: heat (N, classes, h, w), weights of boxes (N, h, w), and boxes (N, 4, h, w)."""
    kinds, there = boxes[..., 0].long(), boxes[..., 0] >= 0
    cells = torch.tensor([width, height, width, height], dtype=boxes.dtype, device=boxes.device)
    corners = boxes[..., 1:] * cells
    middle, sides = (corners[..., :2] + corners[..., 2:]) / 2, (corners[..., 2:] - corners[..., :2]).clamp(min=1e-3)
    rows = torch.arange(height, device=boxes.device)[None, None, :, None]
    columns = torch.arange(width, device=boxes.device)[None, None, None, :]
    at = torch.minimum(middle.floor(), cells[:2] - 1)
    spread = (sides * _SPREAD).clamp(min=_LEAST_SPREAD)[..., None, None]
    across = ((columns - at[..., 0, None, None]) / spread[:, :, 0]) ** 2
    down = ((rows - at[..., 1, None, None]) / spread[:, :, 1]) ** 2
    curves = torch.exp(-(across + down) / 2) * there[..., None, None]
    heat = torch.zeros(len(boxes), classes, height, width, dtype=boxes.dtype, device=boxes.device)
    index = kinds.clamp(min=0)[..., None, None].expand(-1, -1, height, width)
    heat = heat.scatter_reduce(1, index, curves, "amax")
    best, owner = curves.max(dim=1)
    own = [values.gather(1, owner.flatten(1)).view_as(best) for values in (*sides.unbind(-1), *middle.unbind(-1))]
    wide, high, x, y = own
    wanted = torch.stack([
        SIZE_STEPS * wide.log2(), SIZE_STEPS * high.log2(),
        OFFSET_STEPS * (x - columns[0, 0]), OFFSET_STEPS * (y - rows[0, 0]),
    ], dim=1)  # fmt: skip
    return heat, torch.where(best > _NEAR, best, 0.0), wanted


def check(labels: NDArray[Any], outputs: int, what: str) -> None:
    """Check that ``labels``, float32 (N, M, 5), are boxes of the classes of a network with ``outputs`` outputs.

    Raises:
        TrainError: If one is not.
    """
    classes = outputs - _BOX
    wrong = np.argwhere(labels[..., 0] >= classes)
    if len(wrong):
        row, place = wrong[0].tolist()
        message = f"Expected {what} boxes of class 0 to {classes - 1}, got {labels[row, place, 0]:g} in row {row}"
        raise TrainError(f"{message}: mend the label, or build the network with more classes")


def check_learnable(y: torch.Tensor) -> None:
    """Check that there is a box.

    Raises:
        TrainError: If there is none.
    """
    if not bool((y[..., 0] >= 0).any()):
        raise TrainError(f"Expected training pictures with boxes, got none in {len(y)} rows: add some")


def loss(settings: TrainRecipe, y: torch.Tensor, outputs: int) -> CentreLoss:
    """Return the loss; no setting changes it."""
    del settings, y, outputs
    return CentreLoss()


def goodness(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    """Return the sum of each picture's F1 at an overlap of .5, of boxes with a score of at least .3."""
    shape = decoders.ModelShape(classes=outputs.shape[1] - _BOX, width=0, height=0)
    decoder = decoders.make("centres", {"least": _SURE}, shape)
    boxes = decoder.boxes([np.nan_to_num(outputs.detach().cpu().numpy())]).reshape(len(outputs), -1, decoders.VALUES)
    matched = detections.ranked(boxes, targets.detach().cpu().numpy(), (0.5,))
    return float(detections.counts(matched, _SURE, len(outputs)).each.sum())


def loss_sum(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the sum of each picture's loss."""
    return rows_loss(outputs, targets).sum()


def agreement(outputs: torch.Tensor, wanted: torch.Tensor) -> Mapping[str, float]:
    """Return the sum of each row's mean absolute difference of the grids."""
    return {"teacher_distance_{}": float((outputs - wanted).abs().mean(dim=(1, 2, 3)).sum())}


def augmented(x: torch.Tensor, y: torch.Tensor, drawn: Drawn, flips: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pictures cut, enlarged and flipped with their boxes, lit and noised.

    Args:
        x: float32 (N, C, H, W).
        y: Boxes, float32 (N, M, 5); one of which little is left goes.
        drawn: The draws of these rows. Strength 1 cuts away up to 40 % of a side, or adds 15 %.
        flips: ``none``, ``horizontal`` or ``both``: each in half of the pictures.
    """
    uniform = torch.special.ndtr(drawn.geometry.double()).float()
    low = max(0.1, 1 - _SMALLER * drawn.strength)
    scale = low + (1 + _LARGER * drawn.strength - low) * uniform[0]
    free = 1 - scale  # how far the window's middle may go, in -1..1
    shift = [(2 * draw - 1) * free.abs() for draw in uniform[1:3]]
    signs = [torch.where(draw < 0.5, -1.0, 1.0) for draw in uniform[3:5]]  # noqa: PLR2004 - half of them
    signs[0] = signs[0] if flips in {"horizontal", "both"} else torch.ones_like(scale)
    signs[1] = signs[1] if flips == "both" else torch.ones_like(scale)
    nothing = torch.zeros_like(scale)
    rows = [scale * signs[0], nothing, shift[0], nothing, scale * signs[1], shift[1]]
    grid = nn.functional.affine_grid(torch.stack(rows, dim=1).reshape(-1, 2, 3), list(x.shape), align_corners=False)
    moved = nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
    return drawn.lit(moved), _moved(y, torch.stack(shift, dim=1), torch.stack(signs, dim=1) * scale[:, None])


def _moved(y: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return boxes as seen through a window with its middle at ``shift`` and half sides ``scale``, both (N, 2)."""
    corners = (2 * y[..., 1:].reshape(*y.shape[:2], 2, 2) - 1 - shift[:, None, None]) / scale[:, None, None]
    low, high = (corners.amin(dim=2) + 1) / 2, (corners.amax(dim=2) + 1) / 2
    whole = (high - low).prod(dim=-1)
    low, high = low.clamp(0, 1), high.clamp(0, 1)
    kept = (y[..., 0] >= 0) & ((high - low).prod(dim=-1) >= _LEAST_LEFT * whole)
    kinds = torch.where(kept, y[..., 0], -1.0)
    return torch.cat([kinds[..., None], torch.where(kept[..., None], torch.cat([low, high], dim=-1), 0.0)], dim=-1)
