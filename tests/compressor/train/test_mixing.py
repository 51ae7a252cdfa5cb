"""Mixed batches: which inputs are mixed, and that no label is lost."""

from __future__ import annotations

import pytest
import torch

from compressor.train.augmentation import draw_mix


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.arange(8) % 4
    return y.float().reshape(-1, 1, 1, 1).expand(8, 1, 6, 10).contiguous(), y


def _mixed(
    x: torch.Tensor, y: torch.Tensor, alphas: tuple[float, float], seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    mix = draw_mix(tuple(x.shape), alphas, torch.Generator().manual_seed(seed))
    assert mix is not None
    return mix.inputs(x, x[mix.partners]), mix.labels(y, y[mix.partners], 4)


@pytest.mark.parametrize("alphas", [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
@pytest.mark.parametrize("seed", range(5))
def test_labels_keep_their_mass_and_follow_the_values(alphas: tuple[float, float], seed: int) -> None:
    """Each row of labels sums to 1, and is mixed by the share by which the values are."""
    x, y = _batch()
    values, labels = _mixed(x, y, alphas, seed)
    assert torch.allclose(labels.sum(1), torch.ones(8))
    assert torch.allclose(values.mean((1, 2, 3)), labels @ torch.arange(4.0), atol=1e-5)


def test_cutmix_pastes_and_mixup_blends() -> None:
    """CutMix keeps values as they were; mixup makes new ones. The batch itself is left alone."""
    x, y = _batch()
    before = x.clone()
    cut = _mixed(x, y, (0.0, 1.0), 1)[0]
    blend = _mixed(x, y, (1.0, 0.0), 1)[0]
    assert set(cut.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
    assert len(blend.unique()) > 4
    assert torch.equal(x, before)


def test_off_draws_nothing() -> None:
    """Without mixing the randomness is as it was."""
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert draw_mix((8, 1, 6, 10), (0.0, 0.0), generator) is None
    assert torch.equal(generator.get_state(), before)
