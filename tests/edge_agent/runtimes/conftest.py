"""Real .tflite files from two tiny torch networks, converted once per session (about three seconds)."""

import contextlib
import functools
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

Convert = Callable[[nn.Module, tuple[int, ...]], bytes]


class Dense(nn.Module):
    """Relu, then a matrix: (N, 6) to logits (N, 3) and embedding (N, 6)."""

    def __init__(self, matrix: np.ndarray) -> None:
        """Keep ``matrix``, float32 (6, 3)."""
        super().__init__()
        self.matrix = nn.Parameter(torch.from_numpy(matrix))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits and embedding."""
        embedding = torch.relu(x)
        return embedding @ self.matrix, embedding


class Convolution(nn.Module):
    """One convolution: (N, 2, 6, 6) to logits (N, 3) and embedding (N, 4)."""

    def __init__(self) -> None:
        """Seed its own weights."""
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(2, 4, 3, padding=1)
        self.linear = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits and embedding."""
        embedding = torch.relu(self.convolution(x)).mean((2, 3))
        return self.linear(embedding), embedding


@dataclass(frozen=True, slots=True)
class Converted:
    """A network and its .tflite; ``int8`` and ``int16`` have integer inputs and outputs."""

    network: nn.Module
    float32: bytes
    int8: bytes
    int16: bytes


@pytest.fixture(scope="session")
def convert(tmp_path_factory: pytest.TempPathFactory) -> Convert:
    """Convert a torch module on an input shape with litert-torch; its progress is swallowed."""
    litert_torch = pytest.importorskip("litert_torch", reason="pip install tinyfleet[tflite]")
    path: Path = tmp_path_factory.mktemp("tflite") / "model.tflite"

    def converted(module: nn.Module, shape: tuple[int, ...]) -> bytes:
        with contextlib.redirect_stdout(io.StringIO()):
            litert_torch.convert(module.eval(), (torch.zeros(shape),)).export(str(path))
        return path.read_bytes()

    return converted


@pytest.fixture(scope="session")
def dense_tflite(convert: Convert) -> Callable[[np.ndarray], bytes]:
    """The network of the conformance suite around a matrix; converted once."""
    cached = functools.cache(lambda data: convert(Dense(np.frombuffer(data, np.float32).reshape(6, 3).copy()), (1, 6)))
    return lambda matrix: cached(matrix.tobytes())


@pytest.fixture(scope="session")
def converted(convert: Convert) -> Converted:
    """The convolution with channels last, as float32 and quantized by ai-edge-quantizer."""
    litert_torch = pytest.importorskip("litert_torch", reason="pip install tinyfleet[tflite]")
    recipe = pytest.importorskip("ai_edge_quantizer.recipe", reason="pip install tinyfleet[tflite]")
    network = Convolution().eval()
    model = convert(litert_torch.to_channel_last_io(network, args=[0]), (1, 6, 6, 2))
    return Converted(
        network, model, _quantized(model, recipe.static_wi8_ai8()), _quantized(model, recipe.static_wi8_ai16())
    )


def _quantized(model: bytes, recipe: list) -> bytes:
    """Quantize with true minima and maxima: the default's moving averages clip the compared values."""
    from ai_edge_quantizer import calibrator, quantizer, recipe_manager  # noqa: PLC0415 - heavy and optional
    from ai_edge_quantizer.utils import qsv_utils  # noqa: PLC0415 - heavy and optional

    random = np.random.default_rng(0)
    samples = [{"args_0": random.normal(size=(1, 6, 6, 2)).astype(np.float32)} for _ in range(64)]
    rules = recipe_manager.RecipeManager()
    rules.load_quantization_recipe(recipe)
    ranges = calibrator.Calibrator(model, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    with contextlib.redirect_stdout(io.StringIO()):
        ranges.calibrate({"serving_default": samples}, rules)
        return bytes(quantizer.Quantizer(model, recipe).quantize(ranges.get_model_qsvs()).quantized_model)
