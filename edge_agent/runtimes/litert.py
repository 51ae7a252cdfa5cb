"""LiteRT (TensorFlow Lite) on the CPU. The only file of the agent that imports it.

Old images that only have ``tflite_runtime`` are supported; it is known to compute some models silently wrong, which the
golden vectors detect before activation. LiteRT itself checks the structure of a flatbuffer and rejects a truncated or
garbled one; absurd tensor sizes are rejected here. A model with only its numbers changed opens and computes wrong,
which only the bundle's digests and golden vectors can detect.

A model has one input and usually a fixed batch size of 1, so rows run one after another: converted graphs have their
batch size in constant reshapes, and resizing the input would break them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError as missing:
    try:
        from tflite_runtime.interpreter import Interpreter
    except ImportError:
        raise missing from None

from edge_agent.errors import RuntimeLoadError, RuntimeSeamError
from edge_agent.runtimes._base import (
    QUANTIZED_DTYPES,
    Array,
    Runtime,
    check_contract,
    failure,
    is_decoded,
    model_input,
    real_output,
    shape_matches,
)
from wire.manifest import Manifest, TensorSpec

# The interpreter's description of one tensor: name, index, shape, dtype, quantization_parameters.
Details: TypeAlias = "dict[str, Any]"
Output: TypeAlias = "tuple[int, TensorSpec]"

PACKAGES = {"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"}
FORMATS = {"": "tflite"}
LAYOUT = "NHWC"
_IDENTIFIER = b"TFL3"  # TensorFlow Lite schema.fbs, file_identifier: bytes 4 to 8
# One flipped bit in a shape made LiteRT allocate 12 GB; a large layer of a small model has about 10 MB.
MAX_TENSOR_BYTES = 256 * 1024 * 1024
_MATRIX = 2
_SCALE_TOLERANCE = 1e-6  # a float32 written as text and read back
_FOREIGN = re.compile(
    r"unresolved custom op: (?P<custom>.{1,100}?)\.(?:\s|See|$)"
    r"|builtin opcode '(?P<builtin>\w+)' version '(?P<version>\d+)'"
    r"|builtin_code out of range: (?P<code>\d+)"
    r"|\((?P<select>Flex\w+)\)"
)


def load(manifest: Manifest, artifact: bytes, *, threads: int) -> Runtime:
    """Return the TFLite model in ``artifact`` as an interpreter with ``threads`` threads.

    Outputs are found by the names of the model's signature or tensors; if it has none of the manifest's names, by their
    order. Scales and zero points must be those of the model.

    Raises:
        RuntimeLoadError: If LiteRT can't open it (a foreign operator is named), if inputs, outputs, scales or zero
            points differ from the manifest, or if the manifest has session options.
    """
    if artifact[4:8] != _IDENTIFIER:
        message = f"Expected a TFLite model (TFL3 at byte 4), got {artifact[:8]!r}: check the bundle's artifact"
        raise RuntimeLoadError(message)
    if manifest.session_options:
        message = f"Expected no session options for litert, got {sorted(manifest.session_options)}: leave them out"
        raise RuntimeLoadError(message)
    interpreter, tensors = _opened(artifact, threads)
    if len(tensors.inputs) != 1 or len(manifest.inputs) != 1:
        message = f"Expected one input, got {len(tensors.inputs)} in the model and {len(manifest.inputs)}"
        raise RuntimeLoadError(f"{message} in the manifest: export a model of one input")
    source, spec = tensors.inputs[0], manifest.inputs[0]
    _check_tensor(source, spec, "input")
    _check_quantization(source, spec)
    return _LiteRtRuntime(interpreter, source, spec, _outputs(tensors, manifest))


@dataclass(frozen=True, slots=True)
class _Tensors:
    """The tensors of a model; ``signature`` are its outputs by the signature's names, if it has exactly one."""

    inputs: list[Details]
    outputs: list[Details]
    signature: dict[str, Details]


def _opened(artifact: bytes, threads: int) -> tuple[Interpreter, _Tensors]:
    try:
        interpreter = Interpreter(model_content=artifact, num_threads=threads)
        _check_sizes(interpreter, max(MAX_TENSOR_BYTES, len(artifact)))
        interpreter.allocate_tensors()
        keys = list(interpreter.get_signature_list())
        signature = interpreter.get_signature_runner(keys[0]).get_output_details() if len(keys) == 1 else {}
        tensors = _Tensors(interpreter.get_input_details(), interpreter.get_output_details(), signature)
    except RuntimeLoadError:
        raise
    except Exception as error:  # a garbled model may raise anything
        raise failure(_refusal(str(error) or type(error).__name__), RuntimeLoadError) from error
    return interpreter, tensors


def _check_sizes(interpreter: Interpreter, limit_bytes: int) -> None:
    """Reject shapes that would fill the device's memory before LiteRT allocates them.

    Shapes that operators compute themselves are not visible here; the probe's memory budget covers those.
    """
    for details in interpreter.get_tensor_details():
        shape = [int(size) for size in details["shape"]]
        size_bytes = math.prod(shape) * np.dtype(details["dtype"]).itemsize
        if size_bytes > limit_bytes:
            got = f"{shape} for {details['name'][-100:]!r}"
            raise RuntimeLoadError(f"Expected tensors of at most {limit_bytes} bytes, got {got}: check the export")


def _refusal(text: str) -> str:
    """Return the message for the interpreter's error; a foreign operator is named, with the next step."""
    found = _FOREIGN.search(text)
    if found is None:
        return f"Expected a TFLite model that LiteRT opens, got: {text[:300]}"
    names = found.groupdict()
    if names["custom"] or names["select"]:
        operator, do = names["custom"] or names["select"], "export it from builtin operators"
        return f"Expected builtin operators only, got the custom operator {operator!r}: {do} or leave it out"
    operator = f"{names['builtin']} version {names['version']}" if names["builtin"] else f"number {names['code']}"
    return f"Expected operators this LiteRT knows, got {operator}: update ai-edge-litert or export for an older one"


def _outputs(tensors: _Tensors, manifest: Manifest) -> tuple[Output, ...]:
    wanted = [spec.name for spec in manifest.outputs]
    if len(wanted) > len(tensors.outputs):
        message = f"Expected the outputs {wanted} in the model, got {len(tensors.outputs)}"
        raise RuntimeLoadError(f"{message}: export them or shorten the manifest")
    named = {details["name"]: details for details in tensors.outputs} | tensors.signature
    missing = [name for name in wanted if name not in named]
    if missing and len(missing) < len(wanted):
        message = f"Expected the outputs {wanted} in the model, got {sorted(named)}: {missing} can't be guessed"
        raise RuntimeLoadError(message)
    chosen = _in_order(tensors) if missing else [named[name] for name in wanted]
    outputs: list[Output] = []
    for details, declared in zip(chosen, manifest.outputs, strict=False):
        _check_tensor(details, declared, "output")
        spec = declared
        if spec.dtype in QUANTIZED_DTYPES and spec.scale == 0 and spec.zero_point == 0:
            scale, zero_point = _own(details, spec)  # the manifest leaves them to the model
            spec = replace(spec, scale=scale, zero_point=zero_point)
            check_contract(spec)
        _check_quantization(details, spec)
        outputs.append((int(details["index"]), spec))
    return tuple(outputs)


def _in_order(tensors: _Tensors) -> list[Details]:
    """Return the outputs in the order in which the converted function returned them.

    Converters number them ``output_0``, ``output_1``, …; the graph's own order may differ.
    """
    signature = tensors.signature
    if len(signature) != len(tensors.outputs) or not all(re.fullmatch(r"output_\d+", name) for name in signature):
        return tensors.outputs
    return [signature[name] for name in sorted(signature, key=lambda name: int(name.removeprefix("output_")))]


def _check_tensor(details: Details, spec: TensorSpec, kind: str) -> None:
    check_contract(spec)
    shape, dtype = tuple(int(size) for size in details["shape"]), np.dtype(details["dtype"]).name
    flat = _flat(shape) if kind == "output" and len(spec.shape) == _MATRIX else shape
    fits = shape_matches(flat, (-1, *spec.shape[1:])) if spec.shape else kind == "output"
    if dtype != spec.dtype or not fits:
        expected, got = f"{spec.name!r} {spec.dtype} {spec.shape}", f"{details['name']!r} {dtype} {shape}"
        raise RuntimeLoadError(f"Expected {kind} {expected}, got {got} in the model: rebuild the bundle")


def _flat(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return (N, values) of a row of values with further axes of size 1, such as (1, 1, 1, 10)."""
    sizes = [size for size in shape[1:] if size != 1]
    return shape if len(shape) <= _MATRIX or len(sizes) > 1 else (shape[0], *(sizes or [1]))


def _own(details: Details, spec: TensorSpec) -> tuple[float, int]:
    """Return the model's scale and zero point of one tensor; 0 and 0 for float."""
    parameters = details["quantization_parameters"]
    scales, zero_points = parameters["scales"], parameters["zero_points"]
    if len(scales) > 1 or len(zero_points) != len(scales):
        got = f"{len(scales)} and {len(zero_points)} in the model"
        message = f"Expected one scale and zero point for {spec.name!r}, got {got}: quantize it per tensor"
        raise RuntimeLoadError(message)
    return (float(scales[0]), int(zero_points[0])) if len(scales) else (0.0, 0)


def _check_quantization(details: Details, spec: TensorSpec) -> None:
    scale, zero_point = _own(details, spec)
    if zero_point != spec.zero_point or not math.isclose(scale, spec.scale, rel_tol=_SCALE_TOLERANCE):
        expected, got = f"{spec.scale!r} and {spec.zero_point}", f"{scale!r} and {zero_point}"
        message = f"Expected scale and zero point {expected} for {spec.name!r}, got {got} in the model"
        raise RuntimeLoadError(f"{message}: rebuild the bundle")


class _LiteRtRuntime:
    """An interpreter and the indices of its tensors. Not thread-safe."""

    def __init__(
        self, interpreter: Interpreter, source: Details, spec: TensorSpec, outputs: tuple[Output, ...]
    ) -> None:
        self._interpreter: Interpreter | None = interpreter
        self._index = int(source["index"])
        self._shape = tuple(int(size) for size in source["shape"])
        self._dtype = np.dtype(spec.dtype)
        self._spec = spec
        self._outputs = outputs
        self._indices = [index for index, _ in outputs]
        self._flat = [len(spec.shape) == _MATRIX for _, spec in outputs]
        self._decoded = any(is_decoded(spec) for _, spec in outputs)

    def run(self, batch: Array) -> tuple[Array, ...]:
        fits = batch.shape == self._shape and batch.dtype == self._dtype
        values = batch if fits else model_input(batch, self._spec)
        if self._interpreter is None:
            raise RuntimeSeamError("Expected an open runtime, got a closed one: load it again")
        try:
            outputs = self._run(self._interpreter, values)
        except (ValueError, RuntimeError, MemoryError) as error:
            reason = str(error)[:300] or type(error).__name__
            raise failure(f"Expected LiteRT to run, got: {reason}", RuntimeSeamError) from error
        if not self._decoded:
            return tuple(outputs)
        return tuple([real_output(values, spec) for values, (_, spec) in zip(outputs, self._outputs, strict=True)])

    def _run(self, interpreter: Interpreter, values: Array) -> list[Array]:
        if values.shape == self._shape:
            return self._piece(interpreter, values)
        size, count = self._shape[0], max(1, len(values))
        rows = np.resize(values, (count + -count % size, *self._shape[1:]))  # repeats rows to fill the last piece
        pieces = [self._piece(interpreter, rows[start : start + size]) for start in range(0, len(rows), size)]
        return [np.concatenate(parts)[: len(values)] for parts in zip(*pieces, strict=True)]

    def _piece(self, interpreter: Interpreter, values: Array) -> list[Array]:
        interpreter.set_tensor(self._index, values)
        interpreter.invoke()
        return [
            found.reshape(len(found), -1) if flat else found
            for found, flat in zip(map(interpreter.get_tensor, self._indices), self._flat, strict=True)
        ]

    def close(self) -> None:
        self._interpreter = None
