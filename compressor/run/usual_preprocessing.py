"""Whether an imported model would do far better with another usual preprocessing: wrong mean, std or order.

Better is: right on more rows; a smaller error of numbers; without labels, answers that are not all alike; a picture of
the input that is nearer to it. Decides which alternatives are tried, when one is named, and when there are too few rows
to name one. Never changes anything: the recipe says what a device feeds. What nobody wrote, a default, is refused where
another is shown to be right, before any gate row is judged. Rows are those of calibration, so that no gate row takes
part in what a person decides next.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from compressor.cache import Stage
from compressor.closure import plugin
from compressor.data._front_end import preprocessing_of
from compressor.data._table import Table
from compressor.errors import PreprocessingError
from compressor.measurement import predictions
from compressor.measurement.predictions import Candidate, Predictions
from compressor.recipe.model import DataRecipe
from compressor.run.stages import Run, table_digest, versions
from compressor.statistics.paired import drop_upper, paired, wilson
from edge_agent.decoders import residual
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
Inputs: TypeAlias = Callable[[], Iterable[Floats]]
"""Yields the inputs of an attempt, float32 (n, C, H, W) or NHWC, anew each time."""
_WRONG = "looks wrong"
"""The verdict of a sight that knows what is right; others only doubt."""
_WINDOW, _RESIDUAL = "window", "residual"
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BYTE = 1 / 255
_DEFAULT = {"mean": DataRecipe().mean, "std": DataRecipe().std}
"""Of files of this project."""
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One preprocessing: its name, the keys of ``[data]`` that give it, and a figure a row, (N,), of a ``_Sight``."""

    name: str
    keys: str
    figures: tuple[float, ...]


class _Sight(Protocol):
    """How an attempt is judged on its rows. ``verdict``: what is said of the recipe's own where another is better."""

    verdict: ClassVar[str]

    def figures(self, said: Predictions, inputs: Inputs) -> Figures:
        """Return a figure of each row, (N,), from the outputs ``said`` for ``inputs``."""

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

    verdict: ClassVar[str] = _WRONG

    def figures(self, said: Predictions, inputs: Inputs) -> Figures:
        del inputs
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
            f"the file as it came is right on {_share(own)} of {n} calibration rows, and on {_share(other)} with {name}"
        )


@dataclass(frozen=True, slots=True)
class _Near:
    """By the numbers of the rows, float32 (N, D): a figure is the error as a share of the ordinary deviation.

    That is the mean distance of a value from the median, so that the median as an answer to everything has 1. Bad is
    above a half; better is at most half of the recipe's own error, and nearer on far more rows than not.
    """

    labels: Floats

    verdict: ClassVar[str] = _WRONG

    def figures(self, said: Predictions, inputs: Inputs) -> Figures:
        del inputs
        usual = np.abs(self.labels - np.median(self.labels, axis=0)).mean(axis=0, dtype=np.float64)
        errors = np.abs(said.logits - self.labels).astype(np.float64)
        return (errors[:, usual > 0] / usual[usual > 0]).mean(axis=1) if (usual > 0).any() else np.zeros(len(errors))

    def is_bad(self, own: Figures) -> bool:
        return float(own.mean()) > _HALF

    def goodness(self, attempt: Figures) -> float:
        return -float(attempt.mean())

    def is_better(self, own: Figures, other: Figures) -> bool:
        return _halves(own, other)

    def words(self, own: Figures, other: Figures, name: str) -> str:
        return (
            f"the error of the file as it came is {own.mean():.3g} of the values' ordinary deviation on {len(own)} "
            f"calibration rows, and {other.mean():.3g} with {name}"
        )


@dataclass(frozen=True, slots=True)
class _Varied:
    """Without labels: a figure is the class. Bad is nearly one answer to everything, better are answers that vary."""

    verdict: ClassVar[str] = "may be wrong"

    def figures(self, said: Predictions, inputs: Inputs) -> Figures:
        del inputs
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
            f"the file as it came gives one answer to {_share(_alike(own))} of {len(own)} calibration "
            f"rows, and one to {_share(_alike(other))} at most with {name}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reconstructed:
    """By the rows themselves: a figure is the squared residual as a share of what a picture without a network has.

    That is the mean picture of the rows, or for a forecast of the last steps the step before them, repeated. So 1 is no
    better than neither, in whatever unit the inputs are. Bad is above a half; better is at most half of the recipe's
    own, nearer on far more rows than not, and below the mean picture's (a forecast in its own scale may be worse than
    the step before it: that of ``models/nab_alarm`` is). A network that is alike in every scale, such as a linear one,
    has the same figures in all of them.

    ``width``: numbers of the picture; ``whole``: whether it is that of all steps; ``last``: whether the input's
    channels are its last axis.
    """

    verdict: ClassVar[str] = _WRONG
    width: int
    whole: bool
    last: bool

    def figures(self, said: Predictions, inputs: Inputs) -> Figures:
        usual = (self._around_the_mean if self.whole else self._from_the_step_before)(inputs)
        squared: Figures = said.logits[:, 0].astype(np.float64) ** 2
        return squared / usual if usual > 0 else np.zeros_like(squared)

    def is_bad(self, own: Figures) -> bool:
        return float(own.mean()) > _HALF

    def goodness(self, attempt: Figures) -> float:
        return -float(attempt.mean())

    def is_better(self, own: Figures, other: Figures) -> bool:
        return _halves(own, other) and (float(other.mean()) < 1 or not self.whole)

    def words(self, own: Figures, other: Figures, name: str) -> str:
        return f"{self.error(own)} on {len(own)} calibration rows, and {other.mean():.3g} times with {name}"

    def error(self, own: Figures) -> str:
        """Return how large the error of the recipe's own is, in a clause."""
        what, of = ("picture", "the mean picture") if self.whole else ("forecast", "repeating the last step before it")
        return f"the squared error of the {what} that the file as it came makes is {own.mean():.3g} times that of {of}"

    def _pictures(self, inputs: Inputs) -> Iterator[tuple[Floats, Floats]]:
        """Yield (n, C, H, W) inputs, and the part of them that the network makes, (n, width)."""
        for batch in inputs():
            given = batch.transpose(0, 3, 1, 2) if self.last else batch
            yield given, residual.covered(given, self.width)

    def _around_the_mean(self, inputs: Inputs) -> float:
        """Return the mean variance of a number of the pictures; 0 of one row."""
        first, total, squared, count = None, 0.0, 0.0, 0
        for _, batch in self._pictures(inputs):
            first = batch[0].astype(np.float64) if first is None else first  # near the mean: nothing is lost below
            apart = batch - first
            total, squared = total + apart.sum(axis=0), squared + (apart**2).sum(axis=0)
            count += len(batch)
        return float(np.mean(squared - total**2 / count)) / (count - 1) if count > 1 else 0.0

    def _from_the_step_before(self, inputs: Inputs) -> float:
        """Return the mean squared change since the step before the forecast ones."""
        found = []
        for given, covered in self._pictures(inputs):
            ahead = self.width // (given.shape[1] * given.shape[3])
            before = given[:, :, -ahead - 1 : -ahead].astype(np.float64)
            found.append(((covered.reshape(*given.shape[:2], ahead, -1) - before) ** 2).mean(axis=(1, 2, 3)))
        return float(np.concatenate(found).mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """What rows say against the recipe's preprocessing: a sentence, "" for nothing.

    ``why`` and ``keys``: the comparison, and the lines of ``[data]`` that would fit, if these are shown to be right.
    """

    said: str = ""
    why: str = ""
    keys: str = ""


def check(run: Run, candidate: Candidate, calibration: Table) -> str:
    """Return ``remark``, if the recipe states its mean and std or nothing shows that its defaults are wrong.

    Raises:
        MeasureError: If the file can't be run.
        PreprocessingError: If another preprocessing is shown to be right, and nobody wrote mean and std.
    """
    found = _doubt(run, candidate, calibration)
    if not found.keys or _is_stated(run):
        return _told(run, found)
    own = _as_toml({name: getattr(run.recipe.data, name) for name in ("mean", "std")})
    message = f"Expected inputs as the file's training had them, got those of {own} in [data], which nobody wrote"
    raise PreprocessingError(
        f"{message}: {found.why}. Write in [data], each on its own line: {found.keys}; or write {own} if they are "
        "meant. Nothing was judged, and no look counted"
    )


def remark(run: Run, candidate: Candidate, calibration: Table) -> str:
    """Return "" or a line on the usual preprocessing with which ``candidate`` does far better.

    Raises:
        MeasureError: If the file can't be run.
    """
    return _told(run, _doubt(run, candidate, calibration))


def _told(run: Run, found: Doubt) -> str:
    if found.keys and _is_stated(run):
        return f"{found.said} The recipe states mean and std, which is taken as meant."
    return found.said


def _is_stated(run: Run) -> bool:
    return run.recipe.states("mean") and run.recipe.states("std")


def _doubt(run: Run, candidate: Candidate, calibration: Table) -> Doubt:
    """Return what ``calibration`` says of the preprocessing of ``candidate``.

    Alternatives are run only if the recipe's own does badly, on at most ``ROWS`` rows of ``calibration``. Where so many
    rows would show that one is better and there are fewer, the line says so.

    Raises:
        MeasureError: If the file can't be run.
    """
    if run.recipe.data.front_end not in {"", _WINDOW} or not len(calibration):
        return Doubt()
    if run.task.scored and candidate.manifest.decoder != _RESIDUAL:
        return Doubt(
            said=f"Whether the preprocessing is that of the training can't be shown: a {candidate.manifest.decoder} "
            "has nothing to compare with; write [data] mean, std and colour as the training had them."
        )
    rows = calibration.take(np.unique(np.linspace(0, len(calibration) - 1, ROWS).astype(np.int64)))
    sight = _sight_of(run, candidate, rows)
    if sight is None:
        return Doubt()
    inputs = {
        "artifact": sha256_hex(candidate.artifact), "data": table_digest(rows),
        "inputs": repr(candidate.manifest.inputs), "outputs": repr(candidate.manifest.outputs),
        "preprocessing": sha256_hex(canonical_bytes(to_document(run.preprocessing))), **versions("numpy", "pillow"),
    }  # fmt: skip

    def make() -> bytes:
        return json.dumps([asdict(one) for one in _tried(run, candidate, rows, sight)]).encode()

    uses = (plugin("edge_agent.runtimes", candidate.manifest.runtime),)
    stage = Stage(name="usual-preprocessing", inputs=inputs, make=make, uses=uses)
    return _said(sight, json.loads(run.cache.result(stage).data))


def _said(sight: _Sight, attempts: Sequence[Mapping[str, object]]) -> Doubt:
    """Return what the ``attempts`` show, of which the first is the recipe's own."""
    own, *others = (np.array(one["figures"]) for one in attempts)
    at = max(range(len(others)), key=lambda i: sight.goodness(others[i]), default=None)
    if at is None:
        return Doubt()
    best, enough = attempts[1 + at], _rows_to_show(sight, own, others[at])
    words, keys = sight.words(own, others[at], str(best["name"])), str(best["keys"])
    if enough == len(own):
        said = f"The preprocessing {sight.verdict}: {words}: try {keys} in [data]."
        return Doubt(said=said, why=words, keys=keys) if sight.verdict == _WRONG else Doubt(said=said)
    if enough:
        return Doubt(
            said=f"Whether the preprocessing is wrong can't be shown on so few rows, about {enough} could: {words} "
            f"({keys} in [data])."
        )
    if isinstance(sight, _Reconstructed) and sight.whole and len(own) >= _MIN_ROWS and _bounds(own > 1)[0] > _HALF:
        return Doubt(
            said=f"The preprocessing may be wrong: {sight.error(own)}, and no usual one makes it far smaller: write "
            "[data] mean, std and colour as the training had them."
        )
    return Doubt()


def _rows_to_show(sight: _Sight, own: Figures, other: Figures) -> int:
    """Return how many rows like these show that ``other`` is better, at most ``ROWS``; 0: no such number does."""
    most = max(1, ROWS // len(own))
    if not sight.is_better(np.tile(own, most), np.tile(other, most)):
        return 0
    times = next(n for n in range(1, most + 1) if sight.is_better(np.tile(own, n), np.tile(other, n)))
    return max(times * len(own), _MIN_ROWS)


def _sight_of(run: Run, candidate: Candidate, rows: Table) -> _Sight | None:
    """Return how attempts on ``rows`` are judged; None if nothing tells good from bad."""
    if run.task.scored:
        spec = candidate.manifest.inputs[0]
        width = _picture_width(run, candidate, rows)
        whole = width == int(np.prod(spec.shape[1:]))
        return _Reconstructed(width=width, whole=whole, last=spec.layout == "NHWC")
    of_classes = run.task.names_are == "labels"
    if not run.recipe.data.labelled:
        return _Varied() if of_classes else None
    labels = run.task.targets.classes(rows.labels)
    if labels is not None:
        return _Right(labels)
    return None if of_classes else _Near(rows.labels)


def _picture_width(run: Run, candidate: Candidate, rows: Table) -> int:
    """Return the numbers of the picture that ``candidate`` makes of a row; the file may leave its size open."""
    stated = candidate.manifest.outputs[0].shape[1]
    if stated > 0:
        return stated
    plain = replace(candidate, manifest=replace(candidate.manifest, decoder="", decoder_options={}))
    one = run.inputs(rows.take(np.arange(1)), candidate.manifest.inputs[0].layout)
    return int(predictions.predict(plain, one).logits.shape[1])


def _tried(run: Run, candidate: Candidate, rows: Table, sight: _Sight) -> list[Attempt]:
    """Return the recipe's preprocessing, and the alternatives if it does badly."""
    data, layout = run.recipe.data, candidate.manifest.inputs[0].layout

    def inputs_of(changed: DataRecipe) -> Inputs:
        return partial(replace(run, recipe=replace(run.recipe, data=changed)).batches, [rows], layout)

    def figures(changed: DataRecipe) -> tuple[float, ...]:
        inputs = inputs_of(changed)
        return tuple(sight.figures(predictions.predict(candidate, inputs()), inputs).tolist())

    own_scale = {} if data.scale is None else {"scale": _BYTE}
    found = [Attempt(name="the recipe's own", keys="", figures=figures(data))]
    own = np.array(found[0].figures)
    if not sight.is_bad(np.tile(own, max(1, ROWS // len(own)))):
        return found
    plain = replace(data, **{"mean": 0.0, "std": 1.0, **own_scale})  # type: ignore[arg-type]
    own_units = ("these rows' own mean and std", _units_of(inputs_of(plain)(), last=layout == "NHWC"))
    for name, keys in (*alternatives(data), ("a recipe's default", _DEFAULT), own_units):
        changed = replace(data, **{**keys, **own_scale})  # type: ignore[arg-type]
        if changed != data and keys:
            found.append(Attempt(name=name, keys=_as_toml({**keys, **own_scale}), figures=figures(changed)))
    return found


def _units_of(inputs: Iterable[Floats], *, last: bool) -> dict[str, object]:
    """Return the keys by which each channel of ``inputs``, 0 to 1, has mean 0 and std 1; none if one is constant."""
    axes = (0, 1, 2) if last else (0, 2, 3)
    total, squared, count = np.zeros(1), np.zeros(1), 0
    for batch in inputs:
        total = total + batch.sum(axis=axes, dtype=np.float64)
        squared = squared + np.square(batch, dtype=np.float64).sum(axis=axes)
        count += batch.size // batch.shape[3 if last else 1]
    mean = total / count
    spread = np.sqrt(np.maximum(squared / count - mean**2, 0))
    if not (spread > _ROUNDING).all():
        return {}
    rounded = {"mean": [float(f"{one:.3g}") for one in mean], "std": [float(f"{one:.3g}") for one in spread]}
    return {name: values[0] if len(values) == 1 else tuple(values) for name, values in rounded.items()}


def alternatives(data: DataRecipe) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield the usual preprocessings of pictures, or of windows: a name, and the keys of ``[data]`` that give it.

    Sources: torchvision's, Keras's and TensorFlow's pretrained models (``keras.applications``: modes ``torch``, ``tf``
    and ``caffe``).
    """
    if data.front_end:
        yield from _of_windows(data)
        return
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


def _of_windows(data: DataRecipe) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield the usual scales of windows, whose ranges become 0 to 1; their own unit only if all have one range."""
    yield "values of 0 to 1", {"mean": 0.0, "std": 1.0}
    yield "values of -1 to 1", {"mean": 0.5, "std": 0.5}
    given = preprocessing_of(data).front_end_options
    columns = range(int(given["channels"]))
    lows, highs = ({given.get(f"{end}_{at}", given[end]) for at in columns} for end in ("low", "high"))
    if len(lows) == len(highs) == 1:
        low, reach = lows.pop(), highs.pop()
        reach -= low
        yield "values in their own unit", {"mean": 0.0 - low / reach, "std": 1 / reach}


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


def _halves(own: Figures, other: Figures) -> bool:
    """Return whether the errors ``other`` are at most half of ``own``, and smaller on far more rows than not."""
    nearer = (other < own).astype(np.float64)
    return float(other.mean()) <= _HALF * float(own.mean()) and _bounds(nearer)[0] >= _HALF + _GAIN


def _bounds(hits: NDArray[Any]) -> tuple[float, float]:
    return wilson(int(np.sum(hits)), len(hits), _CONFIDENCE)


def _share(hits: Figures) -> str:
    return f"{100 * float(hits.mean()):.1f} %"
