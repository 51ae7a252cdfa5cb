"""The processes that share one training: their number, the rank of this one, and the few values they exchange.

Gradients are averaged by torch's ``DistributedDataParallel`` (``loop.py``), batch norm statistics by
``batch_norm.py``. A world of size one exchanges nothing; every training in a single process has one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from compressor.errors import LostProcessError
from compressor.train.scoring import Score

_CPU = torch.device("cpu")
_ANSWER_S = 300.0  # time limit for an answer: longer than the end of any epoch, short enough to notice a hang
_IDLE = timedelta(days=7)  # rank 0 may quantize and measure for hours between two trainings
_PIECE = 2**26  # elements per message, so that ``_ANSWER_S`` limits a piece and not a data set


@dataclass(frozen=True, slots=True)
class World:
    """Process ``rank`` (from 0) of ``size``. Rank 0 leads: it writes the files and reports progress.

    ``device``: where this process computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = _CPU

    def part(self, rows: int) -> slice:
        """Return the slice of a batch's ``rows`` for this process; slices differ by at most one row."""
        return slice(rows * self.rank // self.size, rows * (self.rank + 1) // self.size)

    def begin_epoch(self, seed: int, number: int) -> None:
        """Seed the network's own draws (dropout): they differ by rank and are the same for a resumed epoch."""
        if self.size > 1:
            torch.manual_seed(int(np.random.SeedSequence([seed, number, self.rank]).generate_state(1)[0]))

    def mean(self, values: NDArray[np.float64]) -> tuple[float, ...]:
        """Return the means of ``values``, float64 (n, k), over rows and processes."""
        means = torch.from_numpy(np.mean(values, axis=0)).to(self.device)
        if self.size > 1:
            with answered(self):
                dist.all_reduce(means)
            means /= self.size
        return tuple(means.tolist())

    def agreed(self, score: Score) -> Score:
        """Return the score of rank 0: processes that stopped at different epochs would wait for each other."""
        if self.size == 1:
            return score
        values = torch.tensor([score.accuracy, score.negative_loss], dtype=torch.float64, device=self.device)
        with answered(self):
            dist.broadcast(values, 0)
        return Score(*values.tolist())


@dataclass(frozen=True, slots=True)
class Channel:
    """Sends data from rank 0 to the others, also between trainings; over gloo, whatever the device.

    The others wait for the next message on the group ``idle``; its content arrives on the group ``busy``.
    """

    world: World
    idle: dist.ProcessGroup | None = None
    busy: dist.ProcessGroup | None = None

    def message(self, data: bytes = b"") -> bytes:
        """Return the ``data`` of rank 0; the others may wait long for its length, but not for the rest.

        Raises:
            LostProcessError: If rank 0 is gone.
        """
        if self.world.size == 1:
            return data
        length = torch.tensor([len(data)], dtype=torch.int64)
        with answered(self.world):
            dist.broadcast(length, 0, group=self.idle)
        received = np.frombuffer(data, np.uint8).copy() if self.world.rank == 0 else np.empty(int(length), np.uint8)
        return self.array(received).tobytes()

    def array(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return rank 0's ``values``; in the other processes the array is overwritten.

        Raises:
            LostProcessError: If rank 0 is gone.
        """
        if self.world.size > 1:
            with answered(self.world):
                for piece in torch.split(torch.from_numpy(values).view(-1), _PIECE):
                    dist.broadcast(piece, 0, group=self.busy)
        return values


@contextmanager
def answered(world: World) -> Iterator[None]:
    """Run a block in which the processes of ``world`` wait for each other.

    Raises:
        LostProcessError: If one of them ended or did not answer in time.
    """
    try:
        yield
    except RuntimeError as error:  # gloo has no class of its own; DistError is a RuntimeError
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        message = (
            f"Expected an answer of all {world.size} training processes within {_ANSWER_S:g} s, rank {world.rank} "
            f"got: {str(error).splitlines()[0][:200]}: another process ended or hangs, its own output says why; "
            "the same command goes on after the last whole epoch"
        )
        raise LostProcessError(message) from error


@contextmanager
def joined() -> Iterator[Channel]:
    """Join the processes that torchrun started, for as long as the block lasts.

    Raises:
        LostProcessError: If some do not join.
    """
    rank, size, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    own_gpu = torch.cuda.is_available() and int(os.environ["LOCAL_WORLD_SIZE"]) <= torch.cuda.device_count()
    if own_gpu:
        torch.cuda.set_device(local)
    world = World(rank, size, torch.device("cuda", local) if own_gpu else _CPU)
    answer = timedelta(seconds=_ANSWER_S)
    with answered(world):
        dist.init_process_group("nccl" if own_gpu else "gloo", timeout=answer)
        idle, busy = (dist.new_group(backend="gloo", timeout=timeout) for timeout in (_IDLE, answer))
    waits = False
    try:
        yield Channel(world, idle, busy)
    except (LostProcessError, KeyboardInterrupt):
        waits = True  # a message may be pending, and destroying the group would wait for processes that are gone
        raise
    finally:
        if not waits:  # otherwise gloo's threads end this process by a signal when it exits, whatever its exit code
            dist.destroy_process_group()
