"""Weights on disk: a state dict and nothing else, so that loading runs no code."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from compressor.errors import CheckpointError


def save(network: nn.Module, path: Path) -> None:
    """Write the weights of ``network`` to ``path``: whole or not at all.

    Raises:
        CheckpointError: If the file can't be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            torch.save(network.state_dict(), file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError when the disk is full
        part.unlink(missing_ok=True)
        message = f"Expected to write weights to {path}, got: {error}"
        raise CheckpointError(message) from error


def load(network: nn.Module, path: Path) -> nn.Module:
    """Return ``network`` with the weights in ``path``, in evaluation mode.

    Raises:
        CheckpointError: If the file is not there, holds anything but tensors, or fits another network.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except Exception as error:  # torch raises whatever its reader met: zip, pickle, key and shape errors
        message = f"Expected weights of this network in {path}, got: {str(error)[:300]}"
        raise CheckpointError(message) from error
    return network.eval()
