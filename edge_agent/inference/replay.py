"""Inputs that the release before had served, answered again by the new one after a switch: how many answers differ.

While a release serves, a uniform sample of its inputs is kept with its answers (``kept_inputs``). After a switch the
new release answers them one by one: while the loop has nothing else to do, else one a heartbeat. Nothing is counted as
served, and no answer leaves the device, only counts (``wire.shadow``). With the answers kept, one model is enough.

What came of each input is a line in the folder of the inputs, so that a process that ends in between, by whatever
cause, goes on where it was: no input is counted twice. An input that was begun and not ended is skipped, because it may
be what ended the process.

Decides nothing about the counts.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

from edge_agent.errors import ImageError, RuntimeSeamError
from edge_agent.inference.kept_inputs import KeptInputs, form_of
from edge_agent.inference.served_model import ServedModel
from edge_agent.inference.shadow import AnswerCounts
from wire.codec import from_document, parse_json, to_document
from wire.errors import MessageError
from wire.shadow import ShadowCounts, merge_shadow, shortened

COUNTS_BYTES = 700
"""Of the counts that are sent: they are part of each later report of the device's state."""


class Replay:
    """One replay; ``step`` until ``counts`` are there.

    Where two releases read inputs of another form, such as windows of another length, an input that the new one can't
    read is none that it would get: it counts as skipped, not as an error.
    """

    def __init__(self, kept: KeptInputs, artifact: str = "") -> None:
        """Begin or go on with what was ``kept`` of the release before; ``artifact`` names the one that answers."""
        self.counts: ShadowCounts | None = None
        self._begun_s = time.monotonic()
        self._path = kept.folder / f"answers-{artifact[:32]}" if kept.folder is not None else None
        known = _read(self._path) if self._path is not None else {}
        left_off = ShadowCounts(skipped=1)
        self._found = [left_off if found is None else found for found in known.values()]
        self._items = [item for item in kept.items if item.number not in known]
        kept.items = []  # memory goes with each answer

    def step(self, model: ServedModel) -> ShadowCounts | None:
        """Let ``model`` answer one more input; return the counts if there was none left."""
        if self._items:
            item = self._items.pop()
            self._note(item.number, None)
            counts = AnswerCounts()
            skipped = 0
            try:
                found = model.infer(item.data)
            except (ImageError, RuntimeSeamError):
                alike = item.form == form_of(model.manifest)
                counts.errors, skipped = int(alike), int(not alike)
            else:
                counts.add(item.answer, model.answer(found), found.run_ms)
            self._found.append(counts.taken(0.0, skipped))
            self._note(item.number, self._found[-1])
            return None
        took_s = ShadowCounts(seconds=round(time.monotonic() - self._begun_s, 3))
        self.counts = shortened(merge_shadow([took_s, *self._found]), COUNTS_BYTES)
        return self.counts

    def _note(self, number: int, counts: ShadowCounts | None) -> None:
        """Note that an input is begun, or what came of it."""
        if self._path is None:
            return
        line = {"number": number, "counts": None if counts is None else to_document(counts)}
        try:
            with self._path.open("a") as file:
                file.write("\n" + json.dumps(line))  # what a power cut left torn is a line of its own
        except OSError:  # a full disk: a kill from now on makes it answer some inputs again
            self._path = None


def _read(path: Path) -> dict[int, ShadowCounts | None]:
    """Return what came of each input by its number, None for one that was begun; a torn line is none."""
    found: dict[int, ShadowCounts | None] = {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return found
    for line in lines:
        with contextlib.suppress(MessageError):
            facts = parse_json(line)
            number, counts = facts.get("number"), facts.get("counts")
            if isinstance(number, int):
                found[number] = from_document(ShadowCounts, counts) if isinstance(counts, dict) else found.get(number)
    return found
