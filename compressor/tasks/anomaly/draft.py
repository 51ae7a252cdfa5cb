"""A first recipe of anomalies: training rows are all normal, or hardly any row is anything else."""

from __future__ import annotations

import numpy as np

from compressor.tasks._drafting import DraftedParts, Facts, Key, WrittenLabels, normal_names, training
from compressor.tasks.anomaly.targets import ANOMALOUS

RANGE_MARGIN = 0.5
CALIBRATION_SHARE = 0.25
"""The threshold for alarms rests on the calibration rows."""
_ENOUGH_SHARE, _ENOUGH = 0.1, 50
"""From so many other rows, as a share of all and as sources, a classifier can learn them."""
_TRAIN = "train"


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
    gates = [
        Key(name="false_alarms_per_day", value={"max": 2.0}, why="its upper bound; says how many hours are missing")
    ]
    if odd:
        why = f"of {odd} anomalous rows; with fewer than 20 sources of them it stays INCONCLUSIVE"
        gates.insert(0, Key(name="auc_drop", value={"max": 0.05}, why=why))
    else:
        why = "there is no anomalous row to show that it finds any: give some, and remove this line"
        network.append(Key(name="allow_constant", value="no anomalous rows yet", why=why))
    train = [key for key in training(facts, learning_rate=0.005) if key.name != "augment"]
    return DraftedParts(
        network=tuple(network),
        train=(*train, Key(name="augment", value=0.0, why="what is moved or dimmed may be an anomaly")),
        gates=tuple(gates),
        hints=("auc = {min = 0.9}  # what your use needs: a person knows it, the data do not",) if odd else (),
        tables={
            "alarm": (
                Key(name="false_alarms_per_day", value=1.0, why="that you accept: it chooses the threshold"),
                Key(name="interval_s", value=60.0, why="from one input to the next on the device: write yours"),
            )
        },
        notes=(
            "Possible too: a classifier, without task, normal and [alarm], with another network and accuracy gates. It",
            "tells the kinds that it has learnt, and needs many rows of each in all splits.",
        )
        if odd
        else (),
        labels=False,
    )
