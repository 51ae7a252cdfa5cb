"""scikit-learn's handwritten digits seen by a camera: real images, the embedded default.

1,797 real 8 x 8 images (Alpaydin and Kaynak, UCI optical recognition of handwritten digits); each is a
source of ``VIEWS`` frames. The slice is the nominal lens that took the frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compressor.data.camera import LENS_A, LENS_B, Camera, capture
from compressor.data.table import Table, make_table
from compressor.recipe import DataRecipe

VIEWS = 5
LENSES = {"lens-a": LENS_A, "lens-b": LENS_B}
_INK_MAX = 16


def load(data: DataRecipe, root: Path | None = None) -> Table:
    """Return ``VIEWS`` frames of every source; a source is seen through one lens. Needs no path."""
    del data, root
    count = len(source_images()[0])
    lens_a = [source for source in range(count) if source % 2 == 0]
    lens_b = [source for source in range(count) if source % 2 == 1]
    plan = [(name, camera, rows) for (name, camera), rows in zip(LENSES.items(), (lens_a, lens_b), strict=True)]
    frames = [frame for name, camera, rows in plan for frame in _frames(rows, camera, name, VIEWS, seed=0)]
    return _table(frames)


def source_images() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the real images, uint8 (1797, 8, 8) with ink bright, and their labels, int64 (1797,)."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - heavy, only for this data set

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / _INK_MAX)).astype(np.uint8)
    return images, bunch.target.astype(np.int64)


def render(sources: Sequence[int], camera: Camera, slice_name: str, *, views: int = 1, seed: int = 1) -> Table:
    """Return ``views`` frames of each source under any ``camera``, as one slice: what a drifted site sees.

    ``sources`` are row numbers of ``source_images``; ``source_number`` gives them for a table's rows.
    Frames differ from those of ``load`` when ``seed`` is not 0.
    """
    return _table(_frames(sources, camera, slice_name, views, seed=seed))


def source_number(source: str) -> int:
    """Return the row of ``source_images`` that a table's ``sources`` entry names."""
    return int(source.rpartition("-")[2])


Frame = tuple[npt.NDArray[np.uint8], str, str, str]


def _frames(sources: Sequence[int], camera: Camera, slice_name: str, views: int, *, seed: int) -> list[Frame]:
    images, labels = source_images()
    frames = []
    for source in sources:
        for view in range(views):
            rng = np.random.default_rng([seed, source, view])
            frame = capture(images[source], camera, rng)
            frames.append((frame, str(labels[source]), slice_name, f"digit-{source:04d}"))
    return frames


def _table(frames: list[Frame]) -> Table:
    images, names, slices, sources = zip(*frames, strict=True) if frames else ((), (), (), ())
    return make_table(images, names, slices=slices, sources=sources)
