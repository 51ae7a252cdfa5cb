"""Golden inputs: from the text of a recipe to the numbers of an input, as both sides must compute them.

Each case has the ``[data]`` keys of a recipe, the preprocessing that they put into a manifest, and the input of one
picture. The file is never edited: a release that was gated with these numbers must get them from every later agent.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compressor.data._front_end import preprocessing_of
from compressor.recipe.read import parse_recipe
from edge_agent.inference.preprocess import decode_image, fitted, to_batch, to_tensor
from edge_agent.pictures.sixteen_bits import to_levels
from wire.codec import from_document, to_document
from wire.manifest import BITS, RESAMPLES, RESIZES, Preprocessing

GOLDEN = Path(__file__).parent / "golden"
CASES: list[dict[str, Any]] = json.loads((GOLDEN / "inputs.v5.json").read_text())
DEEP: list[dict[str, Any]] = json.loads((GOLDEN / "deep_inputs.v5.json").read_text())


def picture() -> np.ndarray:
    """Return the picture of all cases, uint8 (14, 22, 3)."""
    y, x, c = np.mgrid[0:14, 0:22, 0:3]
    return ((7 * x * x + 13 * y + 50 * c + 3 * x * y) % 256).astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    """Return ``image`` as a file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["recipe"].replace("\n", " "))
def test_a_recipe_gives_the_golden_preprocessing_and_input(case: dict[str, Any]) -> None:
    """The build host's batch and the device's tensor of the file are the golden numbers, to the last bit of a pixel."""
    recipe = parse_recipe(f'[model]\nname = "m"\n[data]\n{case["recipe"]}')
    own = preprocessing_of(recipe.data)
    assert to_document(own) == case["preprocessing"]
    device = from_document(Preprocessing, case["preprocessing"])
    assert device == own
    decoded = decode_image(png(picture()), device)
    assert np.array_equal(decoded, picture())
    assert fitted(decoded, device).ravel().tolist() == case["pixels"]
    assert np.array_equal(to_tensor(decoded, device), to_batch([picture()], own))
    assert np.allclose(to_tensor(decoded, device).ravel(), case["input"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", DEEP, ids=lambda case: case["recipe"].replace("\n", " "))
def test_levels_of_16_bits_give_the_golden_input(case: dict[str, Any]) -> None:
    """From a PNG of 16 bits; a level may differ by one on a machine that rounds otherwise."""
    y, x = np.mgrid[0:14, 0:22]
    levels = ((7 * x * x + 13 * y + 3 * x * y) % 3000 * 7 + 26000).astype(np.uint16)
    own = preprocessing_of(parse_recipe(f'[model]\nname = "m"\n[data]\n{case["recipe"]}').data)
    assert to_document(own) == case["preprocessing"]
    device = from_document(Preprocessing, case["preprocessing"])
    decoded = decode_image(png(levels), device)
    assert np.array_equal(to_levels(decoded), levels)
    assert np.abs(to_levels(fitted(decoded, device)).ravel().astype(int) - case["levels"]).max() <= 1
    assert np.array_equal(to_tensor(decoded, device), to_batch([decoded], own))
    assert np.allclose(to_tensor(decoded, device).ravel(), case["input"], atol=2e-3)


def test_every_mode_has_a_golden_input() -> None:
    """A mode that is added needs one."""
    told = [from_document(Preprocessing, case["preprocessing"]) for case in CASES]
    assert {one.resize for one in told} == set(RESIZES)
    assert {one.resample for one in told} == set(RESAMPLES)
    assert {one.colour for one in told} == {"rgb", "bgr", "grey"}
    assert {one.antialias for one in told} == {True, False}
    assert {len(set(one.mean)) > 1 for one in told} == {True, False}
    told += [from_document(Preprocessing, case["preprocessing"]) for case in DEEP]
    assert {one.bits for one in told} == set(BITS)
    assert not [one for one in told if one.problem()]
