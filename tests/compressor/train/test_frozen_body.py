"""Fine-tuning of the head alone: the body stays bit by bit, and the head learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from compressor import networks
from compressor.errors import TrainError
from compressor.recipe.model import TrainRecipe
from compressor.train.frozen_body import freeze_body
from compressor.train.supervised import fit

SETTINGS = TrainRecipe(epochs=2, batch=16, learning_rate=0.01, fine_tune_layers="head")
GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.randn((96, 1, 12, 12), generator=GENERATOR).numpy()
LABELS = (INPUTS.mean(axis=(1, 2, 3)) > 0).astype("int64")


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize(
    ("name", "options"),
    [("resnet8", {"filters": 4}), ("ds_cnn", {"filters": 4}), ("mobilenet_v2", {"width_mult": 0.1})],
)
def test_only_the_head_changes(name: str, options: dict[str, float], ema: float) -> None:
    """Weights and running statistics of the body keep every bit, averaged or not; the head's weights move."""
    network = networks.build(name, 2, 1, 12, 12, options)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    after = fit(network, INPUTS, LABELS, replace(SETTINGS, ema=ema)).state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed
    assert all(value.requires_grad for value in network.parameters())
    _, embedding = network(torch.from_numpy(INPUTS[:2]))
    width = embedding.shape[1]
    assert all(before[key].shape in {(2, width), (2,)} for key in changed)


def test_all_layers_change_without_it() -> None:
    """The stem is trained too, as it always was."""
    network = networks.build("resnet8", 2, 1, 12, 12, {"filters": 4})
    before = network.state_dict()["stem.weight"].clone()
    fit(network, INPUTS, LABELS, replace(SETTINGS, fine_tune_layers="all"))
    assert not torch.equal(before, network.state_dict()["stem.weight"])


class _Whole(nn.Module):
    """A network whose embedding is its logits, or depends on nothing."""

    def __init__(self, *, body: bool) -> None:
        super().__init__()
        self.layer, self.body = nn.Linear(4, 2), body

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.layer(x)
        return y, y if self.body else x


@pytest.mark.parametrize(("body", "where"), [(True, "after"), (False, "before")])
def test_refuses_a_network_without_head_or_body(*, body: bool, where: str) -> None:
    """The error says what to set instead."""
    with pytest.raises(TrainError, match=f"layers {where} its embedding.*fine_tune_layers"):
        freeze_body(_Whole(body=body), torch.zeros(3, 4))
