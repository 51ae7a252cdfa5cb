"""Patches between bundles: what they make, and how small they are."""

import io
import random

import numpy as np
import pytest

from compressor.release.patches import make_patch
from wire.bundle import CARD, GOLDEN, build_bundle
from wire.manifest import Manifest, Preprocessing, TensorSpec
from wire.patch import apply_patch

WEIGHTS = random.Random(3).randbytes(40_000)  # noqa: S311 - seeded bytes, no secret


def bundle(version: int, weights: bytes, card: str = "a card", golden: bytes = b"golden") -> bytes:
    """Return a bundle of these parts."""
    manifest = Manifest(
        model="m",
        version=version,
        target="t",
        inputs=(TensorSpec(name="input", shape=(-1, 1, 8, 8)),),
        outputs=(TensorSpec(name="logits", shape=(-1, 2)),),
        preprocessing=Preprocessing(width=8, height=8),
    )
    return build_bundle(manifest, {"model.onnx": weights, CARD: card.encode(), GOLDEN: golden})


def patched(base: bytes, patch: bytes, length_bytes: int) -> bytes:
    """Return what ``patch`` makes from ``base``."""
    made = io.BytesIO()
    apply_patch(io.BytesIO(base), io.BytesIO(patch), made.write, length_bytes)
    return made.getvalue()


def retrained(changed: int, spread: int) -> bytes:
    """Return the weights with the first ``changed`` moved by up to ``spread``."""
    moves = np.random.default_rng(4).integers(-spread, spread + 1, changed)
    weights = np.frombuffer(WEIGHTS, np.uint8).copy()
    weights[:changed] += moves.astype(np.uint8)
    return weights.tobytes()


@pytest.mark.parametrize(
    ("new", "limit"),
    [
        (bundle(2, retrained(400, 20)), 0.03),  # a head: its weights, and the manifest's digests
        (bundle(2, retrained(40_000, 3)), 0.45),  # all weights by a little
        (bundle(2, WEIGHTS, "a card that is longer than before"), 0.02),
        (bundle(2, WEIGHTS[:300] + b"inserted" + WEIGHTS[300:]), 0.02),
        (bundle(2, WEIGHTS[30_000:] + WEIGHTS[:30_000] + b"."), 0.02),  # moved
        (bundle(2, random.Random(9).randbytes(40_000)), 1.02),  # noqa: S311 - from scratch
        (bundle(1, WEIGHTS), 0.005),
        (bundle(2, b"", "x" * 50_000, b""), 0.02),
    ],
)
def test_makes_the_new_bundle_from_a_small_patch(new: bytes, limit: float) -> None:
    """Byte for byte; what stayed costs next to nothing."""
    base = bundle(1, WEIGHTS)
    patch = make_patch(base, new)
    assert patched(base, patch, len(new)) == new
    assert len(patch) < limit * len(new)


def test_equal_bundles_give_equal_patches() -> None:
    """A patch is signed by its digest: publishing again must not give another."""
    base, new = bundle(1, WEIGHTS), bundle(2, retrained(4000, 3))
    assert make_patch(base, new) == make_patch(base, new)


def test_bundles_of_other_entries_are_patched_too() -> None:
    """An entry that the base lacks is new, one that is gone costs nothing."""
    rng = random.Random(5)  # noqa: S311 - seeded bytes, no secret
    for _ in range(20):
        sizes = [rng.randrange(0, 300) for _ in range(2)]
        base, new = (bundle(n, rng.randbytes(size), "c" * rng.randrange(9)) for n, size in enumerate(sizes, 1))
        assert patched(base, make_patch(base, new), len(new)) == new
