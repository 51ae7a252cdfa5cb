"""Whether an imported model would be right far more often with another usual preprocessing: wrong mean, std or order.

Decides which alternatives are tried, and when one is named. Never changes anything: the recipe says what a device
feeds. Rows are those of calibration, so that no gate row takes part in what a person decides next.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from compressor.cache import Stage
from compressor.closure import plugin
from compressor.data._table import Table
from compressor.measurement import predictions
from compressor.measurement.predictions import Candidate
from compressor.recipe.model import DataRecipe
from compressor.run.stages import Run, table_digest, versions
from compressor.statistics.paired import wilson
from wire.canonical import canonical_bytes, sha256_hex
from wire.codec import to_document

ROWS = 256
_MIN_ROWS = 20
_CONFIDENCE = 0.95
_GAIN = 0.1
"""Points of accuracy by which the bounds must be apart."""
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BYTE = 1 / 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One preprocessing: its name, the keys of ``[data]`` that give it, and how many of the rows are right with it."""

    name: str
    keys: str
    right: int


def remark(run: Run, candidate: Candidate, calibration: Table) -> str:
    """Return "" or a line on the usual preprocessing with which ``candidate`` is right far more often.

    Alternatives are run only if the recipe's own is less than half way from one answer to everything to no mistake, on
    at most ``ROWS`` rows of ``calibration``.

    Raises:
        MeasureError: If the file can't be run.
    """
    data, labels = run.recipe.data, run.task.targets.classes(calibration.labels)
    if labels is None or not data.labelled or data.front_end or len(calibration) < _MIN_ROWS:
        return ""
    rows = calibration.take(np.unique(np.linspace(0, len(calibration) - 1, ROWS).astype(np.int64)))
    inputs = {
        "artifact": sha256_hex(candidate.artifact), "data": table_digest(rows),
        "inputs": repr(candidate.manifest.inputs), "outputs": repr(candidate.manifest.outputs),
        "preprocessing": sha256_hex(canonical_bytes(to_document(run.preprocessing))), **versions("numpy", "pillow"),
    }  # fmt: skip

    def make() -> bytes:
        return json.dumps([asdict(one) for one in _tried(run, candidate, rows)]).encode()

    uses = (plugin("edge_agent.runtimes", candidate.manifest.runtime),)
    stage = Stage(name="usual-preprocessing", inputs=inputs, make=make, uses=uses)
    own, *others = (Attempt(**one) for one in json.loads(run.cache.result(stage).data))
    best = max(others, key=lambda one: one.right, default=own)
    n = len(rows)
    if wilson(best.right, n, _CONFIDENCE)[0] < wilson(own.right, n, _CONFIDENCE)[1] + _GAIN:
        return ""
    return (
        f"The preprocessing looks wrong: the file as it came is right on {_share(own.right, n)} of {n} calibration "
        f"rows, and on {_share(best.right, n)} with {best.name}: try {best.keys} in [data]."
    )


def _tried(run: Run, candidate: Candidate, rows: Table) -> list[Attempt]:
    """Return the recipe's preprocessing, and the alternatives if it does badly."""
    data, labels = run.recipe.data, np.asarray(run.task.targets.classes(rows.labels))

    def right(changed: DataRecipe) -> int:
        other = replace(run, recipe=replace(run.recipe, data=changed))
        layout = candidate.manifest.inputs[0].layout
        said = predictions.predict(candidate, other.batches([rows], layout))
        return int((said.classes == labels).sum())

    own_scale = {} if data.scale is None else {"scale": _BYTE}
    found = [Attempt(name="the recipe's own", keys="", right=right(data))]
    often = int(np.bincount(labels).max())
    if 2 * found[0].right >= often + len(rows):
        return found
    for name, keys in alternatives(data):
        changed = replace(data, **{**keys, **own_scale})  # type: ignore[arg-type]
        if changed != data:
            found.append(Attempt(name=name, keys=_as_toml({**keys, **own_scale}), right=right(changed)))
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


def _share(right: int, n: int) -> str:
    return f"{100 * right / n:.1f} %"
