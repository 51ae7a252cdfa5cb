"""Training on several hosts: the user's own torchrun starts the same command everywhere.

Rank 0 does the work of the command; the other processes wait for its trainings and share each of them. The data goes
to them through the process group, so that a host needs the code alone.
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
    """Return how to reach the other processes of torchrun, None where this process was not started by one."""
    return _CHANNEL.get()


def shared(command: Callable[[], int]) -> int:
    """Run ``command`` on rank 0 of the processes that torchrun started; the others share its trainings.

    Returns:
        The exit code of ``command``, on all of them: a host that ended well would wait for one that did not.

    Raises:
        LostProcessError: If a process ends before the work is done.
        CompressorError: As the trainings say, where rank 0 did not say it.
    """
    with joined() as channel:
        if channel.world.rank > 0:
            return _follow(channel)
        token = _CHANNEL.set(channel)
        try:
            code = command()
        finally:
            _CHANNEL.reset(token)
        with suppress(LostProcessError):  # they are gone: what ended them has been said
            job.send(channel, code)
        return code


def _follow(channel: Channel) -> int:
    with tempfile.TemporaryDirectory(prefix="tinyfleet-train-") as folder:
        while isinstance(work := job.receive(channel, Path(folder)), job.Job):
            work.train(channel.world)
        return work
