"""The state of a training on disk: written whole or not at all, tensors and plain values only, tied to one training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compressor.durable import replacing
from compressor.errors import TrainError


def key(settings: str, tensors: Iterable[torch.Tensor]) -> str:
    """Return the SHA-256 of everything a training starts from, hexadecimal: another start is another training."""
    digest = hashlib.sha256(f"{torch.__version__} {settings}".encode())
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).data)
    return digest.hexdigest()


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write ``state`` to ``path``; the old file stays until the new one is complete.

    Raises:
        TrainError: If the file can't be written.
    """
    try:
        with replacing(path) as file:
            torch.save(dict(state), file)
    except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError when the disk is full
        message = f"Expected to write the state of the training to {path}, got: {error}: free space, then run again"
        raise TrainError(message) from error


def load(path: Path, expected: str) -> dict[str, Any] | None:
    """Return the state in ``path``, or None if the file does not exist.

    Args:
        path: The file of the state.
        expected: The key of this training.

    Raises:
        TrainError: If the file is not such a state, or is from another training.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of zip, pickle and dictionaries alike
        message = f"Expected the state of a training in {path}, got {type(error).__name__}: delete it to start over"
        raise TrainError(message) from error
    if not isinstance(state, dict) or state.get("key") != expected:
        message = f"Expected the state of this training in {path}, got another's: delete it to start over"
        raise TrainError(message)
    return state
