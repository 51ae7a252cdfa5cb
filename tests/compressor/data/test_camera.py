"""The simulated camera follows its settings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compressor.data.digits import DRIFTED, LENS_A, Camera, capture, source_images

STILL = Camera(
    zoom=0.6, noise=0.0, shift_jitter_px=0, gain_jitter=0, rotation_jitter_deg=0, defocus_px=0, diffraction_px=0.3
)


def _frame(camera: Camera, seed: int = 0) -> np.ndarray:
    return capture(source_images()[0][0], camera, np.random.default_rng(seed)).astype(float)


def test_a_frame_has_the_sensor_size_and_three_channels() -> None:
    """Whatever the scene's size, the frame is uint8 (height, width, 3)."""
    frame = capture(np.zeros((5, 9, 3), np.uint8), Camera(width=20, height=32), np.random.default_rng(0))
    assert frame.shape == (32, 20, 3)
    assert frame.dtype == np.uint8


def test_the_same_seed_gives_the_same_frame_and_another_seed_another() -> None:
    """All randomness comes from the generator that is handed in."""
    assert np.array_equal(_frame(LENS_A, 1), _frame(LENS_A, 1))
    assert not np.array_equal(_frame(LENS_A, 1), _frame(LENS_A, 2))


def test_gain_darkens() -> None:
    """Half the exposure results in about half the light."""
    ratio = _frame(replace(STILL, gain=0.4, ambient=0)).mean() / _frame(replace(STILL, gain=0.8, ambient=0)).mean()
    assert abs(ratio - 0.5) < 0.03


def test_defocus_blurs_but_keeps_the_light() -> None:
    """A disc spreads the light and loses little of it."""
    sharp, blurred = _frame(STILL), _frame(replace(STILL, defocus_px=3))
    assert np.abs(np.diff(blurred, axis=1)).mean() < 0.7 * np.abs(np.diff(sharp, axis=1)).mean()
    assert abs(blurred.mean() / sharp.mean() - 1) < 0.05


def test_rotation_turns_the_scene() -> None:
    """Turned by 180 degrees, a symmetric sensor sees the flipped scene."""
    turned = _frame(replace(STILL, rotation_deg=180))
    assert np.abs(turned[::-1, ::-1] - _frame(STILL)).mean() < 6  # shot noise of two frames


def test_the_drifted_camera_is_darker_and_softer_than_nominal() -> None:
    """The demo's drift shows in plain figures of the frame."""
    nominal, drifted = _frame(LENS_A), _frame(DRIFTED)
    assert drifted.mean() < 0.7 * nominal.mean()
    assert drifted.max() < 0.7 * nominal.max()
