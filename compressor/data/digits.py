"""scikit-learn's handwritten digits seen by a camera: real images, the built-in default.

1,797 real 8 x 8 images (Alpaydin and Kaynak, UCI optical recognition of handwritten digits); each is a
source of ``VIEWS`` frames. The slice is the nominal lens that took the frame.
"""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compressor.data._camera import LENS_A, LENS_B, Camera, capture_all
from compressor.data._table import DEFAULT_SHARES, Shares, Table, make_table
from compressor.errors import DataError
from compressor.recipe.model import DataRecipe

READS = frozenset({"orientation", "decode"})  # used for the manifest: the device's images are encoded
VIEWS = 7
SHARES = Shares(train=0.27, calibration=0.02, gate=0.52, reference=0.19)
"""Few sources, so most of them are for the gate: a 1-point margin must hold with up to 4 lost of about 930."""
LENSES = {"lens-a": LENS_A, "lens-b": LENS_B}
_INK_MAX, _SIDE = 16, 8


def load(data: DataRecipe, root: Path | None = None) -> Table:
    """Return ``VIEWS`` frames of every source; a source is seen through one lens. Needs no path."""
    del data, root
    count = len(source_images()[0])
    parts = [
        _frames(range(start, count, len(LENSES)), camera, VIEWS, seed=0) for start, camera in enumerate(LENSES.values())
    ]
    return _table(parts, list(LENSES), SHARES)


@lru_cache(maxsize=1)
def source_images() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the real images, uint8 (1797, 8, 8) with ink bright, and their labels, int64 (1797,).

    Raises:
        DataError: If scikit-learn is not installed, or no longer has them.
    """
    with gzip.open(_file(), "rt") as lines:
        values = np.array([line.split(",") for line in lines], dtype=np.float64)
    images = np.rint(values[:, :-1].reshape(-1, _SIDE, _SIDE) * (255 / _INK_MAX)).astype(np.uint8)
    return images, values[:, -1].astype(np.int64)


def _file() -> Path:
    """Return the data file inside the scikit-learn package, found without importing it, which takes a second."""
    spec = importlib.util.find_spec("sklearn")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    paths = [Path(folder) / "datasets" / "data" / "digits.csv.gz" for folder in folders]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        message = (
            f"Expected scikit-learn with its digits.csv.gz, got {paths or 'no such package'}: install scikit-learn"
        )
        raise DataError(message)
    return found


def render(sources: Sequence[int], camera: Camera, slice_name: str, *, views: int = 1, seed: int = 1) -> Table:
    """Return ``views`` frames of each source by any ``camera``, as one slice: the images of a drifted site.

    ``sources`` are row numbers of ``source_images``; ``source_number`` gives them for a table's rows. The frames differ
    from those of ``load`` unless ``seed`` is 0.
    """
    return _table([_frames(sources, camera, views, seed=seed)], [slice_name], DEFAULT_SHARES)


def source_number(source: str) -> int:
    """Return the row of ``source_images`` named by an entry of a table's ``sources``."""
    return int(source.rpartition("-")[2])


@dataclass(frozen=True, slots=True, eq=False)
class _Frames:
    """Frames by one camera: uint8 (N, H, W, 3), and the source of each, int64 (N,)."""

    images: npt.NDArray[np.uint8]
    sources: npt.NDArray[np.int64]


def _frames(sources: Sequence[int], camera: Camera, views: int, *, seed: int) -> _Frames:
    rows = np.repeat(np.asarray(sources, dtype=np.int64), views)
    generators = (np.random.default_rng([seed, source, view]) for source in sources for view in range(views))
    return _Frames(capture_all(source_images()[0][rows], camera, generators), rows)


def _table(parts: Sequence[_Frames], slices: Sequence[str], shares: Shares) -> Table:
    labels = source_images()[1]
    sources = np.concatenate([part.sources for part in parts])
    table = make_table(
        [image for part in parts for image in part.images],
        [str(label) for label in labels[sources].tolist()],
        slices=np.repeat(slices, [len(part.sources) for part in parts]).tolist(),
        sources=[f"digit-{source:04d}" for source in sources.tolist()],
    )
    return replace(table, shares=shares)
