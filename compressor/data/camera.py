"""A physical camera model: what a small camera makes of a flat scene.

In the order of the light path: geometry (rotation, shift, sampling), optics (defocus as a disc,
diffraction as a Gaussian), exposure (gain), sensor (shot and read noise), 8-bit output. It shows the
effects that make field images drift; it does not model lens distortion, colour or compression.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Uint8 = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]

_FULL_WELL_ELECTRONS = 4000.0  # of a 1.75 um pixel (OV2640 class); sets how strong shot noise is


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera and how it is mounted. Lengths are output pixels, angles degrees, light 0..1.

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
"""A camera out of focus, knocked sideways, in the dusk: the drift of the embedded demo."""


def capture(image: npt.NDArray[np.uint8], camera: Camera, rng: np.random.Generator) -> Uint8:
    """Return one frame, uint8 (H, W, 3), that ``camera`` takes of ``image``, uint8 (h, w) or (h, w, 3).

    The randomness of the frame (jitter, noise) comes from ``rng`` alone.
    """
    scene = image.astype(np.float32) / 255
    planes = scene[None] if scene.ndim == 2 else np.moveaxis(scene, -1, 0)  # noqa: PLR2004 - grey has two axes
    gain = camera.gain * float(np.exp(rng.normal(0, camera.gain_jitter)))
    matrix, offset = _geometry(planes.shape[1:], camera, rng)
    size = (camera.height, camera.width)
    light = np.stack([_optics(_sample(plane, matrix, offset, size), camera) for plane in planes])
    light = np.clip(light * gain + camera.ambient, 0, 1)
    electrons_sd = np.sqrt(light / _FULL_WELL_ELECTRONS + camera.noise**2)
    rgb = np.broadcast_to(light, (3, *size)) + electrons_sd * rng.standard_normal((3, *size), dtype=np.float32)
    frame: Uint8 = np.moveaxis(np.clip(np.rint(rgb * 255), 0, 255), 0, -1).astype(np.uint8)
    return frame


def _geometry(shape: tuple[int, ...], camera: Camera, rng: np.random.Generator) -> tuple[Float, Float]:
    """Return the map from output to scene coordinates, (row, column): matrix (2, 2) and offset (2,)."""
    angle = np.deg2rad(camera.rotation_deg + rng.normal(0, camera.rotation_jitter_deg))
    shift = rng.normal(0, camera.shift_jitter_px, 2)
    scale = np.array(shape) / (camera.zoom * np.array([camera.height, camera.width]))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = scale[:, None] * turn
    centre_out = (np.array([camera.height, camera.width]) - 1) / 2 + shift
    offset = (np.array(shape) - 1) / 2 - matrix @ centre_out
    return matrix.astype(np.float32), offset.astype(np.float32)


def _sample(plane: Float, matrix: Float, offset: Float, size: tuple[int, int]) -> Float:
    sampled: Float = ndimage.affine_transform(
        plane, matrix, offset, output_shape=size, order=1, mode="constant", cval=0.0
    )
    return sampled


def _optics(plane: Float, camera: Camera) -> Float:
    spread = _point_spread(camera.defocus_px, camera.diffraction_px)
    blurred: Float = ndimage.convolve(plane, spread, mode="nearest") if spread.size > 1 else plane
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
