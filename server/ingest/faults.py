"""Rate-limited events for rejected messages: at most one a minute per device and kind of fault.

A device that sends garbage a thousand times a second must not fill the event log. The head of a rejected message is
kept with its event, for a person who looks for the cause, once an hour per device and kind.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

from server.errors import ServerError, TextRefusedError
from server.registry.events import event_row
from wire.codec import Json
from wire.messages import Severity

_QUIET_MS = 60_000
_KEPT_EVERY_MS = 3_600_000
_HEAD_BYTES = 512  # of a message: its fields have names there, and a page of 200 such events stays below 300 kB
_LIMIT = 10_000
_WORDS_LIMIT, _SENDER_LIMIT = 500, 200  # characters


@dataclass(frozen=True, slots=True)
class RejectedMessage:
    """A message as it came."""

    topic: str
    payload: bytes

    @property
    def document(self) -> dict[str, Json]:
        """What is kept of it: topic, length, and its first bytes in base64."""
        head = base64.b64encode(self.payload[:_HEAD_BYTES]).decode()
        return {"topic": shortened(self.topic, _SENDER_LIMIT), "bytes": len(self.payload), "payload": head}


@dataclass(slots=True, kw_only=True)
class FaultEvents:
    """Counts faults and selects those that become events."""

    counts: dict[str, int] = field(default_factory=dict)
    _kept_ms: dict[tuple[str, str], int] = field(default_factory=dict)
    _said: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    _rows: list[dict[str, object]] = field(default_factory=list)

    def add(
        self, now_ms: int, code: str, text: str, *, sender: str = "", registered: bool = False,
        message: RejectedMessage | None = None,
    ) -> None:  # fmt: skip
        """Count a fault of ``sender``; it becomes an event unless there was one in the last minute.

        The event has the head of ``message`` unless one of the sender and ``code`` was kept in the last hour.
        """
        self.counts[code] = self.counts.get(code, 0) + 1
        said_ms, silent = self._said.get((sender, code), (-_QUIET_MS, 0))
        if now_ms - said_ms < _QUIET_MS:
            self._said[sender, code] = (said_ms, silent + 1)
            return
        if len(self._said) >= _LIMIT:
            self._said.clear()
            self._kept_ms.clear()
        self._said[sender, code] = (now_ms, 0)
        words = shortened(text, _WORDS_LIMIT) + (f" ({silent} more like it before)" if silent else "")
        device = sender if registered else None
        data: dict[str, Json] = {} if registered or not sender else {"sender": shortened(sender, _SENDER_LIMIT)}
        if message is not None and now_ms - self._kept_ms.get((sender, code), -_KEPT_EVERY_MS) >= _KEPT_EVERY_MS:
            self._kept_ms[sender, code] = now_ms
            data |= message.document
        if len(self._rows) < _LIMIT:  # a store that refuses for days takes none of them
            self._rows.append(event_row(now_ms, "ingest", code, Severity.WARNING, words, device=device, data=data))

    @property
    def rows(self) -> tuple[dict[str, object], ...]:
        """The rows for the event log that are not stored yet."""
        return tuple(self._rows)

    def take(self, count: int | None = None) -> list[dict[str, object]]:
        """Return the rows for the event log, or the first ``count``, and remove them: they are stored."""
        taken = self._rows[:count]
        del self._rows[: len(taken)]
        return taken


def printable(text: str) -> str:
    """Replace what a database or a terminal can't take in ``text`` (lone surrogates, control characters)."""
    clean = text.encode("utf-8", "replace").decode()
    return "".join(character if character.isprintable() or character in "\n\t" else "\ufffd" for character in clean)


def check_printable(text: str, what: str, limit: int, refused: type[ServerError]) -> None:
    """Check that ``text``, which a person wrote, has at most ``limit`` characters, all of them printable.

    Args:
        text: What the person wrote.
        what: What it is, such as "a reason".
        limit: How long it may be, in characters.
        refused: The error to raise.

    Raises:
        ServerError: ``refused``, with the first character that does not print and where it stands.
    """
    if len(text) > limit:
        raise refused(f"Expected {what} of at most {limit} characters, got {len(text)}: shorten it")
    _refuse_unprintable(text, what, refused)


def said_text(text: str, what: str, limit: int) -> str:
    """Return ``text``, which a person wrote as ``what`` ("a reason"), of at most ``limit`` characters.

    Line ends and tabs may be in it. A text that is too long ends with its full length, as ``shortened`` does it.

    Raises:
        TextRefusedError: If it has another character that does not print, such as an escape; or a lone surrogate.
    """
    _refuse_unprintable(text.replace("\n", " ").replace("\r", " ").replace("\t", " "), what, TextRefusedError)
    return shortened(text.replace("\r\n", "\n").replace("\r", "\n"), limit)


def _refuse_unprintable(text: str, what: str, refused: type[ServerError]) -> None:
    place = next((i for i, character in enumerate(text) if not character.isprintable()), None)
    if place is not None:
        said = f"U+{ord(text[place]):04X} as character {place + 1} of {text[:60]!r}"
        raise refused(f"Expected {what} of printable characters, got {said}: leave it out")


def shortened(text: str, limit: int) -> str:
    """Return ``text`` printable and of at most ``limit`` characters; a cut text ends with its full length.

    For texts that people read. A name that is a key is never cut, because two names could become equal.
    """
    clean = printable(text)
    if len(clean) <= limit:
        return clean
    mark = f"... (cut from {len(clean):,} characters)"
    return clean[: limit - len(mark)] + mark
