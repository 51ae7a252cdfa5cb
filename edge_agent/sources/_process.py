"""What a program writes: its standard output in chunks, until it ends, writes nothing for too long, or isn't wanted.

The program never outlives this process: it is killed when the reader stops, and by the kernel when the thread that
started it ends in any other way, such as kill -9 (``setpriv --pdeathsig`` of util-linux; without that program it ends
when it next writes). Its messages are read all the time, and the last of them is in the error.

Source: prctl(2), PR_SET_PDEATHSIG.
"""

from __future__ import annotations

import os
import selectors
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence

from edge_agent.errors import SourceError
from edge_agent.logs import masked

_LOOK_S = 0.2  # until a stop is noticed
_PIPE_BYTES = 65536
_MESSAGE_BYTES = 400


def check_program(name: str, package: str) -> None:
    """Check that a program is installed.

    Raises:
        SourceError: If it isn't.
    """
    if shutil.which(name) is None:
        message = f"Expected the program {name}, got none in PATH: apt-get install {package}"
        raise SourceError(message)


def output_of(command: Sequence[str], stop: threading.Event, stall_s: float) -> Iterator[bytes]:
    """Yield what ``command`` writes, until it ends in order or ``stop`` is set; then it is no longer running.

    Raises:
        SourceError: If it can't be started, ends with an error, or writes nothing for ``stall_s``.
    """
    bound = shutil.which("setpriv")
    whole = [bound, "--pdeathsig", "KILL", "--", *command] if bound else list(command)
    try:
        process = subprocess.Popen(
            whole, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
    except OSError as error:
        message = f"Expected to start {command[0]}, got: {error.strerror}"
        raise SourceError(message) from error
    with process, selectors.DefaultSelector() as ready:
        try:
            yield from _chunks(process, ready, stop, stall_s)
        finally:
            process.kill()


def _chunks(
    process: subprocess.Popen[bytes], ready: selectors.BaseSelector, stop: threading.Event, stall_s: float
) -> Iterator[bytes]:
    for pipe in (process.stdout, process.stderr):
        ready.register(pipe, selectors.EVENT_READ)  # type: ignore[arg-type]  # both are pipes
    said, stalled_s = b"", time.monotonic() + stall_s
    while not stop.is_set():
        for key, _ in ready.select(_LOOK_S):
            data = os.read(key.fd, _PIPE_BYTES)
            if key.fileobj is process.stderr:
                said = (said + data)[-_MESSAGE_BYTES:]
                if not data:
                    ready.unregister(key.fileobj)
            elif data:
                yield data
                stalled_s = time.monotonic() + stall_s
            else:
                said += process.communicate()[1]
                if process.returncode:
                    raise SourceError(_last_message(said) or f"exit code {process.returncode}")
                return
        if time.monotonic() >= stalled_s:
            message = f"nothing for {stall_s:g} s"
            raise SourceError(message)


def _last_message(said: bytes) -> str:
    """Return the last line of what a program reported, without the passwords of addresses."""
    lines = [line.strip() for line in said.decode(errors="replace").split("\n") if line.strip()]
    return masked(lines[-1]) if lines else ""
