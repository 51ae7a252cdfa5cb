"""First opens and runs a model file in a child process, so that a crash of the runtime does not end the run.

A runtime may abort on a file (LiteRT does on scales that are not finite) or never return; in this process that would
end the run without a message. ``python -m compressor.measurement.first_run FOLDER`` is the child: it opens ``model``
with the bare runtime and runs ``rows.npy``, row by row. Errors that the runtime raises are ignored here: the next
caller to open the file reports them in more detail.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor import child
from compressor.errors import MeasureError

LIMIT_S = 120.0
ROWS = 2
_ONNX, _MODEL, _INPUTS, _RUNTIME = "onnx", "model", "rows.npy", "runtime"


def check(runtime: str, artifact: bytes, rows: npt.NDArray[np.float32], what: str, *, limit_s: float = LIMIT_S) -> None:
    """Check that ``artifact`` opens and runs without crashing its process.

    Args:
        runtime: ``onnx`` (ORT format too) or ``litert``.
        artifact: The model's file.
        rows: Inputs of the model, float32 (N, ...); the first two are run.
        what: A description of the file, for the error.
        limit_s: Seconds after which the child is killed.

    Raises:
        MeasureError: If a signal ended the child, or it did not finish in time.
    """
    with tempfile.TemporaryDirectory(prefix="tinyfleet-") as name:
        folder = Path(name)
        (folder / _MODEL).write_bytes(artifact)
        (folder / _RUNTIME).write_text(runtime)
        np.save(folder / _INPUTS, rows[:ROWS], allow_pickle=False)
        try:
            done = child.run(__name__, folder, limit_s)
        except subprocess.TimeoutExpired as error:
            message = f"Expected {what} to open and run {min(ROWS, len(rows))} rows in {limit_s:g} s, got no end"
            raise MeasureError(f"{message}: it was ended; make the model smaller, or take another runtime") from error
    if done.returncode < 0:
        end = signal.Signals(-done.returncode).name
        last = child.last_line(done)
        said = f" ({last})" if last else ""
        message = f"Expected {what} to open and run, got a process of {runtime} ended by {end}{said}"
        raise MeasureError(f"{message}: leave layers float (float_layers), or take another scheme or runtime")


def _run_onnx(model: bytes, rows: npt.NDArray[np.float32]) -> None:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # noqa: PLC0415 - telemetry must be off before the import; the child needs one runtime only

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = session.get_inputs()[0]
    size = feed.shape[0] if isinstance(feed.shape[0], int) else 1
    for row in rows:
        session.run(None, {feed.name: np.repeat(row[None], size, axis=0)})


def _run_litert(model: bytes, rows: npt.NDArray[np.float32]) -> None:
    from compressor.tflite.packages import required  # noqa: PLC0415 - the child needs one runtime only

    interpreter: Any = required("ai_edge_litert.interpreter").Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]
    scale, zero_point = entry["quantization"]
    for row in rows:
        given = row[None]
        if scale:
            limits = np.iinfo(entry["dtype"])
            given = np.clip(np.rint(given / scale) + zero_point, limits.min, limits.max)
        interpreter.set_tensor(entry["index"], given.astype(entry["dtype"]))
        interpreter.invoke()


def main(folder: Path) -> None:
    """Open the model in ``folder`` and run its rows; errors of the runtime are ignored."""
    model, rows = (folder / _MODEL).read_bytes(), np.load(folder / _INPUTS, allow_pickle=False)
    run = _run_onnx if (folder / _RUNTIME).read_text() == _ONNX else _run_litert
    try:
        run(model, rows)
    except Exception as error:  # noqa: BLE001 - any error of the runtime is fine: the process has not crashed
        sys.stderr.write(f"{error}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
