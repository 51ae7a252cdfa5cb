"""Ranges of a TFLite model: those of the tensors, in constant memory, whatever the batches are."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn

from compressor.errors import QuantizeError
from compressor.export.tflite import export_tflite
from compressor.tflite.quantizing import quantize
from compressor.tflite.ranges import activations, collect_ranges


def test_ranges_are_those_of_the_network(float_model: bytes, network: nn.Module, inputs: np.ndarray) -> None:
    """Input, a layer inside and the outputs have the minimum and maximum that torch computes."""
    found = collect_ranges(float_model, lambda: iter([inputs]))
    with torch.no_grad():
        x = torch.from_numpy(inputs.transpose(0, 3, 1, 2))
        stem, (logits, embedding) = torch.relu(network.stem(x)), network(x)
    for name, values in {"input": x, "stem": stem, "logits": logits, "embedding": embedding}.items():
        assert found[name] == pytest.approx((float(values.min()), float(values.max())), abs=1e-5)


def test_ranges_do_not_depend_on_the_batches(float_model: bytes, inputs: np.ndarray) -> None:
    """One row at a time results in the same model as all at once."""
    singly = collect_ranges(float_model, lambda: iter(np.array_split(inputs, 64)))
    together = collect_ranges(float_model, lambda: iter([inputs]))
    assert singly.keys() == together.keys() == set(activations(float_model).values())
    for name, pair in singly.items():
        assert pair == pytest.approx(together[name], abs=1e-5)


def test_memory_does_not_grow_with_the_data(float_model: bytes, inputs: np.ndarray) -> None:
    """1,024 rows take no more than 128 do; the least of three, because threads of other tests allocate too."""
    peaks: dict[int, list[int]] = {2: [], 16: []}
    for count in (2, 16) * 3:
        tracemalloc.start()
        collect_ranges(float_model, lambda count=count: (inputs for _ in range(count)))
        peaks[count].append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert min(peaks[16]) <= 1.05 * min(peaks[2])


class _Fixed(nn.Module):
    """A reshape in it has the batch of 1 written down."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 8 * 8, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        flat = torch.relu(self.conv(x)).flatten(1)
        return self.head(flat), flat


@pytest.mark.slow
def test_a_model_with_a_fixed_batch_is_run_row_by_row() -> None:
    """Its ranges cover all rows, and it can be quantized: reshaping operators keep the scale."""
    model = export_tflite(_Fixed(), 3, 8, 8)
    rows = np.random.default_rng(1).random((8, 8, 8, 3)).astype(np.float32)
    rows[5] *= 10
    found = collect_ranges(model, lambda: iter([rows]))
    assert found["input"] == pytest.approx((float(rows.min()), float(rows.max())))
    assert len(quantize(model, found, scheme="static_int8")) < len(model)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((2, 3, 16, 12), np.float32), "Expected the model to run on the calibration data"),
        (np.full((2, 16, 12, 3), np.nan, np.float32), "Expected finite activations"),
        (np.zeros((0, 16, 12, 3), np.float32), "Expected at least one calibration sample"),
    ],
)
def test_data_that_does_not_fit_is_a_coded_error(rows: np.ndarray, message: str, float_model: bytes) -> None:
    """Channels first, NaN and no rows at all end in a QuantizeError."""
    with pytest.raises(QuantizeError, match=message):
        collect_ranges(float_model, lambda: iter([rows]))


def test_what_is_no_model_is_a_coded_error(inputs: np.ndarray) -> None:
    """Bytes of another kind, and a file that is cut off, end in a QuantizeError."""
    for model in (b"", b"ONNX", b"\x1c\0\0\0TFL3" + bytes(40)):
        with pytest.raises(QuantizeError, match="TFLite"):
            collect_ranges(model, lambda: iter([inputs]))
