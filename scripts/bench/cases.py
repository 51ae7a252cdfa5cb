"""The cases of ``compression.py``: networks, data, training and compression of each, and the targets.

A case has one recipe, or one per runtime if the widths that suit onnxruntime (multiples of 16 for a large picture)
differ from those that suit LiteRT (multiples of 8). All start from the same trained network. Settings were chosen on
latency and on search rows; docs/explanation/benchmarks.md lists the cases whose gate rows had been looked at before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from compressor.recipe.model import Recipe
from compressor.recipe.read import parse_recipe

METER, ZIP = "meter", "meter-digits-dev.zip"
TARGETS = {"ort": "onnx", "litert": "litert", "ort_int8": "onnx", "litert_int8": "litert"}


@dataclass(frozen=True, slots=True)
class Cut:
    """Pruning and epochs of distillation of one recipe, and its targets; 0 epochs: no training at all."""

    macs_ratio: float
    round_to: int
    distil: int
    targets: tuple[str, ...] = ("ort", "litert")


@dataclass(frozen=True, slots=True)
class Asked:
    """Targets: times faster than fp32 onnxruntime and times smaller than its file; 0: no target."""

    litert: float = 0.0
    ort: float = 0.0
    smaller: float = 0.0


@dataclass(frozen=True, slots=True)
class Case:
    """A network, its input in pixels, its training and compression, and the targets."""

    network: str
    options: str
    height: int
    width: int
    cuts: tuple[Cut, ...]
    asked: Asked = Asked()
    epochs: int = 12
    batch: int = 64
    learning_rate: float = 0.01
    tune: int = 4
    qat: int = 4
    teacher_weight: float = 0.7


_RESNET8 = Case(
    "resnet8", "{filters = 16}", 32, 32, (Cut(0.17, 8, 30, ("litert",)), Cut(0.56, 16, 10, ("ort",))),
    Asked(6.0, 1.9, 9.0),
)  # fmt: skip
_DS_CNN = Case("ds_cnn", "{filters = 64}", 32, 32, (Cut(0.33, 16, 30),), Asked(3.3, 1.7, 3.3))
_NARROW = Case("mobilenet_v2", "{width_mult = 0.35}", 64, 64, (Cut(0.5, 8, 10),), learning_rate=0.005, tune=2, qat=2)
_WIDE = Case(
    "mobilenet_v2", "{width_mult = 1.0}", 96, 96, (Cut(0.27, 16, 4),), Asked(5.6, 3.7, 8.8),
    epochs=6, batch=32, learning_rate=0.005, tune=2, qat=1,
)  # fmt: skip
_INT8 = Cut(1.0, 1, 0, ("ort_int8", "litert_int8"))
CASES = {
    "resnet8": _RESNET8,
    "ds_cnn": _DS_CNN,
    "mobilenet_v2_035_64": _NARROW,
    "mobilenet_v2_96": _WIDE,
    "resnet8/meter": replace(_RESNET8, width=20, cuts=(Cut(0.85, 16, 40),), teacher_weight=0.9),
    "ds_cnn/meter": replace(_DS_CNN, width=20, cuts=(Cut(0.6, 16, 40),), teacher_weight=0.9),
    "mobilenet_v2_035_64/meter": replace(_NARROW, cuts=(*_NARROW.cuts, _INT8), teacher_weight=0.9),
    "mobilenet_v2_96/meter": replace(_WIDE, teacher_weight=0.9),
}

_DIGITS = """dataset = "digits"
width = {width}
height = {height}
[train]
augment = 0.5"""
_METER = """dataset = "labelled_images"
path = "{path}"
slices = "domain"
train_slices = ["neural-network-autotrain-digital-counter", "jomjol_update_20220608", "jomjol_images"]
label = "floor"
width = {width}
height = {height}
[train]
augment = 0.3
weight_decay = 0.1"""
_NETWORK_STEPS = """[[compress]]
step = "prune"
macs_ratio = {macs_ratio}
round_to = {round_to}
rounds = 3
fine_tune_epochs = {tune}
[[compress]]
step = "distill"
epochs = {distil}
learning_rate = 0.004
weight = {teacher_weight}
[[compress]]
step = "qat"
epochs = {qat}
allow_unchanged = true"""
_EQUALIZE = '[[compress]]\nstep = "equalize"'
_RECIPE = """
[model]
name = "bench"
network = "{network}"
network_options = {options}
[data]
{data}
epochs = {epochs}
batch = {batch}
learning_rate = {learning_rate}
fine_tune_learning_rate = 0.004
{steps}
[[compress]]
step = "quantize"
reduce_range = false
{targets}
[gates]
accuracy_drop = {{max = 0.01, confidence = 0.95}}
int8_macs_ratio = {{min = 0.95}}
"""
_QUICK = {"height": 16, "width": 16, "cuts": (Cut(0.56, 16, 1, ("ort",)),), "epochs": 1, "tune": 0, "qat": 1}
_FEWER = "shares = {train = 0.1, calibration = 0.02, gate = 0.2, reference = 0.68}\n"


def names(*, quick: bool) -> list[str]:
    """Return the names of all cases: a network on digits, ``network/meter`` on meter digits."""
    return ["resnet8"] if quick else list(CASES)


def case_of(name: str) -> Case:
    """Return the case called ``name``.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in CASES:
        message = f"Expected cases of {', '.join(CASES)}, got {name!r}: correct --cases"
        raise ValueError(message)
    return CASES[name]


def recipes(name: str, meter: Path | None, *, quick: bool) -> Iterator[Recipe]:
    """Yield the recipes of the case ``name``, one for each of its cuts; ``meter`` is the zip of meter digits."""
    case = replace(case_of(name), **_QUICK) if quick else case_of(name)  # type: ignore[arg-type]
    for cut in case.cuts:
        fields = {**asdict(case), **asdict(cut), "path": meter}
        fields["targets"] = "\n".join(f'[targets.{one}]\nruntime = "{TARGETS[one]}"' for one in cut.targets)
        data = (_FEWER if quick else "") + (_METER if name.endswith(f"/{METER}") else _DIGITS).format(**fields)
        steps = (_NETWORK_STEPS if cut.distil else _EQUALIZE).format(**fields)
        yield parse_recipe(_RECIPE.format(**fields, data=data, steps=steps).encode())


def meter_zip(given: Path | None) -> Path | None:
    """Return the zip of meter digits: ``given`` or ``TINYFLEET_DATA``, the zip or a folder that has it; None if not."""
    place = given or (Path(os.environ["TINYFLEET_DATA"]) if os.environ.get("TINYFLEET_DATA") else None)
    if place is None:
        return None
    tried = (place, place / ZIP, place / "meter-digits" / ZIP)
    return next((path.resolve() for path in tried if path.is_file()), None)
