"""One person's hour of labelling: what was given, what was skipped, which key is which class. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from server.retraining.labelling import NOTHING, LabelForm
from server.retraining.labels.queue import MOST, Turn
from server.retraining.samples import MARKS, StoredSample

_TWO_KEYS = 100
_LONG_S = 120.0  # a person who takes longer was not labelling
_MIN_TIMED = 3
_MINUTE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenAnswer:
    """What the person said of one image: a ``label``, or a ``mark``, or neither, for an image that was skipped.

    ``seen``: with the model's answer in view.
    """

    sample: StoredSample
    label: str = ""
    mark: str = ""
    seen: bool = False

    @property
    def skipped(self) -> bool:
        """Whether the person skipped it."""
        return not (self.label or self.mark)

    @property
    def text(self) -> str:
        """What the person said, in words."""
        return self.label or MARKS.get(self.mark, "skipped")


@dataclass(slots=True, kw_only=True)
class LabelSession:
    """What one person has done on one page. ``back``: how many images the person has gone back, 0 for none.

    ``turn``: the image of now. ``seen``: whether the model's answer to the shown image was in view. ``pressed``: the
    first digit of two.
    """

    turn: Turn = field(default_factory=lambda: Turn(sample=None, left=0))
    given: list[GivenAnswer] = field(default_factory=list)
    skipped: set[int] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)
    back: int = 0
    seen: bool = False
    pressed: str = ""
    shown_s: float = 0.0

    @property
    def earlier(self) -> GivenAnswer | None:
        """What the person said of the image that is shown, if that is an earlier one."""
        return self.given[-self.back] if self.back else None

    @property
    def shown(self) -> StoredSample | None:
        """The image that is shown."""
        return self.earlier.sample if self.earlier else self.turn.sample

    def show(self, turn: Turn, now_s: float) -> None:
        """Show the next image; ``now_s`` in seconds, of any clock."""
        self.turn, self.back, self.seen, self.pressed, self.shown_s = turn, 0, False, "", now_s

    def add(self, given: GivenAnswer, now_s: float) -> None:
        """Add what the person said of the image of now, and how long that took."""
        self.given.append(given)
        if given.skipped:
            self.skipped.add(given.sample.id)
        if now_s - self.shown_s < _LONG_S:
            self.seconds.append(now_s - self.shown_s)

    def step(self, by: int) -> None:
        """Go back one image (1) or forward (-1), within what was given."""
        self.back = min(max(self.back + by, 0), len(self.given))
        self.seen, self.pressed = False, ""

    def forget(self) -> GivenAnswer | None:
        """Take the last one off; return it, None if there is none."""
        if not self.given:
            return None
        last = self.given.pop()
        self.skipped.discard(last.sample.id)
        self.back = 0
        return last

    @property
    def progress(self) -> str:
        """How far the person is, in words."""
        done = sum(not one.skipped for one in self.given)
        more = "at least " if self.turn.left >= MOST else ""
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"{done} of {more}{done + self.turn.left + len(self.skipped)}{skipped}"

    @property
    def pace(self) -> str:
        """How long an image takes this person, and all that are left; "" before the third."""
        if len(self.seconds) < _MIN_TIMED or not self.turn.left:
            return ""
        each = median(self.seconds)
        minutes = math.ceil(each * self.turn.left / _MINUTE_S)
        return f"{each:.1f} s each, about {minutes} minute{'s' if minutes > 1 else ''} left"


def class_keys(form: LabelForm) -> dict[str, str]:
    """Return the classes by their keys: a digit for each of up to ten, two digits for up to a hundred, otherwise none.

    The first class has the key 0, so that of ten digits each has its own.
    """
    classes = [name for name in form.classes if name != NOTHING]
    if len(classes) > _TWO_KEYS:
        return {}
    width = 1 if len(classes) <= 10 else 2  # noqa: PLR2004 - as many as there are digits
    return {f"{number:0{width}}": name for number, name in enumerate(classes)}


def typed(pressed: str, key: str, keys: Sequence[str]) -> tuple[str, str]:
    """Return the complete key of a class, "" if there is none yet, and the digits that wait for more.

    ``pressed``: the digits before ``key``. Digits that begin no key are dropped.
    """
    text = pressed + key
    if text in keys:
        return text, ""
    return "", text if any(one.startswith(text) for one in keys) else ""
