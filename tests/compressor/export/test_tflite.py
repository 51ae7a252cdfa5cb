"""The exported TFLite is the network, channels last, with short names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from compressor import networks
from compressor.errors import ExportError, PluginError
from compressor.export.tflite import export_tflite
from compressor.tflite import packages
from compressor.tflite.graph import inspect
from compressor.tflite.quantizing import layers
from tests.compressor.networks.kinds import CLASSIFIERS

pytestmark = pytest.mark.slow

interpreter_module = pytest.importorskip("ai_edge_litert.interpreter")


def _run(model: bytes, rows: np.ndarray) -> list[np.ndarray]:
    """Row by row, as devices do: a converted graph may hold its batch in a constant reshape."""
    interpreter = interpreter_module.Interpreter(model_content=model)
    interpreter.allocate_tensors()
    found = []
    for row in rows:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], row[None])
        interpreter.invoke()
        found.append([interpreter.get_tensor(one["index"]) for one in interpreter.get_output_details()])
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_export_computes_what_the_network_does(name: str) -> None:
    """Logits and embedding agree with torch to 1e-5 on 5 rows, without one Transpose."""
    torch.manual_seed(0)
    network = networks.build(name, 10, 3, 32, 20)
    model = export_tflite(network, 3, 32, 20)
    x = np.random.default_rng(0).standard_normal((5, 3, 32, 20)).astype(np.float32)
    with torch.no_grad():
        expected = [output.numpy() for output in network.eval()(torch.from_numpy(x))]
    for got, want in zip(_run(model, np.ascontiguousarray(x.transpose(0, 2, 3, 1))), expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5 * max(1, np.abs(want).max()))
    assert "TRANSPOSE" not in inspect(model).operators


class _Tiny(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        embedding = nn.functional.adaptive_avg_pool2d(self.body(x), 1).flatten(1)
        return self.head(embedding), embedding


def test_the_same_weights_give_the_same_bytes(capfd: pytest.CaptureFixture[str]) -> None:
    """Two exports are equal, small, named by layer, and the converter's output is suppressed."""
    first, second = (export_tflite(_Tiny(), 1, 8, 8) for _ in range(2))
    assert first == second
    assert len(first) < 4000
    assert layers(first) == ("body.0", "head")
    assert capfd.readouterr() == ("", "")


class _Odd(nn.Module):
    """Has an operator that TFLite lacks."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.linalg.eigvals(x).real.flatten(1)
        return y, y


class _Single(nn.Module):
    """Has no embedding."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


def test_an_operator_that_does_not_convert_is_named() -> None:
    """The ExportError names the operator and the next step."""
    with pytest.raises(ExportError, match=r"got operator aten\.linalg_eig\.default: replace it"):
        export_tflite(_Odd(), 1, 8, 8)


def test_a_network_without_embedding_is_refused() -> None:
    """The error states what forward() must return."""
    with pytest.raises(ExportError, match=r"return \(logits, embedding\)"):
        export_tflite(_Single(), 1, 8, 8)


def test_a_missing_package_is_named_with_its_extra() -> None:
    """The PluginError names the package to install."""
    with pytest.raises(PluginError, match=r"'litert_absent'.*pip install 'tinyfleet\[tflite\]'"):
        packages.required("litert_absent")
