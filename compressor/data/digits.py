"""scikit-learn's handwritten digits seen by a camera: real images, the built-in default.

1,797 real 8 x 8 images (Alpaydin and Kaynak, UCI optical recognition of handwritten digits); each is a
source of ``VIEWS`` frames. The slice is the nominal lens that took the frame.

The camera is a physical model of a small one that looks at a flat scene, in the order of the light path: geometry
(rotation, shift, sampling), optics (defocus as a disc, diffraction as a Gaussian), exposure (gain), sensor (shot and
read noise), 8-bit output. It models the effects that make field images drift, but not lens distortion, colour or
compression.
"""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from compressor.data._table import DEFAULT_SHARES, Shares, Table, make_table
from compressor.errors import DataError
from compressor.recipe.model import DataRecipe

READS = frozenset({"orientation", "decode"})  # used for the manifest: the device's images are encoded
VIEWS = 7
SHARES = Shares(train=0.27, calibration=0.02, gate=0.52, reference=0.19)
"""Few sources, so most of them are for the gate: a 1-point margin must hold with up to 4 lost of about 930."""
_INK_MAX, _SIDE = 16, 8
Uint8 = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_FULL_WELL_ELECTRONS = 4000.0  # of a 1.75 um pixel (OV2640 class); determines the shot noise
_CHUNK = 128  # frames processed together: they fit into the processor's cache
_DRAWS = 4  # of a frame: gain, rotation, shift down, shift across


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """One camera and its mounting. Lengths are output pixels, angles degrees, light 0..1.

    ``defocus_px``: radius of the blur disc. ``gain``: exposure, 1 is nominal. ``ambient``: light added
    everywhere. ``noise``: sd of the read noise. ``*_jitter``: sd of the change from frame to frame.
    """

    width: int = 32
    height: int = 32
    defocus_px: float = 0.4
    diffraction_px: float = 0.5
    gain: float = 0.95
    ambient: float = 0.03
    rotation_deg: float = 0.0
    noise: float = 0.015
    zoom: float = 0.9
    shift_jitter_px: float = 0.8
    gain_jitter: float = 0.04
    rotation_jitter_deg: float = 3.0


LENS_A = Camera()
LENS_B = replace(LENS_A, defocus_px=0.9, gain=0.88, ambient=0.05, noise=0.02)
DRIFTED = replace(LENS_A, defocus_px=3.2, gain=0.45, rotation_deg=24.0, noise=0.03)
"""A camera out of focus, knocked sideways, at dusk: the drift of the built-in demo."""
LENSES = {"lens-a": LENS_A, "lens-b": LENS_B}


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


def capture(image: npt.NDArray[np.uint8], camera: Camera, rng: np.random.Generator) -> Uint8:
    """Return one frame, uint8 (H, W, 3), of ``image``, uint8 (h, w) or (h, w, 3), by ``camera``.

    The randomness of the frame (jitter, noise) comes only from ``rng``.
    """
    frame: Uint8 = capture_all(image[None], camera, [rng])[0]
    return frame


def capture_all(images: npt.NDArray[np.uint8], camera: Camera, generators: Iterable[np.random.Generator]) -> Uint8:
    """Return a frame of each image, uint8 (N, H, W, 3), of ``images``, uint8 (N, h, w) or (N, h, w, 3).

    Frame i uses only generator i, so it does not depend on its neighbours.
    """
    frames = np.empty((len(images), camera.height, camera.width, 3), np.uint8)
    jitters = iter(generators)
    for start in range(0, len(images), _CHUNK):
        some = images[start : start + _CHUNK]
        frames[start : start + len(some)] = _exposed(some, camera, list(islice(jitters, len(some))))
    return frames


def _exposed(images: npt.NDArray[np.uint8], camera: Camera, generators: Sequence[np.random.Generator]) -> Uint8:
    scenes = images.astype(np.float32) / np.float32(255)
    planes = scenes[..., None] if scenes.ndim == 3 else scenes  # noqa: PLR2004 - grey has no axis of channels
    draws = np.array([rng.standard_normal(_DRAWS) for rng in generators])
    noise = np.stack([rng.standard_normal((camera.height, camera.width, 3), dtype=np.float32) for rng in generators])
    gain = (camera.gain * np.exp(camera.gain_jitter * draws[:, 0])).astype(np.float32)
    rows, columns = _geometry(planes.shape[1:3], camera, draws)
    light = _optics(_sample(planes, rows, columns), camera)
    light = np.clip(light * gain[:, None, None, None] + np.float32(camera.ambient), 0, 1)
    noise *= np.sqrt(light / np.float32(_FULL_WELL_ELECTRONS) + np.float32(camera.noise**2))
    noise += light
    noise *= np.float32(255)
    return np.clip(np.rint(noise, out=noise), 0, 255, out=noise).astype(np.uint8)


def _geometry(shape: tuple[int, ...], camera: Camera, draws: Doubles) -> tuple[Float, Float]:
    """Return the scene position of each pixel, (row, column), float32 (N, H, W) each; ``draws`` is (N, 4)."""
    angle = np.deg2rad(camera.rotation_deg + camera.rotation_jitter_deg * draws[:, 1])[:, None, None]
    shift = camera.shift_jitter_px * draws[:, 2:4, None, None]
    down = np.arange(camera.height)[:, None] - (camera.height - 1) / 2 - shift[:, 0]
    across = np.arange(camera.width)[None, :] - (camera.width - 1) / 2 - shift[:, 1]
    turned = np.cos(angle) * down - np.sin(angle) * across, np.sin(angle) * down + np.cos(angle) * across
    sizes = zip(turned, shape, (camera.height, camera.width), strict=True)
    rows, columns = (
        ((side - 1) / 2 + side / (camera.zoom * pixels) * offsets).astype(np.float32) for offsets, side, pixels in sizes
    )
    return rows, columns


def _sample(planes: Float, rows: Float, columns: Float) -> Float:
    """Return ``planes`` (N, h, w, C) interpolated bilinearly, (N, H, W, C); black outside."""
    height, width = planes.shape[1:3]
    framed = np.pad(planes, ((0, 0), (1, 2), (1, 2), (0, 0)))
    rows, columns = np.clip(rows, -1, height) + np.float32(1), np.clip(columns, -1, width) + np.float32(1)
    top, left = rows.astype(np.int32), columns.astype(np.int32)
    down, across = (rows - top)[..., None], (columns - left)[..., None]
    flat, line = framed.reshape(-1, framed.shape[-1]), framed.shape[2]
    corner = top * line + left + (np.arange(len(planes), dtype=np.int32) * (framed.shape[1] * line))[:, None, None]
    upper, lower = (_between(flat, start, across) for start in (corner, corner + line))
    lower -= upper
    lower *= down
    lower += upper
    return lower


def _between(flat: Float, start: npt.NDArray[np.int32], across: Float) -> Float:
    """Return ``flat`` interpolated between ``start`` and the next element, at the fraction ``across`` (0..1)."""
    left, right = flat.take(start, axis=0), flat.take(start + 1, axis=0)
    right -= left
    right *= across
    right += left
    return right


def _optics(planes: Float, camera: Camera) -> Float:
    """Return ``planes`` (N, H, W, C) convolved with the point-spread function; the border is replicated."""
    spread = _point_spread(camera.defocus_px, camera.diffraction_px)
    reach = len(spread) // 2
    if not reach:
        return planes
    height, width = planes.shape[1:3]
    framed = np.pad(planes, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    blurred = np.zeros_like(planes)
    for row, column in np.argwhere(spread > 0).tolist():
        blurred += spread[row, column] * framed[:, row : row + height, column : column + width]
    return blurred


@lru_cache(maxsize=64)
def _point_spread(defocus_px: float, diffraction_px: float) -> Float:
    """Return the point-spread function, sum 1: a disc of radius ``defocus_px`` with soft edge, blurred by diffraction.

    Source: Goodman, Introduction to Fourier Optics, 6.4: geometrical limit of the defocused circular pupil.
    """
    reach = int(np.ceil(defocus_px + 3 * diffraction_px))
    axis = np.arange(-reach, reach + 1, dtype=np.float32)
    disc = np.clip(defocus_px + 0.5 - np.hypot(axis[:, None], axis[None, :]), 0, 1)
    blurred = ndimage.gaussian_filter(disc, diffraction_px, mode="constant")
    normalised: Float = (blurred / blurred.sum()).astype(np.float32)
    return normalised
