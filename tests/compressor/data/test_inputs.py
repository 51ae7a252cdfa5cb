"""Inputs that are made when they are taken equal those of an array, to the last bit, and are never all there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compressor.data._inputs import FileInputs, Floats, LazyInputs, MonitoredPixels, write
from compressor.data._stored_images import object_array
from compressor.portions import Inputs, portions
from edge_agent.inference import preprocess
from wire.manifest import Preprocessing

PRE = Preprocessing(width=6, height=5, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), colour="rgb")
ROWS = (slice(0, 3), slice(4, 4), slice(5, 99), slice(None, None, 3), np.array([8, 0, 0, 3]), np.array([], np.int64))


def images(count: int = 9) -> list[np.ndarray]:  # type: ignore[type-arg]
    """Return ``count`` images of sizes that differ; some have the input's own."""
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, (5 + row % 2, 6, 3), dtype=np.uint8) for row in range(count)]


def of_kind(kind: str, whole: Floats, folder: Path) -> Inputs:
    """Return the inputs ``whole`` in another form."""
    if kind == "lazy":
        parts = [object_array(images()[:4]), object_array(images()[4:])]
        return LazyInputs(parts, PRE)
    if kind == "opened":
        write(LazyInputs([object_array(images())], PRE), folder / "inputs")
        return FileInputs.opened(folder / "inputs", whole.shape)
    return FileInputs.received(portions(whole, most=2), whole.shape, folder)


@pytest.mark.parametrize("kind", ["lazy", "opened", "received"])
def test_rows_equal_those_of_an_array(kind: str, tmp_path: Path) -> None:
    """Slices with steps, beyond the end, and empty ones; indices in any order and twice; shape and bytes of all."""
    whole = preprocess.to_batch(images(), PRE)
    found = of_kind(kind, whole, tmp_path)
    assert (found.shape, found.nbytes, len(found)) == (whole.shape, whole.nbytes, len(whole))
    for rows in ROWS:
        assert np.array_equal(found[rows], whole[rows])
        assert found[rows].flags.writeable
    assert np.array_equal(np.concatenate(list(portions(found, most=4))), whole)


@pytest.mark.parametrize("kind", ["lazy", "opened", "received"])
def test_inputs_refuse_to_become_an_array(kind: str, tmp_path: Path) -> None:
    """Code that would hold all of them fails here."""
    with pytest.raises(TypeError, match="taken in parts"):
        np.asarray(of_kind(kind, preprocess.to_batch(images(), PRE), tmp_path))


def test_the_drift_monitor_sees_the_same_pixels() -> None:
    """Resized where the size differs, one by one and in order."""
    wanted = [preprocess.resize_pixels(image, PRE) for image in images()]
    found = MonitoredPixels(object_array(images()), PRE)
    assert len(found) == len(wanted)
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert np.array_equal(found[3], wanted[3])
