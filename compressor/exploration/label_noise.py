"""Labels that are likelier wrong than right, by a simple model that was trained on other rows.

A label is taken to be the class with probability 1 - e, and any other class alike with e: how much noise there is (e),
and how far the model's scores may be believed (a temperature), are what makes the labels likeliest. Bayes' rule then
says of each label how likely it is wrong; a suspect is a row where that is at least ``MIN_DOUBT``.
Source of the noise: Angluin and Laird, Learning from Noisy Examples, 1988; of the temperature: Guo et al., ICML 2017,
section 4.2. Confident learning (Northcutt, Jiang and Chuang, JAIR 2021), with its thresholds per class, found less with
the same scores and called more right labels wrong: ``scripts/bench/explore.py`` holds the two side by side.
The folds keep the views of a source together. A suspect is a row to look at, not a verdict.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from compressor import tasks
from compressor.data._table import Table
from compressor.exploration.simple_model import Integers, Scores, out_of_sample
from compressor.exploration.thumbnails import Thumbs
from compressor.progress import Stage

FOLDS = 4
MAX_ROWS = 20_000
MIN_ACCURACY = 0.6
"""Below this the simple model understands the data too little to judge a label; a coin is right on half of two
classes. Measured with noise added to pictures until it failed, 5 % of the labels flipped: where it was right on 63 % of
digits and 66 % of Fashion-MNIST, 70 and 83 % of the suspects were flipped; on meter digits at 53 % 49, at 31 % 23 %."""
MIN_DOUBT = 0.5
"""The least probability that a suspect's label is wrong: likelier than not. Measured (``scripts/bench/explore.py``) at
2, 5 and 10 % of labels flipped: on digits 97 % of the suspects were flipped, and 89 to 96 % of those were found; on
meter digits, which have wrong labels of their own, 55 to 69 % and 46 to 70 %. Nothing planted: 0 and 7 suspects."""
_START, _NOISES, _TEMPERATURES = (4.0, 0.02), (1e-4, 0.45), (0.1, 100.0)
Chances = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """Suspects, the clearest first: their rows, int64 (S,); the classes they look like, int64 (S,); doubts, (S,), 0..1.

    A doubt is the probability that the label is wrong. ``accuracy``: of the simple model out of sample, against the
    labels as they are; ``wrong_ratio``: the share of all labels that it takes to be wrong, 0..1. ``skipped``: why
    nothing was judged, or nothing.
    """

    rows: npt.NDArray[np.int64]
    looks_like: npt.NDArray[np.int64]
    doubts: npt.NDArray[np.float64]
    accuracy: float = 0.0
    wrong_ratio: float = 0.0
    skipped: str = ""


def suspects(table: Table, thumbs: Thumbs, stage: Stage) -> Noise:
    """Return the suspects of ``table``; ``stage`` advances once per fold.

    Deterministic. Of more than ``MAX_ROWS`` rows an even choice is judged; numbers to predict are not.
    """
    classes = tasks.of_labels(table.labels, table.task).targets.classes(table.labels)
    if classes is None:
        return unjudged("they are numbers, not classes")
    judged = np.arange(0, len(table), -(-len(table) // MAX_ROWS))
    labels, folds = classes[judged], folds_of(table.sources[judged])
    short = [name for i, name in enumerate(table.class_names) if len(set(folds[labels == i].tolist())) < FOLDS]
    if len(table.class_names) < 2 or short:  # noqa: PLR2004 - nothing to confuse
        reason = f"too few sources of {', '.join(short[:5])}" if short else "only one class"
        return unjudged(f"{reason} for {FOLDS} folds")
    found = doubted(out_of_sample(thumbs[judged], labels, folds, stage.advance), labels)
    if found.accuracy < MIN_ACCURACY:
        return unjudged(f"the simple model is right on {found.accuracy:.1%} of other rows only", found.accuracy)
    return replace(found, rows=judged[found.rows])


def unjudged(reason: str, accuracy: float = 0.0) -> Noise:
    """Return no suspects, because of ``reason``; ``accuracy`` of the simple model, where it was tried."""
    empty = np.empty(0, np.int64)
    return Noise(empty, empty, np.empty(0), accuracy=accuracy, skipped=f"labels not judged: {reason}")


def doubted(scores: Scores, labels: Integers) -> Noise:
    """Return the suspects among rows of int64 ``labels`` by out-of-sample ``scores``, float64 (N, classes)."""
    temperature, noise = _fitted(scores, labels)
    right, wrong = _ways(_softmax(scores / temperature)[np.arange(len(labels)), labels], noise, scores.shape[1])
    doubts, likely = wrong / (right + wrong), scores.argmax(axis=1)
    rows = np.flatnonzero((doubts >= MIN_DOUBT) & (likely != labels))
    rows = rows[np.argsort(-doubts[rows], kind="stable")]
    accuracy = float((likely == labels).mean())
    return Noise(rows, likely[rows], doubts[rows], accuracy=accuracy, wrong_ratio=float(doubts.mean()))


def folds_of(sources: npt.NDArray[np.str_]) -> Integers:
    """Return the fold of each row, int64 (N,), below ``FOLDS``; rows of one source share it."""
    _, number = np.unique(sources, return_inverse=True)
    folds: Integers = np.random.default_rng(0).permutation(int(number.max()) + 1)[number] % FOLDS
    return folds


def _ways(chances: Chances, noise: float, classes: int) -> tuple[Chances, Chances]:
    """Return how likely each label is there because it is right and because of noise; ``chances`` (N,) of its class."""
    return (1 - noise) * chances, noise * (1 - chances) / (classes - 1)


def _fitted(scores: Scores, labels: Integers) -> tuple[float, float]:
    """Return the temperature and the share of noise that make ``labels`` likeliest."""
    from scipy.optimize import minimize  # noqa: PLC0415 - half a second of importing, only to judge labels

    own, classes = np.arange(len(labels)), scores.shape[1]

    def loss(logs: npt.NDArray[np.float64]) -> float:
        temperature, noise = np.exp(logs)
        right, wrong = _ways(_softmax(scores / temperature)[own, labels], noise, classes)
        return float(-np.log(right + wrong).mean())

    bounds = [tuple(np.log(edges)) for edges in (_TEMPERATURES, _NOISES)]
    found = minimize(loss, np.log(_START), method="Nelder-Mead", bounds=bounds, options={"xatol": 1e-2, "fatol": 1e-6})
    temperature, noise = np.exp(found.x).tolist()
    return temperature, noise


def _softmax(scores: Scores) -> Chances:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances: Chances = powers / powers.sum(axis=1, keepdims=True)
    return chances
