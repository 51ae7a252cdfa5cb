"""Whether a device answers any of its inputs: what came since the last answer and got none. Pure.

A release that has answered no input on this device since it was committed is in doubt from the first input that it
does not read: golden vectors show that it runs, not that it reads what this device gives. One that has answered some
is in doubt after ``DOUBT`` inputs in a row without an answer: a stray file beside a camera's pictures means nothing.
The doubt ends with the next answer, or when nothing unread is left. A source that gives nothing is never in doubt.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from wire.messages import UnreadInputs

DOUBT = 20
QUIET_BEATS = 5
"""Heartbeats without an answer before anything is in doubt: the first input may be under way."""
PASSED_OVER = frozenset({"source_line_invalid", "source_format"})
"""Event codes of sources for input that is no input of the release; each is told once and not counted in heartbeats."""


@dataclass(slots=True, kw_only=True)
class UnreadWatch:
    """``current``: what is reported; None while the device answers its inputs, or gets none."""

    current: UnreadInputs | None = None
    _artifact: str = ""
    _never: bool = False
    _beats: int = 0
    _refused: int = 0
    _dropped: int = 0
    _passed: str = ""
    _known_files: int = 0
    """Files that lay unread at the last answer."""
    _left: UnreadInputs = field(default_factory=UnreadInputs)

    def restore(self, found: UnreadInputs | None) -> None:
        """Go on from what was reported before the agent was started again, for the release that it serves again."""
        if found is not None:
            self.current, self._left = found, found
            self._refused, self._dropped, self._never = found.refused, found.dropped, found.never

    def beat(self, artifact: str, *, n: int, errors: int, dropped: int, left: UnreadInputs, proven: bool) -> bool:
        """Take one heartbeat; return whether ``current`` is news.

        Args:
            artifact: digest of the model that is served.
            n: inputs answered since the heartbeat before.
            errors: inputs refused since then.
            dropped: inputs lost since then.
            left: the files that lie unread now, with their names and the next step; ``never`` if it is known that the
                release has answered nothing, which stays so until an answer, or another model.
            proven: whether the release has answered an input on this device; true in its probation, which judges it.
        """
        before = self.current
        if self._artifact and artifact != self._artifact:
            self._begin(0)
        self._artifact = artifact
        self._never = (self._never or left.never) and n <= 0
        files = left.ignored + left.unreadable
        if n > 0:
            self._begin(files)
            return before is not None
        self._beats += 1
        self._refused += max(0, errors)
        self._dropped += max(0, dropped)
        self._left = left
        self._known_files = min(self._known_files, files)
        new = self._refused + self._dropped + files - self._known_files
        if not new:
            self.current = None
        elif before is not None:
            self.current = self._found() if self._found().total >= 2 * before.total else before
        elif self._beats >= QUIET_BEATS and new >= (DOUBT if proven else 1):
            self.current = self._found()
        return self.current != before

    def passed_over(self, code: str, text: str) -> None:
        """Take an event of the source: input that is no input of the release counts as refused."""
        if code in PASSED_OVER:
            self._refused += 1
            self._passed = text

    def _begin(self, files: int) -> None:
        self.current = None
        self._never = False
        self._beats = self._refused = self._dropped = 0
        self._passed, self._known_files, self._left = "", files, UnreadInputs()

    def _found(self) -> UnreadInputs:
        text = self._left.text or self._passed
        return replace(self._left, refused=self._refused, dropped=self._dropped, text=text[:500], never=self._never)
