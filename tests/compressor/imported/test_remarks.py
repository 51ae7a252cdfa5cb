"""What of the steps' settings a file could not have stands in its certificate: scales a channel, and a smaller file."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from compressor.gates.evidence import Verdict
from compressor.recipe.read import read_recipe
from compressor.run.pipeline import Outcome, run_recipe
from tests.compressor.imported import colours
from wire.bundle import read_bundle

STEP = '[[compress]]\nstep = "quantize"\n'


def outcome(folder: Path, file: bytes, more: str = STEP, runtime: str = "onnx") -> Outcome:
    """Return the result of a run of ``file``."""
    (folder / "mine.onnx").write_bytes(file)
    colours.arrays(folder / "data.npz", ["gate", "calibration", "gate"])
    recipe = read_recipe(colours.recipe(folder, more=more, runtime=runtime))
    return run_recipe(recipe, out=folder / "out")


def remarks_of(folder: Path) -> str:
    """Return the remarks of the last certificate, joined."""
    return " ".join(json.loads((folder / "out" / "gate.json").read_bytes())["remarks"])


def grouped() -> bytes:
    """Return the network with a ConvTranspose of two groups behind its ReLU."""
    model = onnx.load_from_string(colours.network())
    weight = np.random.default_rng(1).normal(0, 0.01, (6, 3, 1, 1)).astype(np.float32)
    weight[np.arange(6), np.arange(6) % 3] = 1
    model.graph.initializer.append(numpy_helper.from_array(weight, "up"))
    layer = helper.make_node("ConvTranspose", ["active", "up"], ["raised"], name="upward", group=2, kernel_shape=[1, 1])
    model.graph.node.insert(2, layer)
    model.graph.node[3].input[0] = "raised"
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("step", "said"),
    [(STEP, True), (STEP + "per_channel = false\n", False), (STEP + 'float_layers = ["upward"]\n', False)],
)
def test_a_layer_of_one_scale_is_named(tmp_path: Path, step: str, *, said: bool) -> None:
    """Unless one scale a layer is what the recipe asks for, or the layer stays float."""
    outcome(tmp_path, grouped(), step)
    assert ("One scale for all channels has upward" in remarks_of(tmp_path)) is said


def test_a_file_that_is_not_smaller_is_said(tmp_path: Path) -> None:
    """Of a network of a few hundred bytes the scales alone take more; it stays as the recipe asks."""
    done = outcome(tmp_path, colours.network())
    assert done.targets[0].figures["size_bytes"] > done.targets[0].figures["float_size_bytes"]
    assert "Not smaller than the float file" in remarks_of(tmp_path)
    assert "with static_int8" not in remarks_of(tmp_path)


class Rows(nn.Module):
    """An LSTM over the rows of a picture, beside the mean of each colour."""

    def __init__(self) -> None:
        """Make the layers; the LSTM has a small say."""
        super().__init__()
        self.layer, self.head, self.colour = nn.LSTM(24, 32, batch_first=True), nn.Linear(32, 3), nn.Linear(3, 3)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.colour.weight.copy_(20 * torch.eye(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        steps = self.layer(x.permute(0, 2, 1, 3).flatten(2))[0]
        return self.head(steps[:, -1]) + self.colour(x.mean((2, 3)))


@pytest.mark.slow
def test_a_recurrent_network_in_tflite_has_the_scheme_that_is_smaller(tmp_path: Path) -> None:
    """Unrolled, it has the scales of each time step; with int8 weights alone it is smaller than float, and so it is."""
    pytest.importorskip("litert_torch")
    torch.manual_seed(3)
    buffer = io.BytesIO()
    torch.onnx.export(
        Rows().eval(), (torch.zeros(1, 3, 8, 8),), buffer, dynamo=False, input_names=["pixels"],
        output_names=["logits"], dynamic_axes={"pixels": {0: "N"}, "logits": {0: "N"}},
    )  # fmt: skip
    done = outcome(tmp_path, buffer.getvalue(), runtime="litert")
    assert done.verdict is Verdict.PASS
    assert "so that it is one of dynamic_int8 with" in remarks_of(tmp_path)
    assert len(read_bundle(done.bundles[0]).artifact) < done.targets[0].figures["float_size_bytes"]
