"""Settings of structured and unstructured pruning. Pure data, without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from wire.settings import Bound, OneOf

IMPORTANCES = ("magnitude", "taylor", "bn_scale")


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneSettings:
    """Settings of the step ``prune``.

    ``macs_ratio``: largest share of the counted multiply-accumulates that remains. ``importance``: ``magnitude``,
    ``taylor`` or ``bn_scale``. ``rounds``: how often to prune a part and fine-tune. ``fine_tune_epochs``: after the
    last round; 1 after each earlier one. ``round_to``: widths are multiples of it, which suits runtimes with wide
    registers. ``latency_ratio``: if above 0, prune until the exported network takes at most this share of its original
    time, in onnxruntime on one thread, regardless of ``macs_ratio``. ``max_layer_ratio``: largest share of a layer's
    channels that may be removed. ``sensitivity``: measure and note the cost of each layer. ``protect_sensitive``:
    points of accuracy (of 100) that a layer may cost at half its channels; costlier layers are not pruned; 0 protects
    none. ``allow_unchanged``: no error if the step finds nothing to do.
    """

    step: str = "prune"
    macs_ratio: Annotated[float, Bound(0.01, 0.99)] = 0.5
    importance: Annotated[str, OneOf(IMPORTANCES)] = "magnitude"
    rounds: Annotated[int, Bound(1, 100)] = 3
    fine_tune_epochs: Annotated[int, Bound(0, 10_000)] = 3
    round_to: Annotated[int, Bound(1, 1024)] = 8
    latency_ratio: Annotated[float, Bound(0, 0.99)] = 0.0
    max_layer_ratio: Annotated[float, Bound(0.01, 0.99)] = 0.8
    sensitivity: bool = False
    protect_sensitive: Annotated[float, Bound(0, 100)] = 0.0
    allow_unchanged: bool = False


UNSTRUCTURED = "unstructured"

_N_OF_M = re.compile(r"([1-9]\d?):([1-9]\d?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class SparsifySettings:
    """Settings of the step ``sparsify``.

    ``pattern``: ``unstructured``, or ``N:M`` (``2:4``, ``1:4``): N of every M neighbouring inputs are kept.
    ``sparsity``: share of zeros in each masked layer, for ``unstructured``. ``rounds``: zeros increase along the cubic
    schedule, with an epoch of fine-tuning after each round and ``fine_tune_epochs`` after the last.
    ``allow_unchanged``: no error if the step finds nothing to do.
    """

    step: str = "sparsify"
    pattern: str = UNSTRUCTURED
    sparsity: Annotated[float, Bound(0.01, 0.99)] = 0.5
    rounds: Annotated[int, Bound(1, 100)] = 3
    fine_tune_epochs: Annotated[int, Bound(0, 10_000)] = 3
    allow_unchanged: bool = False


def n_of_m(pattern: str) -> tuple[int, int]:
    """Return N and M of ``pattern``; (1, 1) if it is not ``N:M`` with N below M, such as ``unstructured``."""
    found = _N_OF_M.fullmatch(pattern)
    n, m = (int(found[1]), int(found[2])) if found else (1, 1)
    return (n, m) if n < m else (1, 1)
