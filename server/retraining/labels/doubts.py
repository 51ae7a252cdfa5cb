"""Labels that are more likely wrong than right, by what the model said of the same images. Pure.

The method of ``compressor explore`` (``compressor/exploration/label_noise.py``), with what a sample has: the class that
the model chose and how sure it was, not the scores of all classes. A label equals the true class with probability
1 - e, and each other class is equally likely (Angluin and Laird, Learning from Noisy Examples, 1988). The model is
right with the probability that its confidence has at a temperature (Guo et al., ICML 2017, section 4.2), and its other
classes are equally likely. Noise e and temperature are fitted by maximum likelihood; Bayes' rule gives the probability
that a label is wrong.

Limits: the model that is judged judges. Where it has drifted, it is sure of wrong answers, and right labels are
doubted: that is why a model that agrees with fewer than ``MIN_AGREED`` of the labels doubts none, and why a doubt is an
image to look at, never a changed label. A label that the model got wrong in the same way is not found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MIN_LABELS = 30
"""Fewer labels fit no noise."""
MIN_AGREED = 0.6
"""As ``MIN_ACCURACY`` of the compressor's method: below it the model is too weak to judge a label."""
MIN_DOUBT = 0.5
_NOISES = np.linspace(0.001, 0.4, 60)
_TEMPERATURES = np.geomspace(0.25, 8.0, 25)
Chances = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledAnswer:
    """What the model said of a labelled image, and how sure it was, 0..1."""

    label: str
    predicted: str
    confidence: float


def doubts(rows: Sequence[LabelledAnswer], classes: int) -> tuple[Chances, str]:
    """Return the probability that each label is wrong, (N,), and why none is doubted, "" if they could be.

    ``classes``: how many the model has.
    """
    agree = np.array([row.label == row.predicted for row in rows], dtype=bool)
    none = np.zeros(len(rows))
    if len(rows) < MIN_LABELS or classes < 2:  # noqa: PLR2004 - with one class nothing differs
        return none, f"{len(rows)} labels: {MIN_LABELS} are needed"
    if agree.mean() < MIN_AGREED:
        return (
            none,
            f"the model agrees with {agree.mean():.0%} of the labels: below {MIN_AGREED:.0%} it can't judge them",
        )
    sure = np.clip([row.confidence for row in rows], 1e-4, 1 - 1e-4)
    logits = np.log(sure / (1 - sure))
    best, found = -math.inf, (0.0, 1.0)
    for temperature in _TEMPERATURES:
        right = 1 / (1 + np.exp(-logits / temperature))
        for noise in _NOISES:
            likelihood = float(np.log(_of_label(agree, right, noise, classes)).sum())
            if likelihood > best:
                best, found = likelihood, (float(noise), float(temperature))
    noise, temperature = found
    right = 1 / (1 + np.exp(-logits / temperature))
    true = np.where(agree, right, (1 - right) / (classes - 1)) * (1 - noise)
    return 1 - true / _of_label(agree, right, noise, classes), ""


def _of_label(agree: npt.NDArray[np.bool_], right: Chances, noise: float, classes: int) -> Chances:
    """Return the probability of each label, (N,), if the model is right with the probability ``right``, (N,)."""
    each, other = noise / (classes - 1), (1 - right) / (classes - 1)
    same = right * (1 - noise) + (1 - right) * each
    differs = right * each + other * (1 - noise) + (classes - 2) * other * each
    return np.where(agree, same, differs)
