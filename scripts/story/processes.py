"""The programs started by the demo: own sessions, output to files, stopped by pid."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from scripts.story.console import StoryError

BIN = Path(sys.executable).parent
_STOP_S = 15.0


@dataclass(slots=True)
class Programs:
    """Starts programs in their own session and stops only those."""

    logs: Path
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *command: str) -> None:
        """Start ``command`` in the background; its output goes to ``<logs>/<name>.log``."""
        self.logs.mkdir(parents=True, exist_ok=True)
        with (self.logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                _absolute(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def check_alive(self) -> None:
        """Check that all programs are running.

        Raises:
            StoryError: If one has ended; the message has the end of its log.
        """
        for name, process in self._running.items():
            if process.poll() is not None:
                message = f"Expected {name} to run, it ended with {process.returncode}:\n{self.tail(name)}"
                raise StoryError(message)

    def tail(self, name: str, lines: int = 15) -> str:
        """Return the last lines of a program's log."""
        path = self.logs / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def stop(self, name: str) -> None:
        """Stop one program by SIGTERM, and kill it if it does not end in time."""
        process = self._running.pop(name)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def stop_all(self) -> None:
        """Stop all programs: signal all first, then wait for each."""
        for process in self._running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for name in reversed(list(self._running)):
            self.stop(name)


def run(*command: str, quiet: bool = False, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run ``command`` to its end with ``given`` as its standard input.

    Its standard error (progress) is forwarded, its output is returned.

    Raises:
        StoryError: If it fails, with its output.
    """
    done = subprocess.run(
        _absolute(command), input=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE if quiet else None, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        said = (done.stdout or "") + (done.stderr or "")
        message = f"Expected `{' '.join(command[:3])} …` to succeed, it ended with {done.returncode}\n{said[-3000:]}"
        raise StoryError(message)
    return done


def _absolute(command: tuple[str, ...]) -> list[str]:
    return [str(BIN / command[0]) if (BIN / command[0]).exists() else command[0], *command[1:]]
