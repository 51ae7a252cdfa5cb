"""Data-parallel training: several processes of torchrun, each with a part of every batch.

``fit_distributed`` starts torchrun on this host, reports the epochs and reads the weights; ``main`` is what each
process runs. Under the user's own torchrun (``job.shared``) nothing is started: the existing processes share the
training. Gradients are averaged by ``DistributedDataParallel``, moments by ``batch_norm.py``; augmentation is drawn for
the whole batch and losses are weighted by their part, so that N processes give the same weights as one up to rounding.
Nothing waits for ever: a process that fails ends the others, one that hangs ends the training, and processes whose
parent is gone stop by themselves.
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
from pathlib import Path

from torch import nn

from compressor import child, networks
from compressor.errors import CompressorError, LostProcessError, TrainError
from compressor.recipe.model import TrainRecipe
from compressor.steps._base import Rows
from compressor.train import checkpoint
from compressor.train.loop import steps_and_batch
from compressor.train.processes import job, torchrun
from compressor.train.processes.job import NetworkSpec, SharedTraining
from compressor.train.processes.world import Channel, World, joined
from compressor.train.samples import check_learnable, checked
from compressor.train.supervised import Epoch

_POLL_S = 0.1
_GRACE_S = 40.0  # torchrun itself gives its processes 30 s to end before it kills them
_LAST_LINES = 12
_FAILED, _LOST = 1, 3
_STDERR = "stderr.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Options of a distributed training besides data and settings.

    ``start``: initial weights, the bytes of a checkpoint. ``stall_s``: seconds without a completed epoch after which
    the training counts as hung. The others are as in ``supervised.fit``.
    """

    start: bytes | None = None
    held: Rows | None = None
    resume: Path | None = None
    on_epoch: Callable[[Epoch], None] | None = None
    stall_s: float = 3600.0


def fit_distributed(
    network_spec: NetworkSpec,
    rows: Rows,
    settings: TrainRecipe,
    launch: Launch | None = None,
) -> nn.Module:
    """Return the network, trained by ``settings.processes`` processes, in evaluation mode.

    Args:
        network_spec: Name, classes, channels, height, width and options, the arguments of ``networks.build``.
        rows: The rows to learn from.
        settings: As in ``supervised.fit``; ``batch`` is that of all processes together.
        launch: Initial weights, held rows, state to resume from, progress and time limit.

    Raises:
        TrainError: If a process fails or hangs (with its last lines), or as in ``supervised.fit``.
        PluginError: If the network is unknown.
        CheckpointError: If the start weights don't fit.
    """
    launch = launch or Launch()
    work = SharedTraining(
        spec=network_spec,
        rows=rows,
        settings=settings,
        held=launch.held,
        start=launch.start or b"",
        resume=launch.resume,
        parent=os.getpid(),
    )
    _check(work)
    channel = job.leading()
    if channel is not None:
        size = channel.world.size
        if settings.processes != size:
            message = f"Expected as many processes as torchrun started, {size}, got processes = {settings.processes} in"
            remedy = f"set processes = {size}, or start {settings.processes} (--nnodes times --nproc-per-node)"
            raise TrainError(f"{message} [train]: {remedy}")
        job.send(channel, work)
        return work.train(channel.world, launch.on_epoch)
    with tempfile.TemporaryDirectory(prefix="tinyfleet-train-") as name:
        folder = Path(name)
        job.write(work, folder)
        with _torchrun(folder, settings.processes) as process:
            _follow(process, folder, launch, settings.processes)
        return checkpoint.load(networks.build(*network_spec), folder / job.TRAINED)


def _check(work: SharedTraining) -> None:
    """Check here what every process would reject, so that the error is immediate and appears once.

    Raises:
        TrainError: If there are too few rows, or nothing can be learned from them.
        PluginError: If the network is unknown.
        CheckpointError: If the start weights don't fit.
    """
    network = work.network()
    samples = checked(network, work.rows)
    check_learnable(samples)
    steps_and_batch(samples, work.settings, World(0, work.settings.processes))
    if work.held:
        checked(network, work.held, "held")


@contextmanager
def _torchrun(folder: Path, processes: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run torchrun; when the block ends, for whatever reason, all of its processes have ended."""
    scratch = {"TMPDIR": str(folder)}  # files that killed processes leave behind are removed with the folder
    environment = {**child.environment(), **scratch, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    with (folder / _STDERR).open("wb") as stderr:
        process = subprocess.Popen(
            torchrun.arguments(folder, processes, __name__),
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            env=environment,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)  # torchrun then ends its processes
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _follow(process: subprocess.Popen[bytes], folder: Path, launch: Launch, processes: int) -> None:
    """Report epochs until the processes have finished."""
    passed, last_s = 0, time.monotonic()
    while True:
        code = process.poll()
        for epoch in job.epochs(folder)[passed:]:
            passed, last_s = passed + 1, time.monotonic()
            if launch.on_epoch:
                launch.on_epoch(epoch)
        if code == 0:
            return
        if code is not None:
            raise TrainError(_failure(folder, processes, code))
        if time.monotonic() - last_s > launch.stall_s:
            message = f"Expected an epoch within {launch.stall_s:g} s, got none: set processes = 1 in [train]"
            raise TrainError(f"{message}\n{_last_lines(folder)}")
        time.sleep(_POLL_S)


def _failure(folder: Path, processes: int, code: int) -> str:
    """Return which process failed first, how, its message, and the next step.

    A process that only lost another one is not the cause, nor is one that torchrun ended because another had failed.
    """
    ends = torchrun.ends(folder)
    if not ends:
        return f"Expected torchrun to end well, got exit code {code}:\n{_last_lines(folder)}"
    end = min(ends, key=lambda end: (not end.killed, end.exit_code < 0, end.exit_code == _LOST, end.rank))
    message = f"Expected {processes} training processes to end well, got {end} of rank {end.rank}"
    again = "run the same command again: it goes on after the last whole epoch"
    if end.killed:
        return f"{message}: the kernel kills for lack of memory (see dmesg): lower processes in [train], then {again}"
    said = folder / f"failed-{end.rank}.txt"
    return f"{message}:\n{said.read_text() if said.exists() else _last_lines(folder)}\nOnce that is mended, {again}"


def _last_lines(folder: Path) -> str:
    return "\n".join((folder / _STDERR).read_text(errors="replace").splitlines()[-_LAST_LINES:])


def main(folder: Path) -> int:
    """Run as one of the processes that torchrun started; return the exit code."""
    failed = folder / f"failed-{os.environ['RANK']}.txt"
    try:
        with joined() as channel:
            _work(folder, channel)
    except LostProcessError as error:
        failed.write_text(str(error))
        return _LOST
    except CompressorError as error:
        failed.write_text(str(error))
        return _FAILED
    except Exception:  # the outermost frame of this process: the parent shows the last lines, torchrun ends the others
        failed.write_text("\n".join(traceback.format_exc().splitlines()[-_LAST_LINES:]))
        logging.getLogger(__name__).exception("a training process failed rank=%s", os.environ["RANK"])
        return _FAILED
    return 0


def _work(folder: Path, channel: Channel) -> None:
    if channel.world.rank > 0:
        with tempfile.TemporaryDirectory() as name:
            received = job.receive(channel, Path(name))
            if isinstance(received, job.SharedTraining):
                received.train(channel.world)
        return
    work = job.read(folder)
    job.send(channel, work)

    def on_epoch(epoch: Epoch) -> None:
        gone = os.getppid() == 1
        try:
            os.kill(work.parent, 0)  # only asks whether there is such a process
        except ProcessLookupError:
            gone = True
        except PermissionError:
            pass
        if gone:
            message = f"Expected the process {work.parent} that wants this training, got none: run it again"
            raise TrainError(message)
        job.append_epoch(folder, epoch)

    checkpoint.save(work.train(channel.world, on_epoch), folder / job.TRAINED)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
