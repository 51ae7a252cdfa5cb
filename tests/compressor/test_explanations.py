"""Flips in their order, and saliency on a model whose eye is known."""

from __future__ import annotations

import numpy as np
import pytest

from compressor.errors import MeasureError
from compressor.measurement.predictions import Compared, Predictions
from compressor.measurement.saliency import Floats, flips, saliency


def _said(*logits: tuple[float, float]) -> Predictions:
    return Predictions(np.array(logits, np.float32), np.zeros((len(logits), 0), np.float32))


def _corner(images: Floats) -> Floats:
    seen = images[:, 0, :4, :4].mean(axis=(1, 2))
    return np.stack([seen, 1 - seen], axis=1).astype(np.float32) * 5


def test_lost_ones_come_first_the_surest_before_the_others() -> None:
    """Row 0 was won, rows 1 and 3 lost, row 2 did not flip."""
    before = _said((2, 0), (1, 0), (3, 0), (4, 0))
    after = _said((0, 1), (0, 1), (2, 0), (0, 1))
    slices = np.array(["s", "t", "s", "s"])
    found = flips(
        Compared(labels=np.array([1, 0, 0, 0]), slices=slices, baseline=before, float_model=before, candidate=after)
    )
    assert [flip.row for flip in found] == [3, 1, 0]
    assert [(flip.lost, flip.won) for flip in found] == [(True, False), (True, False), (False, True)]
    assert found[0].before_margin > found[1].before_margin > 0
    assert found[1].slice == "t"


def test_no_flips_are_an_empty_answer() -> None:
    """Equal models have nothing to explain."""
    said = _said((2, 0))
    assert (
        flips(Compared(labels=np.array([0]), slices=np.array(["s"]), baseline=said, float_model=said, candidate=said))
        == ()
    )


def test_saliency_lies_where_the_model_looks() -> None:
    """The corner decides, the far corner does not."""
    image = np.zeros((1, 16, 16), np.float32)
    image[0, :4, :4] = 1
    found = saliency(_corner, image, 0)
    assert found.shape == (16, 16)
    assert found[:4, :4].min() > found[8:, 8:].max() == pytest.approx(0)


@pytest.mark.parametrize(("shape", "label"), [((8, 8), 0), ((1, 8, 8), 2)])
def test_what_can_not_be_explained_is_refused(shape: tuple[int, ...], label: int) -> None:
    """No image, no such class."""
    with pytest.raises(MeasureError):
        saliency(_corner, np.ones(shape, np.float32), label)
