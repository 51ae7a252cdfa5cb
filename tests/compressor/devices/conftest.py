"""A small real bundle for devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.edge_agent.inference.conftest import MANIFEST, golden_npz, reference_for, tiny_onnx
from wire.bundle import build_bundle
from wire.reference import write_reference


@pytest.fixture
def tiny_bundle(tmp_path: Path) -> Path:
    """A bundle of the tiny model."""
    artifact = tiny_onnx(1)
    entries = {
        "model.onnx": artifact,
        "reference.bin": write_reference(reference_for(artifact)),
        "golden.npz": golden_npz(MANIFEST, artifact),
    }
    path = tmp_path / "tiny-1.tfb"
    path.write_bytes(build_bundle(MANIFEST, entries))
    return path
