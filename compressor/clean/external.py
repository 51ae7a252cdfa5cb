"""Weights in files beside an ONNX file, read into it: a bundle has one artifact.

The file names the others itself, and may come from anywhere: only plain names below its own folder are read, never
more bytes than a tensor has, and none before all sizes are known.
"""

from __future__ import annotations

import math
import os
from pathlib import Path, PurePosixPath

import onnx

from compressor.clean import onnx_graph
from compressor.errors import ExternalDataError

MAX_BYTES = 512 * 1024 * 1024
"""Limit for all external weights of a file, as for the file itself."""


def with_external(data: bytes, path: Path) -> bytes:
    """Return the ONNX file ``data``, read from ``path``, with its external weights inside; unchanged if it has none.

    Raises:
        ExternalDataError: If a file is missing, lies elsewhere, is shorter than its tensors, or all are too large.
    """
    try:
        model = onnx.load_from_string(data)
        beside = [tensor for tensor in _tensors(model) if tensor.data_location == onnx.TensorProto.EXTERNAL]
    except Exception:  # noqa: BLE001 - protobuf raises unrelated classes; the next reader reports the error
        return data
    if not beside:
        return data
    folder = Path(os.path.realpath(path)).parent  # links followed: the weights are beside the file itself
    places = [_place(tensor, folder) for tensor in beside]
    total = sum(length for _, _, length in places)
    if total > MAX_BYTES:
        message = f"Expected external weights of at most {MAX_BYTES} bytes, got {total}"
        raise ExternalDataError(f"{message}: make the model smaller")
    for tensor, (file_path, offset, length) in zip(beside, places, strict=True):
        try:
            with file_path.open("rb") as file:
                file.seek(offset)
                content = file.read(length)
        except OSError as error:
            raise ExternalDataError(f"Expected to read {file_path}, got: {error.strerror}: check its rights") from error
        if len(content) != length:
            message = f"Expected {length} bytes of {tensor.name!r} at {offset} in {file_path}, got {len(content)}"
            raise ExternalDataError(f"{message}: copy the file again, whole")
        tensor.raw_data = content
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT
    whole: bytes = model.SerializeToString(deterministic=True)
    return whole


def _tensors(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    found = []
    for graph in onnx_graph.graphs(model.graph):
        found += list(graph.initializer)
        for node in graph.node:
            for item in node.attribute:
                found += [item.t, *item.tensors] if item.HasField("t") else list(item.tensors)
    return found


def _place(tensor: onnx.TensorProto, folder: Path) -> tuple[Path, int, int]:
    """Return file, offset and length of an external tensor, checked."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location, name = entries.get("location", ""), tensor.name
    parts = PurePosixPath(location).parts
    if not location or "\\" in location or "\0" in location or ".." in parts or PurePosixPath(location).is_absolute():
        message = f"Expected the external weights of {name!r} in a file below {folder}, got {location!r}"
        raise ExternalDataError(f"{message}: save it with onnx.save(onnx.load(path), path)")
    path = folder.joinpath(*parts)
    try:
        inside = path.resolve(strict=True).is_relative_to(folder.resolve(strict=True)) and path.is_file()
        size = path.stat().st_size
    except OSError as error:
        message = f"Expected the external weights of {name!r} in {path}, got: {error.strerror}"
        raise ExternalDataError(f"{message}: put the file there, beside the ONNX file") from error
    if not inside:
        message = f"Expected the external weights of {name!r} in a file below {folder}, got {path.resolve()}"
        raise ExternalDataError(f"{message}: put a copy there")
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or size - offset)
        wanted = math.ceil(math.prod(tensor.dims) * _bits(tensor.data_type) / 8)
    except (ValueError, KeyError, TypeError) as error:
        message = f"Expected offset, length and type of the external weights of {name!r}, got {entries}"
        raise ExternalDataError(f"{message}: export the model again") from error
    if offset < 0 or length != wanted or offset + length > size or min(tensor.dims, default=0) < 0:
        message = f"Expected {wanted} bytes of {name!r} at {offset} in {path}, got {length} of a file of {size}"
        raise ExternalDataError(f"{message}: copy the file again, whole, or export the model again")
    return path, offset, length


def _bits(kind: int) -> int:
    """Return the bits of one value; types of less than a byte are packed."""
    name = onnx.TensorProto.DataType.Name(kind)
    if name in {"INT4", "UINT4", "FLOAT4E2M1"}:
        return 4
    return int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize) * 8
