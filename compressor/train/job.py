"""The folder in which a training goes to other processes and comes back: arrays, settings as JSON, weights.

Nothing in it runs code: arrays are read without pickle, weights as tensors only. ``started.pt`` may be missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from compressor.errors import TrainError
from compressor.recipe import TrainRecipe
from compressor.steps.base import Rows
from compressor.train.supervised import Epoch

NetworkSpec: TypeAlias = tuple[str, int, int, int, int, Mapping[str, int | float]]
JOB, EPOCHS, STARTED, TRAINED, STDERR = "job.json", "epochs.jsonl", "started.pt", "trained.pt", "stderr.txt"


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A training for a crew of ``settings.processes``.

    ``spec``: name, classes, channels, height, width and options of the network. ``parent``: the process that wants
    the result; without it nobody does.
    """

    spec: NetworkSpec
    rows: Rows
    settings: TrainRecipe
    held: Rows | None
    resume: Path | None
    parent: int

    def write(self, folder: Path) -> None:
        """Write the job into ``folder``, which exists and is empty.

        Raises:
            TrainError: If it can't be written.
        """
        document = {
            "spec": [*self.spec[:5], dict(self.spec[5])], "settings": asdict(self.settings), "parent": self.parent,
            "held": self.held is not None, "resume": str(self.resume.absolute()) if self.resume else "",
        }  # fmt: skip
        try:
            (folder / JOB).write_text(json.dumps(document))
            _write_rows(folder, "train", self.rows)
            if self.held is not None:
                _write_rows(folder, "held", self.held)
        except OSError as error:
            message = f"Expected to write the training's data to {folder}, got: {error}: free space, or set TMPDIR"
            raise TrainError(message) from error


def read(folder: Path) -> Job:
    """Return the job in ``folder``."""
    document = json.loads((folder / JOB).read_text())
    return Job(
        spec=tuple(document["spec"]),
        rows=_rows(folder, "train"),
        settings=TrainRecipe(**document["settings"]),
        held=_rows(folder, "held") if document["held"] else None,
        resume=Path(document["resume"]) if document["resume"] else None,
        parent=document["parent"],
    )


def _write_rows(folder: Path, name: str, rows: Rows) -> None:
    np.save(folder / f"{name}_inputs.npy", rows.inputs, allow_pickle=False)
    np.save(folder / f"{name}_labels.npy", rows.labels, allow_pickle=False)


def _rows(folder: Path, name: str) -> Rows:
    read_array = [np.load(folder / f"{name}_{part}.npy", allow_pickle=False) for part in ("inputs", "labels")]
    return Rows(*read_array)


def tell(folder: Path, epoch: Epoch) -> None:
    """Add ``epoch`` to what the parent hears."""
    with (folder / EPOCHS).open("a") as file:
        file.write(json.dumps(astuple(epoch)) + "\n")


def told(folder: Path) -> list[Epoch]:
    """Return the epochs told so far; a line that is not whole yet is left for later."""
    path = folder / EPOCHS
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [Epoch(*json.loads(line)) for line in lines if line.endswith("\n")]
