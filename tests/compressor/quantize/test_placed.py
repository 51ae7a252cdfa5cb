"""Ranges are matched to the tensors of an exported file, or the unmatched ones are named."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from compressor import networks
from compressor.errors import QuantizeError
from compressor.export.onnx import export_onnx
from compressor.qat.fake_quantize import Grid
from compressor.qat.simulation import simulate
from compressor.quantize import static_int8
from compressor.quantize._learned_ranges import activations, onnx_tensors, place
from compressor.quantize._model import prepare
from compressor.quantize._running import logits
from compressor.steps.quantize import Settings

SIZES = {"resnet8": (12, 15, {"filters": 4}), "ds_cnn": (16, 12, {"filters": 8}), "mobilenet_v2": (32, 65, {})}
RNG = np.random.default_rng(0)
HELD = {"conv": RNG.standard_normal((2, 3, 4, 5)).astype(np.float32), "head": RNG.random((2, 7), np.float32)}
RANGES = {"conv": (-3.0, 3.0), "head": (0.0, 1.0)}


def _probe(side: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((4, 1, side, side)).astype(np.float32)


def _warm(network: nn.Module, probe: np.ndarray) -> nn.Module:
    network.train()
    with torch.no_grad():
        for _ in range(20):
            network(torch.from_numpy(probe))
    return network.eval()


@pytest.mark.parametrize("name", SIZES)
def test_every_range_finds_its_tensor_in_a_real_export(name: str) -> None:
    """All nodes of each network match; input, logits and embedding are among the tensors."""
    side, count, options = SIZES[name]
    probe = _probe(side)
    network = _warm(networks.build(name, 10, 1, side, side, options), probe)
    simulation = simulate(network, probe, Grid())
    simulation.observe(probe)
    ranges = simulation.ranges()
    placed = place(ranges, activations(network, probe), onnx_tensors(export_onnx(network, 1, side, side), probe))
    assert len(ranges) == count
    assert placed["input"] == ranges["x"]
    assert placed["logits"] == ranges["head"]
    assert placed["embedding"] == ranges["adaptive_avg_pool2d"]
    assert set(placed.values()) == set(ranges.values())


def test_tensors_in_other_orders_are_matched() -> None:
    """Channels-last and flattened copies of a node's values are the node's."""
    tensors = {"nhwc": HELD["conv"].transpose(0, 2, 3, 1), "flat": HELD["conv"].reshape(2, -1), "out": HELD["head"]}
    assert place(RANGES, HELD, tensors) == {"nhwc": (-3, 3), "flat": (-3, 3), "out": (0, 1)}


def test_nodes_without_a_tensor_are_named() -> None:
    """Values that differ a little too much, or have another size, do not match."""
    tensors = {"far": HELD["conv"] + 0.1, "out": HELD["head"]}
    with pytest.raises(QuantizeError, match=r"got none for conv.*nearest, far, is off by 10 %"):
        place(RANGES, HELD, tensors)
    with pytest.raises(QuantizeError, match="got none for lost"):
        place({"lost": (0.0, 1.0)}, HELD, tensors)


def test_sums_that_cancel_before_a_clip_are_still_matched() -> None:
    """A few values that float rounding has moved by more than the tolerance don't lose the tensor."""
    rounded = HELD["conv"].copy()
    rounded[0, 0, 0, 0] += 0.004 * np.abs(rounded).max()
    tensors = {"conv": rounded, "out": HELD["head"], "other": RNG.standard_normal(120).astype(np.float32)}
    assert place(RANGES, HELD, tensors) == {"conv": (-3, 3), "out": (0, 1)}


def test_a_network_that_diverged_is_said_with_its_nodes() -> None:
    """Activations that are not finite match nothing; the error names the cause and the next step."""
    wild = {**HELD, "conv": np.full_like(HELD["conv"], np.inf)}
    with pytest.raises(QuantizeError, match="got others at conv: the training of step qat diverged: lower its learn"):
        place(RANGES, wild, {"conv": wild["conv"], "out": HELD["head"]})


def test_a_tensor_has_one_node_the_nearest() -> None:
    """Of two nodes within the tolerance each tensor is matched to the nearer one."""
    held = {"a": HELD["head"], "b": HELD["head"] + np.float32(5e-4)}
    ranges = {"a": (0.0, 1.0), "b": (0.0, 2.0)}
    assert place(ranges, held, {"two": held["b"], "one": held["a"]}) == {"two": (0, 2), "one": (0, 1)}


def test_nodes_that_hold_the_same_share_the_tensors() -> None:
    """Two nodes with equal values get a tensor each where there are two, and an error where there is one."""
    held, ranges = {"a": HELD["head"], "b": HELD["head"]}, {"a": (0.0, 1.0), "b": (0.0, 2.0)}
    assert len(set(place(ranges, held, {"one": held["a"], "two": held["a"]}).values())) == 2
    with pytest.raises(QuantizeError, match="none for b"):
        place(ranges, held, {"one": held["a"]})


def test_bytes_that_are_no_model_are_refused() -> None:
    """Rubbish is a coded error."""
    with pytest.raises(QuantizeError, match="ONNX"):
        onnx_tensors(b"\x00no model", _probe(12))


def test_importing_loads_no_torch() -> None:
    """Quantizing without learned ranges needs no torch in the process."""
    code = "import sys, compressor.quantize._learned_ranges, compressor.steps.qat, compressor.steps.equalize; "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("per_channel", [True, False])
def test_onnxruntime_with_the_learned_ranges_does_what_the_simulation_does(*, per_channel: bool) -> None:
    """The quantized file's logits are the fake-quantized network's, up to a few steps of the output grid."""
    probe = _probe(12)
    network = _warm(networks.build("resnet8", 10, 1, 12, 12, {"filters": 4}), probe)
    simulation = simulate(network, probe, Grid(per_channel))
    simulation.observe(probe * 0.7)
    simulation.settle()
    ranges, model = simulation.ranges(), export_onnx(network, 1, 12, 12)
    prepared = prepare(model).SerializeToString()
    given = place(ranges, activations(network, probe), onnx_tensors(prepared, probe))
    settings = Settings(per_channel=per_channel, reduce_range=False)
    quantized = onnx.load_from_string(static_int8.quantize(model, lambda: [probe], settings, ranges=given))
    low, high = ranges["head"]
    with torch.no_grad():
        simulated = simulation.copy(torch.from_numpy(probe))[0].numpy()
    assert np.abs(logits(quantized, lambda: [probe]) - simulated).max() < 4 * (high - low) / 255
