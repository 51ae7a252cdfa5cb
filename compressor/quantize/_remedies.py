"""Remedies for int8 that loses too much accuracy, from cheapest to most expensive, and the reason for each.

The ladder is data and the choice of the next rung is pure; only ``climb`` quantizes and has the result judged. A rung
that can't be made counts as not passed. The last rung is the float model, so that one is always chosen; whether it
passes is decided by the gates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from compressor.errors import QuantizeError
from compressor.quantize import Batches, quantize
from compressor.quantize._qdq import Sensitivity, measured
from compressor.steps.quantize import Settings

Judge = Callable[[bytes], float]
STATIC = "static_int8"
NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One remedy.

    ``changes``: changed settings; ``float_layers``: how many of the most sensitive layers stay float; ``cause``: the
    cause of the loss if this remedy suffices. A rung that changes the scheme starts from the original settings, any
    other from the best rung so far.
    """

    name: str
    cause: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    float_layers: int = 0


_MIXED = "a few layers carry most of the quantization noise"
LADDER = (
    Rung(name="as set", cause="nothing"),
    Rung(
        name="percentile",
        cause="rare extreme activations took the levels from all others",
        changes={"calibration": "percentile"},
    ),
    Rung(
        name="mse",
        cause="the range that holds every activation was not the one with the least error",
        changes={"calibration": "mse"},
    ),
    Rung(
        name="bias correction",
        cause="rounding had shifted the means of output channels",
        changes={"bias_correction": True},
    ),
    Rung(name="1 float layer", cause=_MIXED, float_layers=1),
    Rung(name="2 float layers", cause=_MIXED, float_layers=2),
    Rung(name="4 float layers", cause=_MIXED, float_layers=4),
    Rung(
        name="weight_int8",
        cause="the activations need more than 8 bits, the weights do not",
        changes={"scheme": "weight_int8"},
    ),
    Rung(name="float16", cause="the weights need more than 8 bits too", changes={"scheme": "float16"}),
    Rung(name="float32", cause="no cheaper form is near enough to the float model", changes={"scheme": NONE}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedRung:
    """A rung that was tried.

    ``drop``: accuracy of the float model minus that of this one, 0..1, None if it could not be made. ``seconds``: to
    quantize, without judging. ``why``: the outcome as text.
    """

    rung: Rung
    settings: Settings
    drop: float | None
    seconds: float
    why: str
    artifact: bytes

    @property
    def artifact_bytes(self) -> int:
        """The size of the artifact."""
        return len(self.artifact)


@dataclass(frozen=True, slots=True)
class Climbed:
    """``chosen`` is the last of ``tried``: the first rung within the allowed drop, or the float model."""

    tried: tuple[TriedRung, ...]

    @property
    def chosen(self) -> TriedRung:
        """The last rung tried."""
        return self.tried[-1]


def climb(
    model: bytes,
    batches: Batches,
    judge: Judge,
    settings: Settings,
    *,
    allowed_drop: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Climbed:
    """Return the rungs tried until one loses at most ``allowed_drop`` against the float ``model``.

    Args:
        model: Float ONNX.
        batches: Restarts the calibration data: float32, (N, C, H, W), batch by batch.
        judge: Returns the accuracy, 0..1, of an artifact on search rows (never on the gate split).
        settings: The first settings to try.
        allowed_drop: 0..1; 0.01 is one point.
        clock: Seconds.

    Raises:
        QuantizeError: If the float model can't be read.
        CompressorError: As raised by ``judge``.
    """
    accuracy, tried = judge(model), list[TriedRung]()
    worst: tuple[Sensitivity, ...] = ()
    while (rung := following(tried, settings, allowed_drop)) is not None:
        start = clock()
        base, artifact, failure = started_from(rung, tried, settings), b"", ""
        try:
            worst = worst or (measured(model, batches, base) if rung.float_layers else ())
            base = applied(rung, base, worst)
            artifact = quantize(model, batches, base)
        except QuantizeError as error:
            if base.scheme == NONE:
                raise
            failure = str(error)
        seconds = clock() - start
        drop = None if failure else accuracy - (accuracy if base.scheme == NONE else judge(artifact))
        why = failure or told(rung, base, drop, allowed_drop, worst)
        tried.append(TriedRung(rung=rung, settings=base, drop=drop, seconds=seconds, why=why, artifact=artifact))
    return Climbed(tuple(tried))


def following(tried: Sequence[TriedRung], settings: Settings, allowed_drop: float) -> Rung | None:
    """Return the next rung to try; None if the last one sufficed, or was the float model. Pure."""
    if tried and (tried[-1].rung == LADDER[-1] or passes(tried[-1].drop, allowed_drop)):
        return None
    first = LADDER.index(tried[-1].rung) + 1 if tried else 0
    return next(rung for rung in LADDER[first:] if not tried or rung == LADDER[-1] or _new(rung, tried, settings))


def passes(drop: float | None, allowed_drop: float) -> bool:
    """Return whether ``drop`` is known and at most ``allowed_drop`` (up to rounding)."""
    return drop is not None and drop <= allowed_drop + 1e-12


def started_from(rung: Rung, tried: Sequence[TriedRung], settings: Settings) -> Settings:
    """Return the settings that ``rung`` changes: those with the least drop; for a new scheme, the original. Pure."""
    made = [item for item in tried if item.drop is not None]
    if "scheme" in rung.changes or not made:
        return settings
    return min(made, key=lambda item: item.drop or 0.0).settings


def applied(rung: Rung, base: Settings, worst: Sequence[Sensitivity]) -> Settings:
    """Return ``base`` with the changes of ``rung``; ``worst``: layers, most sensitive first. Pure."""
    changed = replace(base, **rung.changes)
    if not rung.float_layers:
        return changed
    names = tuple(item.layer for item in worst[: rung.float_layers])
    return replace(changed, float_layers=tuple(dict.fromkeys((*base.float_layers, *names))), float_layers_auto=0)


def told(rung: Rung, settings: Settings, drop: float | None, allowed_drop: float, worst: Sequence[Sensitivity]) -> str:
    """Return the outcome of ``rung`` as text. Pure."""
    enough = passes(drop, allowed_drop)
    said = f"{100 * (drop or 0.0):.2f} points below float, {100 * allowed_drop:.2f} allowed"
    cause = f": {rung.cause}" if enough and rung is not LADDER[0] else ""
    left = {item.layer: item.sqnr_db for item in worst}
    kept = ", ".join(f"{name} ({left[name]:.1f} dB)" for name in settings.float_layers if name in left)
    return f"{said}{cause}" + (f"; float: {kept}" if rung.float_layers else "")


def _new(rung: Rung, tried: Sequence[TriedRung], settings: Settings) -> bool:
    """Return whether ``rung`` differs from everything tried so far."""
    if "scheme" in rung.changes:
        return bool(rung.changes["scheme"] != settings.scheme)
    if settings.scheme != STATIC:
        return False
    if rung.float_layers:
        return rung.float_layers > settings.float_layers_auto
    return replace(started_from(rung, tried, settings), **rung.changes) not in [item.settings for item in tried]
