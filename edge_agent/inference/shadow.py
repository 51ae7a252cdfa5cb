"""A challenger beside the model that serves: it runs on the same inputs, in a thread of its own, and answers nobody.

The champion answers first; then the input is handed on if the challenger is idle and has used less than ``SHARE`` of
the time, otherwise it is counted as skipped. The thread has the lowest priority that is still served, so that on a busy
processor the champion goes first. Counts are of single answers, before any smoothing.

A challenger that fails ends alone: ``ended`` then has a code. One that hangs can't be ended by the process it hangs in;
the control process starts that again, without it.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from edge_agent.errors import AgentError, ImageError, RuntimeSeamError
from edge_agent.inference.served_model import Inference, ServedModel
from edge_agent.tasks import TaskAnswer
from wire.errors import WireError
from wire.shadow import ShadowCounts, difference_bin, kept_pairs, run_step

_LOG = logging.getLogger(__name__)
SHARE = 0.25
"""Of the time, at most, in which the challenger runs while inputs arrive without a pause."""
RUN_LIMIT_S = 10.0
LOAD_LIMIT_S = 120.0
LEFT_BYTES = 32 * 1024 * 1024
"""Private memory that the champion keeps for a large input."""
_FACTOR = 3  # a runtime may hold a model's file, its weights and a packed copy of them
_RUNTIME_BYTES = 8 * 1024 * 1024
_NICE = 10
_BURST_S = 0.5  # an idle device compares at once

Room: TypeAlias = Callable[[], int]
Load: TypeAlias = Callable[[Path], ServedModel]


class AnswerCounts:
    """Counts of how the answers of two models to the same inputs differ."""

    def __init__(self) -> None:
        """Start from zero."""
        self.n = self.disagreed = self.errors = 0
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._differences: dict[str, Counter[str]] = {}
        self._steps: Counter[str] = Counter()

    def add(self, left: TaskAnswer, right: TaskAnswer, run_ms: float) -> None:
        """Count one input that both answered; ``right``, in ``run_ms``, is the model that is tried.

        Of a regression, an answer that is no number, or a value of one alone, is ``nan``.
        """
        self.n += 1
        self._steps[run_step(run_ms)] += 1
        if left.label or right.label:
            if left.label != right.label:
                self.disagreed += 1
                self._pairs[left.label, right.label] += 1
            return
        for name in {**left.values, **right.values}:
            both = name in left.values and name in right.values
            difference = right.values[name] - left.values[name] if both else float("nan")
            self._differences.setdefault(name, Counter())[difference_bin(difference)] += 1

    def taken(self, seconds: float, skipped: int = 0) -> ShadowCounts:
        """Return the counts of ``seconds``, in which ``skipped`` inputs were not compared."""
        pairs, others = kept_pairs(self._pairs)
        return ShadowCounts(
            seconds=seconds, n=self.n, disagreed=self.disagreed, errors=self.errors, skipped=skipped, pairs=pairs,
            other_pairs=others, differences={name: dict(bins) for name, bins in self._differences.items()},
            run_steps=dict(self._steps),
        )  # fmt: skip


class Shadow:
    """One challenger. ``offer``, ``take`` and ``close`` belong to the loop's thread."""

    def __init__(self, bundle: Path, load: Load, room: Room) -> None:
        """Begin to load ``bundle``; ``room`` returns how many bytes this process may still allocate."""
        self.bundle = bundle
        self.loaded = False
        self._load, self._room = load, room
        self._ended: tuple[str, str] | None = None
        self._inputs: queue.SimpleQueue[tuple[bytes, ServedModel, Inference] | None] = queue.SimpleQueue()
        self._alone = threading.Lock()
        self._busy_since_s: float | None = time.monotonic()
        self._begun_s = self._taken_s = time.monotonic()
        self._spent_s = -_BURST_S
        self._skipped = self._given = 0
        self._counts = AnswerCounts()
        threading.Thread(target=self._main, name="shadow", daemon=True).start()

    @property
    def ended(self) -> tuple[str, str] | None:
        """Why it compares no more, a code and a sentence; None while it does."""
        since_s, limit_s = self._busy_since_s, RUN_LIMIT_S if self.loaded else LOAD_LIMIT_S
        if self._ended is None and since_s is not None and time.monotonic() - since_s > limit_s:
            return "challenger_hung", f"Expected the challenger to end a run or its load in {limit_s:g} s, got none"
        return self._ended

    def offer(self, data: bytes, champion: ServedModel, outcome: Inference) -> None:
        """Compare one input that the champion has answered, if there is time for it."""
        if not self.loaded or self._ended is not None:
            return
        now_s = time.monotonic()
        if self._busy_since_s is not None or self._spent_s > SHARE * (now_s - self._begun_s):
            self._skipped += 1
            return
        self._busy_since_s = now_s
        self._given += 1
        self._inputs.put((data, champion, outcome))

    def take(self, *, last: bool = False) -> ShadowCounts:
        """Return the counts since the last call; in the ``last`` ones an input still under comparison is skipped."""
        now_s = time.monotonic()
        with self._alone:
            self._given -= self._counts.n + self._counts.errors
            self._skipped += self._given if last else 0
            counts = self._counts.taken(round(now_s - self._taken_s, 3), self._skipped)
            self._counts = AnswerCounts()
        self._taken_s, self._skipped = now_s, 0
        return counts

    def close(self) -> None:
        """Let the thread end after its present run; the model goes with it."""
        self._inputs.put(None)

    def _main(self) -> None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)  # of this thread alone
        try:
            self._serve()
        except MemoryError as error:
            self._ended = ("challenger_out_of_memory", str(error) or "no memory is left beside the model that serves")
        except (AgentError, WireError) as error:
            self._ended = (error.code, str(error))
        except Exception as error:  # noqa: BLE001 - the thread's outermost frame
            _LOG.error("challenger failed bundle=%s", self.bundle.name, exc_info=error)
            self._ended = ("challenger_crashed", f"{type(error).__name__}: {error}")
        self._busy_since_s = None

    def _serve(self) -> None:
        needed_bytes = _FACTOR * self.bundle.stat().st_size + _RUNTIME_BYTES + LEFT_BYTES
        if needed_bytes > self._room():
            text = f"Expected {needed_bytes} bytes free for a second model and a large input, got {self._room()}"
            self._ended = ("shadow_no_room", text)
            return
        model = self._load(self.bundle)
        self._begun_s = self._taken_s = time.monotonic()
        self.loaded, self._busy_since_s = True, None
        while (given := self._inputs.get()) is not None:
            begun_s = time.monotonic()
            self._compare(model, *given)
            del given  # an idle device keeps no input
            self._spent_s += time.monotonic() - begun_s
            self._busy_since_s = None
        model.runtime.close()

    def _compare(self, challenger: ServedModel, data: bytes, champion: ServedModel, outcome: Inference) -> None:
        try:
            found = challenger.infer(data)
        except (ImageError, RuntimeSeamError):
            with self._alone:
                self._counts.errors += 1
            return
        left, right = champion.answer(outcome), challenger.answer(found)
        with self._alone:
            self._counts.add(left, right, found.run_ms)
