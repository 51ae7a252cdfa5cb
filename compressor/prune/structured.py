"""Structured pruning in rounds: narrow, fine-tune, repeat, until the measured MACs or latency meet the target.

Groups that can't be narrowed rightly are left alone, before the first round and, if a plan turns out to break one, in
each; the notes name them with the reason.

Each round reduces the MACs by the same factor. For a latency target the share of MACs is found first, by narrowing
copies and timing them (weights hardly affect the time), and checked again at the end. Decides the targets of the
rounds; ``plan`` decides the channels. Latency is that of onnxruntime on this host, one thread, one row at a time.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from compressor.errors import PruneError
from compressor.export.onnx import INPUT_NAME, OUTPUT_NAMES, export_onnx
from compressor.measurement import predictions
from compressor.portions import Inputs
from compressor.prune.groups import FoundGroups, find_groups, narrow, output_layer
from compressor.prune.importance import (
    RATIOS,
    ChannelSensitivity,
    channel_scores,
    measure_sensitivity,
    sensitive_layers,
)
from compressor.prune.judging import fine_tune, judged
from compressor.prune.plan import PlanLimits, count_macs, count_parameters, plan
from compressor.prune.soundness import sound_groups, without_faults_of
from compressor.prune.tracing import Shape
from compressor.steps._base import Applied, Bench
from wire.manifest import Manifest, TensorSpec

if TYPE_CHECKING:
    from compressor.prune.settings import PruneSettings

_LADDER, _HELPS, _PATIENCE, _EXTRA_ROUNDS = 0.85, 0.98, 3, 3


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Pruning:
    """What all rounds share; ``first_channels`` are the original widths by root layer.

    ``left_alone``: the reasons by layers, added to when a round finds another.
    """

    bench: Bench
    settings: PruneSettings
    shape: Shape
    protected: frozenset[str]
    first_channels: Mapping[str, int]
    macs: int
    left_alone: dict[tuple[str, ...], str]

    def untouched(self) -> frozenset[str]:
        """Return the layers that are protected or left alone."""
        return self.protected.union(*self.left_alone)

    def leave_alone(self, found: FoundGroups) -> None:
        """Add what ``found`` leaves alone, and say what is new."""
        new = {layers: why for layers, why in found.left_alone.items() if layers not in self.left_alone}
        if new:
            self.left_alone.update(new)
            self.bench.tell(f"pruning leaves alone {FoundGroups(groups=(), left_alone=new).reasons()}")


def prune(network: nn.Module, bench: Bench, settings: PruneSettings) -> Applied:
    """Return ``network`` narrowed in place and fine-tuned, with MACs, parameters and accuracy of each round as notes.

    Args:
        network: Returns (logits, embedding) of float32 (N, C, H, W).
        bench: ``train`` for fine-tuning, ``search`` to judge.
        settings: Settings of the step.

    Raises:
        PruneError: If the requested share can't be reached, no channels can be followed, or there are no rows to judge
            with.
        TrainError: If fine-tuning diverges.
        ExportError: If there is a latency target and the network does not export.
    """
    measured: tuple[ChannelSensitivity, ...] = ()
    if settings.sensitivity or settings.protect_sensitive:
        bench.tell("measuring the sensitivity of each layer")
        measured = measure_sensitivity(network, bench, settings.importance)
    job = _job(network, bench, settings, measured)
    notes: dict[str, Any] = {
        "macs_before": job.macs,
        "parameters_before": count_parameters(network),
        **judged(network, bench.search, "{}_before"),
    }
    if not job.first_channels:
        return Applied(network=network, notes=notes | _told(job), nothing=_no_layers(network, job))
    if settings.latency_ratio:
        _to_latency(network, job, notes)
    else:
        _in_rounds(network, job, settings.macs_ratio, notes)
    macs = count_macs(network, *job.shape)
    notes |= {
        "macs_after": macs,
        "macs_ratio": round(macs / job.macs, 4),
        "parameters_after": count_parameters(network),
        **judged(network, bench.search, "{}_after"),
    }
    why = notes.get("latency_verdict", "every channel is needed to keep macs_ratio, round_to and max_layer_ratio")
    nothing = "" if macs < job.macs else f"no channel was removed ({why})"
    notes |= _told(job) | _bearing(network, job)
    for layer in dict.fromkeys(one.layer for one in measured):
        drops = {one.ratio: one.drop_points for one in measured if one.layer == layer}
        notes[f"sensitivity {layer}"] = ", ".join(f"{drops[ratio]:.2f} points at {ratio:g}" for ratio in RATIOS)
    return Applied(network=network, notes=notes, nothing=nothing)


def _told(job: _Pruning) -> dict[str, str]:
    """Return the notes on layers that are not narrowed."""
    protected = {"protected_layers": ", ".join(sorted(job.protected))} if job.protected else {}
    left = FoundGroups(groups=(), left_alone=job.left_alone).reasons()
    return protected | ({"left_alone": left} if left else {})


def _bearing(network: nn.Module, job: _Pruning) -> dict[str, str]:
    """Return a note on the layers that lost more than half of their channels because others are left alone."""
    if not job.left_alone:
        return {}
    groups = find_groups(network, job.shape, job.untouched()).groups
    widths = [(group.root, group.channels, job.first_channels.get(group.root, 0)) for group in groups]
    told = [f"{layer} ({left} of {before})" for layer, left, before in widths if 2 * left < before]
    return {"bears_the_rest": ", ".join(told)} if told else {}


_WHOLE = (nn.RNNBase, nn.MultiheadAttention)
"""Layers that are never narrowed."""


def _no_layers(network: nn.Module, job: _Pruning) -> str:
    """Return why no layer of ``network`` can be narrowed."""
    outputs = output_layer(network, job.shape)
    why = [f"{outputs}: its outputs are the classes"] if outputs else []
    why += [f"{', '.join(sorted(job.protected))}: protected by protect_sensitive"] if job.protected else []
    why += [FoundGroups(groups=(), left_alone=job.left_alone).reasons()] if job.left_alone else []
    why += [
        f"{name or 'the network'}: {type(one).__name__}, which is left alone"
        for name, one in network.named_modules()
        if isinstance(one, _WHOLE)
    ]
    return f"no layer can be narrowed ({'; '.join(why) or 'it has no convolution or linear layer'})"


def _job(
    network: nn.Module, bench: Bench, settings: PruneSettings, measured: tuple[ChannelSensitivity, ...]
) -> _Pruning:
    _, channels, height, width = bench.train.inputs.shape
    shape = (channels, height, width)
    limit = settings.protect_sensitive
    protected = sensitive_layers(measured, limit) if limit else frozenset()
    found = sound_groups(network, shape, protected, settings.round_to)
    first = {group.root: group.channels for group in found.groups}
    job = _Pruning(
        bench=bench,
        settings=settings,
        shape=shape,
        protected=protected,
        first_channels=first,
        macs=count_macs(network, *shape),
        left_alone={},
    )
    job.leave_alone(found)
    return job


def _in_rounds(network: nn.Module, job: _Pruning, share: float, notes: dict[str, Any]) -> None:
    rounds = job.settings.rounds
    for number in range(1, rounds + 1):
        epochs = job.settings.fine_tune_epochs if number == rounds else min(1, job.settings.fine_tune_epochs)
        _round(network, job, share ** (number / rounds), epochs, notes)


def _round(network: nn.Module, job: _Pruning, share: float, epochs: int, notes: dict[str, Any]) -> None:
    """Narrow ``network`` to ``share`` of its original MACs, fine-tune, and note the results."""
    number = 1 + sum(name.endswith("_macs") for name in notes)
    job.bench.tell(f"pruning, round {number}")
    _narrow_to(network, job, share)
    pruned = judged(network, job.bench.search, f"round_{number}_{{}}_pruned")
    fine_tune(network, job.bench, epochs)
    notes[f"round_{number}_macs"] = count_macs(network, *job.shape)
    notes |= pruned | judged(network, job.bench.search, f"round_{number}_{{}}_tuned")


def _narrow_to(network: nn.Module, job: _Pruning, share: float) -> nn.Module:
    """Narrow ``network`` in place to ``share`` of its original MACs; groups that would break it are left alone.

    Raises:
        PruneError: If the share can't be reached with the other groups.
    """
    settings = job.settings
    limits = PlanLimits(
        macs=int(share * job.macs),
        round_to=settings.round_to,
        max_layer_ratio=settings.max_layer_ratio,
        first_channels=job.first_channels,
    )
    while True:
        found = find_groups(network, job.shape, job.untouched())
        job.leave_alone(found)
        scores = channel_scores(network, found.groups, settings.importance, job.bench.train)
        try:
            removed = plan(network, job.shape, found.groups, scores, limits)
        except PruneError as error:
            left = _told(job).get("left_alone", "")
            raise PruneError(f"{error} (left alone are {left})" if left else str(error)) from error
        sound = without_faults_of(network, job.shape, found, removed)
        if len(sound.groups) == len(found.groups):
            return narrow(network, job.shape, removed)
        job.leave_alone(sound)


def _to_latency(network: nn.Module, job: _Pruning, notes: dict[str, Any]) -> None:
    """Prune to the first share of MACs that is fast enough, or to the fastest found, and note which."""
    unpruned, inputs, goal = copy.deepcopy(network), job.bench.train.inputs, job.settings.latency_ratio
    share, why = _share_for_latency(unpruned, job)
    _in_rounds(network, job, share, notes)
    reached = latency_ratio(network, unpruned, inputs)
    for _ in range(_EXTRA_ROUNDS):
        if reached <= goal or why:
            break
        share *= _LADDER
        try:
            _round(network, job, share, job.settings.fine_tune_epochs, notes)
        except PruneError as error:
            why = str(error)
        reached = latency_ratio(network, unpruned, inputs)
    notes["latency_ratio"] = round(reached, 4)
    notes["latency_goal"] = goal
    notes["latency_verdict"] = "reached" if reached <= goal else why or f"not reached after {_EXTRA_ROUNDS} more rounds"


def _share_for_latency(unpruned: nn.Module, job: _Pruning) -> tuple[float, str]:
    """Return the share of MACs to keep, and why the goal can't be reached; "" if it can."""
    best_share, best, tried, why = 1.0, 1.0, 0, ""
    share = _LADDER
    while tried < _PATIENCE:
        try:
            ratio = latency_ratio(_narrow_to(copy.deepcopy(unpruned), job, share), unpruned, job.bench.train.inputs)
        except PruneError as error:
            why = f"{error} (fastest found: {best:.3f} of the time)"
            break
        job.bench.tell(f"{share:.2f} of the MACs take {ratio:.2f} of the time")
        tried = 0 if ratio < best * _HELPS else tried + 1
        best_share, best = (share, ratio) if ratio < best * _HELPS else (best_share, best)
        if ratio <= job.settings.latency_ratio:
            return share, ""
        share *= _LADDER
    return best_share, why or f"further pruning does not help: {best:.3f} of the time at {best_share:.3f} of the MACs"


def latency_ratio(network: nn.Module, unpruned: nn.Module, inputs: Inputs) -> float:
    """Return the median latency of ``network`` over that of ``unpruned``, both exported to float ONNX.

    They take turns on the same real ``inputs``, float32 (N, C, H, W), so that a busy machine affects both alike.

    Raises:
        ExportError: If one does not export.
        MeasureError: If one can't be run.
    """
    _, channels, height, width = inputs.shape
    outputs = tuple(TensorSpec(name=name, shape=(-1, -1)) for name in OUTPUT_NAMES)
    shaped = (TensorSpec(name=INPUT_NAME, shape=(-1, channels, height, width)),)
    manifest = Manifest(inputs=shaped, outputs=outputs)
    candidates = {
        name: predictions.Candidate(manifest, export_onnx(module, channels, height, width))
        for name, module in (("pruned", network), ("unpruned", unpruned))
    }
    measured = predictions.latency(candidates, inputs)
    return measured["pruned"].p50_ms / max(measured["unpruned"].p50_ms, 1e-6)
