"""How a person labels a sample: with a class or with numbers, as the manifest of the sample's model states. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from server.wording import listed
from wire.manifest import Manifest

NOTHING = "none of these"
"""A label for an image that shows no class of its model: the answer was wrong, and nothing can be trained with it."""
_NAMED = 20  # at most this many classes are listed in a refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelForm:
    """The labels that fit one model: one of ``classes``, or a number for each of ``values``, separated by spaces.

    A number is in the unit of the training data. ``usual``: mean and standard deviation of each value in training, ()
    if the manifest has none. Without classes and values, as for an unknown model, every text fits.
    """

    classes: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    usual: tuple[tuple[float, float], ...] = ()

    @classmethod
    def of(cls, manifest: Manifest) -> LabelForm:
        """Return the form for samples of the model in ``manifest``."""
        if manifest.labels or not manifest.values:
            return cls(classes=manifest.labels)
        output = manifest.outputs[0]
        return cls(values=manifest.values, usual=tuple(zip(output.mean, output.spread, strict=False)))

    def problem(self, label: str) -> str:
        """Return why ``label`` does not fit, "" if it does; ``NOTHING`` fits every model with classes."""
        if self.classes and label not in self.classes and label != NOTHING:
            names = listed(self.classes, _NAMED)
            return f"Expected a class of the model as label ({names}) or {NOTHING!r}, got {label[:40]!r}"
        if self.values and not _are_numbers(label.split(), len(self.values)):
            wanted = "a number" if len(self.values) == 1 else f"{len(self.values)} numbers, separated by spaces,"
            return f"Expected {wanted} as label ({', '.join(self.values)}), for example 3.7, got {label[:40]!r}"
        return ""

    def can_train(self, label: str) -> bool:
        """Return whether the model can be trained with ``label``, which fits it."""
        return not self.classes or label in self.classes


def _are_numbers(texts: list[str], count: int) -> bool:
    try:
        return len(texts) == count and all(math.isfinite(float(text)) for text in texts)
    except ValueError:
        return False
