"""Reads what a TFLite file says of itself in its metadata: the names of its classes, and how pixels are normalised.

Decides nothing: what is absent or damaged is "not said". The labels are a text file in a zip that is appended to the
model. Source: TensorFlow Lite metadata_schema.fbs, version 1.5.0 (file identifier M001); the numbers of fields below
count its fields from 0, a union takes two.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import Any

from compressor.errors import ModelFileError
from compressor.formats._base import FileWords
from compressor.tflite import flatbuffer
from compressor.tflite.packages import required

MAX_LABEL_BYTES = 1024 * 1024
_NAME, _IDENTIFIER = b"TFLITE_METADATA", b"M001"
_SUBGRAPHS = 3  # of ModelMetadata
_INPUTS, _OUTPUTS = 2, 3  # of SubGraphMetadata
_UNITS, _FILES = 4, 6  # of TensorMetadata
_KIND, _OPTIONS, _NORMALIZATION = 0, 1, 1  # of ProcessUnit; the first member of its union
_MEAN, _STD = 0, 1  # of NormalizationOptions
_FILE_NAME, _FILE_TYPE, _AXIS_LABELS = 0, 2, 2  # of AssociatedFile

_DAMAGED = (
    struct.error, IndexError, ValueError, TypeError, OverflowError, KeyError, NotImplementedError, RuntimeError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def words_of(model: bytes) -> FileWords:
    """Return what the metadata of ``model`` say; empty where they say nothing, or can't be read.

    Raises:
        ModelFileError: If ``model`` is not a TFLite file.
        PluginError: If the extra ``tflite`` is not installed.
    """
    tree = flatbuffer.read(model, ModelFileError)
    blob = next((_bytes(tree, entry) for entry in tree.metadata or [] if entry.name == _NAME), b"")
    if blob[4:8] != _IDENTIFIER:
        return FileWords()
    try:
        graphs = _Table.root(blob).tables(_SUBGRAPHS)
        if not graphs:
            return FileWords()
        mean, std = _normalization(graphs[0])
        return FileWords(labels=_labels(model, graphs[0]), mean=mean, std=std)
    except _DAMAGED:
        return FileWords()  # damaged, or of a later version: nothing that a run depends on


def _bytes(tree: Any, entry: Any) -> bytes:  # noqa: ANN401 - generated, untyped
    data = tree.buffers[entry.buffer].data
    return b"" if data is None else bytes(bytearray(data))


def _normalization(graph: _Table) -> tuple[tuple[float, ...], tuple[float, ...]]:
    for tensor in graph.tables(_INPUTS)[:1]:
        for unit in tensor.tables(_UNITS):
            options = unit.table(_OPTIONS)
            if unit.byte(_KIND) == _NORMALIZATION and options is not None:
                return options.floats(_MEAN), options.floats(_STD)
    return (), ()


def _labels(model: bytes, graph: _Table) -> tuple[str, ...]:
    for tensor in graph.tables(_OUTPUTS):
        for file in tensor.tables(_FILES):
            if file.byte(_FILE_TYPE) == _AXIS_LABELS:
                with zipfile.ZipFile(io.BytesIO(model)) as archive:
                    entry = archive.getinfo(file.text(_FILE_NAME))
                    if entry.file_size > MAX_LABEL_BYTES:
                        return ()
                    text = archive.read(entry).decode("utf-8")
                return tuple(line.strip() for line in text.splitlines() if line.strip())
    return ()


class _Table:
    """One table of a FlatBuffer; every read is checked against the end of the data by ``struct``."""

    def __init__(self, data: bytes, at: int) -> None:
        self._table = required("flatbuffers.table").Table(data, at)
        self._data = data

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, struct.unpack_from("<I", data)[0])

    def _at(self, field: int) -> int:
        """Return where ``field`` stands, 0 if it is left out."""
        offset = int(self._table.Offset(4 + 2 * field))
        return offset and offset + int(self._table.Pos)

    def byte(self, field: int) -> int:
        at = self._at(field)
        return self._data[at] if at else 0

    def table(self, field: int) -> _Table | None:
        at = self._at(field)
        return _Table(self._data, int(self._table.Indirect(at))) if at else None

    def text(self, field: int) -> str:
        at = self._at(field)
        return bytes(self._table.String(at)).decode("utf-8") if at else ""

    def floats(self, field: int) -> tuple[float, ...]:
        start, count = self._vector(field)
        return struct.unpack_from(f"<{count}f", self._data, start) if count else ()

    def tables(self, field: int) -> list[_Table]:
        start, count = self._vector(field)
        return [_Table(self._data, int(self._table.Indirect(start + 4 * one))) for one in range(count)]

    def _vector(self, field: int) -> tuple[int, int]:
        """Return where the vector ``field`` begins and its length, which can't exceed the data."""
        at = self._at(field)
        if not at:
            return 0, 0
        start = at + struct.unpack_from("<I", self._data, at)[0]
        count = struct.unpack_from("<I", self._data, start)[0]
        if start + 4 + 4 * count > len(self._data):
            message = f"Expected a vector within {len(self._data)} bytes, got {count} entries at {start}"
            raise ValueError(message)
        return start + 4, count
