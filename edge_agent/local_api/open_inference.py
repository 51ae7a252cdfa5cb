"""The Open Inference Protocol (KServe v2) over HTTP: tensors from a request's body, and back. Pure.

Decides which tensors a request may have: the model's own input, or one encoded input named ``image`` (``BYTES``).
Source: KServe, Open Inference Protocol (REST), and its binary tensor data extension: tensors follow the JSON object in
the body, little-endian and row-major, and an element of ``BYTES`` has its length before it in four bytes.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_agent import decoders
from edge_agent.errors import ApiError
from edge_agent.runtimes._base import is_quantized
from wire.codec import Json, parse_json
from wire.errors import MessageError
from wire.manifest import Manifest, TensorSpec

Array: TypeAlias = "NDArray[Any]"
IMAGE = "image"
JSON_LENGTH = "Inference-Header-Content-Length"
MAX_BATCH = 16
_BAD = 400
_MAX_RANK = 8
_TYPES = {
    "BOOL": "?", "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "<i1", "INT16": "<i2",
    "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _TYPES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class InferRequest:
    """One request. ``image``: the encoded input, or ``tensor``: the model's own.

    ``wanted``: outputs by name, all if empty, each with whether it is wanted as binary.
    """

    name: str = ""
    image: bytes = b""
    tensor: Array | None = None
    wanted: Mapping[str, bool]
    binary: bool = False


def read_request(body: bytes, json_bytes: int | None, manifest: Manifest) -> InferRequest:
    """Return the request in ``body``, of which the first ``json_bytes`` are JSON (None: all).

    Raises:
        ApiError: If it is no request, or has other inputs than the model takes.
    """
    length = len(body) if json_bytes is None else json_bytes
    if not 0 <= length <= len(body):
        raise ApiError(_BAD, f"Expected {JSON_LENGTH} of at most {len(body)}, got {length}")
    try:
        document = parse_json(body[:length], limit_bytes=len(body))
    except MessageError as error:
        raise ApiError(_BAD, f"Expected a JSON object as the request, got: {error}") from error
    inputs = _tables(document, "inputs")
    if len(inputs) != 1:
        raise ApiError(_BAD, f"Expected one input, {manifest.inputs[0].name!r} or {IMAGE!r}, got {len(inputs)}")
    given, parameters = inputs[0], _table(document, "parameters")
    binary = parameters.get("binary_data_output") is True
    wanted = {str(item.get("name")): _as_binary(item, binary) for item in _tables(document, "outputs")}
    request = str(document.get("id", ""))
    raw = _raw(given, body[length:])
    if given.get("name") == IMAGE and given.get("datatype") == "BYTES":
        return InferRequest(name=request, image=_encoded(given, raw), wanted=wanted, binary=binary)
    tensor = _tensor(given, raw, manifest.inputs[0])
    return InferRequest(name=request, tensor=tensor, wanted=wanted, binary=binary)


def _tables(document: Mapping[str, Json], key: str) -> Sequence[Mapping[str, Json]]:
    found = document.get(key, [])
    tables = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    if not isinstance(found, list) or len(tables) != len(found):
        raise ApiError(_BAD, f"Expected {key} as a list of objects, got {str(found)[:60]}")
    return tables


def _table(document: Mapping[str, Json], key: str) -> Mapping[str, Json]:
    found = document.get(key, {})
    if not isinstance(found, dict):
        raise ApiError(_BAD, f"Expected {key} as an object, got {str(found)[:60]}")
    return found


def _as_binary(output: Mapping[str, Json], otherwise: bool) -> bool:  # noqa: FBT001 - the default of a request
    return _table(output, "parameters").get("binary_data", otherwise) is True


def _raw(given: Mapping[str, Json], rest: bytes) -> bytes | None:
    """Return the binary data of the only input, or None if it is in the JSON."""
    size = _table(given, "parameters").get("binary_data_size")
    if size is None and not rest:
        return None
    if size != len(rest) or "data" in given:
        raise ApiError(_BAD, f"Expected binary_data_size of the {len(rest)} bytes behind the JSON, got {size}")
    return rest


def _encoded(given: Mapping[str, Json], raw: bytes | None) -> bytes:
    """Return the one encoded input: binary, or base64 in the JSON."""
    if math.prod(_shape(given)) != 1:
        raise ApiError(_BAD, f"Expected one {IMAGE} a request, shape [1], got {given.get('shape')}: send them in turn")
    if raw is not None:
        length = struct.unpack_from("<I", raw)[0] if len(raw) >= 4 else -1  # noqa: PLR2004 - the bytes of a length
        if length != len(raw) - 4:
            raise ApiError(_BAD, f"Expected an element of {len(raw) - 4} bytes, got a length of {length}")
        return raw[4:]
    data = given.get("data")
    while isinstance(data, list) and len(data) == 1:
        data = data[0]
    try:
        return base64.b64decode(data if isinstance(data, str) else "?", validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(_BAD, f"Expected the {IMAGE} in base64, or as binary data, got: {error}") from error


def _shape(given: Mapping[str, Json]) -> tuple[int, ...]:
    found = given.get("shape")
    if not isinstance(found, list) or not 0 < len(found) <= _MAX_RANK:
        raise ApiError(_BAD, f"Expected a shape of 1 to {_MAX_RANK} sizes, got {str(found)[:60]}")
    sizes = [size for size in found if isinstance(size, int) and not isinstance(size, bool) and size > 0]
    if len(sizes) != len(found):
        raise ApiError(_BAD, f"Expected a shape of sizes above 0, got {str(found)[:60]}")
    return tuple(sizes)


def _tensor(given: Mapping[str, Json], raw: bytes | None, spec: TensorSpec) -> Array:
    accepted = types_of(spec)
    if given.get("name") != spec.name or given.get("datatype") not in accepted:
        wanted = f"the input {spec.name!r} of {' or '.join(accepted)}, or {IMAGE!r} of BYTES"
        raise ApiError(_BAD, f"Expected {wanted}, got {given.get('name')!r} of {given.get('datatype')!r}")
    shape, dtype = _shape(given), np.dtype(_TYPES[str(given["datatype"])])
    if shape[0] > MAX_BATCH:
        raise ApiError(_BAD, f"Expected a batch of at most {MAX_BATCH}, got {shape[0]}: send several")
    if raw is not None:
        if len(raw) != math.prod(shape) * dtype.itemsize:
            raise ApiError(_BAD, f"Expected {math.prod(shape) * dtype.itemsize} bytes for {shape}, got {len(raw)}")
        return np.frombuffer(raw, dtype).reshape(shape)
    try:
        values = np.asarray(given.get("data"), dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise ApiError(_BAD, f"Expected data of numbers of {given['datatype']}, got: {error}") from error
    if values.size != math.prod(shape):
        raise ApiError(_BAD, f"Expected {math.prod(shape)} numbers for {shape}, got {values.size}")
    return values.reshape(shape)


def types_of(spec: TensorSpec) -> tuple[str, ...]:
    """Return the types that an input accepts, as the protocol names them; the first is the one to prefer."""
    own = _NAMES[np.dtype(spec.dtype)]
    return ("FP32", own) if is_quantized(spec) else (own,)


def write_response(
    manifest: Manifest, request: InferRequest, outputs: Mapping[str, Array | bytes], remark: str = ""
) -> tuple[bytes, int | None]:
    """Return the body of the response, and the length of its JSON (None: all of it).

    ``remark``: a sentence for the caller, in the response's parameters; "": none.

    Raises:
        ApiError: If a wanted output does not exist, or has no number that JSON can carry.
    """
    unknown = sorted(request.wanted.keys() - outputs.keys())
    if unknown:
        raise ApiError(_BAD, f"Expected outputs of {', '.join(outputs)}, got {unknown[0]!r}")
    wanted = request.wanted or dict.fromkeys(outputs, request.binary)
    listed: list[Json] = []
    tail: list[bytes] = []
    for name, binary in wanted.items():
        value = outputs[name]
        datatype = "BYTES" if isinstance(value, bytes) else _NAMES[value.dtype]
        entry: dict[str, Json] = {"name": name, "datatype": datatype}
        entry["shape"] = [1] if isinstance(value, bytes) else list(value.shape)
        if binary:
            data = struct.pack("<I", len(value)) + value if isinstance(value, bytes) else value.tobytes()
            entry["parameters"] = {"binary_data_size": len(data)}
            tail.append(data)
        else:
            entry["data"] = [value.decode()] if isinstance(value, bytes) else value.reshape(-1).tolist()
        listed.append(entry)
    document: dict[str, Json] = {"model_name": manifest.model, "model_version": str(manifest.version)}
    document |= {"outputs": listed, **({"id": request.name} if request.name else {})}
    document |= {"parameters": {"remark": remark}} if remark else {}
    try:
        head = json.dumps(document, allow_nan=False, separators=(",", ":")).encode()
    except ValueError as error:
        raise ApiError(500, "Expected finite outputs, got NaN or infinity: ask for binary data") from error
    return head + b"".join(tail), len(head) if tail else None


def metadata(
    manifest: Manifest, task: str, thresholds: Mapping[str, float], answer: Mapping[str, str]
) -> dict[str, Json]:
    """Return the model's metadata; ``thresholds``: of the names that an answer may have.

    ``answer``: the outputs of an encoded input, with their types. They and the input ``image`` stand in the parameters:
    clients send all of ``inputs``, and the model takes either.
    """
    encoded: list[Json] = [{"name": name, "datatype": kind, "shape": [1]} for name, kind in answer.items()]
    inputs: list[Json] = [_described(spec, types_of(spec)[0]) for spec in manifest.inputs]
    outputs: list[Json] = [
        _described(spec, "FP32" if is_quantized(spec) else _NAMES[np.dtype(spec.dtype)])
        for spec in decoders.outputs_of(manifest)
    ]
    return {
        "name": manifest.model,
        "versions": [str(manifest.version)],
        "platform": f"tinyfleet_{manifest.runtime}",
        "inputs": inputs,
        "outputs": outputs,
        "parameters": {
            "task": task,
            "labels": list(manifest.labels),
            "values": list(manifest.values),
            "thresholds": dict(thresholds),
            "encoded": {"inputs": [{"name": IMAGE, "datatype": "BYTES", "shape": [1]}], "outputs": encoded},
        },
    }


def _described(spec: TensorSpec, datatype: str) -> dict[str, Json]:
    return {"name": spec.name, "datatype": datatype, "shape": [-1, *spec.shape[1:]]}
