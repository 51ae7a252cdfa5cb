"""Records what an alarm rests on when its verdict opens, pins the windows of it, and derives the alarm again.

Of a verdict about drift, for up to ``PATHS`` of its flagged devices with most evidence: the state from which the
device's evidence grew, its baseline, and by digest its windows and what the devices of each slot shared. The path
begins where the baseline was estimated, or, if that is longer ago than hourly windows are kept, at the oldest
checkpoint; a start is recorded only after the path from it gave the very bits of the detectors that alarmed. The
windows, and what was shared in their slots, are pinned: they stay as they are as long as the verdict.

What one device's windows can't say is recorded, not derived: the threshold of e-BH, which depends on the evidence of
the whole fleet in that slot, values of pools, and alarms against training or the release before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import sqlalchemy as sa

from server.drift.alarms.paths import JUDGING, PathStart, PathWindow, digest, is_state_of, retraced
from server.drift.checkpoints import Checkpoints, code_digest, packed_ordinary, read_ordinary
from server.drift.config import DriftConfig
from server.drift.detection.baseline import Collected
from server.drift.detection.carrying import BankKey
from server.drift.detection.detector_bank import DetectorBank, DetectorSettings, SharedMovement, arrays_of
from server.drift.detection.movement import ScoreColumns
from server.drift.detection.reference import Singles
from server.drift.detection.slot_update import FoldState, KeptByBank, SlotOutcome
from server.drift.health import SILENT
from server.drift.ledger import Finding
from server.drift.verdicts import VerdictKind
from server.errors import UnknownVerdictError
from server.ingest.packed_counts import unpack
from server.store.database import Database
from server.store.monitoring import alarms as store
from server.store.monitoring.evidence import one_verdict
from server.store.monitoring.spans import insert_pins, pinned_between
from wire.codec import Json
from wire.histogram import BINS, Shape

PATHS = 8
"""Devices of one verdict: an alarm of a whole fleet is the same for each, and a path takes up to half a megabyte."""
DEPTH = 840
"""Slots that a path may have: 35 days of hours, for which windows are kept."""
_PATHS_A_SLOT = 32
"""Paths of all verdicts of one slot: a path takes up to half a second, and a site that goes dark alarms with all."""
_SEEN = 24  # slots whose windows are kept of devices that are not derived again
_COUNT, _SCORE = np.dtype("<i8"), np.dtype("<f8")
_SCORES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedPath:
    """The evidence of one device, derived again: the ``log_values`` after each of its windows from ``from_ms`` on.

    ``since_baseline``: it begins with the baseline; else with a recorded state. ``same``: the last value has the bits
    of ``log_value``, which was recorded. ``missing``: why nothing was derived, "" if it was.
    """

    device: str
    from_ms: int
    since_baseline: bool
    log_value: float
    log_values: tuple[float, ...] = ()
    same: bool = False
    missing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmReplay:
    """An alarm, derived again as far as it can be.

    ``log_threshold``: of e-BH over the ``judged`` devices of the slot that started at ``slot_ms``, as recorded.
    ``decided``: what else was recorded. ``missing``: what can't be derived, in words.
    """

    verdict: int
    slot_ms: int
    log_threshold: float
    judged: int
    decided: Mapping[str, Json]
    paths: tuple[ReplayedPath, ...]
    missing: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether every path was derived, with the bits that were recorded, and something was."""
        return bool(self.paths) and not self.missing and all(path.same for path in self.paths)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedVerdicts:
    """Verdicts that opened in a slot, by id, with the fleet after it, and ``before``, the fleet before it, if known."""

    verdicts: Sequence[tuple[int, Finding]]
    slot: int
    state: FoldState
    outcome: SlotOutcome
    kept: KeptByBank
    before: FoldState | None


@dataclass(frozen=True, slots=True)
class Alarms:
    """The records of one fleet's alarms."""

    database: Database
    config: DriftConfig

    def write_shares(self, connection: sa.Connection, slot: int, banks: Mapping[BankKey, DetectorBank]) -> None:
        """Store by what windows of ``slot`` in ``banks`` were judged, in the caller's transaction."""
        start_ms = slot * self.config.window_ms
        rows: list[dict[str, object]] = [
            {"start_ms": start_ms, "ref_id": key[0], "artifact": key[1], "context": context, "log_cap": one.log_cap,
             "common": one.common.astype(_SCORE).tobytes(), "held": one.held.astype(np.uint8).tobytes()}
            for key, bank in banks.items() for context, one in bank.shared.items()
        ]  # fmt: skip
        store.replace_shares(connection, start_ms, start_ms + self.config.window_ms, rows)

    def record(self, opened: OpenedVerdicts, checkpoints: Checkpoints) -> None:
        """Store what each of the verdicts rests on, and pin its windows."""
        left, pins = _PATHS_A_SLOT, list[dict[str, object]]()
        for verdict, finding in opened.verdicts:
            if finding.verdict.kind is not VerdictKind.DEVICE_FAULT:
                left -= self._record((verdict, finding), opened, checkpoints, min(PATHS, left))
            elif finding.verdict.detail != SILENT:
                pins += self._pins(verdict, finding.verdict.devices[:PATHS], opened.slot, 1)
        if pins:
            with self.database.begin() as connection:
                insert_pins(connection, pins)

    def _record(
        self, one: tuple[int, Finding], opened: OpenedVerdicts, checkpoints: Checkpoints, most: int
    ) -> int:  # fmt: skip
        """Store what one verdict rests on, with at most so many paths; return how many were sought."""
        verdict, finding = one
        outcome, devices = opened.outcome, finding.verdict.devices
        flagged = [one for one in devices if one in outcome.flagged and opened.state.carried_bank(one) is None]
        flagged = sorted(flagged, key=lambda one: -outcome.log_values[one])[:most]
        found = [path for one in flagged if (path := self._path(verdict, one, opened, checkpoints)) is not None]
        derived = {str(path["device"]) for path in found}
        others = [one for one in [*flagged, *devices] if one not in derived][: PATHS - len(derived)]
        pools = [
            {"attribute": name[0], "value": name[1], "ref_id": key[0], "log_value": outcome.pool_values[key, name]}
            for key, name in sorted(outcome.pool_alarms)
        ]
        decided = {
            "flagged": len(outcome.flagged), "pools": pools, "pool_log_threshold": outcome.pool_log_threshold,
            "log_values": {one: outcome.log_values[one] for one in devices[:_SEEN] if one in outcome.log_values},
        }  # fmt: skip
        window_ms = self.config.window_ms
        row = {
            "verdict": verdict, "slot_ms": opened.slot * window_ms, "code": code_digest(),
            "settings": json.dumps(asdict(self.config.settings)), "log_threshold": outcome.log_threshold,
            "judged": len(outcome.log_values), "decided": json.dumps(decided),
        }  # fmt: skip
        until_ms = (opened.slot + 1) * window_ms
        pins = [{"verdict": verdict, "device": path["device"], "from_ms": path["from_ms"], "until_ms": until_ms}
                for path in found]  # fmt: skip
        with self.database.begin() as connection:
            store.insert_alarm(connection, row, found)
            insert_pins(connection, [*pins, *self._pins(verdict, list(dict.fromkeys(others)), opened.slot, _SEEN)])
        return len(flagged)

    def _pins(self, verdict: int, devices: Sequence[str], slot: int, slots: int) -> list[dict[str, object]]:
        window_ms = self.config.window_ms
        return [
            {"verdict": verdict, "device": device, "from_ms": (slot + 1 - slots) * window_ms,
             "until_ms": (slot + 1) * window_ms}
            for device in devices
        ]  # fmt: skip

    def _path(
        self, verdict: int, device: str, opened: OpenedVerdicts, checkpoints: Checkpoints
    ) -> dict[str, object] | None:  # fmt: skip
        """Return the row of a path that gives the state of ``device`` bit for bit; None if no start is known."""
        key, window_ms, slot = opened.state.current[device].key, self.config.window_ms, opened.slot
        bank = opened.state.banks[key]
        baselines = bank.commissioning[bank.rows[device]].estimated
        first_ms, end_ms = (slot + 1 - DEPTH) * window_ms, (slot + 1) * window_ms
        with self.database.begin() as connection:
            skipped = sorted({start // window_ms * window_ms for start in
                              store.faulty_slots(connection, device, first_ms, end_ms)})  # fmt: skip
            windows = self._judged(connection, device, key, (first_ms, end_ms), set(skipped), bank.streams)
        for after, detectors in self._starts(device, opened, checkpoints):
            from_ms = (after + 1) * window_ms
            part = [one for one in windows if one.start_ms >= from_ms]
            start = PathStart(bank.columns, baselines, detectors)
            values, again = retraced(start, part, self.config.settings)
            if values and is_state_of(again, bank, device):
                return {
                    "verdict": verdict, "device": device, "ref_id": key[0], "artifact": key[1],
                    "streams": bank.streams, "classes": json.dumps(list(bank.columns.classes)), "from_ms": from_ms,
                    "since_baseline": not detectors,
                    "start": b"".join(detectors[name].tobytes() for name in JUDGING if detectors),
                    "baseline": _packed_baselines(baselines), "windows": len(part), "inputs_sha256": digest(part),
                    "skipped": json.dumps([one for one in skipped if one >= from_ms]), "log_value": values[-1],
                }  # fmt: skip
        return None

    def _starts(
        self, device: str, opened: OpenedVerdicts, checkpoints: Checkpoints
    ) -> Iterator[tuple[int, Mapping[str, Singles]]]:  # fmt: skip
        """Yield the starts that are known, the earliest first: the slot after which it holds, and the detectors."""
        key, first = opened.state.current[device].key, opened.slot + 1 - DEPTH
        bank = opened.state.banks[key]
        own = opened.kept.get(key, {}).get(device, {})
        estimated = [own[context].slot for context in bank.commissioning[bank.rows[device]].estimated if context in own]
        if estimated and max(estimated) + 1 >= first:
            yield max(estimated), {}
        for slot in reversed(checkpoints.slots()):
            if first - 1 <= slot < opened.slot:
                found = checkpoints.detectors_of(slot, key, [device])
                if device in found:
                    yield slot, {name: found[device][name] for name in JUDGING}
        before = opened.before.banks.get(key) if opened.before is not None else None
        if opened.before is not None and before is not None and device in before.rows:
            row = before.rows[device]
            yield opened.before.slot, {name: getattr(before, name)[row].copy() for name in JUDGING}

    def _judged(
        self, connection: sa.Connection, device: str, key: BankKey, span: tuple[int, int], skipped: set[int],
        streams: int,
    ) -> list[PathWindow]:  # fmt: skip
        """Return the windows of a device that were judged; those of which it is not known by what are left out."""
        shares = {(row["start_ms"], row["context"]): row for row in store.shares_between(connection, *key, *span)}
        newest: dict[tuple[int, int], sa.RowMapping] = {}
        for row in pinned_between(connection, device, *span):
            slot_ms = row["start_ms"] // self.config.window_ms * self.config.window_ms
            mine = (row["ref_id"], row["artifact"]) == key and row["n"] > 0 and slot_ms not in skipped
            if mine and (slot_ms, row["context"]) in shares and row["streams"] == streams:
                newest[slot_ms, row["context"]] = row  # of two in one slot, the last is judged
        return [
            PathWindow(
                start_ms=slot_ms, context=context, counts=_counts(row, streams), by=_shared(shares[slot_ms, context])
            )
            for (slot_ms, context), row in sorted(newest.items())
        ]

    def replay(self, verdict: int) -> AlarmReplay:
        """Derive an alarm again from its windows, baselines and settings.

        Raises:
            UnknownVerdictError: If there is no such verdict.
        """
        with self.database.begin() as connection:
            known, row = one_verdict(connection, verdict), store.alarm_of(connection, verdict)
            paths = store.paths_of(connection, verdict)
            if known is None:
                message = f"Expected the id of a verdict, got {verdict}: see fleet-server verdicts list"
                raise UnknownVerdictError(message)
            if row is None:
                why = "nothing was recorded of it: it is a fault, or an older version opened it"
                slot_ms = known["first_window_ms"]
                return AlarmReplay(
                    verdict=verdict, slot_ms=slot_ms, log_threshold=0.0, judged=0, decided={}, paths=(), missing=(why,)
                )  # fmt: skip
            settings = DetectorSettings(**json.loads(row["settings"]))
            as_then = Alarms(self.database, replace(self.config, window_ms=settings.window_ms))
            found = tuple(as_then._replayed(connection, row, path, settings) for path in paths)
        missing = []
        if row["code"] != code_digest():
            missing.append(
                f"the code of drift detection: recorded {row['code'][:12]}, this is {code_digest()[:12]}; "
                "other code may give other bits"
            )
        if not found:
            missing.append(
                "no device's own evidence: the alarm is a pool's, against training, of a carried baseline, "
                "or one of many"
            )
        missing += [f"{path.device}: {path.missing}" for path in found if path.missing]
        return AlarmReplay(
            verdict=verdict, slot_ms=row["slot_ms"], log_threshold=row["log_threshold"], judged=row["judged"],
            decided=json.loads(row["decided"]), paths=found, missing=tuple(missing),
        )  # fmt: skip

    def _replayed(
        self, connection: sa.Connection, alarm: sa.RowMapping, path: sa.RowMapping, settings: DetectorSettings
    ) -> ReplayedPath:
        span = path["from_ms"], alarm["slot_ms"] + self.config.window_ms
        key, skipped = (path["ref_id"], path["artifact"]), set(json.loads(path["skipped"]))
        windows = self._judged(connection, path["device"], key, span, skipped, path["streams"])
        same = {"device": path["device"], "from_ms": path["from_ms"], "since_baseline": path["since_baseline"],
                "log_value": path["log_value"]}  # fmt: skip
        if digest(windows) != path["inputs_sha256"]:
            why = (
                f"its windows are not those that alarmed: {len(windows)}, where {path['windows']} were recorded; "
                "one came late, or the database was restored"
            )
            return ReplayedPath(**same, missing=why)
        columns = ScoreColumns(path["streams"], tuple(json.loads(path["classes"])))
        start = PathStart(columns, _read_baselines(path["baseline"], columns), _read_start(path["start"], columns))
        values, _ = retraced(start, windows, settings)
        return ReplayedPath(**same, log_values=tuple(values), same=values[-1:] == [path["log_value"]])


def _counts(row: sa.RowMapping, streams: int) -> np.ndarray:
    shape = Shape(row["streams"], row["classes"], row["confidence_bins"])
    return unpack(bytes(row["values"]), shape.total)[: streams * BINS].reshape(streams, BINS)


def _shared(row: sa.RowMapping) -> SharedMovement:
    common, held = np.frombuffer(row["common"], _SCORE), np.frombuffer(row["held"], np.uint8)
    return SharedMovement(common.astype(np.float64), held.astype(np.bool_), float(row["log_cap"]))


def _packed_baselines(baselines: Mapping[int, Collected]) -> bytes:
    """Return baselines as bytes: for each a line of JSON with its sizes, then its arrays."""
    parts = []
    for context, one in sorted(baselines.items()):
        moved = packed_ordinary(one.ordinary) if one.ordinary else b""
        head = {"context": context, "windows": one.windows, "moved": len(moved)}
        arrays = one.counts.astype(_COUNT).tobytes() + one.squares.astype(_SCORE).tobytes()
        parts.append(json.dumps(head).encode() + b"\n" + arrays + moved)
    return b"".join(parts)


def _read_baselines(data: bytes, columns: ScoreColumns) -> dict[int, Collected]:
    found, s = {}, columns.streams
    while data:
        line, _, data = data.partition(b"\n")
        head: dict[str, Any] = json.loads(line)
        counts, squares = s * BINS * _COUNT.itemsize, s * _SCORES * _SCORE.itemsize
        moved = data[counts + squares : counts + squares + head["moved"]]
        found[int(head["context"])] = Collected(
            windows=head["windows"],
            counts=np.frombuffer(data[:counts], _COUNT).astype(np.int64).reshape(s, BINS),
            squares=np.frombuffer(data[counts : counts + squares], _SCORE).astype(np.float64).reshape(s, _SCORES),
            ordinary=read_ordinary(moved, columns) if moved else None,
        )
        data = data[counts + squares + head["moved"] :]
    return found


def _read_start(data: bytes, columns: ScoreColumns) -> dict[str, Singles]:
    found: dict[str, Singles] = {}
    for name in JUDGING if data else ():
        width, kind, _ = arrays_of(columns)[name]
        size = int(np.prod(width)) * np.dtype(kind).itemsize
        found[name], data = np.frombuffer(data[:size], kind).reshape(width), data[size:]
    return found
