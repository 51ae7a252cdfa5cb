"""A data set for it: pictures of noise, bright at the left, at the top, at both, or nowhere."""

import numpy as np

from compressor.data._table import Table, make_table


def load(data, root) -> Table:  # noqa: ANN001 - as a person writes it
    """Return 480 pictures, 8 x 8, labelled ``left+top``, ``left``, ``top`` or ``none``."""
    del data, root
    random = np.random.default_rng(0)
    images, labels = [], []
    for row in range(480):
        image = random.integers(0, 100, (8, 8, 3), dtype=np.uint8)
        left, top = bool(row & 1), bool(row & 2)
        image[:, :4] += np.uint8(80 * left)
        image[:4] += np.uint8(70 * top)
        images.append(image)
        labels.append("+".join(name for name, there in (("left", left), ("top", top)) if there) or "none")
    return make_table(images, labels, slices=["north" if row % 8 < 4 else "south" for row in range(480)])
