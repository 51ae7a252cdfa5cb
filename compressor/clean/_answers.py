"""Runs an ONNX file before and after a mend on the same rows, and compares the answers.

Each row is run alone, and, where the file takes any batch, all rows at once: a mend that is right for one row may be
wrong for three.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx

from compressor.clean.given import Given, flat_shape
from compressor.clean.onnx_graph import Array

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime  # telemetry must be off before the import

Floats = npt.NDArray[np.float32]
_ERROR = 3
_AXES = 4
ROUNDING = 2e-5
"""Allowed difference as a share of the largest answer: folding changes the order of float32 sums (measured: 4e-6)."""


@dataclass(frozen=True, slots=True)
class FileAnswers:
    """All outputs of a file: ``alone``, row by row and joined, and ``together`` (empty if the batch is fixed)."""

    alone: Sequence[Array]
    together: Sequence[Array] = field(default=())


class Unrunnable(Exception):  # noqa: N818 - it never leaves this package
    """A file does not run, or does not answer as before; the text is the reason."""


def session_of(model: onnx.ModelProto, *, plain: bool = False) -> onnxruntime.InferenceSession:
    """Return a session of ``model`` on one thread; ``plain``: without optimisation, so that every tensor exists.

    Raises:
        Unrunnable: If onnxruntime refuses the file.
    """
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = levels.ORT_DISABLE_ALL if plain else levels.ORT_ENABLE_BASIC
    options.intra_op_num_threads, options.log_severity_level = 1, _ERROR
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own classes, which derive from Exception alone
        raise Unrunnable(str(error)[:200]) from error


def fixed_batch(session: onnxruntime.InferenceSession) -> int:
    """Return the batch size that ``session`` is fixed to; 0: it takes any, or has no input."""
    first = session.get_inputs()[0].shape[:1] if session.get_inputs() else []
    return first[0] if first and isinstance(first[0], int) else 0


def fed(session: onnxruntime.InferenceSession, given: Given, rows: Floats) -> dict[str, Array]:
    """Return ``rows``, float32 (N, C, H, W), as the only input of ``session`` takes them: its layout and type."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise Unrunnable(f"it has {len(inputs)} inputs")
    sizes = [size if isinstance(size, int) else 0 for size in inputs[0].shape[1:]]
    fits = len(sizes) == rows.ndim - 1 and all(
        own in {0, want} for own, want in zip(sizes, rows.shape[1:], strict=True)
    )
    kind = inputs[0].type
    if kind == "tensor(uint8)":
        factor, offset = given.to_pixels
        rows = np.asarray(rows, np.float32) * factor + offset
    taken: Array = rows if fits or rows.ndim != _AXES else np.ascontiguousarray(rows.transpose(0, 2, 3, 1))
    if len(sizes) == 1 and rows.ndim == _AXES:
        taken = rows.reshape(len(rows), -1)
    if kind == "tensor(uint8)":
        taken = np.clip(np.rint(taken), 0, 255).astype(np.uint8)
    elif kind == "tensor(float16)":
        taken = taken.astype(np.float16)
    return {inputs[0].name: taken}


def run(
    session: onnxruntime.InferenceSession, given: Given, rows: Floats, names: Sequence[str] | None = None
) -> list[Array]:
    """Return the outputs ``names`` (None: all) for ``rows``.

    Raises:
        Unrunnable: If onnxruntime can't run them.
    """
    feed = fed(session, given, rows)
    try:
        return list(session.run(names, feed))
    except Exception as error:  # as above
        raise Unrunnable(str(error)[:200]) from error


def answers(model: onnx.ModelProto, given: Given) -> FileAnswers:
    """Return the answers of ``model`` to the rows of ``given``.

    Raises:
        Unrunnable: If onnxruntime does not open or run it.
    """
    session = session_of(model)
    fixed = fixed_batch(session)
    alone = []
    for row in given.rows:
        made = run(session, given, np.repeat(row[None], max(1, fixed), axis=0))
        alone.append([one[:1] if one.ndim and fixed and one.shape[0] == fixed else one for one in made])
    joined = [np.concatenate([np.atleast_1d(one) for one in outputs]) for outputs in zip(*alone, strict=True)]
    return FileAnswers(joined, () if fixed else run(session, given, given.rows))


def apart(before: FileAnswers, after: FileAnswers) -> tuple[float, float]:
    """Return the largest difference of two files' answers, and the largest answer; infinite if they don't compare.

    A file that takes any batch is compared at several rows too: with the other's answers to several, or to each row.
    """
    pairs = [(before.alone, after.alone)]
    if after.together:
        pairs.append((before.together or before.alone, after.together))
    largest, scale = 0.0, 0.0
    for one, other in pairs:
        for want, got in zip(one, other, strict=True):
            if want.shape != got.shape and flat_shape(want.shape) != got.shape:
                return float("inf"), 0.0
            left, right = np.asarray(want, np.float64).reshape(got.shape), np.asarray(got, np.float64)
            same = (left == right) | (np.isnan(left) & np.isnan(right))
            differences = np.where(same, 0.0, np.abs(left - right))
            if not np.isfinite(differences).all():
                return float("inf"), 0.0
            largest = max(largest, float(differences.max(initial=0.0)))
            scale = max(scale, float(np.abs(left[np.isfinite(left)]).max(initial=0.0)))
    return largest, scale
