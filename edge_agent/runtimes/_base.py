"""The interface of a runtime, which runs an artifact on a batch. Each runtime is one file in this folder.

A runtime's module has ``load(manifest, artifact, *, threads) -> Runtime`` and, as literals, ``PACKAGES``, ``FORMATS``
and ``LAYOUT`` (``edge_agent.declarations``). The folder is the registry: a new file is a new runtime.

Callers use real numbers whatever the model computes with: an integer input with a scale also accepts float32, an
integer output with a scale is returned as float32, and an output with mean and spread is returned in its real unit. The
formulas are only here.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import InputShapeError, RuntimeLoadError, RuntimeMemoryError, RuntimeSeamError
from wire.manifest import Manifest, TensorSpec

Array: TypeAlias = "NDArray[Any]"
_LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "uint16": (0, 65535)}
QUANTIZED_DTYPES = frozenset(_LIMITS)
_LEAST_PROBABILITY = np.float32(1e-6)
_OUT_OF_MEMORY = (
    "bad_alloc",
    "bad allocation",
    "failed to allocate",
    "unable to allocate",
    "out of memory",
    "memoryerror",
)


class Runtime(Protocol):
    """A loaded model. Not thread-safe unless a runtime says so."""

    def run(self, batch: Array) -> tuple[Array, ...]:
        """Return the outputs for ``batch``, shape (N, …), in the order of ``manifest.outputs``.

        ``batch`` has the type of the manifest's input, or is float32 if that input is an integer with a scale. Integer
        outputs with a scale are returned as float32.

        Raises:
            InputShapeError: If ``batch`` has another shape or type than the manifest's input.
            RuntimeSeamError: If the runtime itself fails.
        """

    def close(self) -> None:
        """Release the model's memory; calling ``run`` afterwards is an error."""


class RuntimeModule(Protocol):
    """The interface of a file in this folder."""

    def load(self, manifest: Manifest, artifact: bytes, *, threads: int) -> Runtime:
        """Return the model in ``artifact``, ready to run."""


def shape_matches(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Return whether ``shape`` matches ``expected``, where -1 stands for any size."""
    return len(shape) == len(expected) and all(want in {-1, size} for size, want in zip(shape, expected, strict=True))


def is_quantized(spec: TensorSpec) -> bool:
    """Return whether ``spec`` is an integer tensor that represents real numbers: it has a scale."""
    return spec.dtype in QUANTIZED_DTYPES and spec.scale > 0


def check_batch(batch: Array, spec: TensorSpec) -> None:
    """Check that the model's input accepts the batch; the batch dimension is free.

    A quantized input (``is_quantized``) accepts its own type or float32, any other only its own type.

    Raises:
        InputShapeError: If shape or type differ.
    """
    dtypes = (spec.dtype, "float32") if is_quantized(spec) else (spec.dtype,)
    expected = (-1, *spec.shape[1:])
    if not shape_matches(batch.shape, expected) or batch.dtype not in dtypes:
        wanted = f"{' or '.join(dtypes)} {expected}"
        message = f"Expected input {spec.name!r} as {wanted}, got {batch.dtype} {batch.shape}: check preprocessing"
        raise InputShapeError(message)


def model_input(batch: Array, spec: TensorSpec) -> Array:
    """Return ``batch`` as the model takes it: checked, and quantized if it is float32 and the input is not.

    Raises:
        InputShapeError: If shape or type differ, or NaN would have to become an integer.
    """
    check_batch(batch, spec)
    return batch if batch.dtype == spec.dtype else quantize(batch, spec)


def check_contract(spec: TensorSpec) -> None:
    """Check scale and zero point of an integer tensor, and mean and spread of an output.

    Raises:
        RuntimeLoadError: If the scale is negative or not finite, or the zero point is out of the type's range; or if
            mean and spread are not one finite number per value, with the spread above 0.
    """
    if has_unit(spec):
        width, mean, spread = spec.shape[-1] if spec.shape else -1, spec.mean, spec.spread
        known = all(map(math.isfinite, (*mean, *spread))) and all(size > 0 for size in spread)
        if not (len(mean) == len(spread) > 0 and width in {-1, len(mean)} and known):
            wanted = f"a finite mean and a spread above 0 for each of {width} values of {spec.name!r}"
            raise RuntimeLoadError(f"Expected {wanted}, got {mean} and {spread}: rebuild the bundle")
    if spec.dtype not in QUANTIZED_DTYPES:
        return
    low, high = _LIMITS[spec.dtype]
    if not (0 <= spec.scale < float("inf") and low <= spec.zero_point <= high):
        wanted = f"a finite scale of 0 or more and a zero point of {low} to {high} for {spec.name!r} {spec.dtype}"
        message = f"Expected {wanted}, got {spec.scale} and {spec.zero_point}: rebuild the bundle"
        raise RuntimeLoadError(message)


def failure(message: str, kind: type[RuntimeSeamError]) -> RuntimeSeamError:
    """Return the error for a runtime's own ``message``: ``RuntimeMemoryError`` if it ran out of memory."""
    found = any(sign in message.lower() for sign in _OUT_OF_MEMORY)
    return (RuntimeMemoryError if found else kind)(message)


def has_unit(spec: TensorSpec) -> bool:
    """Return whether the values of ``spec`` must be converted to a unit: it has a mean or a spread."""
    return bool(spec.mean or spec.spread)


def is_probability(spec: TensorSpec) -> bool:
    """Return whether ``spec`` holds class probabilities: the model ends in a softmax."""
    return spec.meaning == "probability"


def is_sigmoid(spec: TensorSpec) -> bool:
    """Return whether each value of ``spec`` is the probability of a label of its own: the model ends in a sigmoid."""
    return spec.meaning == "sigmoid"


def is_decoded(spec: TensorSpec) -> bool:
    """Return whether a caller gets other numbers than the model outputs: dequantized, with a unit, or logarithms."""
    return is_quantized(spec) or has_unit(spec) or is_probability(spec) or is_sigmoid(spec)


def quantize(values: Array, spec: TensorSpec) -> Array:
    """Return real numbers as the integers that represent them.

    Args:
        values: float32, any shape, in the unit of the model's input.
        spec: An integer tensor with ``scale > 0``.

    Returns:
        ``clip(round(values / scale) + zero_point)`` of type ``spec.dtype`` and the same shape: computed in float32,
        halves are rounded to even, values out of the type's range (including infinity) saturate.
        Source: ONNX operators, QuantizeLinear.

    Raises:
        InputShapeError: If a value is NaN: no integer represents it.
    """
    low, high = _LIMITS[spec.dtype]
    scaled: Array = values / np.float32(spec.scale)
    np.rint(scaled, out=scaled)
    scaled += np.float32(spec.zero_point)
    if np.isnan(scaled).any():
        raise InputShapeError(f"Expected numbers for {spec.name!r} {spec.dtype}, got NaN: check the sensor")
    np.maximum(scaled, low, out=scaled)  # a third of the time of np.clip on 72 numbers, 1.2 times on 3,072
    np.minimum(scaled, high, out=scaled)
    return scaled.astype(spec.dtype)


def dequantize(values: Array, spec: TensorSpec) -> Array:
    """Return the real numbers that integers represent.

    Args:
        values: Integers, any shape, of type ``spec.dtype``.
        spec: An integer tensor with ``scale > 0``.

    Returns:
        ``(values - zero_point) * scale``, float32, the same shape. Source: ONNX operators, DequantizeLinear.
    """
    real: Array = (values.astype(np.float32) - np.float32(spec.zero_point)) * np.float32(spec.scale)
    return real


def real_output(values: Array, spec: TensorSpec) -> Array:
    """Return an output for the caller: float32 if it is decoded (see ``is_decoded``), else unchanged.

    With a unit it is ``values * spread + mean``, in float32, column by column. Probabilities become their logarithms,
    at least ``log(1e-6)``: these are logits, whose softmax gives the probabilities again. Those of a sigmoid become
    their log-odds, of at least 1e-6 and at most 1 - 1e-6.
    """
    real = dequantize(values, spec) if is_quantized(spec) else values
    if is_probability(spec):
        return np.log(np.maximum(np.asarray(real, np.float32), _LEAST_PROBABILITY))
    if is_sigmoid(spec):
        inside = np.clip(np.asarray(real, np.float64), _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
        return np.log(inside / (1 - inside)).astype(np.float32)
    if not has_unit(spec):
        return real
    return np.asarray(real, np.float32) * np.array(spec.spread, np.float32) + np.array(spec.mean, np.float32)
