"""The exported ONNX is the network, in the agreed form."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from compressor import networks
from compressor.errors import ExportError
from compressor.export import OPSET
from compressor.export.onnx import OUTPUT_NAMES, export_onnx
from tests.compressor.networks.kinds import DETECTORS


@pytest.mark.parametrize("name", networks.networks())
def test_the_export_computes_what_the_network_does(name: str) -> None:
    """Logits and embedding agree with torch for any batch size."""
    width = 48 if name in DETECTORS else 20
    network = networks.build(name, 10, 3, 32, width)
    session = onnxruntime.InferenceSession(export_onnx(network, 3, 32, width), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((5, 3, 32, width)).astype(np.float32)
    with torch.no_grad():
        expected = [output.numpy() for output in network(torch.from_numpy(x))]
    for got, want in zip(session.run(list(OUTPUT_NAMES), {"input": x}), expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4)


def test_the_same_weights_give_the_same_bytes() -> None:
    """Two exports are equal, without traces of their time and tool."""
    first, second = (export_onnx(networks.build("resnet8", 10, 1, 16, 16), 1, 16, 16) for _ in range(2))
    assert first == second
    model = onnx.load_from_string(first)
    assert not model.metadata_props
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]


class _Odd(nn.Module):
    """Has an operator that ONNX lacks."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.linalg.eigvals(x).real.flatten(1)
        return y, y


def test_a_network_that_does_not_export_is_a_coded_error() -> None:
    """An operator without ONNX counterpart ends in an ExportError."""
    with pytest.raises(ExportError, match="exports to ONNX"):
        export_onnx(_Odd(), 1, 8, 8)
