"""Which inputs of a release the server can do something with, and how a person labels them. Pure.

Decides, from the manifest alone, whether inputs of a release can be asked for, labelled here, trained on by a worker
and audited; every other place of the server asks ``LabelForm``. Labels here are a class or numbers. A task that the
manifest names has other answers (boxes, sets of labels, events, scores), and what a front end reads is no picture:
their devices send no samples. Each refusal says what to do instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from server.wording import listed
from wire.manifest import Manifest

NOTHING = "none of these"
"""A label for an image that shows no class of its model: the answer was wrong, and nothing can be trained with it."""
_NAMED = 20  # at most this many classes are listed in a refusal
_INSTEAD = "label its inputs elsewhere, such as in Label Studio, add them to the data of its recipe, and run the recipe"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelForm:
    """The labels that fit one model: one of ``classes``, or a number for each of ``values``, separated by spaces.

    A number is in the unit of the training data. ``usual``: mean and standard deviation of each value in training, ()
    if the manifest has none. Without classes and values, as for an unknown model, every text fits.

    ``refusal``: why no label fits, with what to do instead. ``not_asked``: why its devices are not asked for inputs, no
    worker trains on them and its errors are not audited. Both are "" if they are; they follow "a release with".
    ``pictures``: whether its inputs are any.
    """

    classes: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    usual: tuple[tuple[float, float], ...] = ()
    refusal: str = ""
    not_asked: str = ""
    pictures: bool = True

    @property
    def not_asked_reason(self) -> str:
        """``not_asked`` without what to do instead, for those that say that in their own words."""
        return self.not_asked.removesuffix(f"; {_INSTEAD}")

    @classmethod
    def of(cls, manifest: Manifest) -> LabelForm:
        """Return the form for samples of the model in ``manifest``."""
        if refusal := _refusal(manifest):
            return cls(refusal=refusal, not_asked=refusal, pictures=not manifest.preprocessing.front_end)
        if manifest.labels:
            return cls(classes=manifest.labels)
        not_asked = f"answers without classes: devices report no number to compare a label with; {_INSTEAD}"
        if not manifest.values:
            return cls(not_asked=not_asked)
        output = manifest.outputs[0]
        usual = tuple(zip(output.mean, output.spread, strict=False))
        return cls(values=manifest.values, usual=usual, not_asked=not_asked)

    def problem(self, label: str) -> str:
        """Return why ``label`` does not fit, "" if it does; ``NOTHING`` fits every model with classes."""
        if self.refusal:
            return f"Expected a sample that is labelled on this server, got one with {self.refusal}"
        if self.classes and label not in self.classes and label != NOTHING:
            names = listed(self.classes, _NAMED)
            return f"Expected a class of the model as label ({names}) or {NOTHING!r}, got {label[:40]!r}"
        if self.values and not _are_numbers(label.split(), len(self.values)):
            wanted = "a number" if len(self.values) == 1 else f"{len(self.values)} numbers, separated by spaces,"
            return f"Expected {wanted} as label ({', '.join(self.values)}), for example 3.7, got {label[:40]!r}"
        return ""

    def can_train(self, label: str) -> bool:
        """Return whether the model can be trained with ``label``, which fits it."""
        return not self.refusal and (not self.classes or label in self.classes)


def _refusal(manifest: Manifest) -> str:
    """Return why inputs of the model in ``manifest`` are neither sent nor labelled, "" if they are."""
    if manifest.preprocessing.front_end:
        reads = f"inputs that the front end {manifest.preprocessing.front_end!r} reads"
        return f"{reads}: devices send only pictures as samples; {_INSTEAD}"
    if manifest.task:
        return f"answers of the task {manifest.task!r}: a label here is one class, or numbers; {_INSTEAD}"
    return ""


def _are_numbers(texts: list[str], count: int) -> bool:
    try:
        return len(texts) == count and all(math.isfinite(float(text)) for text in texts)
    except ValueError:
        return False
