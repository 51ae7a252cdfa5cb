"""Inputs that the release before had served, answered again by the new one after a swap: how many answers differ.

While a release serves, a uniform sample of its inputs is kept in memory with its answers. After a swap the new release
answers them one by one: while the loop has nothing else to do, else one a heartbeat. Nothing is counted as served, and
no answer leaves the device, only counts (``wire.shadow``), once. With the answers kept, one model is enough.

Decides nothing about the counts. What is kept ends with the process: after a power cut, a crash, or a swap that needs a
start, there is nothing to answer, and the counts say so by having no inputs.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from edge_agent.errors import ImageError, RuntimeSeamError
from edge_agent.inference.served_model import Inference, ServedModel
from edge_agent.inference.shadow import AnswerCounts
from edge_agent.tasks import TaskAnswer
from wire.shadow import ShadowCounts

KEPT_INPUTS = 64
KEPT_BYTES = 1024 * 1024
_LARGEST = KEPT_BYTES // 8  # a larger input is not kept: the sample would be of a few


@dataclass(slots=True, kw_only=True)
class KeptInputs:
    """A uniform sample of the inputs of one release, with its answers.

    Source: J. Vitter, Random sampling with a reservoir, 1985, algorithm R; where inputs are large it holds fewer.
    """

    chance: random.Random = field(default_factory=random.Random)
    items: list[tuple[bytes, TaskAnswer]] = field(default_factory=list)
    _offered: int = 0
    _room: int = KEPT_INPUTS
    _bytes: int = 0

    def offer(self, data: bytes, model: ServedModel, outcome: Inference) -> None:
        """Keep ``data`` and the answer of ``model``, perhaps."""
        if len(data) > _LARGEST:
            return
        self._offered += 1
        place = len(self.items) if len(self.items) < self._room else self.chance.randrange(self._offered)
        if place >= self._room:
            return
        kept = (data, model.answer(outcome))
        self._bytes += len(data)
        if place == len(self.items):
            self.items.append(kept)
        else:
            self._bytes -= len(self.items[place][0])
            self.items[place] = kept
        while self._bytes > KEPT_BYTES:
            gone, _ = self.items.pop(self.chance.randrange(len(self.items)))
            self._bytes -= len(gone)
            self._room = len(self.items)


class Replay:
    """One replay; ``step`` until it returns counts.

    ``alike``: both releases read inputs of the same form. If not, such as windows of another length, an input that the
    new one can't read is none that it would get: it counts as skipped, not as an error.
    """

    def __init__(self, kept: KeptInputs, *, alike: bool = True) -> None:
        """Begin, with what was ``kept`` of the release before."""
        self._items, self._counts, self._begun_s = kept.items, AnswerCounts(), time.monotonic()
        self._alike, self._skipped = alike, 0

    def step(self, model: ServedModel) -> ShadowCounts | None:
        """Let ``model`` answer one more input; return the counts if there was none left."""
        if not self._items:
            return self._counts.taken(round(time.monotonic() - self._begun_s, 3), self._skipped)
        data, before = self._items.pop()
        try:
            found = model.infer(data)
        except (ImageError, RuntimeSeamError):
            self._counts.errors += self._alike
            self._skipped += not self._alike
            return None
        self._counts.add(before, model.answer(found), found.run_ms)
        return None
