"""Two torchruns on the loopback, as on two hosts, share the training of one command. Every test starts processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
RECIPE = (Path(__file__).parents[1] / "pipeline_recipe.toml").read_text()
WAIT_S = 240
COMMAND = """
import os, sys
import numpy as np
import torch
from compressor import networks
from compressor.errors import CompressorError
from compressor.recipe.read import TrainRecipe
from compressor.steps._base import Rows
from compressor.train.processes import job
from compressor.train.processes.distributed import fit_distributed
class Dies(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
    def forward(self, x):
        if self.training and os.environ["RANK"] == "1":
            os.kill(os.getpid(), 9)
        return self.inner(x)
def build(*shape):
    return Dies(networks.build("resnet8", *shape, {"filters": 4}))
def work():
    labels = np.arange(40) % 2
    settings = TrainRecipe(epochs=1, batch=16, processes=int(sys.argv[2]))
    try:
        rows = Rows(np.ones((40, 1, 6, 6), np.float32), labels)
        fit_distributed((sys.argv[1], 2, 1, 6, 6, {}), rows, settings)
    except CompressorError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return 4
    return 0
if __name__ == "__main__":
    try:
        sys.exit(job.shared(work))
    except CompressorError as error:
        sys.exit(f"{error.code}: {error}")
"""


def _two_hosts(folder: Path, *command: str) -> tuple[list[int], str]:
    """Run ``command`` under two torchruns; return their exit codes, in no order, and everything they printed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    torchrun = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d",
        f"--rdzv-endpoint=127.0.0.1:{port}", f"--rdzv-id={port}", "--local-addr=127.0.0.1",
    ]  # fmt: skip
    path = os.pathsep.join([str(folder), *(entry for entry in sys.path if entry)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    both = []
    for name in ("first.txt", "second.txt"):
        with (folder / name).open("wb") as output:
            both.append(subprocess.Popen([*torchrun, *command], stdout=output, stderr=output, env=environment))
    try:
        codes = [process.wait(WAIT_S) for process in both]
    finally:
        for process in both:
            process.kill()
    return codes, "".join((folder / name).read_text() for name in ("first.txt", "second.txt"))


def test_a_run_is_shared_by_two_hosts(tmp_path: Path) -> None:
    """Rank 0 does the work and writes the bundle; the other host trains with it, needs no file, and ends well."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.replace("epochs = 1", "epochs = 1\nprocesses = 2"))
    codes, output = _two_hosts(tmp_path, "-m", "compressor", "run", str(recipe), "--out", str(tmp_path / "out"))
    assert codes == [0, 0], output
    assert output.count("tiny-1: PASS") == 1
    assert (tmp_path / "out" / "tiny-1-host.tfb").exists()


def test_a_host_that_dies_ends_the_other(tmp_path: Path) -> None:
    """After a kill in the middle of a step the other host does not wait, and the message names the next step."""
    (tmp_path / "shared_command.py").write_text(COMMAND)
    codes, output = _two_hosts(tmp_path, "-m", "shared_command", "shared_command:build", "2")
    assert 0 not in codes, output
    assert "Signal 9 (SIGKILL)" in output
    assert "train_process_lost: Expected an answer of all 2 training processes" in output


def test_another_number_of_processes_than_started_is_refused(tmp_path: Path) -> None:
    """The recipe's number is part of the key of a training. Both hosts fail, so that neither waits long."""
    (tmp_path / "shared_command.py").write_text(COMMAND)
    codes, output = _two_hosts(tmp_path, "-m", "shared_command", "resnet8", "3")
    assert codes == [1, 1], output
    assert output.count("exitcode  : 4") == 2
    assert "set processes = 2, or start 3" in output
