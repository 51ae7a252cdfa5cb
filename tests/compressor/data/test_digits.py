"""The embedded data set."""

from __future__ import annotations

import numpy as np

from compressor.data.camera import DRIFTED
from compressor.data.digits import VIEWS, render, source_images, source_number


def test_there_are_1797_real_images_of_ten_classes() -> None:
    """The bundled images come as uint8 with their labels."""
    images, labels = source_images()
    assert images.shape == (1797, 8, 8)
    assert images.dtype == np.uint8
    assert sorted(set(labels.tolist())) == list(range(10))


def test_views_of_one_image_share_their_source() -> None:
    """Several frames of one digit differ in content and agree in source and label."""
    table = render([4, 9], DRIFTED, "dusk", views=VIEWS)
    assert len(set(table.hashes)) == 2 * VIEWS
    assert [source_number(source) for source in table.sources] == [4] * VIEWS + [9] * VIEWS
    assert set(table.slices) == {"dusk"}


def test_rendering_is_seeded() -> None:
    """The same seed gives the same frames, another seed other ones."""
    first, again, other = (render([1], DRIFTED, "x", seed=seed).hashes[0] for seed in (1, 1, 2))
    assert first == again != other
