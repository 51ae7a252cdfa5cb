"""First opens and runs a model file in a child process, so that a crash of the runtime does not end the run.

A runtime may abort on a file (LiteRT does on scales that are not finite) or never return; in this process that would
end the run without a message. ``python -m compressor.measurement.first_run FOLDER`` is the child: it opens ``model``
with the bare runtime and runs ``rows.npy``, row by row. Errors that the runtime raises are ignored here: the next
caller to open the file reports them in more detail.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compressor import child, formats
from compressor.errors import MeasureError

LIMIT_S = 120.0
ROWS = 2
_MODEL, _INPUTS, _RUNTIME = "model", "rows.npy", "runtime"


def check(runtime: str, artifact: bytes, rows: npt.NDArray[np.float32], what: str, *, limit_s: float = LIMIT_S) -> None:
    """Check that ``artifact`` opens and runs without crashing its process.

    Args:
        runtime: The runtime, whose format opens the file.
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


def main(folder: Path) -> None:
    """Open the model in ``folder`` and run its rows; errors of the runtime are ignored."""
    model, rows = (folder / _MODEL).read_bytes(), np.load(folder / _INPUTS, allow_pickle=False)
    try:
        formats.named((folder / _RUNTIME).read_text()).run(model, rows)
    except Exception as error:  # noqa: BLE001 - any error of the runtime is fine: the process has not crashed
        sys.stderr.write(f"{error}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
