"""Reads windows slot by slot, folds them, stores evidence and verdicts; one turn at a time.

Decides when a slot is due (its end plus the grace has passed) and what a late window means (the slots from its own
on are folded again). Verdicts are spoken once per slot: folding again corrects evidence, not history. Evidence goes
back to the horizon; a completed baseline is kept for good, and a device is judged against it however old it is.

Lanes are opened only for references of published releases, made by the artifact that the window names: what
devices invent opens none, and is a fault of the device.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from server.drift.config import DriftConfig
from server.drift.fold import FoldState, LaneKey, Outcome, fold_slot
from server.drift.health import Fault, clock_fault, faults, silence, usual, worst
from server.drift.keeping import Keeping
from server.drift.lane import Observation
from server.drift.ledger import Verdicts
from server.drift.reference import Ints, training_profile
from server.drift.rows import attributes_of, counts_of, device_rows, invalid_of, pool_rows
from server.drift.views import LaneFacts, Scene, findings
from server.errors import ServerError
from server.fleet import Device, Fleet
from server.registry.events import EventLog
from server.registry.versions import Release
from server.store import evidence as store
from server.store.database import Database
from server.windows import Window, Windows
from wire.errors import WireError
from wire.messages import DeviceState
from wire.reference import Reference

_LOG = logging.getLogger(__name__)
_SLOTS_PER_TURN = 200
_CHECKPOINT_SPANS = (1, 4, 16, 64, 256)  # slots: far back fewer, so that old late windows don't fold all again
_QUIET_STATES = {DeviceState.DISCONNECTED, DeviceState.SLEEPING, DeviceState.UPDATING}
_EMPTY_COUNTS: Ints = np.zeros((0, 0), np.int64)
_NOTHING = Outcome({}, 0.0, frozenset(), {}, 0.0, frozenset())


class References(Protocol):
    """What drift needs of the registry; ``registry.versions.Versions`` has it."""

    def reference(self, ref_id: str) -> Reference | None:
        """Return the reference whose id starts with ``ref_id``."""

    def releases(self) -> tuple[Release, ...]:
        """Return every release."""


@dataclass(slots=True)
class Heard:
    """What the health checks remember of one device between windows."""

    last_slot: int
    empty: int = 0
    fault: Fault | None = None


@dataclass(slots=True)
class DriftService:
    """Drift detection of one server. Only one thread gives it its turn."""

    database: Database
    windows: Windows
    fleet: Fleet
    references: References
    events: EventLog
    config: DriftConfig = field(default_factory=DriftConfig)
    _state: FoldState = field(default_factory=FoldState)
    _checkpoints: list[tuple[FoldState, dict[str, Heard]]] = field(default_factory=list)
    _heard: dict[str, Heard] = field(default_factory=dict)
    _facts: dict[LaneKey, LaneFacts] = field(default_factory=dict)
    _keeping: Keeping = field(init=False)
    _outcome: Outcome = _NOTHING
    _cursor: int = -1
    _spoken_slot: int = -1
    _written_slot: int = -1
    _started_ms: int = 0

    def __post_init__(self) -> None:
        """Join the parts; nothing is read yet."""
        self._keeping = Keeping(self.database, self.config.window_ms)

    @property
    def verdicts(self) -> Verdicts:
        """The verdicts, for the API and for retraining."""
        return Verdicts(self.database, self.events)

    def turn(self, now_ms: int) -> None:
        """Fold every slot that is due, at most some hundred; then say what follows from the newest."""
        if self._cursor < 0:
            self._restart(now_ms)
        self._take_late(now_ms)
        devices = self.fleet.devices()
        due_ms = self._due_ms(now_ms)
        starts = self._starts(max(self._state.slot + 1, self._horizon(now_ms)), due_ms)
        for start_ms in starts:
            self._fold(start_ms // self.config.window_ms, devices, now_ms)
        newest = due_ms // self.config.window_ms - 1
        if len(starts) < _SLOTS_PER_TURN and newest > max(self._spoken_slot, self._state.slot):
            self._speak(newest, devices, now_ms, judged=False)

    def _due_ms(self, now_ms: int) -> int:
        return (now_ms - self.config.grace_ms) // self.config.window_ms * self.config.window_ms

    def _horizon(self, now_ms: int) -> int:
        return max((now_ms - self.config.horizon_ms) // self.config.window_ms, 0)

    def _starts(self, slot: int, end_ms: int) -> list[int]:
        with self.database.begin() as connection:
            starts = store.window_starts(connection, slot * self.config.window_ms, end_ms, _SLOTS_PER_TURN)
        return sorted({start // self.config.window_ms * self.config.window_ms for start in starts})

    def _restart(self, now_ms: int) -> None:
        """Remember where verdicts were last spoken; the state itself is folded again from the stored windows."""
        with self.database.begin() as connection:
            latest = store.latest_evidence_ms(connection)
        self._spoken_slot = -1 if latest is None else latest // self.config.window_ms
        self._written_slot = self._spoken_slot
        self._cursor, self._started_ms = self.windows.cursor(), now_ms

    def _take_late(self, now_ms: int) -> None:
        earliest = self._state.slot + 1
        while fresh := self.windows.since(self._cursor):
            self._cursor = fresh[-1].id
            slots = [window.start_ms // self.config.window_ms for window in fresh]
            earliest = min([earliest, *(slot for slot in slots if slot >= self._horizon(now_ms))])
        if earliest <= self._state.slot:
            self._rewind(earliest)

    def _rewind(self, slot: int) -> None:
        """Go back to before ``slot``; the next lines of the turn fold forward again."""
        self._written_slot = min(self._written_slot, slot - 1)
        _LOG.info("Late window: folding again. slot=%s newest=%s", slot, self._state.slot)
        while self._checkpoints and self._checkpoints[-1][0].slot >= slot:
            self._checkpoints.pop()
        if self._checkpoints:
            state, heard = self._checkpoints[-1]
            self._state, self._heard = state.copy(), _copied(heard)
        else:
            self._state, self._heard = FoldState(), {}

    def _fold(self, slot: int, devices: Sequence[Device], now_ms: int) -> None:
        start_ms = slot * self.config.window_ms
        windows = self.windows.between(start_ms, start_ms + self.config.window_ms)
        attributes = _attributes(devices)
        observed = self._observe(windows, slot)
        self._outcome = fold_slot(self._state, slot, observed, attributes, self.config.settings, self._keeping.lanes)
        self._keeping.add(self._outcome.completed)
        self._remember()
        if slot > self._written_slot:
            self._write(slot, windows, devices, now_ms)
        if slot > self._spoken_slot:
            self._speak(slot, devices, now_ms, judged=True)

    def _remember(self) -> None:
        """Keep a checkpoint of now, and of the older ones the first of this and of the last span of each length."""
        self._checkpoints.append((self._state.copy(), _copied(self._heard)))
        slots, wanted = [state.slot for state, _ in self._checkpoints], {self._state.slot}
        for span in _CHECKPOINT_SPANS:
            first = {slot // span: slot for slot in reversed(slots)}
            now = self._state.slot // span
            wanted |= {first[part] for part in (now - 1, now) if part in first}
        self._checkpoints = [one for one in self._checkpoints if one[0].slot in wanted]

    def _write(self, slot: int, windows: Sequence[Window], devices: Sequence[Device], now_ms: int) -> None:
        start_ms = slot * self.config.window_ms
        scene = self._scene(slot, _attributes(devices), self._faults_of(slot, devices, now_ms, silent=False))
        with self.database.begin() as connection:
            store.replace_slot(
                connection, start_ms, start_ms + self.config.window_ms, device_rows(scene, windows),
                pool_rows(scene, start_ms),
            )  # fmt: skip
        self._written_slot = slot

    def _observe(self, windows: Sequence[Window], slot: int) -> dict[LaneKey, list[Observation]]:
        """Return what statistics may see: windows of devices that pass their health checks."""
        refused = self._open({(window.ref_id, window.artifact) for window in windows})
        observed: dict[LaneKey, list[Observation]] = {}
        for window in windows:
            key, heard = (window.ref_id, window.artifact), self._heard.setdefault(window.device, Heard(slot))
            heard.last_slot, heard.empty = slot, heard.empty + 1 if window.n == 0 else 0
            try:
                counts, heard.fault = _EMPTY_COUNTS, refused.get(key)
                if heard.fault is None:
                    counts, heard.fault = self._checked(window, self._state.lanes[key].streams, self._facts[key])
            except (ValueError, IndexError, ArithmeticError) as error:  # one window must not stop the whole fleet's
                _LOG.exception("Window can't be read. device=%s start_ms=%s", window.device, window.start_ms)
                heard.fault = Fault("unreadable", f"a window that can't be read: {error}", "device")
            if heard.fault is None:
                observed.setdefault(key, []).append(Observation(window.device, counts, window.context))
        return observed

    def _checked(self, window: Window, streams: int, facts: LaneFacts) -> tuple[Ints, Fault | None]:
        if window.shape.streams != streams:
            text = f"{window.shape.streams} streams, where its reference has {streams}"
            return _EMPTY_COUNTS, Fault("shape_mismatch", text, "device")
        counts = counts_of(window)
        clock = clock_fault(window.start_ms, window.len_ms, window.received_ms, self.config.horizon_ms)
        return counts, clock or worst(faults(counts, invalid_of(window), window.n, facts.usual))

    def _open(self, keys: Collection[LaneKey]) -> dict[LaneKey, Fault]:
        """Open the lanes of ``keys``; return a fault for each that the registry does not know (asked every time)."""
        fresh = sorted(key for key in keys if key not in self._state.lanes)
        releases = self.references.releases() if fresh else ()
        refused: dict[LaneKey, Fault] = {}
        for key in fresh:
            release = next((one for one in releases if one.custom.ref_id.startswith(key[0])), None)
            try:
                reference = self._reference(key) if release else None
            except (ServerError, WireError) as error:
                refused[key] = Fault(error.code, f"its windows can't be judged: {error}", "device")
                continue
            if release is None or reference is None:
                text = f"reference {key[0][:12]}… is of no published release: publish it, or update the device"
                refused[key] = Fault("unknown_reference", text, "device")
            else:
                self._open_lane(key, release, reference)
        return refused

    def _reference(self, key: LaneKey) -> Reference | None:
        """Return the reference of a lane; one that the lane's artifact did not make is refused."""
        reference = self.references.reference(key[0])
        if reference is not None and not reference.artifact_sha256.startswith(key[1]):
            reference.check_artifact(key[1])
        return reference

    def _open_lane(self, key: LaneKey, release: Release, reference: Reference) -> None:
        settings, streams = self.config.settings, len(reference.streams)
        self._facts[key] = LaneFacts(release.name, release.model, usual(reference))
        self._keeping.open(key, streams)
        self._state.open_lane(key, streams, training_profile(reference, z=settings.z, epsilon=settings.epsilon))

    def _faults_of(self, slot: int, devices: Sequence[Device], now_ms: int, *, silent: bool = True) -> dict[str, Fault]:
        known = {device.device: device for device in devices}
        found: dict[str, Fault] = {}
        for device, heard in self._heard.items():
            fault = heard.fault
            if fault is not None and fault.code == "no_samples" and heard.empty < self.config.empty_windows:
                fault = None
            away = device not in known or known[device].state in _QUIET_STATES
            if silent and fault is None and not away:
                heard_ms = max((heard.last_slot + 1) * self.config.window_ms, self._started_ms)
                fault = silence(
                    slot - heard.last_slot, now_ms - heard_ms, limit_windows=self.config.silence_windows,
                    limit_ms=self.config.silence_ms,
                )  # fmt: skip
            if fault is not None:
                found[device] = fault
        return found

    def _scene(self, slot: int, attributes: Mapping[str, Mapping[str, str]], found: Mapping[str, Fault]) -> Scene:
        heard = frozenset(device for device, one in self._heard.items() if one.last_slot == slot)
        return Scene(self._state, self._outcome, self._facts, attributes, found, self.config, slot, heard)

    def _speak(self, slot: int, devices: Sequence[Device], now_ms: int, *, judged: bool) -> None:
        scene = self._scene(slot, _attributes(devices), self._faults_of(slot, devices, now_ms))
        self._spoken_slot = slot
        self.verdicts.note(
            findings(scene), slot * self.config.window_ms, now_ms,
            quiet_ms=self.config.quiet_windows * self.config.window_ms, silent_ms=self.config.silent_ms, judged=judged,
        )  # fmt: skip


def _attributes(devices: Sequence[Device]) -> dict[str, dict[str, str]]:
    return {
        device.device: attributes_of(
            device.site, device.attributes, device.reported.attributes if device.reported else {}
        )
        for device in devices
    }


def _copied(heard: Mapping[str, Heard]) -> dict[str, Heard]:
    return {device: Heard(one.last_slot, one.empty, one.fault) for device, one in heard.items()}
