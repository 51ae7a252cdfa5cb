"""A training as data, sent to other processes through a folder or through the process group.

On several hosts the user's own torchrun starts the same command on each of them: rank 0 runs the command, the other
processes wait for its trainings and take part in each (``shared``). The process group transfers the data, so that the
other hosts need only the code. Nothing in it is executed: arrays are read without pickle, settings are JSON, weights
are tensors only.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import nn

from compressor import networks
from compressor.data._inputs import FileInputs
from compressor.data._inputs import write as write_inputs
from compressor.errors import LostProcessError, StorageError, TrainError
from compressor.portions import Inputs, portions, rows_within
from compressor.recipe.model import TrainRecipe
from compressor.steps._base import Rows
from compressor.train import checkpoint
from compressor.train.processes.batch_norm import synchronized
from compressor.train.processes.world import Channel, World, joined
from compressor.train.supervised import Epoch, Options, fit_with

NetworkSpec: TypeAlias = tuple[str, int, int, int, int, Mapping[str, int | float]]
TRAINED = "trained.pt"
_CHANNEL: ContextVar[Channel | None] = ContextVar("channel", default=None)
_JOB, _EPOCHS, _STARTED = "job.json", "epochs.jsonl", "started.pt"
_STREAMED = ".f32"
"""Of inputs that don't fit into memory: raw float32 rows in a file, sent in parts."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SharedTraining:
    """A training for ``settings.processes`` processes.

    ``spec``: name, classes, channels, height, width and options of the network. ``start``: a checkpoint to start from,
    empty for random weights. ``resume``: the file of the training's state. ``parent``: the process that waits for the
    result; the training ends when it is gone.
    """

    spec: NetworkSpec
    rows: Rows
    settings: TrainRecipe
    held: Rows | None = None
    start: bytes = b""
    resume: Path | None = None
    parent: int = 0

    def network(self) -> nn.Module:
        """Return the network with its initial weights.

        Raises:
            PluginError: If the network is unknown.
            CheckpointError: If the start weights don't fit.
        """
        network = networks.build(*self.spec)
        if not self.start:
            return network
        with tempfile.TemporaryDirectory(prefix="tinyfleet-") as folder:
            path = Path(folder) / _STARTED
            path.write_bytes(self.start)
            return checkpoint.load(network, path)

    def train(self, world: World, on_epoch: Callable[[Epoch], None] | None = None) -> nn.Module:
        """Return the network, trained together with the other processes of ``world``, in evaluation mode.

        Raises:
            TrainError: As raised by ``supervised.fit``, or if another process is lost.
            PluginError: If the network is unknown.
            CheckpointError: If the start weights don't fit.
        """
        options = Options(on_epoch=on_epoch, held=self.held, resume=self.resume, world=world)
        return fit_with(synchronized(self.network(), world), self.rows, self.settings, options).cpu()

    def _document(self) -> dict[str, Any]:
        return {"spec": [*self.spec[:5], dict(self.spec[5])], "settings": asdict(self.settings), "task": self.rows.task}

    def _arrays(self) -> dict[str, np.ndarray[Any, Any] | Inputs]:
        held = {} if self.held is None else {"held_inputs": self.held.inputs, "held_labels": self.held.labels}
        return {"inputs": self.rows.inputs, "labels": self.rows.labels, **held}


def write(work: SharedTraining, folder: Path) -> None:
    """Write ``work`` into ``folder``, which exists and is empty.

    Raises:
        TrainError: If it can't be written.
    """
    arrays = work._arrays()  # noqa: SLF001 - this module's
    streamed = {name: values.shape for name, values in arrays.items() if not isinstance(values, np.ndarray)}
    document = {
        **work._document(), "parent": work.parent, "arrays": list(arrays), "streamed": streamed,  # noqa: SLF001 - this module's
        "resume": str(work.resume.absolute()) if work.resume else "",
    }  # fmt: skip
    try:
        (folder / _JOB).write_text(json.dumps(document))
        (folder / _STARTED).write_bytes(work.start)
        for name, values in arrays.items():
            if isinstance(values, np.ndarray):
                np.save(folder / f"{name}.npy", values, allow_pickle=False)
            else:
                write_inputs(values, folder / f"{name}{_STREAMED}")
    except OSError as error:
        message = f"Expected to write the training's data to {folder}, got: {error}: free space, or set TMPDIR"
        raise TrainError(message) from error


def read(folder: Path) -> SharedTraining:
    """Return the job in ``folder``."""
    document = json.loads((folder / _JOB).read_text())
    streamed = document["streamed"]
    arrays = {
        name: FileInputs.opened(folder / f"{name}{_STREAMED}", tuple(streamed[name]))
        if name in streamed
        else np.load(folder / f"{name}.npy", allow_pickle=False)
        for name in document["arrays"]
    }
    resume = Path(document["resume"]) if document["resume"] else None
    return _job(document, arrays, (folder / _STARTED).read_bytes(), resume, document["parent"])


def send(channel: Channel, work: SharedTraining | int) -> None:
    """Send ``work`` from rank 0 to the other processes; a number ends them with this exit code.

    Raises:
        LostProcessError: If one of them is gone.
        TrainError: If the state to resume from can't be read.
    """
    if isinstance(work, int):
        channel.message(json.dumps({"exit": work}).encode())
        return
    arrays = work._arrays()  # noqa: SLF001 - this module's
    shapes = {
        name: [values.shape, values.dtype.str if isinstance(values, np.ndarray) else _STREAMED]
        for name, values in arrays.items()
    }
    state = b""
    if work.resume is not None and work.resume.exists():
        try:
            state = work.resume.read_bytes()
        except OSError as error:
            message = f"Expected the state of a training in {work.resume}, got: {error}: delete it to start over"
            raise TrainError(message) from error
    channel.message(json.dumps({**work._document(), "arrays": shapes, "resumes": bool(state)}).encode())  # noqa: SLF001 - as above
    for values in arrays.values():
        whole = isinstance(values, np.ndarray)
        for part in [values] if whole else portions(values, most=len(values)):
            channel.array(np.ascontiguousarray(part))
    channel.message(work.start)
    if state:
        channel.message(state)


def receive(channel: Channel, folder: Path) -> SharedTraining | int:
    """Return the next job from rank 0, or at the end its exit code; the state to resume from is written to ``folder``.

    Raises:
        LostProcessError: If rank 0 is gone.
        TrainError: If there is no room in ``folder`` for inputs that don't fit into memory.
    """
    document = json.loads(channel.message())
    if "exit" in document:
        return int(document["exit"])
    try:
        arrays = {
            name: _received(channel, tuple(shape), kind, folder) for name, (shape, kind) in document["arrays"].items()
        }
    except (OSError, StorageError) as error:
        message = f"Expected to write the training's inputs to {folder}, got: {error}: free space, or set TMPDIR"
        raise TrainError(message) from error
    start, resume = channel.message(), None
    if document["resumes"]:
        resume = folder / "state.pt"
        resume.write_bytes(channel.message())
    return _job(document, arrays, start, resume, 0)


def _received(channel: Channel, shape: tuple[int, ...], kind: str, folder: Path) -> np.ndarray[Any, Any] | Inputs:
    """Return the next array from rank 0, or inputs in a file in ``folder`` if they come in parts."""
    if kind != _STREAMED:
        return channel.array(np.empty(shape, np.dtype(kind)))
    size = rows_within(4 * math.prod(shape[1:]), most=shape[0])
    counts = (min(size, shape[0] - start) for start in range(0, shape[0], size))
    parts = (channel.array(np.empty((count, *shape[1:]), np.float32)) for count in counts)
    return FileInputs.received(parts, shape, folder)  # type: ignore[arg-type]  # of the type that was sent


def _job(
    document: Mapping[str, Any], arrays: Mapping[str, Any], start: bytes, resume: Path | None, parent: int
) -> SharedTraining:
    return SharedTraining(
        spec=tuple(document["spec"]),
        rows=Rows(arrays["inputs"], arrays["labels"], document["task"]),
        settings=TrainRecipe(**document["settings"]),
        held=(
            Rows(arrays["held_inputs"], arrays["held_labels"], document["task"]) if "held_inputs" in arrays else None
        ),
        start=start,
        resume=resume,
        parent=parent,
    )


def append_epoch(folder: Path, epoch: Epoch) -> None:
    """Append ``epoch`` to the progress file that the parent process reads."""
    with (folder / _EPOCHS).open("a") as file:
        file.write(json.dumps(astuple(epoch)) + "\n")


def epochs(folder: Path) -> list[Epoch]:
    """Return the epochs so far; an incomplete line is left for later."""
    path = folder / _EPOCHS
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [Epoch(*json.loads(line)) for line in lines if line.endswith("\n")]


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
            with tempfile.TemporaryDirectory(prefix="tinyfleet-train-") as folder:
                while isinstance(work := receive(channel, Path(folder)), SharedTraining):
                    work.train(channel.world)
                return work
        token = _CHANNEL.set(channel)
        try:
            code = command()
        finally:
            _CHANNEL.reset(token)
        with suppress(LostProcessError):  # they are gone, and the reason has been reported
            send(channel, code)
        return code
