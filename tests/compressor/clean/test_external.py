"""Weights in files beside an ONNX file: read if they lie below its folder, and refused by name if not."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from compressor.clean import external
from compressor.clean.external import with_external
from compressor.errors import ExternalDataError
from tests.compressor.clean.files import classifier, given, logits, network


def saved(folder: Path, location: str = "weights.bin") -> Path:
    """Save a file whose weights are in another."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    onnx.save_model(network(*classifier()), path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def pointed(path: Path, **entries: str) -> bytes:
    """Return the file at ``path`` with other entries for the place of its first tensor."""
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = entries.get(entry.key, entry.value)
    data: bytes = model.SerializeToString()
    return data


def test_external_weights_are_read_into_the_file(tmp_path: Path) -> None:
    """A link to the ONNX file leads to its folder; a file without such weights keeps its bytes."""
    path = saved(tmp_path / "there")
    (tmp_path / "link.onnx").symlink_to(path)
    whole = with_external(path.read_bytes(), tmp_path / "link.onnx")
    want = logits(network(*classifier()), given().rows)
    assert (logits(whole, given().rows) == want).all()
    assert with_external(whole, tmp_path) == whole
    assert with_external(b"no model", tmp_path) == b"no model"


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"location": "../weights.bin"}, "in a file below"),
        ({"location": "/etc/hostname"}, "in a file below"),
        ({"location": "a\\b"}, "in a file below"),
        ({"location": ""}, "in a file below"),
        ({"location": "none.bin"}, "put the file there, beside the ONNX file"),
        ({"location": "."}, "in a file below"),
        ({"location": "link.bin"}, "put a copy there"),
        ({"offset": "-4"}, "bytes of 'w' at -4"),
        ({"offset": "99999999"}, "copy the file again, whole"),
        ({"length": "12"}, "got 12 of a file of"),
        ({"length": "99999999999"}, "Expected 288 bytes of 'w'"),
        ({"offset": "many"}, "Expected offset, length and type"),
    ],
)
def test_a_place_that_may_not_be_read_is_refused(entries: dict[str, str], said: str, tmp_path: Path) -> None:
    """Nothing outside the folder is opened, and no more than a tensor has is read."""
    path = saved(tmp_path / "there")
    (tmp_path / "weights.bin").write_bytes((path.parent / "weights.bin").read_bytes())
    (path.parent / "link.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(ExternalDataError) as error:
        with_external(pointed(path, **entries), path)
    assert said in str(error.value)


def test_weights_that_are_too_large_together_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes are summed before the first is read."""
    path = saved(tmp_path)
    monkeypatch.setattr(external, "MAX_BYTES", 100)
    with pytest.raises(ExternalDataError, match="Expected external weights of at most 100 bytes, got "):
        with_external(path.read_bytes(), path)


def test_a_file_that_was_cut_off_is_named(tmp_path: Path) -> None:
    """A download that broke off is not filled with zeros."""
    path = saved(tmp_path)
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ExternalDataError, match="copy the file again, whole"):
        with_external(path.read_bytes(), path)
