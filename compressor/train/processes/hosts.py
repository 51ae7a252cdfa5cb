"""Training on several hosts: the user's own torchrun starts the same command on each of them.

Rank 0 runs the command; the other processes wait for its trainings and take part in each. The process group transfers
the data, so that the other hosts need only the code.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path

from compressor.errors import LostProcessError
from compressor.train.processes import job
from compressor.train.processes.world import Channel, joined

_CHANNEL: ContextVar[Channel | None] = ContextVar("channel", default=None)


def leading() -> Channel | None:
    """Return the channel to the other processes of torchrun, None if torchrun did not start this process."""
    return _CHANNEL.get()


def shared(command: Callable[[], int]) -> int:
    """Run ``command`` on rank 0 of the processes that torchrun started; the others take part in its trainings.

    Returns:
        The exit code of ``command``, in all of them: a host that exited with 0 would wait for one that did not.

    Raises:
        LostProcessError: If a process ends before the work is done.
        CompressorError: As raised by the trainings, if rank 0 did not report it.
    """
    with joined() as channel:
        if channel.world.rank > 0:
            return _follow(channel)
        token = _CHANNEL.set(channel)
        try:
            code = command()
        finally:
            _CHANNEL.reset(token)
        with suppress(LostProcessError):  # they are gone, and the reason has been reported
            job.send(channel, code)
        return code


def _follow(channel: Channel) -> int:
    with tempfile.TemporaryDirectory(prefix="tinyfleet-train-") as folder:
        while isinstance(work := job.receive(channel, Path(folder)), job.Job):
            work.train(channel.world)
        return work
