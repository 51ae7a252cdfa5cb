"""One slot's evidence as rows of the store: what the dashboard draws and a person reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from server.drift import summaries
from server.drift.attribution import sentence
from server.drift.lane import Lane
from server.drift.views import LaneFacts, Scene, causes
from server.windows import Window
from wire.histogram import BINS

_TOP = 5
_MAX_ATTRIBUTES, _MAX_ATTRIBUTE_CHARACTERS = 32, 127
_FLOOR = -50.0  # a log value below that is drawn as that


def device_rows(scene: Scene, windows: Sequence[Window]) -> list[dict[str, object]]:
    """Return one row for each device that sent a window (of several contexts the last)."""
    latest = {window.device: window for window in windows}
    training = {key: lane.training_values() for key, lane in scene.state.lanes.items()}
    rows: list[dict[str, object]] = []
    for device, window in sorted(latest.items()):
        key = (window.ref_id, window.artifact)
        lane = scene.state.lanes.get(key)
        row = lane.rows.get(device) if lane else None
        judged = device in scene.outcome.log_values
        level = None if row is None or lane is None or lane.training is None else float(training[key][row])
        found = causes(scene, [device], training=not judged)
        fault = scene.faults.get(device)
        rows.append({
            "device": device, "start_ms": window.start_ms, "ref_id": window.ref_id,
            "n": sum(other.n for other in windows if other.device == device),
            "phase": "judged" if judged else "commissioning",
            "log_value": number(scene.outcome.log_values.get(device)), "training_log_value": number(level),
            "log_threshold": scene.outcome.log_threshold, "flagged": device in scene.outcome.flagged,
            "fault": fault.code if fault else "", "cause": _cause(scene, fault.text if fault else "", level, device),
            "streams": [
                {"stream": share.stream, "shape": share.shape, "share_ratio": round(share.share_ratio, 4),
                 "words": share.words} for share in found[:_TOP]
            ],
            "summaries": {} if fault else _summaries(window, lane, scene.facts.get(key, LaneFacts())),
        })  # fmt: skip
    return rows


def _cause(scene: Scene, fault: str, training_value: float | None, device: str) -> str:
    if fault:
        return fault
    if device in scene.outcome.flagged:
        return sentence(causes(scene, [device]))
    commissioning = device not in scene.outcome.log_values
    if commissioning and training_value is not None and training_value >= scene.outcome.log_threshold:
        return "differs from training: " + sentence(causes(scene, [device], training=True))
    return ""


def _summaries(window: Window, lane: Lane | None, facts: LaneFacts) -> dict[str, dict[str, float]]:
    """Return PSI, Jensen-Shannon and Kolmogorov-Smirnov of the streams that differ most from the baseline."""
    if lane is None or facts.usual is None or window.device not in lane.rows:
        return {}
    row = lane.rows[window.device]
    counts = counts_of(window)
    own = lane.usual[row] * lane.n_effective[row][:, None] if lane.ready[row] else facts.usual.proportions * 2000.0
    figures = {
        "psi": summaries.psi(counts, own),
        "js": summaries.jensen_shannon(counts, own),
        "ks": summaries.kolmogorov_smirnov(counts, own),
    }
    top = np.argsort(-figures["js"], kind="stable")[:_TOP]
    return {facts.usual.names[i]: {name: round(float(value[i]), 4) for name, value in figures.items()} for i in top}


def pool_rows(scene: Scene, start_ms: int) -> list[dict[str, object]]:
    """Return one row for each pool."""
    return [
        {"start_ms": start_ms, "ref_id": key[0][0], "attribute": key[1][0], "value": key[1][1],
         "members": scene.state.pools[key].members, "log_value": number(value),
         "log_threshold": scene.outcome.pool_log_threshold, "alarm": key in scene.outcome.pool_alarms}
        for key, value in scene.outcome.pool_values.items() if key in scene.state.pools
    ]  # fmt: skip


def counts_of(window: Window) -> np.ndarray:
    """Return the bin counts of a window, int64 (S, 16)."""
    return window.values[: window.shape.streams * BINS].reshape(window.shape.streams, BINS)


def invalid_of(window: Window) -> np.ndarray:
    """Return the invalid counts of a window, int64 (S,)."""
    return window.values[window.shape.streams * BINS : window.shape.streams * (BINS + 1)]


def attributes_of(site: str, *documents: Mapping[str, str]) -> dict[str, str]:
    """Return a device's attributes with its site; earlier documents win.

    Devices report what they like: long ones, and those beyond the first 32 by name, are left out.
    """
    merged: dict[str, str] = {}
    for document in documents:
        for name in sorted(document.keys() - merged.keys()):
            value = document[name]
            if len(merged) < _MAX_ATTRIBUTES and max(len(name), len(value)) <= _MAX_ATTRIBUTE_CHARACTERS:
                merged[name] = value
    return merged | {"site": site}


def number(value: float | None) -> float | None:
    """Return ``value`` as JSON can carry it: None for unknown, never infinite."""
    if value is None or math.isnan(value):
        return None
    return min(max(value, _FLOOR), 1e6)
