"""Which answers a sink gets: only changes, only confident ones, at most one in a while, a reject class. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, TypeAlias

from wire.answers import AnswerRecord
from wire.codec import Json
from wire.errors import SettingsError
from wire.settings import Bound, nearest

Share: TypeAlias = Annotated[float, Bound(0, 1)]
_MOST_S = 31_622_400.0
SCORE = "anomaly"
"""The name of an anomaly's score in a record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkSettings:
    """Keys of ``[sinks.NAME]`` that every kind takes: which answers it gets, and how many wait for it."""

    changes_only: bool = (
        False  # an answer passes if its class, its labels, its boxes by class, its error or support changed
    )
    change_by: Annotated[float, Bound(0, 2**53)] = 0.0  # with changes_only, numbers pass if one moved by at least this
    above: Share = 0.0  # answers of less confidence do not pass; boxes and labels of less are left out of theirs
    thresholds: Mapping[str, Share] = field(default_factory=dict)  # the same for one class, in the place of ``above``
    score_above: Annotated[float, Bound(0, 2**53)] = 0.0  # answers of an anomaly with a lower score do not pass
    events_only: bool = False  # only answers with which an event of a stream begins or ends pass, and errors
    reject: str = ""  # a class: an answer of too little confidence passes under this label, in the place of its own
    every_s: Annotated[float, Bound(0, _MOST_S)] = 0.0  # after one passed, none passes for this long
    errors: bool = True  # inputs that got no answer pass, with the reason
    unsupported: bool = True  # answers to inputs outside of what the model was trained on pass
    queue: Annotated[int, Bound(1, 100_000)] = 1000  # answers that wait for a slow sink; beyond, the oldest is dropped

    def __post_init__(self) -> None:
        """Reject keys that do nothing without another one.

        Raises:
            SettingsError: If ``change_by`` is set without ``changes_only``, or ``reject`` without a threshold.
        """
        if self.change_by and not self.changes_only:
            raise SettingsError(
                "Expected changes_only = true beside change_by, got false: set it, or leave change_by out"
            )
        if self.reject and not self.above and not self.thresholds and not self.score_above:
            message = "Expected above, thresholds or score_above beside reject, got none"
            raise SettingsError(f"{message}: set the confidence below which an answer is rejected")


def misfit(settings: SinkSettings, task: str, useless: Mapping[str, str], labels: Sequence[str] = ()) -> str:
    """Return what is wrong with ``settings`` for the answers of ``task``, as a sentence; empty if nothing.

    ``useless``: the keys that do nothing for such answers, each with what to use. ``labels``: those that an answer may
    have; none: not known.
    """
    for key, advice in useless.items():
        value = getattr(settings, key)
        if value:
            shown = "true" if value is True else repr(dict(value)) if isinstance(value, Mapping) else repr(value)
            return f"Expected no {key} for a release of the task {task}, got {key} = {shown}: {advice}"
    foreign = sorted(settings.thresholds.keys() - set(labels)) if labels else []
    if foreign:
        known = ", ".join(labels)[:200]
        return (
            f"Expected thresholds of {known}, got {foreign[0][:60]!r}{nearest(foreign[0], labels)}: correct the label"
        )
    return ""


@dataclass(slots=True)
class AnswerFilter:
    """The filter of one sink; remembers the last answer that passed. For one thread."""

    settings: SinkSettings
    _last: AnswerRecord | None = None
    _last_s: float = float("-inf")

    def passed(self, record: AnswerRecord, now_s: float) -> AnswerRecord | None:
        """Return ``record``, perhaps under the reject class, or None if it does not pass at ``now_s``, monotonic."""
        wanted = self.settings
        if record.error:
            found = record if wanted.errors else None
        elif (record.supported is False and not wanted.unsupported) or (wanted.events_only and not record.events):
            found = None
        else:
            found = record if record.events else self._confident(record)
        if found is None or now_s - self._last_s < wanted.every_s:
            return None
        if (
            wanted.changes_only
            and not record.events
            and self._last is not None
            and not self._changed(self._last, found)
        ):
            return None
        self._last, self._last_s = found, now_s
        return found

    def _confident(self, record: AnswerRecord) -> AnswerRecord | None:
        if record.boxes is not None:
            return self._with_sure_boxes(record, record.boxes)
        if record.labels is not None:
            return self._with_sure_labels(record, record.labels)
        if record.anomalous is not None:
            number, least = _score(record), self.settings.score_above
        else:
            number, least = record.confidence, self._least(record.label)
        if number is None or number >= least:
            return record
        if not self.settings.reject:
            return None
        return replace(record, label=self.settings.reject, anomalous=None if record.anomalous is None else False)

    def _least(self, label: str) -> float:
        return self.settings.thresholds.get(label, self.settings.above)

    def _with_sure_boxes(self, record: AnswerRecord, boxes: Sequence[Mapping[str, Json]]) -> AnswerRecord:
        kept = tuple(box for box in boxes if _number(box.get("score")) >= self._least(str(box.get("label"))))
        if len(kept) == len(boxes):
            return record
        counts = Counter(str(box.get("label")) for box in kept)
        return replace(record, boxes=kept, values={name: float(counts[name]) for name in record.values})

    def _with_sure_labels(self, record: AnswerRecord, labels: Sequence[str]) -> AnswerRecord:
        scores = record.scores or {}
        kept = tuple(label for label in labels if scores.get(label, 0.0) >= self._least(label))
        return replace(record, labels=kept, scores={label: scores[label] for label in kept if label in scores})

    def _changed(self, last: AnswerRecord, record: AnswerRecord) -> bool:
        if _state(last) != _state(record):
            return True
        by, before = self.settings.change_by, _numbers(last)
        if not by and (record.labels is not None or record.anomalous is not None):
            return False  # their numbers are never the same twice
        moved = (abs(value - before[name]) for name, value in _numbers(record).items())
        return any(distance >= by if by else distance > 0 for distance in moved)


def _state(record: AnswerRecord) -> tuple[object, ...]:
    """Return what is another answer if it differs, whatever the numbers are."""
    labels = None if record.labels is None else frozenset(record.labels)
    return record.label, record.error, record.supported, labels, record.anomalous, tuple(_numbers(record))


def _numbers(record: AnswerRecord) -> Mapping[str, float]:
    """Return the numbers by name: of boxes their count by class, of several labels their probabilities."""
    score = _score(record)
    return record.values if score is None else {SCORE: score}


def _score(record: AnswerRecord) -> float | None:
    return None if record.anomalous is None or record.scores is None else record.scores.get(SCORE)


def _number(value: Json) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
