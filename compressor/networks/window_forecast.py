"""A forecast of a window's last steps from those before, for anomalies in series: ``window_cnn`` on a part of it.

The whole window is the input, so that a device can compare the forecast with what came; the network itself sees only
the steps before ``ahead``.
"""

from __future__ import annotations

import torch
from torch import nn

from compressor.errors import PluginError
from compressor.networks.window_cnn import WindowCnn

_LEAST_STEPS = 4


class WindowForecast(nn.Module):
    """Cuts the last steps off, and forecasts them."""

    decoder = "residual"

    def __init__(self, channels: int, size: tuple[int, int], widths: tuple[int, int], ahead: int) -> None:
        """Create the layers, untrained; ``widths`` as in ``WindowCnn``."""
        super().__init__()
        height, width = size
        self.seen = height - ahead
        self.forecast = WindowCnn(ahead * channels * width, channels, (self.seen, width), widths)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (last steps (N, C * ahead * width), embedding) of ``x``, float32 (N, C, steps, width)."""
        outputs: tuple[torch.Tensor, torch.Tensor] = self.forecast(x[:, :, : self.seen])
        return outputs


def build(  # noqa: PLR0913 - a recipe gives the options by name
    classes: int, channels: int, height: int, width: int, *, filters: int = 8, hidden: int = 16, ahead: int = 1
) -> nn.Module:
    """Return the network for windows of ``height`` steps, of which it forecasts the last ``ahead``.

    Raises:
        PluginError: If too few steps remain to forecast from.
    """
    del classes
    if not 1 <= ahead <= height - _LEAST_STEPS:
        message = f"Expected ahead of 1 to {height - _LEAST_STEPS} of {height} steps, got {ahead}"
        raise PluginError(f"{message}: set [model] network_options, or a longer window")
    return WindowForecast(channels, (height, width), (filters, hidden), ahead)
