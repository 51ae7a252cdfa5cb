"""Numbers that break integer arithmetic: biases beyond int32, masks of -3.4e38, files that end the process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from compressor.errors import MeasureError, QuantizeError
from compressor.export.onnx import export_onnx
from compressor.export.tflite import export_tflite
from compressor.measurement import first_run
from compressor.quantize import quantize as quantize_onnx
from compressor.quantize._running import logits
from compressor.steps.quantize import Settings
from compressor.tflite import quantizing
from compressor.tflite.quantizing import quantize
from compressor.tflite.ranges import collect_ranges

pytestmark = pytest.mark.slow

SHAPE = (3, 8, 6)
DEAD = ((0, 1.0), (3, 0.5), (5, -0.5))


class Dead(nn.Module):
    """A depthwise convolution with three dead channels, whose output is only their bias."""

    def __init__(self) -> None:
        """Make the layers, seeded."""
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.mix, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Linear(8, 5)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        with torch.no_grad():
            for channel, bias in DEAD:
                self.depthwise.weight[channel] = 1e-18
                assert self.depthwise.bias is not None
                self.depthwise.bias[channel] = bias

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (logits, embedding)."""
        x = torch.relu(self.mix(self.depthwise(torch.relu(self.stem(x)))))
        embedding = x.mean((2, 3))
        return self.head(embedding), embedding


class Masked(nn.Module):
    """Attention over places, half of which a mask of ``least`` takes out."""

    def __init__(self, least: float) -> None:
        """Make the layers, seeded."""
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Linear(8, 5)
        self.register_buffer("mask", torch.where(torch.arange(48) % 2 == 0, 0.0, least).reshape(1, 1, 48))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (logits, embedding)."""
        tokens = self.stem(x).flatten(2)
        attention = torch.softmax(tokens.mean(1, keepdim=True) + self.mask, dim=2)
        embedding = (tokens * attention).sum(2)
        return self.head(embedding), embedding


def rows(*, last: bool) -> np.ndarray:
    """Return 32 seeded rows, channels first or last."""
    drawn = np.random.default_rng(0).random((32, *SHAPE)).astype(np.float32)
    return np.ascontiguousarray(drawn.transpose(0, 2, 3, 1)) if last else drawn


@pytest.fixture(scope="module")
def dead() -> bytes:
    """The network with dead channels as float TFLite."""
    return export_tflite(Dead().eval(), *SHAPE)


@pytest.fixture(scope="module")
def masked() -> bytes:
    """The network whose mask is the least float32, as float TFLite."""
    return export_tflite(Masked(float(np.finfo(np.float32).min)).eval(), *SHAPE)


def off(wanted: np.ndarray, got: np.ndarray) -> float:
    """Return the norm of the difference over the norm."""
    return float(np.linalg.norm(wanted - got) / np.linalg.norm(wanted))


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_dead_channel_keeps_its_bias_in_tflite(
    per_channel: bool,  # noqa: FBT001 - a parameter of the test
    dead: bytes,
    run: Callable[[bytes, np.ndarray], list[np.ndarray]],
) -> None:
    """Per channel its bias was beyond int32 and lost: an error of .29; per tensor there never was one."""
    ranges = collect_ranges(dead, lambda: [rows(last=True)])
    model = quantize(dead, ranges, scheme="static_int8", per_channel=per_channel)
    assert off(run(dead, rows(last=True))[0], run(model, rows(last=True))[0]) < 0.01


def test_a_dead_channel_keeps_its_bias_in_onnx() -> None:
    """The same network in the other format."""
    model = export_onnx(Dead().eval(), *SHAPE)
    made = quantize_onnx(model, lambda: [rows(last=False)], Settings(calibration="min_max"))
    wanted, got = (logits(onnx.load_from_string(one), lambda: [rows(last=False)]) for one in (model, made))
    assert off(wanted, got) < 0.02


def test_weights_of_living_channels_are_left_alone(float_model: bytes, ranges: dict[str, tuple[float, float]]) -> None:
    """Where every bias fits the file is not touched."""
    assert quantizing.fitted(float_model, ranges, per_channel=True) is float_model


def test_a_mask_of_the_least_float_is_refused_by_name_in_both_formats(masked: bytes) -> None:
    """The error names the tensor, its range and a replacement; no file with other results is made."""
    model = export_onnx(Masked(float(np.finfo(np.float32).min)).eval(), *SHAPE)
    ranges = collect_ranges(masked, lambda: [rows(last=True)])
    made = [
        partial(quantize_onnx, model, lambda: [rows(last=False)], Settings(calibration="min_max")),
        partial(quantize, masked, ranges, scheme="static_int8"),
        partial(quantize, masked, dict.fromkeys(ranges, (0.0, 1.0)), scheme="static_int8"),
    ]
    for make in made:
        with pytest.raises(QuantizeError, match=r"at most 1e\+30 .* of '.*': in a mask write -1e4"):
            make()


def test_a_mask_of_minus_ten_thousand_quantizes(run: Callable[[bytes, np.ndarray], list[np.ndarray]]) -> None:
    """The advice of the message works."""
    model = export_tflite(Masked(-1e4).eval(), *SHAPE)
    made = quantize(model, collect_ranges(model, lambda: [rows(last=True)]), scheme="static_int8")
    wanted, got = (np.concatenate([run(one, row[None])[0] for row in rows(last=True)]) for one in (model, made))
    assert off(wanted, got) < 0.2


def test_a_file_that_ends_the_process_is_an_error_and_not_the_end_of_the_run(
    masked: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the check of ranges LiteRT aborts on the int8 file; in a child that is one clear sentence."""
    monkeypatch.setattr("compressor.quantize._calibrator.LARGEST", np.inf)
    ranges = collect_ranges(masked, lambda: [rows(last=True)])
    made = quantize(masked, ranges, scheme="static_int8")
    with pytest.raises(MeasureError, match="Expected the int8 file to open and run, got a process of litert ended by"):
        first_run.check("litert", made, rows(last=True), "the int8 file")


def test_a_file_that_never_ends_is_ended() -> None:
    """The time is limited, and the error names the limit."""
    with pytest.raises(MeasureError, match=r"in 0\.001 s, got no end"):
        first_run.check("onnx", b"", rows(last=False), "the file", limit_s=0.001)


def test_an_error_of_the_runtime_is_left_to_whoever_opens_the_file_next() -> None:
    """Garbage does not end the process; the run's own opening reports the fault."""
    for runtime in ("onnx", "litert"):
        first_run.check(runtime, b"garbage", rows(last=False), "the file")
