"""Formats one slot's evidence as rows of the store, for the dashboard and the API."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from server.drift.detection.attribution import sentence, top_shares
from server.drift.detection.baseline import FINAL
from server.drift.detection.carrying import BankKey
from server.drift.detection.detector_bank import ROWS
from server.drift.detection.movement import CONTROL_DEVICES
from server.drift.detection.reference import Floats, Ints, proportions
from server.drift.findings import Scene, causes
from server.fleet.fleet import Device
from server.ingest import packed_counts
from server.ingest.windows import StoredWindow
from wire.histogram import BINS


def psi(counts: Ints | Floats, reference: Ints | Floats) -> Floats:
    """Return the population stability index per stream, (..., 16) and (..., 16) to (...).

    Source: B. Yurdakul, Statistical properties of population stability index, 2018: sum (q - p) ln(q / p).
    """
    q, p = proportions(counts), proportions(reference)
    return np.asarray(((q - p) * np.log(q / p)).sum(axis=-1))


def jensen_shannon(counts: Ints | Floats, reference: Ints | Floats) -> Floats:
    """Return the Jensen-Shannon distance (base 2, 0..1) per stream.

    Source: J. Lin, IEEE Trans. Information Theory 37 (1991) 145-151; the square root is a metric.
    """
    q, p = proportions(counts), proportions(reference)
    middle = (p + q) / 2
    divergence = (p * np.log2(p / middle)).sum(axis=-1) / 2 + (q * np.log2(q / middle)).sum(axis=-1) / 2
    return np.asarray(np.sqrt(np.maximum(divergence, 0.0)))


def kolmogorov_smirnov(counts: Ints | Floats, reference: Ints | Floats) -> Floats:
    """Return the largest distance between the binned distribution functions, per stream (0..1)."""
    q = counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    p = reference / np.maximum(reference.sum(axis=-1, keepdims=True), 1)
    return np.asarray(np.abs(np.cumsum(q - p, axis=-1)).max(axis=-1))


_TOP = 5
_TRAINED = 2000.0  # weight of the training reference, in samples, while a device has no baseline
_MAX_ATTRIBUTES, _MAX_ATTRIBUTE_CHARACTERS = 32, 127
_FLOOR = -50.0  # lower log values are shown as this
_AS_JSON = json.JSONEncoder(check_circular=False).encode
"""Details are encoded at once: a hundred thousand small live objects would slow down garbage collection."""


def device_rows(scene: Scene, windows: Sequence[StoredWindow]) -> list[dict[str, object]]:
    """Return one row per device that sent a window (of several contexts, the last), with its details as JSON text."""
    latest: dict[str, StoredWindow] = {}
    n: dict[str, int] = {}
    for window in windows:
        latest[window.device] = window
        n[window.device] = n.get(window.device, 0) + window.n
    training = {key: bank.training_values() for key, bank in scene.state.banks.items()}
    top, drawn = _top_shares(scene, latest), _summaries(scene, latest)
    sizes = {
        key: sum(scene.state.is_in(device, key) for device in bank.rows) for key, bank in scene.state.banks.items()
    }
    rows: list[dict[str, object]] = []
    for device, window in sorted(latest.items()):
        key = (window.ref_id, window.artifact)
        bank = scene.state.banks.get(key)
        row = bank.rows.get(device) if bank else None
        judged = device in scene.outcome.log_values
        level = None if row is None or bank is None or bank.training is None else float(training[key][row])
        fault = scene.faults.get(device)
        rows.append({
            "device": device, "start_ms": window.start_ms, "ref_id": window.ref_id, "n": n[device],
            "phase": "judged" if judged else "commissioning",
            "log_value": number(scene.outcome.log_values.get(device)), "training_log_value": number(level),
            "log_threshold": scene.outcome.log_threshold, "flagged": device in scene.outcome.flagged,
            "new_place": device in scene.new_places,
            "fault": fault.code if fault else "", "cause": _cause(scene, fault.text if fault else "", level, device),
            **_baseline(scene, device, key, sizes.get(key, 0)),
            "streams": top.get(device, "[]"), "summaries": drawn.get(device, "{}"),
        })  # fmt: skip
    return rows


def _baseline(scene: Scene, device: str, key: BankKey, fleet: int) -> dict[str, object]:
    """Return whether a device's baseline is provisional, its windows so far, and how many change that next.

    In a ``fleet`` of fewer than eight devices of one release nothing is judged before the baseline is complete. A
    device that has enough windows may still wait until eight have; one whose baseline is complete has all that it
    wanted.
    """
    bank = scene.state.banks.get(key)
    if bank is None or device not in bank.rows:
        return {"provisional": False, "baseline_windows": 0, "wanted_windows": 0}
    own = bank.commissioning[bank.rows[device]]
    provisional = device in scene.outcome.provisional
    waits = bank.stage[bank.rows[device]] < FINAL and not provisional and fleet >= CONTROL_DEVICES
    first = own.stages[0] if waits else own.stages[-1]
    return {"provisional": provisional, "baseline_windows": own.windows, "wanted_windows": first}


def _top_shares(scene: Scene, devices: Iterable[str]) -> dict[str, str]:
    """Return each device's streams with the most evidence, against what its cause is about.

    That is training while it has no baseline of its own, and at a place that training does not know.
    """
    alike: dict[tuple[BankKey, bool, bool], list[str]] = {}
    for device in devices:
        if device in scene.state.current:
            carried = scene.state.carried_bank(device) is not None
            foreign = device in scene.new_places - scene.outcome.flagged and not carried
            judged = device in scene.outcome.log_values and not foreign
            alike.setdefault((scene.state.current[device].key, judged, carried), []).append(device)
    found: dict[str, str] = {}
    for (key, judged, carried), members in alike.items():
        bank = scene.state.carried[key].bank if carried else scene.state.banks[key]
        recent = bank.evidence if judged else bank.training_recent.__getitem__
        facts = scene.facts_of(key)
        streams = facts.streams(bank.streams)
        for first in range(0, len(members), ROWS):
            some = members[first : first + ROWS]
            rows = [bank.rows[device] for device in some]
            top = top_shares(recent(rows), streams, _TOP, pictures=facts.pictures)
            for device, shares in zip(some, top, strict=True):
                found[device] = _AS_JSON([
                    {"stream": share.stream, "shape": share.shape, "share_ratio": round(share.share_ratio, 4),
                     "words": share.words}
                    for share in shares
                ])  # fmt: skip
    return found


def _cause(scene: Scene, fault: str, training_value: float | None, device: str) -> str:
    if fault:
        return fault
    if device in scene.outcome.flagged:
        return sentence(causes(scene, [device]))
    if device in scene.new_places:
        return "training does not know this place: " + sentence(causes(scene, [device], training=True))
    commissioning = device not in scene.outcome.log_values
    if commissioning and training_value is not None and training_value >= scene.outcome.log_threshold:
        return "differs from training: " + sentence(causes(scene, [device], training=True))
    return ""


def _summaries(scene: Scene, latest: Mapping[str, StoredWindow]) -> dict[str, str]:
    """Return PSI, Jensen-Shannon, Kolmogorov-Smirnov and the least shift of the streams that differ most, as JSON."""
    alike: dict[BankKey, list[StoredWindow]] = {}
    for device, window in latest.items():
        key = (window.ref_id, window.artifact)
        if device not in scene.faults and key in scene.state.banks and device in scene.state.banks[key].rows:
            alike.setdefault(key, []).append(window)
    found: dict[str, str] = {}
    for key, members in alike.items():
        bank, usual = scene.state.banks[key], scene.facts_of(key).usual
        if usual is None:
            continue
        for first in range(0, len(members), ROWS):
            some = members[first : first + ROWS]
            rows = [bank.rows[window.device] for window in some]
            own = bank.usual[rows] * bank.n_effective[rows][..., None]
            own[bank.stage[rows] == 0] = usual.proportions * _TRAINED
            least = bank.least_shifts(rows, scene.config.z)
            least[[window.device not in scene.outcome.log_values for window in some]] = np.nan
            figures = _figures(counts_of(some), own, usual.names, least)
            found |= {window.device: figure for window, figure in zip(some, figures, strict=True)}
    return found


def _figures(counts: Ints, own: Floats, names: Sequence[str], least: Floats) -> list[str]:
    """Return the summaries of each of D windows, ``counts`` and ``own`` (D, S, 16), by stream and name, as JSON.

    ``least`` (D, S): the shift from which on a stream would be noticed; NaN where it is not judged.
    """
    top = np.argsort(-jensen_shannon(counts, own), axis=1, kind="stable")[:, :_TOP]
    q: Floats = np.take_along_axis(counts.astype(np.float64), top[..., None], axis=1)
    p: Floats = np.take_along_axis(own, top[..., None], axis=1)
    found = [psi(q, p), jensen_shannon(q, p), kolmogorov_smirnov(q, p)]
    found.append(np.take_along_axis(least, top, axis=1))
    figures = (np.round(figure, 4).tolist() for figure in found)
    return [
        _AS_JSON({
            names[i]: {"psi": psi, "js": js, "ks": ks} | ({} if math.isnan(sd) else {"least_sd": sd})
            for i, psi, js, ks, sd in zip(*of_window, strict=True)
        })
        for of_window in zip(top.tolist(), *figures, strict=True)
    ]  # fmt: skip


def pool_rows(scene: Scene, start_ms: int) -> list[dict[str, object]]:
    """Return one row for each pool."""
    return [
        {"start_ms": start_ms, "ref_id": key[0][0], "attribute": key[1][0], "value": key[1][1],
         "members": scene.state.pools[key].members, "log_value": number(value),
         "log_threshold": scene.outcome.pool_log_threshold, "alarm": key in scene.outcome.pool_alarms,
         "collecting": key in scene.outcome.collecting}
        for key, value in scene.outcome.pool_values.items() if key in scene.state.pools
    ]  # fmt: skip


def counts_of(windows: Sequence[StoredWindow]) -> Ints:
    """Return the bin counts (W, S, 16) of windows of one shape; each must satisfy ``is_whole``."""
    streams = windows[0].shape.streams
    return _words(windows)[:, : streams * BINS].reshape(len(windows), streams, BINS)


def invalid_of(windows: Sequence[StoredWindow]) -> Ints:
    """Return the invalid counts (W, S) of windows that all have the same shape."""
    streams = windows[0].shape.streams
    return _words(windows)[:, streams * BINS : streams * (BINS + 1)]


def is_whole(window: StoredWindow) -> bool:
    """Return whether the number of counts in ``window`` matches its shape."""
    return packed_counts.is_whole(window.data, window.shape.total)


def _words(windows: Sequence[StoredWindow]) -> Ints:
    return packed_counts.unpack_many([window.data for window in windows], windows[0].shape.total)


def attributes_of(site: str, *documents: Mapping[str, str]) -> dict[str, str]:
    """Return a device's attributes with its site; earlier documents win.

    Devices may report anything: long attributes, and those beyond the first 32 by name, are left out.
    """
    merged: dict[str, str] = {}
    for document in documents:
        for name in sorted(document.keys() - merged.keys()):
            value = document[name]
            if len(merged) < _MAX_ATTRIBUTES and max(len(name), len(value)) <= _MAX_ATTRIBUTE_CHARACTERS:
                merged[name] = value
    return merged | {"site": site}


def device_attributes(device: Device) -> dict[str, str]:
    """Return the attributes of ``device``: those of its claim, then those that it reports."""
    return attributes_of(device.site, device.attributes, device.reported.attributes if device.reported else {})


def attributes_left_out(taken: Mapping[str, str], *documents: Mapping[str, str]) -> int:
    """Return how many attributes of ``documents`` are not in ``taken``, which ``attributes_of`` returned."""
    return len(set().union(*documents) - taken.keys())


def number(value: float | None) -> float | None:
    """Return ``value`` for JSON: None for unknown, never infinite."""
    if value is None or math.isnan(value):
        return None
    return min(max(value, _FLOOR), 1e6)
