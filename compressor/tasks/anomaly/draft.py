"""A first recipe of anomalies: training rows are all normal, or hardly any row is anything else."""

from __future__ import annotations

import math

import numpy as np

from compressor.gates.metrics import MIN_RAREST, MIN_SAMPLES
from compressor.statistics.bootstrap import Draws, auc_drop
from compressor.statistics.bounds import MetricEvidence
from compressor.statistics.false_alarms import DAY_S, days_for
from compressor.tasks._drafting import (
    INT8_NOISE,
    DraftedParts,
    Facts,
    Key,
    WrittenLabels,
    margin_of_metric,
    normal_names,
    planned,
    training,
)
from compressor.tasks.anomaly.targets import ANOMALOUS

RANGE_MARGIN = 0.5
CALIBRATION_SHARE = 0.25
"""The threshold for alarms rests on the calibration rows."""
_ENOUGH_SHARE, _ENOUGH = 0.1, 50
"""From so many other rows, as a share of all and as sources, a classifier can learn them."""
_TRAIN = "train"
_LEAST_DROP, _MOST_PLANNED = 0.02, 600
_APART = 1.8
"""Standard deviations between normal and anomalous scores: an AUC of .9."""
_RATE, _ALLOWED = 1.0, 2.0
"""False alarms a day: what the threshold is chosen for, and the most that the gate allows."""
_INTERVAL_S, _SHORTEST_S, _CONFIDENCE = 60.0, 0.001, 0.95


def keys(seen: WrittenLabels) -> tuple[Key, ...]:
    """Return the task and its normal labels: those to learn from alone, or those named so with few rows of others."""
    usual, why = _by_split(seen) or _by_names(seen)
    if not usual:
        return ()
    return (
        Key(name="task", value="anomaly", why=why),
        Key(name="normal", value=list(usual), why="learnt; every other label is an anomaly, which is only judged"),
    )


def _by_split(seen: WrittenLabels) -> tuple[tuple[str, ...], str] | None:
    """Return the labels of the training rows, if the data set tells these and other rows have other labels."""
    if seen.told is None or not (seen.told == _TRAIN).any():
        return None
    usual = tuple(sorted(set(seen.texts[seen.told == _TRAIN].tolist())))
    if len(usual) == len(seen.names) or (len(usual) > 1 and usual != normal_names(usual)):
        return None
    others = ", ".join(name for name in seen.names if name not in usual)
    return usual, f"the training rows are all {', '.join(usual)}: {others[:80]} can't be learnt, only found"


def _by_names(seen: WrittenLabels) -> tuple[tuple[str, ...], str]:
    if len(seen.names) == 1:
        return seen.names, f"all rows are {seen.names[0]!r}: what is unlike them is an anomaly"
    usual = normal_names(seen.names)
    if not usual or len(usual) == len(seen.names):
        return (), ""
    odd = ~np.isin(seen.texts, usual)
    sources = len(set(seen.sources[odd].tolist()))
    if odd.mean() >= _ENOUGH_SHARE and sources >= _ENOUGH:
        return (), ""
    return (
        usual,
        f"{int(odd.sum())} of {len(odd)} rows ({sources} sources) are not {', '.join(usual)}: too few to learn",
    )


def parts(facts: Facts) -> DraftedParts:
    """Return the parts of a recipe for the rows of ``facts``."""
    odd = int((facts.table.labels == ANOMALOUS).sum())
    network = [
        Key(name="network", value="auto_encoder", why="reconstructs what it has seen: the rest is the score"),
        Key(name="network_options", value={"code": 16}, why="numbers of the code: fewer find more, up to a point"),
    ]
    short = _short(facts, odd)
    hints = []
    gates = [Key(name="false_alarms_per_day", value={"max": _ALLOWED}, why=short or "its upper bound")]
    if short and odd:
        hints = [f"{short}:", f"false_alarms_per_day = {{max = {_ALLOWED}}}"]
        gates = []
    if odd:
        margin, why = _area_margin(facts)
        gates.insert(0, Key(name="auc_drop", value={"max": margin}, why=f"{_why_area(facts.gate, odd)}; {why}"))
        hints.insert(0, "auc = {min = 0.9}  # what your use needs: a person knows it, the data do not")
    else:
        why = "there is no anomalous row to show that it finds any: give some, and remove this line"
        network.append(Key(name="allow_constant", value="no anomalous rows yet", why=why))
    train = [key for key in training(facts, learning_rate=0.005) if key.name != "augment"]
    return DraftedParts(
        network=tuple(network),
        train=(*train, Key(name="augment", value=0.0, why="what is moved or dimmed may be an anomaly")),
        gates=tuple(gates),
        hints=tuple(hints),
        tables={
            "alarm": (
                Key(name="false_alarms_per_day", value=_RATE, why="that you accept: it chooses the threshold"),
                Key(name="interval_s", value=_interval_s(facts), why=_why_interval(facts)),
            )
        },
        notes=(
            "Possible too: a classifier, without task, normal and [alarm], with another network and accuracy gates. It",
            "tells the kinds that it has learnt, and needs many rows of each in all splits.",
        )
        if odd
        else (),
        labels=False,
        remarks=(f"{short}. {'That gate is a comment' if odd else 'It stays INCONCLUSIVE until then'}.",)
        if short
        else (),
    )


def _interval_s(facts: Facts) -> float:
    """Return the time from one row to the next: as the data say it, in the bounds of the key, or a minute."""
    return float(f"{facts.interval_s:.4g}") if _SHORTEST_S <= facts.interval_s <= DAY_S else _INTERVAL_S


def _why_interval(facts: Facts) -> str:
    yours = "from one input to the next on the device: write yours"
    if _interval_s(facts) != float(f"{facts.interval_s:.4g}"):
        return yours
    return f"from one window's start to the next, by the times in the file and the stride; {yours} if it differs"


def _short(facts: Facts, odd: int) -> str:
    """Return which rows the gate on false alarms lacks at the drafted rate and interval, at the least; "" if none."""
    interval_s = _interval_s(facts)
    split = {"calibration": (facts.calibration, _RATE), "gate": (facts.gate - odd, _ALLOWED)}
    needed = {name: math.ceil(days_for(0, rate, _CONFIDENCE) * DAY_S / interval_s) for name, (_, rate) in split.items()}
    lacking = [
        f"{needed[name]:,} normal {name} rows or more (there are {there:,})"
        for name, (there, _) in split.items() if there < needed[name]
    ]  # fmt: skip
    if not lacking:
        return ""
    return (
        f"false_alarms_per_day: at one input each {interval_s:g} s it needs {' and '.join(lacking)}: record more, or "
        "write a longer interval_s or a higher rate"
    )


def _area_margin(facts: Facts) -> tuple[float, str]:
    """Return the drop of the AUC that so many normal and anomalous sources show, and why."""
    sources, anomalous = facts.table.sources, facts.table.labels == ANOMALOUS
    odd, usual = (len(np.unique(sources[rows])) for rows in (anomalous, ~anomalous))
    usual = round(usual * (facts.gate - int(anomalous.sum())) / max(1, int((~anomalous).sum())))
    share = odd / max(1, odd + usual)
    rows, enough = planned(odd + usual, MIN_SAMPLES, _MOST_PLANNED), max(odd + usual, MIN_SAMPLES)
    count = min(max(round(share * rows), MIN_RAREST), rows - MIN_RAREST)
    labels = (np.arange(rows) < count).astype(np.int64)

    def measured(rng: np.random.Generator, draws: Draws) -> MetricEvidence:
        before = rng.standard_normal(rows) + _APART * labels
        return auc_drop(labels, before, before + INT8_NOISE * rng.standard_normal(rows), draws)

    kinds = f"{enough - round(share * enough)} normal and {round(share * enough)} anomalous sources"
    return margin_of_metric(measured, _LEAST_DROP, kinds, times=enough / rows)


def _why_area(gate: int, odd: int) -> str:
    """Return what the gate on the AUC rests on, and how many rows it lacks at the least."""
    rarer = min(odd, gate - odd)
    least = f"with fewer than {MIN_SAMPLES} sources, {MIN_RAREST} of each kind, it stays INCONCLUSIVE"
    lacking = max(MIN_SAMPLES - gate, MIN_RAREST - rarer, 0)
    rest = (
        f"give at least {lacking} more before the first run (a later look needs more)"
        if lacking
        else "a model that is often wrong needs more"
    )
    return f"of {gate} gate rows, {odd} anomalous; {least}: {rest}"
