"""A network that the trial runtime can run."""

from __future__ import annotations

from torch import Tensor, nn


class TwoLayers(nn.Module):
    """``head(relu(first(x)))``; the embedding is what ``head`` takes."""

    def __init__(self, pixels: int, classes: int) -> None:
        """Make both layers."""
        super().__init__()
        self.first, self.head = nn.Linear(pixels, 32), nn.Linear(32, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return (logits, embedding)."""
        hidden = self.first(images.flatten(1)).relu()
        return self.head(hidden), hidden


def build(classes: int, channels: int, height: int, width: int) -> nn.Module:
    """Return the network, untrained."""
    return TwoLayers(channels * height * width, classes)
