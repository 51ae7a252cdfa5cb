"""Labels that a simple model, trained on other rows, is confident are wrong.

Source: Northcutt, Jiang and Chuang, Confident Learning, JAIR 2021, section 3.1: a row counts as class j where its
out-of-sample probability of j reaches the mean probability of j among the rows labelled j (equation 2); it is a
suspect where the likeliest such j is not its label; ranked by the normalised margin (section 3.2, PBNR).
The model is a logistic regression on thumbnails, in folds that keep the views of a source together. A suspect is a
row to look at, not a verdict.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compressor.data.table import Table
from compressor.exploration.thumbnails import Thumbs
from compressor.progress import Stage

FOLDS = 4
MAX_ROWS = 20_000
MIN_ACCURACY = 0.6
"""Below this the simple model understands the data too little to judge a label."""
MIN_MARGIN = 0.5
"""How much likelier another class must be than the label: fewer suspects, most of them worth the look."""
_ITERATIONS, _REGULARIZATION = 60, 0.02
Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """Suspects, the clearest first: their rows, int64 (S,); the classes they look like, int64 (S,); margins, (S,).

    ``accuracy``: of the simple model out of sample. ``skipped``: why nothing was judged, or nothing.
    """

    rows: npt.NDArray[np.int64]
    looks_like: npt.NDArray[np.int64]
    margins: npt.NDArray[np.float64]
    accuracy: float = 0.0
    skipped: str = ""


def suspects(table: Table, thumbs: Thumbs, stage: Stage) -> Noise:
    """Return the suspects of ``table``; ``stage`` advances once per fold.

    Deterministic. Of more than ``MAX_ROWS`` rows an even choice is judged.
    """
    judged = np.arange(0, len(table), -(-len(table) // MAX_ROWS))
    labels, folds = table.labels[judged], _folds(table.sources[judged])
    short = [name for i, name in enumerate(table.class_names) if len(set(folds[labels == i].tolist())) < FOLDS]
    if len(table.class_names) < 2 or short:  # noqa: PLR2004 - nothing to confuse
        reason = f"too few sources of {', '.join(short[:5])}" if short else "only one class"
        return unjudged(f"{reason} for {FOLDS} folds")
    found = confident(_out_of_sample(features(thumbs[judged]), labels, folds, stage), labels)
    if found.accuracy < MIN_ACCURACY:
        empty = np.empty(0, np.int64)
        reason = f"labels not judged: the simple model is right on {found.accuracy:.1%} of other rows only"
        return Noise(empty, empty, np.empty(0), accuracy=found.accuracy, skipped=reason)
    return Noise(judged[found.rows], found.looks_like, found.margins, accuracy=found.accuracy)


def unjudged(reason: str) -> Noise:
    """Return no suspects, because of ``reason``."""
    empty = np.empty(0, np.int64)
    return Noise(empty, empty, np.empty(0), skipped=f"labels not judged: {reason}")


def features(thumbs: Thumbs) -> npt.NDArray[np.float32]:
    """Return what the simple model sees, float32 (N, 384): pixels of even light, and gradients by direction.

    Source of the gradients: Dalal and Triggs, Histograms of Oriented Gradients, CVPR 2005: 4 x 4 cells, 8 directions.
    """
    light = thumbs - thumbs.mean(axis=(1, 2), keepdims=True)
    light /= light.std(axis=(1, 2), keepdims=True) + 1.0
    down, across = np.gradient(light, axis=(1, 2))
    strength, turn = np.sqrt(down**2 + across**2), np.floor((np.arctan2(down, across) / (2 * np.pi) % 1) * 8) % 8
    cells = [(strength * (turn == i)).reshape(-1, 4, 4, 4, 4).sum(axis=(2, 4)) for i in range(8)]
    flat = [light.reshape(len(light), -1), *(cell.reshape(len(light), -1) for cell in cells)]
    return np.concatenate(flat, axis=1).astype(np.float32)


def confident(probabilities: Probabilities, labels: npt.NDArray[np.int64]) -> Noise:
    """Return the suspects among rows of int64 ``labels`` by out-of-sample ``probabilities``, float64 (N, classes)."""
    own = np.arange(len(labels))
    thresholds = np.array([probabilities[labels == i, i].mean() for i in range(probabilities.shape[1])])
    reached = np.where(probabilities >= thresholds, probabilities, -1.0)
    likely = reached.argmax(axis=1)
    rows = np.flatnonzero((reached[own, likely] > 0) & (likely != labels))
    margins = probabilities[rows, likely[rows]] - probabilities[rows, labels[rows]]
    rows, margins = rows[margins >= MIN_MARGIN], margins[margins >= MIN_MARGIN]
    order = np.argsort(-margins, kind="stable")
    accuracy = float((probabilities.argmax(axis=1) == labels).mean())
    return Noise(rows[order], likely[rows[order]], margins[order], accuracy=accuracy)


def _folds(sources: npt.NDArray[np.str_]) -> npt.NDArray[np.int64]:
    """Return the fold of each row; rows of one source share it."""
    _, number = np.unique(sources, return_inverse=True)
    return np.random.default_rng(0).permutation(int(number.max()) + 1)[number] % FOLDS


def _out_of_sample(
    flat: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], folds: npt.NDArray[np.int64], stage: Stage
) -> Probabilities:
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - a second of importing, only to judge labels

    result = np.zeros((len(labels), int(labels.max()) + 1))
    for fold in range(FOLDS):
        held = folds == fold
        mean, spread = flat[~held].mean(axis=0), flat[~held].std(axis=0) + 0.05
        model = LogisticRegression(C=_REGULARIZATION, max_iter=_ITERATIONS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the last digits of convergence do not matter here
            model.fit((flat[~held] - mean) / spread, labels[~held])
        result[np.ix_(held, model.classes_)] = model.predict_proba((flat[held] - mean) / spread)
        stage.advance()
    return result
