"""What a network returns after the import: logits before a softmax, and an embedding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from torch import fx

from compressor.errors import ConversionError
from compressor.importing.conversion import module_of
from compressor.importing.heads import network_of

from .conftest import NETWORKS, SHAPE

Exported = Callable[..., bytes]


@pytest.mark.parametrize("name", NETWORKS)
def test_returns_logits_and_embedding(name: str, exported: Exported) -> None:
    """Every network gives a matrix of logits and one of features, the file's own logits."""
    data, x = exported(name, norms=True), torch.rand(3, *SHAPE)
    with torch.no_grad():
        logits, embedding = network_of(data, "logits").network(x)
        whole = module_of(data)(x)
    assert torch.equal(logits.softmax(1) if name == "depthwise" else logits, whole)
    assert embedding.ndim == 2
    assert len(embedding) == 3


def test_cuts_a_softmax_off(exported: Exported) -> None:
    """Losses take logits: the rows no longer sum to one."""
    logits, embedding = network_of(exported("depthwise"), "logits").network(torch.rand(2, *SHAPE))
    assert not torch.allclose(logits.sum(1), torch.ones(2))
    assert embedding.shape == (2, 16)
    traced = fx.symbolic_trace(network_of(exported("depthwise"), "logits").network)
    assert not [node.name for node in traced.graph.nodes if "softmax" in node.name]


def test_takes_the_embedding_that_the_file_names(exported: Exported) -> None:
    """An output named so is the embedding."""
    model = onnx.load_from_string(exported("residual"))
    features = model.graph.node[-1].input[0]
    model.graph.node.append(onnx.helper.make_node("Mul", [features, "two"], ["embedding"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(2), "two"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("embedding", 1, ("batch", 8)))
    data, x = model.SerializeToString(), torch.rand(2, *SHAPE)
    with torch.no_grad():
        found = network_of(data, "logits", "embedding").network(x)[1]
        assert torch.allclose(found, 2 * network_of(exported("residual"), "logits").network(x)[1])


def test_names_an_output_that_is_not_there(exported: Exported) -> None:
    """The file's outputs are listed."""
    with pytest.raises(ConversionError, match="outputs logits, got scores"):
        network_of(exported("residual"), "scores")


def test_each_network_has_weights_of_its_own(exported: Exported) -> None:
    """The file is translated once, but what trains one network changes no other."""
    first, second = (network_of(exported("residual"), "logits") for _ in range(2))
    with torch.no_grad():
        for weight in first.network.parameters():
            weight.zero_()
        assert not first.network(torch.ones(1, *SHAPE))[0].any()
        assert second.network(torch.ones(1, *SHAPE))[0].any()
    assert first.apart == second.apart
