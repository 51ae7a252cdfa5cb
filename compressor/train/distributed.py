"""Data-parallel training on this host: several processes through torchrun, gloo on the loopback.

``fit_distributed`` writes the job, starts torchrun, passes the epochs on and reads the weights; ``main`` is what each
process runs. Every process takes its part of each batch and gradients are averaged, so that N processes come close to
one with the whole batch; batch normalisation sees its own part only. Nothing waits for ever: a process that fails
takes the others with it, one that hangs ends the training, and processes whose parent is gone stop by themselves.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist
from torch import nn

from compressor import networks
from compressor.errors import CompressorError, TrainError
from compressor.recipe import TrainRecipe
from compressor.steps.base import Rows
from compressor.train import checkpoint, job
from compressor.train.crew import Crew
from compressor.train.job import Job, NetworkSpec
from compressor.train.loop import steps_and_batch
from compressor.train.samples import Floats, Labels, check_learnable, checked
from compressor.train.supervised import Epoch, Options, fit_with

_POLL_S = 0.1
_GRACE_S = 40.0  # torchrun itself gives its processes 30 s to end before it kills them
_WAIT_FOR_EACH_OTHER_S = 300.0
_LAST_LINES = 12


@dataclass(frozen=True, slots=True)
class Launch:
    """What a distributed training may have beside data and settings.

    ``start``: weights to go on from, the bytes of a checkpoint. ``stall_s``: seconds without the end of an epoch
    after which the training counts as hung. The rest is as in ``supervised.fit``.
    """

    start: bytes | None = None
    held: Rows | None = None
    resume: Path | None = None
    on_epoch: Callable[[Epoch], None] | None = None
    stall_s: float = 3600.0


def fit_distributed(
    network_spec: NetworkSpec,
    inputs: Floats,
    labels: Labels,
    settings: TrainRecipe,
    launch: Launch | None = None,
) -> nn.Module:
    """Return the network, trained by ``settings.processes`` processes, in evaluation mode.

    Args:
        network_spec: Name, classes, channels, height, width and options, as ``networks.build`` takes them.
        inputs: float32, (N, C, H, W).
        labels: int64, (N,), class indices; or float32, (N, D), numbers.
        settings: As for ``supervised.fit``; ``batch`` is that of all processes together.
        launch: Start weights, held rows, state to resume from, progress and patience.

    Raises:
        TrainError: If a process fails or hangs (with its last lines), or as ``supervised.fit`` says.
        PluginError: If there is no such network.
        CheckpointError: If the start weights don't fit.
    """
    launch = launch or Launch()
    with tempfile.TemporaryDirectory(prefix="tinyfleet-train-") as name:
        folder = Path(name)
        Job(network_spec, Rows(inputs, labels), settings, launch.held, launch.resume, os.getpid()).write(folder)
        if launch.start is not None:
            (folder / job.STARTED).write_bytes(launch.start)
        _check(_network(network_spec, folder / job.STARTED), Rows(inputs, labels), settings, launch)
        with _torchrun(folder, settings.processes) as process:
            _follow(process, folder, launch)
        return checkpoint.load(networks.build(*network_spec), folder / job.TRAINED)


def _check(network: nn.Module, rows: Rows, settings: TrainRecipe, launch: Launch) -> None:
    """Refuse here what the processes would refuse: at once, and not in their last lines."""
    samples = checked(network, rows.inputs, rows.labels)
    check_learnable(samples)
    steps_and_batch(samples, settings, Crew(0, settings.processes))
    if launch.held:
        checked(network, launch.held.inputs, launch.held.labels, "held")


def _network(spec: NetworkSpec, started: Path) -> nn.Module:
    network = networks.build(*spec)
    return checkpoint.load(network, started) if started.exists() else network


@contextmanager
def _torchrun(folder: Path, processes: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run the crew; whatever happens in the block, no process of it outlives the block."""
    arguments = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    with (folder / job.STDERR).open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, *arguments, "-m", __name__, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            env=environment,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)  # torchrun then ends its processes
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _follow(process: subprocess.Popen[bytes], folder: Path, launch: Launch) -> None:
    """Pass epochs on until the crew is done."""
    heard, last_s = 0, time.monotonic()
    while True:
        code = process.poll()
        for epoch in job.told(folder)[heard:]:
            heard, last_s = heard + 1, time.monotonic()
            if launch.on_epoch:
                launch.on_epoch(epoch)
        if code == 0:
            return
        if code is not None:
            message = f"Expected the training processes to end well, got exit code {code}:\n{_last_lines(folder)}"
            raise TrainError(message)
        if time.monotonic() - last_s > launch.stall_s:
            message = f"Expected an epoch within {launch.stall_s:g} s, got none: set processes = 1 in [train]"
            raise TrainError(f"{message}\n{_last_lines(folder)}")
        time.sleep(_POLL_S)


def _last_lines(folder: Path) -> str:
    """Return what the first process that failed said, or else the last lines of all of them."""
    for path in sorted(folder.glob("failed-*.txt"), key=lambda path: path.stat().st_mtime_ns):
        return path.read_text()
    return "\n".join((folder / job.STDERR).read_text(errors="replace").splitlines()[-_LAST_LINES:])


def main(folder: Path) -> int:
    """Be one process of the crew that torchrun started; return the exit code."""
    crew = Crew(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    try:
        dist.init_process_group("gloo", timeout=timedelta(seconds=_WAIT_FOR_EACH_OTHER_S))
        _work(folder, crew)
    except CompressorError as error:
        (folder / f"failed-{crew.rank}.txt").write_text(str(error))
        return 1
    except Exception:  # the outermost frame of this process: the parent shows the last lines, torchrun ends the others
        lines = traceback.format_exc().splitlines()
        (folder / f"failed-{crew.rank}.txt").write_text("\n".join(lines[-_LAST_LINES:]))
        logging.getLogger(__name__).exception("a training process failed rank=%s", crew.rank)
        return 1
    dist.destroy_process_group()
    return 0


def _work(folder: Path, crew: Crew) -> None:
    work = job.read(folder)

    def on_epoch(epoch: Epoch) -> None:
        if os.getppid() == 1 or not _alive(work.parent):
            message = f"Expected the process {work.parent} that wants this training, got none: run it again"
            raise TrainError(message)
        job.tell(folder, epoch)

    network = _network(work.spec, folder / job.STARTED)
    options = Options(on_epoch=on_epoch, held=work.held, resume=work.resume, crew=crew)
    fit_with(network, work.rows, work.settings, options)
    if crew.rank == 0:
        checkpoint.save(network, folder / job.TRAINED)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
