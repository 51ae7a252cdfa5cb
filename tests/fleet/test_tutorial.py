"""The tutorial works unchanged: its blocks are run one after another, as a reader would."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "tutorial" / "first-device.md").read_text()
BLOCKS = re.findall(r"^```(sh|python|toml)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
LIMIT_S = 300.0

pytestmark = [pytest.mark.nightly, pytest.mark.broker, pytest.mark.slow]


@dataclass
class Reader:
    """Follows the page in a separate folder, with another port if 8080 may be in use."""

    folder: Path
    port: int
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def env(self) -> dict[str, str]:
        """Return the environment with the programs on the path."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
        return {**os.environ, "PATH": path, "ORT_DISABLE_TELEMETRY": "1"}

    def read(self, kind: str, text: str) -> None:
        """Run a block of commands, or of Python; save a block that is a file."""
        text = text.replace("8080", str(self.port))
        name = re.match(r"# (\S+\.py)\n", text)
        if kind == "toml" or name:
            (self.folder / (name[1] if name else "mine.toml")).write_text(text)
        elif kind == "python":
            self.run([sys.executable, "-c", text])
        else:
            for line in text.splitlines():
                self.type(line)

    def type(self, line: str) -> None:
        """Type one line; a command that ends in ``&`` runs in the background until the test ends."""
        command = re.sub(r"\s+#.*", "", line)
        if command.endswith(" &"):
            log = (self.folder / f"{len(self.started)}.log").open("wb")
            self.started.append(
                subprocess.Popen(command[:-2].split(), cwd=self.folder, env=self.env(), stdout=log, stderr=log)
            )
            self.wait(lambda: self.ready(command))
        elif command and not command.startswith("edge-agent status"):  # whose exit code says what is not there yet
            self.run(["bash", "-c", command])

    def ready(self, command: str) -> bool:
        """Return whether the started program answers."""
        log = (self.folder / f"{len(self.started) - 1}.log").read_text()
        return "mqtt" in log if "fleet-server" in command else (self.folder / "device" / "inbox").is_dir()

    def run(self, command: list[str]) -> str:
        """Run a command to its end."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.env(), capture_output=True, text=True, check=False, timeout=LIMIT_S
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def wait(self, condition: object) -> None:
        """Wait until ``condition`` is true."""
        deadline = time.monotonic() + LIMIT_S
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < deadline, "not in time"
            time.sleep(0.2)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """Return a reader; its processes are ended, the agent first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = Reader(tmp_path, port)
    yield made
    for process in reversed(made.started):
        process.terminate()
        process.wait(30)


def test_the_tutorial_ends_with_a_committed_release(reader: Reader) -> None:
    """From a folder of images to a device that serves it; only the setup and the last step are left out."""
    assert "./scripts/setup demo" in BLOCKS[0][1]
    for kind, text in BLOCKS[1:]:
        reader.read(kind, text)
    reader.wait(lambda: json.loads(reader.run(["fleet-server", "rollouts", "list", "state", "--json"]))[0]["committed"])
    status = json.loads(reader.run(["edge-agent", "status", "--state", "device", "--json"]))
    assert status["current"]["release"] == "mine-1"
