"""A small real bundle for devices."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from wire.bundle import build_bundle
from wire.reference import write_reference

TINY = Path(__file__).parents[2] / "edge_agent" / "inference" / "conftest.py"


@pytest.fixture
def tiny_bundle(tmp_path: Path) -> Path:
    """A bundle of the tiny model."""
    spec = importlib.util.spec_from_file_location("tiny_models", TINY)
    assert spec is not None
    assert spec.loader is not None
    models = importlib.util.module_from_spec(spec)
    sys.modules["tiny_models"] = models
    spec.loader.exec_module(models)
    artifact = models.tiny_onnx(1)
    entries = {
        "model.onnx": artifact,
        "reference.bin": write_reference(models.reference_for(artifact)),
        "golden.npz": models.golden_npz(models.MANIFEST, artifact),
    }
    path = tmp_path / "tiny-1.tfb"
    path.write_bytes(build_bundle(models.MANIFEST, entries))
    return path
