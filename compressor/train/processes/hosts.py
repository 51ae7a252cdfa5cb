"""Training on several hosts: the user's own torchrun starts the same command everywhere.

Rank 0 does the work of the command; the other processes wait for its trainings and share each of them. The data goes
to them through the process group, so that a host needs the code alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from compressor.errors import LostProcessError
from compressor.train.processes import job
from compressor.train.processes.world import Channel, joined

_CHANNEL: ContextVar[Channel | None] = ContextVar("channel", default=None)


def leading() -> Channel | None:
    """Return how to reach the other processes of torchrun, None where this process was not started by one."""
    return _CHANNEL.get()


@contextmanager
def shared() -> Iterator[bool]:
    """Join the processes that torchrun started and yield whether this one does the work of the command.

    The others have shared all trainings of rank 0 by then.

    Raises:
        LostProcessError: If a process ends before the work is done.
        CompressorError: As the trainings say.
    """
    with joined() as channel:
        if channel.world.rank > 0:
            _follow(channel)
            yield False
            return
        token = _CHANNEL.set(channel)
        try:
            yield True
        finally:
            _CHANNEL.reset(token)
            with suppress(LostProcessError):  # they are gone: what ended them has been said
                job.send(channel, None)


def _follow(channel: Channel) -> None:
    with tempfile.TemporaryDirectory(prefix="tinyfleet-train-") as folder:
        while (work := job.receive(channel, Path(folder))) is not None:
            work.train(channel.world)
