"""An external sink: appends ids to a file, with numpy imported at the top as a person's own code would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from edge_agent.sinks import SinkSurroundings
from wire.answers import AnswerRecord
from wire.settings import Bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``[sinks.NAME]`` of this kind."""

    path: Path | None = None
    width: Annotated[int, Bound(1, 100)] = 10  # of an id


class Lines:
    """See the module."""

    def __init__(self, settings: Settings) -> None:
        """Write to the file of ``settings``."""
        self._settings = settings

    def send(self, records: Sequence[AnswerRecord]) -> int:
        """Append the ids."""
        assert self._settings.path is not None
        with self._settings.path.open("a") as file:
            for name in np.array([record.id for record in records]):
                file.write(f"{name:>{self._settings.width}}\n")
        return len(records)

    def close(self) -> None:
        """Nothing is open."""


def open_sink(settings: Settings, around: SinkSurroundings) -> Lines:
    """Return the sink, or fail as a person's own code may."""
    if settings.path is None:
        raise KeyError(around.name)
    return Lines(settings)
