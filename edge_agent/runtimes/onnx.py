"""onnxruntime on the CPU. The only file of the agent that imports onnxruntime.

Telemetry is disabled before the import: otherwise wheels from 1.29 start a collector thread, which
``disable_telemetry_events()`` does not stop afterwards.

onnxruntime makes the processor treat denormal numbers as zero, for the first session of a process alone, by that
session's options, in the thread that makes it, and leaves it so: a later session would not have that mode, and all
arithmetic of the caller's program would (``5e-324 == 0.0``). Here every session has it while it works, and the caller
never; on another processor or C library than those of ``_FLUSHING`` it is as onnxruntime leaves it.
Sources: C11, 7.6.4 (``fegetenv``, ``fesetenv``); glibc ``fenv.h`` (``fenv_t``); Intel SDM 1, 10.2.3 (MXCSR: FTZ, DAZ);
Arm ARM, FPCR.FZ; onnxruntime, ``InferenceSession::ConstructorCommon``.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime as ort

from edge_agent.errors import RuntimeLoadError, RuntimeSeamError
from edge_agent.runtimes._base import Array, Runtime, check_contract, failure, model_input, real_output, shape_matches
from wire.manifest import Manifest

PACKAGES = {"onnxruntime": "onnxruntime"}
FORMATS = {"": "onnx", "ort": "ort"}
LAYOUT = "NCHW"
# Denormals make an untrained or saturated network seven times slower (measured).
_DENORMAL = "session.set_denormal_as_zero"
DEFAULT_OPTIONS = {_DENORMAL: "1"}
_LOG_ERRORS = 3
_ORT_IDENTIFIER = b"ORTM"  # onnxruntime core/flatbuffers/schema/ort.fbs, file_identifier: bytes 4 to 8
_TYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8", "tensor(int8)": "int8",
    "tensor(uint16)": "uint16", "tensor(int16)": "int16", "tensor(int32)": "int32", "tensor(int64)": "int64",
}  # fmt: skip
_MODE_BYTES = 64  # fenv_t: 32 bytes on x86-64, 8 on AArch64
_FLUSHING = {"x86_64": (28, 0x8040), "aarch64": (0, 1 << 24)}  # where in fenv_t, and the bits
_PLACE = _FLUSHING.get(platform.machine()) if platform.libc_ver()[0] == "glibc" else None
_LIBRARY = ctypes.CDLL(None)  # Python itself is linked with the library of mathematics


def load(manifest: Manifest, artifact: bytes, *, threads: int) -> Runtime:
    """Return the model in ``artifact``, ONNX or ORT format, as a session with ``threads`` intra-operator threads.

    ``manifest.session_options`` are onnxruntime config entries by their own name. A session does not expose the scale
    of an integer input or output (a QuantizeLinear inside the graph holds it): the manifest's is used, and the golden
    vectors verify it.

    Raises:
        RuntimeLoadError: If onnxruntime can't open it, inputs or outputs differ from the manifest, or one of its scales
            is invalid.
    """
    try:
        options = _options(manifest, threads, artifact)
        with _own_mode(flushes=False):
            session = ort.InferenceSession(artifact, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many unrelated classes
        message = f"Expected an ONNX model that onnxruntime {ort.__version__} opens, got: {_reason(error)}"
        raise failure(message, RuntimeLoadError) from error
    _check_signature(session, manifest)
    return _OnnxRuntime(session, manifest, flushes=options.get_session_config_entry(_DENORMAL) == "1")


def _reason(error: Exception) -> str:
    return str(error)[:300] or type(error).__name__


def _options(manifest: Manifest, threads: int, artifact: bytes) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_ERRORS
    form = {"session.load_model_format": "ORT" if artifact[4:8] == _ORT_IDENTIFIER else "ONNX"}
    for key, value in {**DEFAULT_OPTIONS, **manifest.session_options, **form}.items():
        options.add_session_config_entry(key, value)
    return options


def _check_signature(session: ort.InferenceSession, manifest: Manifest) -> None:
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(manifest.inputs) != 1:
        message = f"Expected one input, got {len(inputs)} in the model and {len(manifest.inputs)} in the manifest"
        raise RuntimeLoadError(message)
    got, spec = inputs[0], manifest.inputs[0]
    shape = tuple(size if isinstance(size, int) else -1 for size in got.shape)
    dtype = _TYPES.get(got.type, got.type)
    fits = shape_matches(shape, (-1, *spec.shape[1:])) or shape_matches(spec.shape, (-1, *shape[1:]))
    if got.name != spec.name or dtype != spec.dtype or not fits:
        message = (
            f"Expected input {spec.name!r} {spec.dtype} {spec.shape}, got {got.name!r} {dtype} {shape} in the model"
        )
        raise RuntimeLoadError(message)
    types = {output.name: _TYPES.get(output.type, output.type) for output in session.get_outputs()}
    missing = [output.name for output in manifest.outputs if output.name not in types]
    if missing:
        message = f"Expected the outputs {missing} in the model, got {sorted(types)}"
        raise RuntimeLoadError(message)
    for output in manifest.outputs:
        if types[output.name] != output.dtype:
            message = f"Expected output {output.name!r} {output.dtype}, got {types[output.name]} in the model"
            raise RuntimeLoadError(message)
    for tensor in (spec, *manifest.outputs):
        check_contract(tensor)


@contextmanager
def _own_mode(*, flushes: bool) -> Iterator[None]:
    """Restore the calling thread's mode after the block; ``flushes``: in it, denormal numbers are treated as zero."""
    if _PLACE is None:
        yield
        return
    before = ctypes.create_string_buffer(_MODE_BYTES)
    _LIBRARY.fegetenv(before)
    if flushes:
        mode, (offset, bits) = ctypes.create_string_buffer(before.raw, _MODE_BYTES), _PLACE
        word = ctypes.c_uint32.from_buffer(mode, offset)
        word.value |= bits
        _LIBRARY.fesetenv(mode)
    try:
        yield
    finally:
        _LIBRARY.fesetenv(before)


class _OnnxRuntime:
    """A session. ``run`` may be called from several threads: onnxruntime's sessions allow it."""

    def __init__(self, session: ort.InferenceSession, manifest: Manifest, *, flushes: bool) -> None:
        self._session: ort.InferenceSession | None = session
        self._flushes = flushes
        self._spec = manifest.inputs[0]
        self._specs = manifest.outputs
        self._outputs = [output.name for output in manifest.outputs]
        self._batch = session.get_inputs()[0].shape[0]

    def run(self, batch: Array) -> tuple[Array, ...]:
        values = model_input(batch, self._spec)
        if self._session is None:
            raise RuntimeSeamError("Expected an open runtime, got a closed one: load it again")
        if isinstance(self._batch, int) and self._batch != len(values):
            size = self._batch  # fixed in the model: the last piece is padded by repeating its last row
            padded = np.concatenate([values, np.repeat(values[-1:], -len(values) % size, axis=0)])
            pieces = [self._run(self._session, padded[start : start + size]) for start in range(0, len(padded), size)]
            return tuple(np.concatenate(parts)[: len(values)] for parts in zip(*pieces, strict=True))
        return self._run(self._session, values)

    def _run(self, session: ort.InferenceSession, batch: Array) -> tuple[Array, ...]:
        try:
            with _own_mode(flushes=self._flushes):
                outputs = session.run(self._outputs, {self._spec.name: batch})
        except Exception as error:  # see ``load``
            raise failure(f"Expected onnxruntime to run, got: {_reason(error)}", RuntimeSeamError) from error
        return tuple([real_output(values, spec) for values, spec in zip(outputs, self._specs, strict=True)])

    def close(self) -> None:
        self._session = None
