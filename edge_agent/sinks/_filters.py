"""Which answers a sink gets: only changes, only confident ones, at most one in a while, a reject class. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, TypeAlias

from wire.answers import AnswerRecord
from wire.errors import SettingsError
from wire.settings import Bound

Share: TypeAlias = Annotated[float, Bound(0, 1)]
_MOST_S = 31_622_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkSettings:
    """Keys of ``[sinks.NAME]`` that every kind takes: which answers it gets, and how many wait for it."""

    changes_only: bool = (
        False  # an answer passes if its class (or error, or support) is not that of the last one passed
    )
    change_by: Annotated[float, Bound(0, 2**53)] = 0.0  # with changes_only, numbers pass if one moved by at least this
    above: Share = 0.0  # answers of less confidence do not pass; numbers have none and pass
    thresholds: Mapping[str, Share] = field(default_factory=dict)  # the same for one class, in the place of ``above``
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
        if self.reject and not self.above and not self.thresholds:
            message = "Expected above or thresholds beside reject, got neither"
            raise SettingsError(f"{message}: set the confidence below which an answer is rejected")


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
        least = self.settings.thresholds.get(record.label, self.settings.above)
        if record.confidence is None or record.confidence >= least:
            return record
        return replace(record, label=self.settings.reject) if self.settings.reject else None

    def _changed(self, last: AnswerRecord, record: AnswerRecord) -> bool:
        kinds = ((item.label, item.error, item.supported, item.values.keys()) for item in (last, record))
        if len({(label, error, supported, tuple(names)) for label, error, supported, names in kinds}) > 1:
            return True
        by = self.settings.change_by
        moved = (abs(value - last.values[name]) for name, value in record.values.items())
        return any(distance >= by if by else distance > 0 for distance in moved)
