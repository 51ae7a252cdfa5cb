"""The search space: a point is a scheme, a calibration, a pruning ratio, and the steps before quantization.

A scheme declares what is tried with it (``quantize.Searched``); a recipe's own scheme takes part like those built in.

Decides which settings make up the space and which steps a point means. Neither samples nor measures.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

from compressor import formats
from compressor.prune.settings import PruneSettings
from compressor.quantize import searched
from compressor.recipe.model import Recipe, TargetRecipe
from compressor.steps import equalize, plain, qat
from compressor.steps._settings import Settings
from compressor.steps.quantize import CALIBRATIONS
from compressor.steps.quantize import Settings as QuantizeRecipe
from wire.canonical import sha256_hex

NONE = "none"
NO_PRUNING = 1.0
MACS_RATIOS = (NO_PRUNING, 0.75, 0.5, 0.35, 0.25)
_FIRST = CALIBRATIONS[0]
Value: TypeAlias = str | float | bool
Choose: TypeAlias = Callable[[str, Sequence[Value]], object]
T = TypeVar("T", PruneSettings, equalize.Settings, qat.Settings, QuantizeRecipe)


@dataclass(frozen=True, slots=True)
class Point:
    """One form of the model. Settings that its scheme does not use stay at their defaults.

    ``scheme``: of ``compressor.quantize``, ``none`` is float32; ``macs_ratio``: share of multiply-accumulates that
    remains, 1 is unpruned.
    """

    scheme: str = NONE
    calibration: str = _FIRST
    macs_ratio: float = NO_PRUNING
    equalize: bool = False
    qat: bool = False


@dataclass(frozen=True, slots=True)
class Space:
    """The choices of a search. ``network``: there is one to prune, equalize and train, which not every file is."""

    schemes: tuple[str, ...]
    macs_ratios: tuple[float, ...]
    network: bool

    @classmethod
    def of(cls, recipe: Recipe, target: TargetRecipe) -> Space:
        """Return the space of ``recipe`` on ``target``: all schemes, its own too, and what a model file allows."""
        file_format, schemes = formats.imported(recipe.model), schemes_of(target.runtime)
        network = (file_format is None or file_format.becomes_network) and not recipe.decoder.kind
        for step in own_steps(recipe, target):
            if isinstance(step, QuantizeRecipe) and ":" in step.scheme and formats.named(target.runtime).own_schemes:
                schemes = tuple(dict.fromkeys((*schemes, step.scheme)))
        return cls(schemes, MACS_RATIOS if network else (NO_PRUNING,), network)

    def calibrations(self, scheme: str) -> tuple[str, ...]:
        """Return the calibrations that affect ``scheme``."""
        return CALIBRATIONS if searched(scheme).calibrations else (_FIRST,)

    def equalized(self, scheme: str) -> tuple[bool, ...]:
        """Return the choices of equalization for ``scheme``: only int8 weights can profit from it."""
        return (False, True) if self.network and searched(scheme).equalized else (False,)

    def trained(self, scheme: str) -> tuple[bool, ...]:
        """Return the choices of quantization-aware training for ``scheme``."""
        return (False, True) if self.network and searched(scheme).trained else (False,)

    def points(self) -> Iterator[Point]:
        """Yield every point, the float model first."""
        for scheme in self.schemes:
            options = self.calibrations(scheme), self.macs_ratios, self.equalized(scheme), self.trained(scheme)
            for chosen in itertools.product(*options):
                yield Point(scheme, *chosen)


def schemes_of(runtime: str) -> tuple[str, ...]:
    """Return the schemes of ``runtime``, ``none`` first."""
    return (NONE, *(name for name in formats.named(runtime).schemes() if name != NONE))


def suggested(choose: Choose, space: Space) -> Point:
    """Return the point that ``choose(name, choices)`` of an Optuna trial picks; single choices are not asked for."""

    def one(name: str, choices: Sequence[Value]) -> object:
        return choose(name, choices) if len(choices) > 1 else choices[0]

    scheme = str(one("scheme", space.schemes))
    return Point(
        scheme,
        str(one(f"calibration_{scheme}", space.calibrations(scheme))),
        float(str(one("macs_ratio", space.macs_ratios))),
        bool(one(f"equalize_{scheme}", space.equalized(scheme))),
        bool(one("qat", space.trained(scheme))),
    )


def parameters(point: Point, space: Space) -> dict[str, Value]:
    """Return ``point`` as the parameters of ``suggested``, so that it can be enqueued."""
    scheme = point.scheme
    asked: dict[str, tuple[Value, Sequence[Value]]] = {
        "scheme": (scheme, space.schemes),
        f"calibration_{scheme}": (point.calibration, space.calibrations(scheme)),
        "macs_ratio": (point.macs_ratio, space.macs_ratios),
        f"equalize_{scheme}": (point.equalize, space.equalized(scheme)),
        "qat": (point.qat, space.trained(scheme)),
    }
    return {name: value for name, (value, choices) in asked.items() if len(choices) > 1}


def steps_of(point: Point, recipe: Recipe, target: TargetRecipe) -> tuple[Settings, ...]:
    """Return the steps of ``point``: prune, equalize, qat, quantize, in this order.

    Settings that a point does not include (epochs, rounds, ``reduce_range``) are those of the recipe's own step of that
    kind, or else the step's defaults; training and equalizing use the grid of the quantization that follows.
    """
    own = own_steps(recipe, target)
    quantized = _like(own, QuantizeRecipe())
    keys = quantized.own if quantized.scheme == point.scheme else None
    quantized = replace(quantized, scheme=point.scheme, calibration=point.calibration, on="", own=keys)
    per_channel, reduce_range = quantized.per_channel, quantized.reduce_range
    found: list[Settings] = []
    if point.macs_ratio < NO_PRUNING:
        found.append(replace(_like(own, PruneSettings()), macs_ratio=point.macs_ratio, latency_ratio=0.0))
    if point.equalize:
        own_equalize = _like(own, equalize.Settings())
        found.append(replace(own_equalize, per_channel=per_channel, reduce_range=reduce_range))
    if point.qat:
        own_qat = _like(own, qat.Settings())
        found.append(replace(own_qat, per_channel=per_channel, reduce_range=reduce_range))
    if point.scheme != NONE:
        default = QuantizeRecipe()
        unused = formats.unread(quantized, (target.runtime,))  # the recipe's keys of another scheme
        found.append(replace(quantized, **{key: getattr(default, key) for key in unused}))
    return tuple(plain(step) for step in found)


def own_steps(recipe: Recipe, target: TargetRecipe) -> tuple[Settings, ...]:
    """Return the recipe's steps that apply to ``target``, in order."""
    return tuple(
        step for step in recipe.compress if not isinstance(step, QuantizeRecipe) or step.on in {"", target.name}
    )


def nearest(steps: Sequence[Settings], space: Space) -> Point:
    """Return the point of ``space`` nearest to ``steps``, for the sampler to learn from."""
    quantized = [step for step in steps if isinstance(step, QuantizeRecipe)]
    scheme = quantized[-1].scheme if quantized and quantized[-1].scheme in space.schemes else NONE
    pruned = [step.macs_ratio for step in steps if isinstance(step, PruneSettings)]
    wanted = {"equalize": any(isinstance(step, equalize.Settings) for step in steps),
              "qat": any(isinstance(step, qat.Settings) for step in steps)}  # fmt: skip
    return Point(
        scheme,
        quantized[-1].calibration if len(space.calibrations(scheme)) > 1 else _FIRST,
        min(space.macs_ratios, key=lambda ratio: abs(ratio - (pruned[-1] if pruned else NO_PRUNING))),
        wanted["equalize"] and True in space.equalized(scheme),
        wanted["qat"] and True in space.trained(scheme),
    )


def said(steps: Sequence[Settings]) -> str:
    """Return ``steps`` as short text for tables and pictures."""
    words = []
    for step in steps:
        if isinstance(step, QuantizeRecipe):
            words.append(f"{step.scheme} ({step.calibration})" if searched(step.scheme).calibrations else step.scheme)
        else:
            words.append(f"prune {step.macs_ratio:g}" if isinstance(step, PruneSettings) else step.step)
    return " + ".join(words) or "fp32"


def key_of(steps: Sequence[Settings]) -> str:
    """Return the identity of a form: the SHA-256 of ``steps``, without those that change nothing."""
    told = [repr(step) for step in steps if not (isinstance(step, QuantizeRecipe) and step.scheme == NONE)]
    return sha256_hex("\n".join(told).encode())


def is_integer(steps: Sequence[Settings]) -> bool:
    """Return whether ``steps`` give an integer form: neither float32 nor float16."""
    return any(isinstance(step, QuantizeRecipe) and searched(step.scheme).integer for step in steps)


def _like(steps: Sequence[Settings], default: T) -> T:
    """Return the last of ``steps`` of the same type as ``default``, or ``default``."""
    found = [step for step in steps if isinstance(step, type(default))]
    return found[-1] if found else default
