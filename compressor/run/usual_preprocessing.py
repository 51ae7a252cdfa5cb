"""Whether an imported model would do far better with another usual preprocessing: wrong mean, std or order.

Better is: right on more rows; a smaller error of numbers; without labels, answers that are not all alike. Decides which
alternatives are tried, and when one is named. Never changes anything: the recipe says what a device feeds. Rows are
those of calibration, so that no gate row takes part in what a person decides next.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from compressor.cache import Stage
from compressor.closure import plugin
from compressor.data._table import Table
from compressor.measurement import predictions
from compressor.measurement.predictions import Candidate, Predictions
from compressor.recipe.model import DataRecipe
from compressor.run.stages import Run, table_digest, versions
from compressor.statistics.paired import drop_upper, paired, wilson
from wire.canonical import canonical_bytes, sha256_hex
from wire.codec import to_document

ROWS = 256
_MIN_ROWS = 20
_CONFIDENCE = 0.95
_GAIN = 0.1
"""Which gain in the share of right rows must be shown; by how much another share's bound must be above the other's."""
_HALF, _NEARLY_ALL = 0.5, 0.9
Figures: TypeAlias = NDArray[np.float64]
Floats: TypeAlias = NDArray[np.float32]
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BYTE = 1 / 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One preprocessing: its name, the keys of ``[data]`` that give it, and a figure a row, (N,), of a ``_Sight``."""

    name: str
    keys: str
    figures: tuple[float, ...]


class _Sight(Protocol):
    """How an attempt is judged on its rows."""

    def figures(self, said: Predictions) -> Figures:
        """Return a figure of each row, (N,)."""

    def is_bad(self, own: Figures) -> bool:
        """Return whether the recipe's own is bad enough to try others."""

    def goodness(self, attempt: Figures) -> float:
        """Return what is larger for a better attempt."""

    def is_better(self, own: Figures, other: Figures) -> bool:
        """Return whether ``other`` is so much better that it is named."""

    def words(self, own: Figures, other: Figures, name: str) -> str:
        """Return the comparison in a clause."""


@dataclass(frozen=True, slots=True)
class _Right:
    """By the classes of the rows, int64 (N,): a figure is 1 where the answer is right.

    Bad is so far from no mistake that a preprocessing without one could be shown to be better: a file that was trained
    with another standard deviation is often right on three rows of four. Better is right on ``_GAIN`` more of the same
    rows, by the paired lower bound.
    """

    labels: NDArray[np.int64]

    def figures(self, said: Predictions) -> Figures:
        right: Figures = (said.classes == self.labels).astype(np.float64)
        return right

    def is_bad(self, own: Figures) -> bool:
        return self.is_better(own, np.ones_like(own))

    def goodness(self, attempt: Figures) -> float:
        return float(attempt.sum())

    def is_better(self, own: Figures, other: Figures) -> bool:
        gained = other.sum() > own.sum()  # most others gain nothing, and an exact bound takes a moment
        return bool(gained) and drop_upper(paired(own > 0, other > 0), _CONFIDENCE) <= -_GAIN

    def words(self, own: Figures, other: Figures, name: str) -> str:
        n = len(own)
        return (
            f"looks wrong: the file as it came is right on {_share(own)} of {n} calibration rows, and on "
            f"{_share(other)} with {name}"
        )


@dataclass(frozen=True, slots=True)
class _Near:
    """By the numbers of the rows, float32 (N, D): a figure is the error as a share of the ordinary deviation.

    That is the mean distance of a value from the median, so that the median as an answer to everything has 1. Bad is
    above a half; better is at most half of the recipe's own error, and nearer on far more rows than not.
    """

    labels: Floats

    def figures(self, said: Predictions) -> Figures:
        usual = np.abs(self.labels - np.median(self.labels, axis=0)).mean(axis=0, dtype=np.float64)
        errors = np.abs(said.logits - self.labels).astype(np.float64)
        return (errors[:, usual > 0] / usual[usual > 0]).mean(axis=1) if (usual > 0).any() else np.zeros(len(errors))

    def is_bad(self, own: Figures) -> bool:
        return float(own.mean()) > _HALF

    def goodness(self, attempt: Figures) -> float:
        return -float(attempt.mean())

    def is_better(self, own: Figures, other: Figures) -> bool:
        nearer = (other < own).astype(np.float64)
        return float(other.mean()) <= _HALF * float(own.mean()) and _bounds(nearer)[0] >= _HALF + _GAIN

    def words(self, own: Figures, other: Figures, name: str) -> str:
        return (
            f"looks wrong: the error of the file as it came is {own.mean():.3g} of the values' ordinary deviation on "
            f"{len(own)} calibration rows, and {other.mean():.3g} with {name}"
        )


@dataclass(frozen=True, slots=True)
class _Varied:
    """Without labels: a figure is the class. Bad is nearly one answer to everything, better are answers that vary."""

    def figures(self, said: Predictions) -> Figures:
        return said.classes.astype(np.float64)

    def is_bad(self, own: Figures) -> bool:
        return bool(_alike(own).mean() > _NEARLY_ALL)

    def goodness(self, attempt: Figures) -> float:
        return -float(_alike(attempt).mean())

    def is_better(self, own: Figures, other: Figures) -> bool:
        most = _bounds(_alike(other))[1]
        return most <= _HALF + _GAIN and _bounds(_alike(own))[0] >= most + _GAIN

    def words(self, own: Figures, other: Figures, name: str) -> str:
        return (
            f"may be wrong: the file as it came gives one answer to {_share(_alike(own))} of {len(own)} calibration "
            f"rows, and one to {_share(_alike(other))} at most with {name}"
        )


def remark(run: Run, candidate: Candidate, calibration: Table) -> str:
    """Return "" or a line on the usual preprocessing with which ``candidate`` does far better.

    Alternatives are run only if the recipe's own does badly, on at most ``ROWS`` rows of ``calibration``.

    Raises:
        MeasureError: If the file can't be run.
    """
    if run.recipe.data.front_end or len(calibration) < _MIN_ROWS:
        return ""
    rows = calibration.take(np.unique(np.linspace(0, len(calibration) - 1, ROWS).astype(np.int64)))
    sight = _sight_of(run, rows)
    if sight is None:
        return ""
    inputs = {
        "artifact": sha256_hex(candidate.artifact), "data": table_digest(rows),
        "inputs": repr(candidate.manifest.inputs), "outputs": repr(candidate.manifest.outputs),
        "preprocessing": sha256_hex(canonical_bytes(to_document(run.preprocessing))), **versions("numpy", "pillow"),
    }  # fmt: skip

    def make() -> bytes:
        return json.dumps([asdict(one) for one in _tried(run, candidate, rows, sight)]).encode()

    uses = (plugin("edge_agent.runtimes", candidate.manifest.runtime),)
    stage = Stage(name="usual-preprocessing", inputs=inputs, make=make, uses=uses)
    attempts = json.loads(run.cache.result(stage).data)
    own, *others = (np.array(one["figures"]) for one in attempts)
    at = max(range(len(others)), key=lambda i: sight.goodness(others[i]), default=None)
    if at is None or not sight.is_better(own, others[at]):
        return ""
    best = attempts[1 + at]
    return f"The preprocessing {sight.words(own, others[at], best['name'])}: try {best['keys']} in [data]."


def _sight_of(run: Run, rows: Table) -> _Sight | None:
    """Return how attempts on ``rows`` are judged; None if nothing tells good from bad."""
    of_classes = run.task.names_are == "labels"
    if not run.recipe.data.labelled:
        return _Varied() if of_classes else None
    labels = run.task.targets.classes(rows.labels)
    if labels is not None:
        return _Right(labels)
    return None if of_classes else _Near(rows.labels)


def _tried(run: Run, candidate: Candidate, rows: Table, sight: _Sight) -> list[Attempt]:
    """Return the recipe's preprocessing, and the alternatives if it does badly."""
    data = run.recipe.data

    def figures(changed: DataRecipe) -> tuple[float, ...]:
        other = replace(run, recipe=replace(run.recipe, data=changed))
        layout = candidate.manifest.inputs[0].layout
        return tuple(sight.figures(predictions.predict(candidate, other.batches([rows], layout))).tolist())

    own_scale = {} if data.scale is None else {"scale": _BYTE}
    found = [Attempt(name="the recipe's own", keys="", figures=figures(data))]
    if not sight.is_bad(np.array(found[0].figures)):
        return found
    for name, keys in alternatives(data):
        changed = replace(data, **{**keys, **own_scale})  # type: ignore[arg-type]
        if changed != data:
            found.append(Attempt(name=name, keys=_as_toml({**keys, **own_scale}), figures=figures(changed)))
    return found


def alternatives(data: DataRecipe) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield the usual preprocessings of pictures: a name, and the keys of ``[data]`` that give it.

    Sources: torchvision's, Keras's and TensorFlow's pretrained models (``keras.applications``: modes ``torch``, ``tf``
    and ``caffe``).
    """
    plain: list[tuple[str, dict[str, object]]] = [
        ("pixels of 0 to 255", {"mean": 0.0, "std": _BYTE}),
        ("pixels of 0 to 1", {"mean": 0.0, "std": 1.0}),
        ("pixels of -1 to 1", {"mean": 0.5, "std": 0.5}),
    ]
    if data.channels == len(_IMAGENET[0]):
        plain.append(("ImageNet's mean and std", {"mean": _IMAGENET[0], "std": _IMAGENET[1]}))
    yield from plain
    if data.channels == len(_IMAGENET[0]):
        order = "rgb" if data.colour == "bgr" else "bgr"
        given = {name: getattr(data, name) for name in ("mean", "std")}
        per_channel = {name: value[::-1] for name, value in given.items() if isinstance(value, tuple)}
        yield f"the colours in the order {order.upper()}", {"colour": order, **per_channel}
        name, keys = plain[0]
        yield f"{name} in the order {order.upper()}", {"colour": order, **keys}


def _as_toml(keys: Mapping[str, object]) -> str:
    def text(value: object) -> str:
        if isinstance(value, str):
            return f'"{value}"'
        if isinstance(value, Sequence):
            return f"[{', '.join(f'{one:g}' for one in value)}]"
        return f"{value:.17g}" if value == _BYTE else f"{value:g}"

    return ", ".join(f"{name} = {text(value)}" for name, value in keys.items())


def _alike(classes: Figures) -> Figures:
    """Return which rows have the most frequent of ``classes``, float64 (N,) of 0 and 1."""
    found, counts = np.unique(classes, return_counts=True)
    alike: Figures = (classes == found[counts.argmax()]).astype(np.float64)
    return alike


def _bounds(hits: Figures) -> tuple[float, float]:
    return wilson(int(np.sum(hits)), len(hits), _CONFIDENCE)


def _share(hits: Figures) -> str:
    return f"{100 * float(hits.mean()):.1f} %"
