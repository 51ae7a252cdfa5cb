"""Every network in the folder keeps the one promise."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from compressor import networks
from compressor.errors import PluginError
from edge_agent import decoders
from tests.compressor.networks.kinds import DECODED


@pytest.mark.parametrize("name", networks.networks())
@pytest.mark.parametrize("shape", [(1, 32, 48), (3, 32, 32)])
def test_returns_logits_and_embedding(name: str, shape: tuple[int, int, int]) -> None:
    """The forward pass returns (N, classes) and (N, D) for grey and colour inputs."""
    network = networks.build(name, 7, *shape)
    logits, embedding = network(torch.zeros(2, *shape))
    wanted = decoders.output_shape(found, 7) if (found := networks.decoder_of(network)) else (-1, 7)
    assert len(logits) == 2
    assert all(want in {-1, size} for want, size in zip(wanted, logits.shape, strict=True))
    assert embedding.ndim == 2
    assert embedding.shape[1] <= 4096


@pytest.mark.parametrize("name", networks.networks())
def test_what_gives_no_classes_has_a_decoder(name: str) -> None:
    """Each test of a step takes the networks that it is for."""
    assert bool(networks.decoder_of(networks.build(name, 3, 1, 32, 32))) == (name in DECODED)


@pytest.mark.parametrize("name", networks.networks())
def test_starts_from_the_same_weights(name: str) -> None:
    """Two builds have equal weights, and leave torch's random state as it was."""
    state = torch.get_rng_state()
    first, second = (networks.build(name, 10, 1, 32, 48).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(state, torch.get_rng_state())


def test_options_reach_the_network_and_unknown_ones_are_refused() -> None:
    """``filters`` widens; an option the network does not know is named."""
    assert networks.build("resnet8", 10, 1, 16, 16, {"filters": 4})(torch.zeros(1, 1, 16, 16))[1].shape == (1, 16)
    with pytest.raises(PluginError, match="depth"):
        networks.build("resnet8", 10, 1, 16, 16, {"depth": 4})


@pytest.mark.parametrize("end", ["nn.Flatten(), nn.Linear(n * h * w, c), nn.ReLU()", "nn.Flatten(), nn.LazyLinear(3)"])
def test_a_network_of_the_wrong_kind_is_refused(end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits that are not made by a linear layer, or another number of them: the error names the expectation."""
    text = f"from torch import nn\ndef build(c, n, h, w):\n    return nn.Sequential({end})\n"
    module = f"my_network_{len(end)}"
    (tmp_path / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match="embedding"):
        networks.build(f"{module}:build", 10, 1, 8, 8)


def test_a_network_of_logits_alone_is_parted_before_its_last_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The input of the last linear layer is the embedding; options and ``num_classes`` reach the function."""
    text = "from torch import nn\ndef plain(*, num_classes, wide=4):\n    return nn.Sequential(\n"
    text += "        nn.Conv2d(1, wide, 8), nn.Flatten(), nn.Linear(wide, num_classes))\n"
    (tmp_path / "my_plain_network.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    network = networks.build("my_plain_network:plain", 10, 1, 8, 8, {"wide": 6})
    logits, embedding = network(torch.zeros(2, 1, 8, 8))
    assert (logits.shape, embedding.shape) == ((2, 10), (2, 6))
    assert torch.equal(logits, network.head(embedding))  # type: ignore[operator]


OURSELVES = """
import torchvision
from torchvision.models import resnet18 as made
def build(c, n, h, w):
    return made(num_classes=c)
"""
FRESH = """
import sys
from compressor import networks; from compressor.recipe import preflight
name = sys.argv[1]
preflight._require("compressor.networks", name, "[model] network")
assert "torch" in sys.modules and "torchvision" not in sys.modules
import torch
print([tuple(one.shape) for one in networks.build(name, 7, 3, 32, 32)(torch.zeros(2, 3, 32, 32))])
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision.models:mobilenet_v3_small", "mine:build"])
def test_a_network_of_torchvision_builds_in_a_fresh_process(name: str, tmp_path: Path) -> None:
    """By its dotted path, or in a user's module that imports torchvision itself, beside a CPU torch."""
    (tmp_path / "mine.py").write_text(OURSELVES)
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[3]}"}
    done = subprocess.run([sys.executable, "-c", FRESH, name], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "(2, 7)" in done.stdout


@pytest.mark.parametrize(
    ("name", "channels", "said"),
    [
        ("torchvision:resnet81", 3, r"that torchvision lists, got 'resnet81': did you mean 'resnet\d+'"),
        ("torchvision:resnet18", 1, r"Expected 3 channels for torchvision:resnet18, got 1: set \[data\] colour"),
        ("torchvision:unheardof", 3, r"docs\.pytorch\.org"),
    ],
)
def test_a_network_that_a_library_does_not_list_is_named(name: str, channels: int, said: str) -> None:
    """With the nearest name, or where the names are."""
    with pytest.raises(PluginError, match=said):
        networks.build(name, 10, channels, 32, 32)


@pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
def test_a_network_of_timm_is_built_by_its_name() -> None:
    """With the channels of the data; its pretrained weights are not fetched."""
    network = networks.build("timm:mobilenetv3_small_050", 7, 1, 32, 32)
    logits, embedding = network(torch.zeros(2, 1, 32, 32))
    assert (logits.shape, embedding.shape) == ((2, 7), (2, 1024))


SURE = """
import torch
from torch import nn
class Sure(nn.Module):
    def __init__(self, n, k):
        super().__init__()
        self.head = nn.Linear(n, k)
    def forward(self, x):
        x = x.flatten(1)
        return torch.softmax(self.head(x), dim=1), x
def build(c, n, h, w, *, wide=1):
    return Sure(n * h * w // wide, c)
"""


def test_a_network_with_a_softmax_at_its_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss, distillation and device have a softmax of their own."""
    (tmp_path / "my_sure_network.py").write_text(SURE)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match=r"got probabilities .*: return what goes into the softmax"):
        networks.build("my_sure_network:build", 10, 1, 8, 8)


def test_what_a_network_of_ones_own_raises_is_said_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is built and when it runs."""
    (tmp_path / "my_broken_network.py").write_text(SURE)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match=r"ZeroDivisionError: .* in my_broken_network.py, line 12"):
        networks.build("my_broken_network:build", 10, 1, 8, 8, {"wide": 0})
    with pytest.raises(PluginError, match=r"to take inputs of \(2, 1, 8, 8\), got RuntimeError"):
        networks.build("my_broken_network:build", 10, 1, 8, 8, {"wide": 2})
