"""Labels that are more likely wrong than right, by a simple model fitted on other rows.

A label equals the true class with probability 1 - e, and each other class is equally likely. The noise e and a
temperature of the model's scores are fitted by maximum likelihood of the labels. Bayes' rule then gives the probability
that a label is wrong; a suspect is a row with at least ``MIN_DOUBT``.
Source of the noise: Angluin and Laird, Learning from Noisy Examples, 1988; of the temperature: Guo et al., ICML 2017,
section 4.2. Confident learning (Northcutt, Jiang and Chuang, JAIR 2021), with its thresholds per class, found fewer
wrong labels with the same scores and flagged more right ones: ``scripts/bench/explore.py`` compares the two.
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
from compressor.progress import StageProgress

FOLDS = 4
MAX_ROWS = 20_000
MIN_ACCURACY = 0.6
"""Below this accuracy the simple model is too weak to judge a label; chance is one half for two classes. Measured with
noise added to pictures until it failed, 5 % of the labels flipped: at 63 % accuracy on digits and 66 % on
Fashion-MNIST, 70 and 83 % of the suspects were flipped; on meter digits at 53 % accuracy 49 %, at 31 % accuracy 23
%."""
MIN_DOUBT = 0.5
"""Smallest probability that a suspect's label is wrong: likelier than not. Measured (``scripts/bench/explore.py``) at
2, 5 and 10 % of labels flipped: on digits 97 % of the suspects were flipped, and 89 to 96 % of those were found; on
meter digits, which have wrong labels of their own, 55 to 69 % and 46 to 70 %. Without flips: 0 and 7 suspects."""
_START, _NOISES, _TEMPERATURES = (4.0, 0.02), (1e-4, 0.45), (0.1, 100.0)
Chances = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Noise:
    """Suspects, clearest first: their rows, int64 (S,); the classes they resemble, int64 (S,); doubts, (S,), 0..1.

    A doubt is the probability that the label is wrong. ``accuracy``: of the simple model out of sample, against the
    given labels; ``wrong_ratio``: the estimated share of all labels that are wrong, 0..1. ``skipped``: the reason if no
    label was judged, else empty.
    """

    rows: npt.NDArray[np.int64]
    looks_like: npt.NDArray[np.int64]
    doubts: npt.NDArray[np.float64]
    accuracy: float = 0.0
    wrong_ratio: float = 0.0
    skipped: str = ""


def suspects(table: Table, thumbs: Thumbs, stage: StageProgress) -> Noise:
    """Return the suspects of ``table``; ``stage`` advances once per fold.

    Deterministic. Of more than ``MAX_ROWS`` rows every k-th is judged; labels of a regression are not judged.
    """
    classes = tasks.of_rows(table).targets.classes(table.labels)
    if classes is None:
        return unjudged("they are not one class a row")
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
    """Return no suspects, with the ``reason``; ``accuracy`` of the simple model, if it was fitted."""
    empty = np.empty(0, np.int64)
    return Noise(
        rows=empty, looks_like=empty, doubts=np.empty(0), accuracy=accuracy, skipped=f"labels not judged: {reason}"
    )


def doubted(scores: Scores, labels: Integers) -> Noise:
    """Return the suspects among rows of int64 ``labels`` by out-of-sample ``scores``, float64 (N, classes)."""
    temperature, noise = _fitted(scores, labels)
    right, wrong = _ways(_softmax(scores / temperature)[np.arange(len(labels)), labels], noise, scores.shape[1])
    doubts, likely = wrong / (right + wrong), scores.argmax(axis=1)
    rows = np.flatnonzero((doubts >= MIN_DOUBT) & (likely != labels))
    rows = rows[np.argsort(-doubts[rows], kind="stable")]
    accuracy = float((likely == labels).mean())
    return Noise(
        rows=rows, looks_like=likely[rows], doubts=doubts[rows], accuracy=accuracy, wrong_ratio=float(doubts.mean())
    )


def folds_of(sources: npt.NDArray[np.str_]) -> Integers:
    """Return the fold of each row, int64 (N,), below ``FOLDS``; rows of one source share a fold."""
    _, number = np.unique(sources, return_inverse=True)
    folds: Integers = np.random.default_rng(0).permutation(int(number.max()) + 1)[number] % FOLDS
    return folds


def _ways(chances: Chances, noise: float, classes: int) -> tuple[Chances, Chances]:
    """Return the likelihoods of each label, being right and being noise; ``chances`` (N,): probability of its class."""
    return (1 - noise) * chances, noise * (1 - chances) / (classes - 1)


def _fitted(scores: Scores, labels: Integers) -> tuple[float, float]:
    """Return the temperature and the share of noise that maximise the likelihood of ``labels``."""
    from scipy.optimize import minimize  # noqa: PLC0415 - half a second to import, needed only to judge labels

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
