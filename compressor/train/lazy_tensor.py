"""Inputs that become tensors batch by batch, for training on more rows than fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from compressor.portions import Inputs, portions

_MOST_ROWS = 256


@dataclass(frozen=True, slots=True, eq=False)
class LazyTensor:
    """The inputs of N rows, float32 (N, C, H, W), of which only those that are indexed become a tensor, on ``device``.

    It has of a tensor what a training needs.
    """

    inputs: Inputs
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32

    @property
    def shape(self) -> torch.Size:
        """The shape of a tensor of all rows."""
        return torch.Size(self.inputs.shape)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.inputs)

    def __getitem__(self, rows: slice | torch.Tensor) -> torch.Tensor:
        """Return these rows, a slice or int64 (n,), as a tensor of their own."""
        taken = self.inputs[rows if isinstance(rows, slice) else rows.cpu().numpy()]
        return torch.from_numpy(taken).to(self.device)

    def to(self, device: torch.device) -> LazyTensor:
        """Return the same rows, to be made on ``device``."""
        return replace(self, device=device)

    def parts(self) -> Iterator[torch.Tensor]:
        """Yield all rows in their order, some at a time."""
        return map(torch.from_numpy, portions(self.inputs, most=_MOST_ROWS))


def as_tensor(inputs: Inputs) -> torch.Tensor | LazyTensor:
    """Return ``inputs`` as a tensor, or as one that is made batch by batch if they are not in memory."""
    if isinstance(inputs, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(inputs))
    return LazyTensor(inputs)
