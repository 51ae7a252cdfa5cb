"""An imported network has the steps and formats of a network of ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from compressor.clean.given import Given
from compressor.clean.mending import clean
from compressor.errors import QuantizeError
from compressor.export.onnx import export_onnx
from compressor.formats import named
from compressor.importing.heads import network_of
from compressor.prune.groups import find_groups, narrow
from compressor.prune.soundness import sound_groups
from compressor.qat.fake_quantize import Grid
from compressor.qat.simulation import simulate
from compressor.quantize import quantize
from compressor.steps.quantize import Settings
from compressor.train import checkpoint

from .conftest import SHAPE

Exported = Callable[..., bytes]
_CONVOLUTIONAL = ["padded", "residual", "hard_swish", "silu", "depthwise"]


@pytest.fixture
def network(exported: Exported) -> Callable[[str], nn.Module]:
    """Return what imports a network by name, with its norms."""
    return lambda name: network_of(exported(name, norms=True), "logits").network


def rows(count: int) -> np.ndarray:
    """Return seeded inputs."""
    return np.random.default_rng(5).random((count, *SHAPE), np.float32)


@pytest.mark.parametrize("name", [*_CONVOLUTIONAL, "transformer", "shuffle", "gru", "decoder"])
def test_exports_again(name: str, network: Callable[[str], nn.Module]) -> None:
    """The file that is written gives the network's logits for any number of rows."""
    net = network(name)
    session = onnxruntime.InferenceSession(export_onnx(net, *SHAPE), providers=["CPUExecutionProvider"])
    for count in (1, 3):
        made = session.run(["logits"], {"input": rows(count)})[0]
        with torch.no_grad():
            wanted = net(torch.from_numpy(rows(count)))[0].numpy()
        assert np.abs(made - wanted).max() <= 1e-5


@pytest.mark.parametrize("name", [*_CONVOLUTIONAL, "shuffle", "transformer", "masked", "gru"])
def test_simulates_int8(name: str, network: Callable[[str], nn.Module]) -> None:
    """Quantization-aware training finds its layers: the simulated logits are near, and gradients reach the weights."""
    net, x = network(name), rows(32)
    with torch.no_grad():
        wanted = net(torch.from_numpy(x))[0]
    simulated = simulate(net, x, Grid(per_channel=True, reduce_range=False))
    simulated.observe(x)
    found = simulated.copy(torch.from_numpy(x))[0]
    assert float(((found - wanted).norm() / wanted.norm()).detach()) < 0.1
    found.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in simulated.weights())


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("name", ["transformer", "padded"])
def test_quantizes_and_counts_the_file_itself(name: str, exported: Exported, *, batch: bool) -> None:
    """Shapes that the file computes stopped quantizer and figures; a batch of one may stay, as by a class token."""
    data, x = exported(name, batch=batch), rows(32)
    mended, notes = clean(data, Given(rows=x[:3]))
    assert {"branches and shapes", "constant nodes"} & set(notes)
    pieces = np.split(x, len(x) // (named("onnx").fixed_batch(mended) or len(x)))
    made = quantize(mended, lambda: iter(pieces), Settings())
    assert named("onnx").figures(made, {}, 1).int8_macs_ratio == 1
    want, got = (
        np.concatenate([session.run(None, {"image": piece})[0] for piece in pieces])
        for session in (onnxruntime.InferenceSession(one, providers=["CPUExecutionProvider"]) for one in (mended, made))
    )
    assert np.linalg.norm(got - want) < 0.1 * np.linalg.norm(want)


def test_names_a_layer_that_runs_twice(network: Callable[[str], nn.Module]) -> None:
    """Fake quantization has one range a layer: a shared one is refused by its name."""
    with pytest.raises(QuantizeError, match="twice 2 times"):
        simulate(network("shared"), rows(4), Grid(per_channel=True, reduce_range=False))


def test_names_why_a_pooled_head_is_not_pruned(network: Callable[[str], nn.Module]) -> None:
    """Logits that are means of a convolution's outputs: trial finds the layer whose channels are the classes."""
    found = sound_groups(network("depthwise"), SHAPE)
    assert "outputs of the network" in found.reasons()
    assert {one.root for one in found.groups}.isdisjoint(layer for layers in found.left_alone for layer in layers)


@pytest.mark.parametrize("name", _CONVOLUTIONAL[:-1])
def test_is_pruned_and_loaded_again(name: str, network: Callable[[str], nn.Module], tmp_path: Path) -> None:
    """Channels go as groups; the narrowed network runs, and a fresh import takes its weights."""
    net = network(name)
    before = sum(value.numel() for value in net.parameters())
    group = next(one for one in find_groups(net, SHAPE).groups if one.channels >= 4)
    narrow(net, SHAPE, {group.root: [0, 1]})
    assert sum(value.numel() for value in net.parameters()) < before
    checkpoint.save(net, tmp_path / "narrow.pt")
    again, x = checkpoint.load(network(name), tmp_path / "narrow.pt"), torch.from_numpy(rows(2))
    with torch.no_grad():
        assert torch.equal(again(x)[0], net.eval()(x)[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hard_swish", "transformer"])
def test_converts_to_tflite(name: str, network: Callable[[str], nn.Module]) -> None:
    """LiteRT gives the network's logits for one row in its layout."""
    pytest.importorskip("litert_torch")
    from compressor.export.tflite import export_tflite  # noqa: PLC0415 - the extra tflite

    net, row = network(name), rows(1)
    logits = _logits(export_tflite(net, *SHAPE), row.transpose(0, 2, 3, 1))
    with torch.no_grad():
        assert np.abs(logits - net(torch.from_numpy(row))[0].numpy()).max() <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["static_int8", "static_int8_16"])
def test_quantizes_an_attention_in_tflite(scheme: str, attention: bytes) -> None:
    """A class token joined to the patches, and queries, keys and values in a tensor of five axes, run in integers."""
    x = rows(32)
    pieces = np.split(x.transpose(0, 2, 3, 1), len(x))
    made = named("litert").quantize(attention, lambda: iter(pieces), Settings(scheme=scheme), None)
    assert named("litert").figures(made, {}, 1).int8_macs_ratio > 0.8
    want, got = (np.concatenate([_logits(one, piece) for piece in pieces]) for one in (attention, made))
    assert np.linalg.norm(got - want) < 0.1 * np.linalg.norm(want)


@pytest.fixture(scope="module")
def attention(exported: Exported) -> bytes:
    """The tiny vision transformer, imported and converted to float TFLite."""
    pytest.importorskip("litert_torch")
    return named("litert").export(network_of(exported("transformer", norms=True), "logits").network, *SHAPE)


def _logits(model: bytes, row: np.ndarray) -> np.ndarray:
    """Return the logits of a TFLite file for one row, (1, H, W, C)."""
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - the extra tflite

    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], row)
    interpreter.invoke()
    return next(
        interpreter.get_tensor(one["index"]) for one in interpreter.get_output_details() if one["name"] == "logits"
    )
