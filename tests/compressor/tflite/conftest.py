"""A small network with every kind of layer that matters here, converted once: conversion takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compressor.export.tflite import export_tflite
from compressor.tflite.ranges import collect_ranges

SHAPE = (3, 16, 12)


class Small(nn.Module):
    """Convolution, depthwise, shortcut, concatenation, maximum, hard swish, two outputs."""

    def __init__(self) -> None:
        """Make the layers, seeded."""
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.blocks = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Hardswish(), nn.MaxPool2d(2))
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (logits, embedding)."""
        x = torch.relu(self.stem(x))
        x = self.blocks(torch.relu(self.depthwise(x)) + x)
        x = torch.cat([x, -x], dim=1)
        embedding = nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.head(embedding), embedding


@pytest.fixture(scope="session")
def network() -> nn.Module:
    """The network in evaluation mode."""
    return Small().eval()


@pytest.fixture(scope="session")
def float_model(network: nn.Module) -> bytes:
    """The network as float TFLite."""
    return export_tflite(network, *SHAPE)


@pytest.fixture(scope="session")
def inputs() -> np.ndarray:
    """64 seeded rows, float32 (N, H, W, C)."""
    channels, height, width = SHAPE
    return np.random.default_rng(0).random((64, height, width, channels)).astype(np.float32)


@pytest.fixture(scope="session")
def ranges(float_model: bytes, inputs: np.ndarray) -> dict[str, tuple[float, float]]:
    """True minimum and maximum of every activation over the inputs."""

    def batches() -> Iterator[np.ndarray]:
        yield from np.array_split(inputs, 4)

    return collect_ranges(float_model, batches)


class _Runs:
    """Runs a TFLite model on float rows, whatever its edges are."""

    def __call__(self, model: bytes, rows: np.ndarray) -> list[np.ndarray]:
        """Return the outputs as float32, in the order of the graph."""
        interpreter_module = pytest.importorskip("ai_edge_litert.interpreter")
        interpreter = interpreter_module.Interpreter(model_content=model, num_threads=1)
        entry = interpreter.get_input_details()[0]
        interpreter.resize_tensor_input(entry["index"], rows.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(entry["index"], self._inside(rows, entry))
        interpreter.invoke()
        outputs = interpreter.get_output_details()
        return [self._outside(interpreter.get_tensor(one["index"]), one) for one in outputs]

    @staticmethod
    def _inside(rows: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
        scale, zero_point = entry["quantization"]
        if not scale:
            return rows
        limits = np.iinfo(entry["dtype"])
        return np.clip(np.rint(rows / scale) + zero_point, limits.min, limits.max).astype(entry["dtype"])

    @staticmethod
    def _outside(values: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
        scale, zero_point = entry["quantization"]
        return (values.astype(np.float32) - zero_point) * scale if scale else values


@pytest.fixture(scope="session")
def run() -> _Runs:
    """``run(model, rows)`` returns (logits, embedding), float32."""
    return _Runs()
