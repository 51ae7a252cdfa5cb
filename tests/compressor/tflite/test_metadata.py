"""What a TFLite file says of itself is read, and nothing breaks where it says nonsense."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import pytest

from compressor.errors import ModelFileError
from compressor.formats import FileWords

pytest.importorskip("ai_edge_litert")
from compressor.tflite import flatbuffer
from compressor.tflite.metadata import words_of
from compressor.tflite.packages import required


def _vector(builder: Any, offsets: list[int]) -> int:  # noqa: ANN401 - untyped
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _table(builder: Any, size: int, **fields: tuple[str, int]) -> int:  # noqa: ANN401 - untyped
    """Return a table with ``fields``, such as ``f3=("offset", 12)``."""
    builder.StartObject(size)
    for name, (kind, value) in fields.items():
        if kind == "byte":
            builder.PrependUint8Slot(int(name[1:]), value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(int(name[1:]), value, 0)
    return int(builder.EndObject())


def _floats(builder: Any, values: tuple[float, ...]) -> int:  # noqa: ANN401 - untyped
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependFloat32(value)
    return int(builder.EndVector())


def metadata(mean: tuple[float, ...], std: tuple[float, ...], labels: str = "labels.txt") -> bytes:
    """Return metadata by the numbers of the schema's fields: one normalised input, one output with labels."""
    builder = required("flatbuffers").Builder(0)
    name = builder.CreateString(labels)
    file = _table(builder, 5, f0=("offset", name), f2=("byte", 2))
    output = _table(builder, 7, f6=("offset", _vector(builder, [file])))
    options = _table(builder, 2, f0=("offset", _floats(builder, mean)), f1=("offset", _floats(builder, std)))
    unit = _table(builder, 2, f0=("byte", 1), f1=("offset", options))
    given = _table(builder, 7, f4=("offset", _vector(builder, [unit])))
    inputs, outputs = _vector(builder, [given]), _vector(builder, [output])
    graph = _table(builder, 10, f2=("offset", inputs), f3=("offset", outputs))
    whole = _table(builder, 8, f3=("offset", _vector(builder, [graph])))
    builder.Finish(whole, file_identifier=b"M001")
    return bytes(builder.Output())


def described(model: bytes, said: bytes, labels: str | None = None) -> bytes:
    """Return ``model`` with metadata, and with a zip of labels behind it, as TensorFlow's writer makes it."""
    types = required("ai_edge_litert.schema_py_generated")
    tree = flatbuffer.read(model, ModelFileError)
    entry, buffer = types.MetadataT(), types.BufferT()
    buffer.data = np.frombuffer(said, np.uint8)
    entry.name, entry.buffer = b"TFLITE_METADATA", len(tree.buffers)
    tree.buffers.append(buffer)
    tree.metadata = [entry]
    builder = required("flatbuffers").Builder(0)
    builder.Finish(tree.Pack(builder), file_identifier=b"TFL3")
    file = io.BytesIO(bytes(builder.Output()))
    if labels is not None:
        file.seek(0, io.SEEK_END)
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr("labels.txt", labels)
    return file.getvalue()


@pytest.fixture(scope="session")
def model() -> bytes:
    """A TFLite file of one fully connected layer."""
    pytest.importorskip("litert_torch")
    import torch  # noqa: PLC0415 - as the package above

    converter = required("litert_torch")
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)).eval()
    return bytes(converter.convert(network, (torch.zeros(1, 2, 2, 1),)).model_content())


@pytest.mark.slow
def test_labels_and_normalisation_are_read(model: bytes) -> None:
    """By the fields of the published schema; a file without metadata says nothing."""
    assert words_of(model) == FileWords()
    text = "cat\r\nräv\n\ndog \n"
    found = words_of(described(model, metadata((127.5,), (128.0,)), text))
    assert found == FileWords(labels=("cat", "räv", "dog"), mean=(127.5,), std=(128.0,))
    assert words_of(described(model, metadata((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)))).labels == ()
    assert words_of(described(model, metadata((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)), "a")).std == (4.0, 5.0, 6.0)


@pytest.mark.slow
def test_damaged_metadata_say_nothing(model: bytes) -> None:
    """Whatever byte is wrong or missing: no error of another kind, no endless read."""
    whole = metadata((127.5,), (128.0,))
    rng = np.random.default_rng(7)
    for cut in range(0, len(whole), 7):
        words_of(described(model, whole[:cut], "a\nb"))
    for _ in range(60):
        data = bytearray(whole)
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
        words_of(described(model, bytes(data), "a\nb"))
    assert words_of(described(model, whole, "a" * 2_000_000)).labels == ()
