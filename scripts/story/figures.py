"""The figures of the final table: accuracy per site before and after, with the bound of the paired test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor.data._table import Table
from compressor.statistics.paired import drop_upper, paired
from edge_agent.inference.preprocess import to_batch
from edge_agent.runtimes import load
from scripts.story.plans import Judge
from wire.bundle import read_bundle

_BATCH = 64
_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class SiteFigures:
    """One site: accuracy of the first and the second model, and the upper bound of the drop (95 %)."""

    name: str
    n: int
    before: float
    after: float
    drop_upper: float
    drifted: bool


def compare(judges: Sequence[Judge], before: Path, after: Path) -> tuple[SiteFigures, ...]:
    """Return the figures of every judge for two bundles, run as on a device; last, all stable sites together."""
    right = [(judge, _right(before, judge.table), _right(after, judge.table)) for judge in judges]
    sites = [_figures(judge.name, first, second, drifted=judge.drifted) for judge, first, second in right]
    stable = [(first, second) for judge, first, second in right if not judge.drifted]
    together = [np.concatenate(column) for column in zip(*stable, strict=True)]
    return (*sites, _figures("all stable sites", together[0], together[1], drifted=False))


def _figures(name: str, before: NDArray[np.bool_], after: NDArray[np.bool_], *, drifted: bool) -> SiteFigures:
    bound = drop_upper(paired(before, after), _CONFIDENCE)
    return SiteFigures(name, len(before), float(before.mean()), float(after.mean()), bound, drifted)


def _right(path: Path, table: Table) -> NDArray[np.bool_]:
    bundle = read_bundle(path)
    runtime = load(bundle.manifest, bundle.artifact)
    batch = to_batch(list(table.images), bundle.manifest.preprocessing)
    logits = np.concatenate([runtime.run(batch[i : i + _BATCH])[0] for i in range(0, len(batch), _BATCH)])
    runtime.close()
    names = np.array(bundle.manifest.labels)[logits.argmax(axis=1)]
    right: NDArray[np.bool_] = names == np.array(table.class_names)[table.labels]
    return right
