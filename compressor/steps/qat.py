"""Quantization-aware training: trains with fake-quantized weights and activations, and learns the activation ranges.

Batch norms are folded first. The result has the same structure, its weights lie on the quantization grid, and the
learned ranges go to the quantizers of both formats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from compressor.steps._base import NETWORK, Applied, Bench, Network
from wire.settings import Bound

LEVEL = NETWORK
TRAIN_READS = frozenset({"batch", "augment", "label_smoothing", "seed", "loss", "flips"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``[[compress]] step = "qat"``.

    ``max_steps``: 0 means no limit besides ``epochs``. ``learning_rate``: of weights, falling to 0 as a cosine.
    ``range_learning_rate``: of ranges, as a share of their width per step. ``per_channel`` and ``reduce_range``: as in
    the quantize step that follows, from which a recipe takes them. ``distill``: share of the teacher in the loss, 0 to
    1. ``equalize``: equalize channels before the first step if search rows then score better. ``allow_unchanged``: no
    error if no epoch is better than the start.
    """

    step: str = "qat"
    epochs: Annotated[int, Bound(1, 10_000)] = 3
    max_steps: Annotated[int, Bound(0, 2**31)] = 0
    learning_rate: Annotated[float, Bound(1e-8, 1)] = 0.0005
    range_learning_rate: Annotated[float, Bound(0, 1)] = 0.005
    per_channel: bool = True
    reduce_range: bool = False
    distill: Annotated[float, Bound(0, 1)] = 0.5
    equalize: bool = True
    allow_unchanged: bool = False


def apply(network: Network, bench: Bench, settings: Settings) -> Applied:
    """Return ``network`` trained on its int8 grid, with the learned ranges; changed in place.

    Raises:
        QuantizeError: If it can't be traced or simulated, or there are no calibration rows.
        TrainError: If there are no rows to learn from or to judge by, or the loss is not finite.
    """
    from compressor.qat import fake_quantize, simulation, training  # noqa: PLC0415 - torch, seconds to import
    from compressor.train.supervised import one_thread  # noqa: PLC0415 - likewise

    grid, rows = fake_quantize.Grid(settings.per_channel, settings.reduce_range), bench.calibration.inputs
    simulated = simulation.simulate(network, rows, grid)
    with one_thread():
        prepared = training.prepare(simulated, rows, bench.search, equalize=settings.equalize)
    plan = training.QatPlan(
        epochs=settings.epochs,
        max_steps=settings.max_steps,
        learning_rate=settings.learning_rate,
        range_learning_rate=settings.range_learning_rate,
        distill=settings.distill,
        batch=bench.settings.batch,
        augment=bench.settings.augment,
        label_smoothing=bench.settings.label_smoothing,
        seed=bench.settings.seed,
        loss=bench.settings.loss,
        flips=bench.settings.flips,
    )
    trained = training.train(simulated, bench.train, bench.search, plan, teacher=bench.teacher, tell=bench.tell)
    simulated.settle()
    what = f"fake_quant_{bench.search.of_task.measure}"
    notes = {
        f"{what}_before": abs(prepared.plain.accuracy),
        f"{what}_prepared": abs(prepared.score.accuracy),
        what: abs(trained.best.accuracy),
        "prepared": prepared.name,
        "steps": trained.steps,
        "best_epoch": trained.best_epoch,
        "ranges": len(simulated.quantizers),
        "distilled": bench.teacher is not None and settings.distill > 0,
    }
    nothing = (
        "" if trained.best_epoch else f"no epoch ({trained.steps} steps) scored better on search rows than the start"
    )
    return Applied(network=network, ranges=simulated.ranges(), notes=notes, nothing=nothing)
