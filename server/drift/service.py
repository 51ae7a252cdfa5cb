"""Processes windows slot by slot: updates the detectors, stores evidence and verdicts.

Decides when a slot is due (its end plus the grace has passed) and how a late window is handled: the slots from its own
on are processed again, together with the next slot that is due, so that any number of late windows costs at most one
more pass per slot. Verdicts are made once per slot: reprocessing corrects evidence, not history. Evidence goes back to
the horizon; a completed baseline is kept for good, and a device is judged against it at any age. The states after the
newest slot and before it are in memory; ``checkpoints`` keeps a few older ones in the database. Catching up after a
restart, or after a very late window, may take minutes: the server runs this service in a thread of its own, and
nothing else waits for it.

Banks (one per reference and artifact) are opened only for references of published releases, made by the artifact that
the window names. An unknown reference opens none and counts as a fault of the device.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from server.drift.alarms.records import Alarms, OpenedVerdicts
from server.drift.checkpoints import BankAccess, Checkpoints, FleetMoment, HealthMemory, KeptBaselines, is_due
from server.drift.commissions import Commissions
from server.drift.config import DriftConfig
from server.drift.detection.carrying import BankKey, StreamFacts, restarted
from server.drift.detection.detector_bank import ROWS, Observation
from server.drift.detection.reference import Ints, training_profile
from server.drift.detection.replays import error_bound
from server.drift.detection.slot_update import FoldState, SlotOutcome, fold_slot, outcome_of
from server.drift.findings import BankFacts, Scene, findings
from server.drift.health import Fault, clock_fault, faults, silence, suspects, usual, worst
from server.drift.latest import TOLD_WINDOWS, DriftStates, newest_evidence
from server.drift.ledger import Verdicts
from server.drift.places import Places, PlaceState
from server.drift.rows import counts_of, device_attributes, device_rows, invalid_of, is_whole, pool_rows
from server.drift.suspects import Suspects, SuspectState
from server.drift.verdicts import SITE
from server.errors import ServerError
from server.fleet.fleet import Device, Fleet
from server.ingest.windows import StoredWindow, Windows
from server.registry.events import EventLog
from server.registry.versions import Release
from server.store.commissions import model_changes
from server.store.database import Database
from server.store.monitoring import evidence as store
from server.wording import listed
from wire.codec import Json
from wire.errors import WireError
from wire.messages import DeviceState, Severity
from wire.reference import Reference

_LOG = logging.getLogger(__name__)
_SLOTS_PER_TURN = 200
_NAMED = 6  # a line's worth of devices or streams
_QUIET_STATES = {DeviceState.DISCONNECTED, DeviceState.UPDATING}
_NOTHING = SlotOutcome()
_Changes: TypeAlias = Mapping[str, Sequence[tuple[str, int]]]


def _always() -> bool:
    return True


class References(Protocol):
    """The part of the registry that drift detection uses; ``registry.versions.Versions`` implements it."""

    def reference(self, ref_id: str) -> Reference | None:
        """Return the reference whose id starts with ``ref_id``."""

    def releases(self) -> tuple[Release, ...]:
        """Return every release."""


@dataclass(slots=True, kw_only=True)
class DriftService:
    """Drift detection of one server. Only one thread calls ``turn``.

    ``goes_on`` is called after each slot; if it returns False, the turn ends, and the next one continues there.
    ``made_for`` returns by release the devices whose drift it was retrained for. ``has_pictures`` returns whether the
    inputs of a release are pictures, for the words of a cause; ``not_asked`` why its devices are asked for no samples,
    for the advice of a verdict ("" if they are).
    """

    database: Database
    windows: Windows
    fleet: Fleet
    references: References
    events: EventLog
    config: DriftConfig = field(default_factory=DriftConfig)
    goes_on: Callable[[], bool] = _always
    made_for: Callable[[], Mapping[str, Collection[str]]] = dict
    has_pictures: Callable[[Release], bool] = lambda _release: True
    not_asked: Callable[[Release], str] = lambda _release: ""
    states: DriftStates = field(init=False)
    _moment: FleetMoment = field(default_factory=FleetMoment)
    _before: FleetMoment | None = None  # the newest slot
    _facts: dict[BankKey, BankFacts] = field(default_factory=dict)
    _kept: KeptBaselines = field(init=False)
    _outcome: SlotOutcome = _NOTHING
    _started: bool = False
    _done_slot: int = -1  # nothing is due up to here
    _spoken_slot: int = -1
    _written_slot: int = -1
    _started_ms: int = 0

    def __post_init__(self) -> None:
        """Build the parts; reads nothing yet."""
        self._kept = KeptBaselines(database=self.database, window_ms=self.config.window_ms)
        self.states = DriftStates(TOLD_WINDOWS * self.config.window_ms + self.config.grace_ms)

    @property
    def verdicts(self) -> Verdicts:
        """The verdicts, for the API and for retraining."""
        return Verdicts(self.database, self.events)

    @property
    def places(self) -> Places:
        """The new places, for the API and for those who ask for labels."""
        return Places(self.verdicts)

    @property
    def commissions(self) -> Commissions:
        """The devices that are commissioned again, for the API."""
        return Commissions(verdicts=self.verdicts, fleet=self.fleet, window_ms=self.config.window_ms)

    @property
    def suspects(self) -> Suspects:
        """The devices whose release answers otherwise, for those who ask for labels."""
        return Suspects(self.verdicts)

    @property
    def alarms(self) -> Alarms:
        """What alarms rest on, for the API."""
        return Alarms(self.database, self.config)

    @property
    def _checkpoints(self) -> Checkpoints:
        return Checkpoints(self.database, self.config)

    def turn(self, now_ms: int) -> None:
        """Process every slot that is due, at most a few hundred; then make verdicts for the newest."""
        due_ms = (now_ms - self.config.grace_ms) // self.config.window_ms * self.config.window_ms
        newest = due_ms // self.config.window_ms - 1
        if not self._started:  # continue from the newest valid checkpoint; without one, process all windows again
            with self.database.begin() as connection:
                latest = store.latest_evidence_ms(connection)
            self._spoken_slot = -1 if latest is None else latest // self.config.window_ms
            self._written_slot, self._started_ms = self._spoken_slot, now_ms
            self._moment, self._started = self._newest_checkpoint(), True
            self.states.load(newest_evidence(self.database))
        elif newest <= self._done_slot:
            return
        # Rewind to before the earliest window that arrived since the last turn, if its slot is already processed.
        horizon_ms = self._horizon(now_ms) * self.config.window_ms
        self._moment.cursor, late_ms = self.windows.arrived(self._moment.cursor, horizon_ms)
        if late_ms is not None and late_ms // self.config.window_ms <= self._moment.state.slot:
            self._rewind(late_ms // self.config.window_ms)
        moments, changes = self.commissions.moments(), self._changes()
        missed = self._missed(moments, changes)
        if missed is not None:
            self._rewind(missed)
        devices = self.fleet.devices()
        turn = _Turn(
            now_ms=now_ms,
            newest=newest,
            devices=devices,
            attributes={device.device: device_attributes(device) for device in devices},
            moments=moments,
            changes=changes,
        )
        slot = max(self._moment.state.slot + 1, self._horizon(now_ms))
        with self.database.begin() as reading:
            found = store.window_starts(reading, slot * self.config.window_ms, due_ms, _SLOTS_PER_TURN)
        starts = sorted({start // self.config.window_ms * self.config.window_ms for start in found})
        for start_ms in starts:
            self._fold(start_ms // self.config.window_ms, turn)
            if not self.goes_on():
                return
        if len(starts) < _SLOTS_PER_TURN:
            self._done_slot = newest
            if newest > max(self._spoken_slot, self._moment.state.slot):
                self._speak(newest, turn, judged=False)

    def _missed(self, moments: Mapping[str, Sequence[int]], changes: _Changes) -> int | None:
        """Return the first processed slot from which on a device begins anew that was processed without that.

        Commissions and changes of model are of the next window, so this is after a clock of the server was set back.
        """
        state = self._moment.state
        found = [
            self._first_slot(from_ms)
            for device, of_device in moments.items()
            for from_ms in of_device
            if from_ms > state.commissioned.get(device, 0)
        ]
        found += [
            self._first_slot(from_ms)
            for device, of_device in changes.items()
            for model, from_ms in of_device
            if from_ms > state.committed.get(device, {}).get(model, 0)
        ]
        return min((slot for slot in found if slot <= state.slot), default=None)

    def _changes(self) -> _Changes:
        """Return since when (UTC ms) devices kept each model to which they changed."""
        found: dict[str, tuple[tuple[str, int], ...]] = {}
        with self.database.begin() as connection:
            for device, model, from_ms in model_changes(connection):
                found[device] = (*found.get(device, ()), (model, from_ms))
        return found

    def _first_slot(self, from_ms: int) -> int:
        return -(-from_ms // self.config.window_ms)

    def _horizon(self, now_ms: int) -> int:
        return max((now_ms - self.config.horizon_ms) // self.config.window_ms, 0)

    def _newest_checkpoint(self) -> FleetMoment:
        found = self._checkpoints.newest(BankAccess(self._open_all, lambda key: self._kept.banks[key]))
        if found is None:
            return FleetMoment(cursor=self.windows.cursor())
        self._outcome = outcome_of(found.state, self.config.settings)
        return found

    def _open_all(self, state: FoldState, keys: Collection[BankKey]) -> bool:
        self._kept.apply(state)
        return not self._open(state, keys)

    def _rewind(self, slot: int) -> None:
        """Restore the state before ``slot``; the caller then processes the slots again."""
        self._written_slot = min(self._written_slot, slot - 1)
        _LOG.info("Late window: folding again. slot=%s newest=%s", slot, self._moment.state.slot)
        cursor = self._moment.cursor
        self._checkpoints.drop(slot)
        if self._before is not None and self._before.state.slot < slot:
            self._moment = self._before
        else:
            self._moment = self._newest_checkpoint()
        self._moment.cursor, self._before = cursor, None

    def _fold(self, slot: int, turn: _Turn) -> None:
        start_ms = slot * self.config.window_ms
        found = self.windows.between(start_ms, start_ms + self.config.window_ms)
        windows = tuple(window for window in found if window.device in turn.attributes)  # of the fleet
        self._before = self._moment.copy(spare=self._before)
        fleet = turn.attributes.keys()
        self._moment.state.keep_only(fleet)
        for gone in self._moment.health.keys() - set(fleet):
            del self._moment.health[gone]
        due = {
            device: max((from_ms for from_ms in of_device if self._first_slot(from_ms) <= slot), default=0)
            for device, of_device in turn.moments.items()
        }
        changes = {
            device: kept for device, of_device in turn.changes.items() if (kept := self._kept_by(slot, of_device))
        }  # fmt: skip
        self._moment.state.begin_anew(due, slot, turn.attributes, changes)
        self._kept.apply(self._moment.state)
        observed, state = self._observe(windows, slot), self._moment.state
        settings = self.config.settings
        state.expected = self._expected(turn)
        self._outcome = fold_slot(state, slot, observed, turn.attributes, settings, self._kept.banks)
        self._kept.add(self._outcome.completed, state.movement)
        if slot > self._written_slot:
            self._write(slot, windows, turn, observed.keys())
        if slot > self._spoken_slot:
            self._speak(slot, turn, judged=True)
            self._note_restarted(slot, turn.now_ms)
        if is_due(slot, self._before.state.slot, turn.newest):
            self._checkpoints.save(self._moment)

    def _kept_by(self, slot: int, changes: Iterable[tuple[str, int]]) -> dict[str, int]:
        """Return since when a device kept each model by ``slot``, the last time."""
        found: dict[str, int] = {}
        for model, from_ms in changes:
            if self._first_slot(from_ms) <= slot:
                found[model] = max(from_ms, found.get(model, 0))
        return found

    def _note_restarted(self, slot: int, now_ms: int) -> None:
        """Note once per pair of releases that inputs of devices which changed release in ``slot`` begin anew, and why.

        A device that had no baseline has none to begin anew.
        """
        state = self._moment.state
        moved: dict[tuple[BankKey, BankKey], list[str]] = {}
        for device, now in state.current.items():
            if now.since_slot == slot and now.previous is not None and now.key in state.carried:
                origin = state.carried[now.key].origins.get(device)
                if origin is not None:
                    moved.setdefault((origin, now.key), []).append(device)
        for (origin, key), devices in sorted(moved.items()):
            names = restarted(state.facts[origin], state.facts[key])
            if names:
                text = (
                    f"{listed(devices, _NAMED)}: {self._facts[key].release} divides {listed(names, _NAMED)} into other "
                    f"bins than {self._facts[origin].release}: these inputs begin a new baseline"
                )
                data: dict[str, Json] = {"streams": list(names), "devices": list(devices)}
                self.events.add(now_ms, "drift", "baseline_restarted", Severity.INFO, text, data=data)

    def _write(
        self, slot: int, windows: Sequence[StoredWindow], turn: _Turn, judged: Collection[BankKey]
    ) -> None:  # fmt: skip
        start_ms = slot * self.config.window_ms
        scene = self._scene(slot, turn, self._faults_of(slot, turn, silent=False))
        rows, pools = device_rows(scene, windows), pool_rows(scene, start_ms)
        with self.database.begin() as connection:
            store.replace_slot(connection, start_ms, start_ms + self.config.window_ms, rows, pools)
            self.alarms.write_shares(connection, slot, {key: self._moment.state.banks[key] for key in judged})
        learning = {"phase": "commissioning", "flagged": False, "new_place": False}
        self.states.note({**row, **learning} if row["device"] in scene.renewed else row for row in rows)
        self._written_slot = slot

    def _observe(self, windows: Sequence[StoredWindow], slot: int) -> dict[BankKey, list[Observation]]:
        """Return the input of the statistics: windows of devices that pass their health checks."""
        refused = self._open(self._moment.state, {(window.ref_id, window.artifact) for window in windows})
        found: dict[int, Fault | None] = {}
        counts: dict[int, Ints] = {}
        alike: dict[BankKey, list[int]] = {}
        for place, window in enumerate(windows):
            key = (window.ref_id, window.artifact)
            found[place] = refused.get(key) or _damage(window, self._moment.state.banks[key].streams)
            if found[place] is None:
                alike.setdefault(key, []).append(place)
        for key, places in alike.items():
            for first in range(0, len(places), ROWS):
                some = places[first : first + ROWS]
                found |= zip(some, self._faults([windows[place] for place in some], self._facts[key]), strict=True)
                counts |= zip(some, counts_of([windows[place] for place in some]), strict=True)
        observed: dict[BankKey, list[Observation]] = {}
        for place, window in enumerate(windows):
            memory = self._moment.health.setdefault(window.device, HealthMemory(slot))
            memory.last_slot, memory.empty = slot, memory.empty + 1 if window.n == 0 else 0
            memory.fault = found[place]
            if memory.fault is None:
                seen = Observation(window.device, counts[place], window.context)
                observed.setdefault((window.ref_id, window.artifact), []).append(seen)
        return observed

    def _faults(self, windows: Sequence[StoredWindow], facts: BankFacts) -> list[Fault | None]:
        """Return the first failed check, or None, of each of ``windows``, all whole and of one bank."""
        counts, invalid = counts_of(windows), invalid_of(windows)
        n, usual = np.array([window.n for window in windows]), facts.usual
        suspect = np.ones(len(windows), np.bool_) if usual is None else suspects(counts, invalid, n, usual)
        return [
            clock_fault(window.start_ms, window.len_ms, window.received_ms, self.config.horizon_ms)
            or (worst(faults(counts[i], invalid[i], window.n, usual)) if suspect[i] else None)
            for i, window in enumerate(windows)
        ]

    def _open(self, state: FoldState, keys: Collection[BankKey]) -> dict[BankKey, Fault]:
        """Open the banks of ``keys``; return a fault for each that the registry does not know (not cached)."""
        fresh = sorted(key for key in keys if key not in state.banks)
        releases = self.references.releases() if fresh else ()
        refused: dict[BankKey, Fault] = {}
        for key in fresh:
            release = next((one for one in releases if one.custom.ref_id.startswith(key[0])), None)
            try:
                reference = self._reference(key) if release else None
                pictures = release is None or self.has_pictures(release)
                not_asked = "" if release is None else self.not_asked(release)
            except (ServerError, WireError) as error:
                refused[key] = Fault(error.code, f"its windows can't be judged: {error}", "device")
                continue
            if release is None or reference is None:
                text = f"reference {key[0][:12]}… is of no published release: publish it, or update the device"
                refused[key] = Fault("unknown_reference", text, "device")
            else:
                settings = self.config.settings
                state.facts[key] = facts = StreamFacts.of(reference, release.model)
                columns = facts.columns
                self._facts[key] = BankFacts(
                    release=release.name, model=release.model, usual=usual(reference),
                    error_bound=error_bound(reference), pictures=pictures, not_asked=not_asked,
                )  # fmt: skip
                self._kept.open(key, columns, release.model)
                state.open_bank(key, columns, training_profile(reference, z=settings.z, epsilon=settings.epsilon))
                state.movement[key] = {**self._kept.pools.get(key, {}), **state.movement.get(key, {})}
        return refused

    def _reference(self, key: BankKey) -> Reference | None:
        """Return the reference of a bank, None if unknown; raise if another artifact than the bank's made it."""
        reference = self.references.reference(key[0])
        if reference is not None and not reference.artifact_sha256.startswith(key[1]):
            reference.check_artifact(key[1])
        return reference

    def _faults_of(self, slot: int, turn: _Turn, *, silent: bool = True) -> dict[str, Fault]:
        known = {device.device: device for device in turn.devices}
        found: dict[str, Fault] = {}
        for device, memory in self._moment.health.items():
            fault = memory.fault
            if fault is not None and fault.code == "no_samples" and memory.empty < self.config.empty_windows:
                fault = None
            away = device not in known or known[device].state in _QUIET_STATES
            if silent and fault is None and not away:
                last_ms = max((memory.last_slot + 1) * self.config.window_ms, self._started_ms)
                fault = silence(
                    slot - memory.last_slot, turn.now_ms - last_ms, limit_windows=self.config.silence_windows,
                    limit_ms=self.config.silence_ms,
                )  # fmt: skip
            if fault is not None:
                found[device] = fault
        return found

    def _scene(self, slot: int, turn: _Turn, found: Mapping[str, Fault]) -> Scene:
        senders = frozenset(device for device, one in self._moment.health.items() if one.last_slot == slot)
        accepted = self._accepted(turn) if self._outcome.new_places else frozenset()
        return Scene(
            state=self._moment.state,
            outcome=self._outcome,
            facts=self._facts,
            attributes=turn.attributes,
            faults=found,
            config=self.config,
            slot=slot,
            senders=senders,
            replays={
                device.device: device.reported.update.replay
                for device in turn.devices
                if device.reported is not None
                and device.reported.update.replay is not None
                and device.reported.update.release == self._release_of(device.device)
            },
            accepted=accepted,
            renewed=self._renewed(slot, turn),
            labels=self._labels(),
        )

    def _renewed(self, slot: int, turn: _Turn) -> frozenset[str]:
        """Return the devices whose baseline under their present model ends after ``slot``."""
        found = {
            device
            for device, of_device in turn.moments.items()
            if any(self._first_slot(from_ms) > slot for from_ms in of_device)
        }
        for device, of_device in turn.changes.items():
            now = self._moment.state.current.get(device)
            own = None if now is None or now.key not in self._facts else self._facts[now.key].model
            if any(model != own and self._first_slot(from_ms) > slot for model, from_ms in of_device):
                found.add(device)
        return frozenset(found)

    def _labels(self) -> dict[str, str]:
        """Return what labels show of devices with an open verdict on their present release, in words."""
        newest_last = reversed(self.suspects.all())
        return {one.device: one.words for one in newest_last if one.release == self._release_of(one.device)}

    def _expected(self, turn: _Turn) -> dict[BankKey, frozenset[str]]:
        """Return the devices whose answers are meant to change with a release, by its bank.

        That labels showed not to be worse with it; that stand at a site whose drift it was retrained for, because it
        passed the gates on samples of that; or where labels showed that the release before is worse than in training.
        """
        made_for = self.made_for()
        harmless = [one for one in self.suspects.all() if one.state is SuspectState.HARMLESS]
        newest = {place.device: place for place in reversed(self.places.all())}
        harmful = [place for place in newest.values() if place.state is PlaceState.HARMFUL]
        found: dict[BankKey, frozenset[str]] = {}
        for key, facts in self._facts.items():
            sites = {turn.attributes[one][SITE] for one in made_for.get(facts.release, ()) if one in turn.attributes}
            devices = {one.device for one in harmless if one.release == facts.release}
            devices |= {device for device, told in turn.attributes.items() if told[SITE] in sites}
            devices |= {
                place.device
                for place in harmful
                if facts.model == place.model and self._release_before(place.device, key) == place.release
                and turn.attributes.get(place.device, {}).get(SITE) == place.site
            }  # fmt: skip
            found[key] = frozenset(devices)
        return found

    def _release_before(self, device: str, key: BankKey) -> str:
        """Return the release of ``device`` before that of the bank ``key``, which it has or gets next; "" for none."""
        now = self._moment.state.current.get(device)
        before = None if now is None else now.previous if now.key == key else now.key
        return self._facts[before].release if before in self._facts else ""

    def _release_of(self, device: str) -> str:
        """Return the release whose windows ``device`` sends, "" if that is not known."""
        now = self._moment.state.current.get(device)
        return self._facts[now.key].release if now is not None and now.key in self._facts else ""

    def _accepted(self, turn: _Turn) -> frozenset[str]:
        """Return the devices whose place counts as accepted, for their present model, release and site."""
        found = set()
        for place in self.places.all():
            now = self._moment.state.current.get(place.device)
            facts = self._facts.get(now.key, BankFacts()) if now else BankFacts()
            there = turn.attributes.get(place.device, {}).get(SITE) == place.site and facts.model == place.model
            if there and (
                place.state is PlaceState.ACCEPTED
                or (place.state is PlaceState.HARMLESS and place.release == facts.release)
            ):
                found.add(place.device)
        return frozenset(found)

    def _speak(self, slot: int, turn: _Turn, *, judged: bool) -> None:
        scene = self._scene(slot, turn, self._faults_of(slot, turn))
        self._spoken_slot = slot
        opened = self.verdicts.note(
            findings(scene), slot * self.config.window_ms, turn.now_ms,
            quiet_ms=self.config.quiet_windows * self.config.window_ms, silent_ms=self.config.silent_ms, judged=judged,
        )  # fmt: skip
        before = self._before.state if self._before is not None and judged else None
        of_slot = OpenedVerdicts(
            verdicts=opened, slot=slot, state=self._moment.state, outcome=self._outcome, kept=self._kept.banks,
            before=before,
        )  # fmt: skip
        self.alarms.record(of_slot, self._checkpoints)
        if turn.moments:  # one that was commissioned again while this slot was processed may have been found once more
            self.commissions.end_alarms(turn.now_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """The values read once per turn: the time, the newest slot that is due, the devices with their attributes.

    ``moments``: from when on (UTC ms) windows of devices count that were commissioned again; ``changes``: since when
    they kept each model to which they changed.
    """

    now_ms: int
    newest: int
    devices: Sequence[Device]
    attributes: Mapping[str, Mapping[str, str]]
    moments: Mapping[str, Sequence[int]]
    changes: _Changes


def _damage(window: StoredWindow, streams: int) -> Fault | None:
    """Return a fault if the counts of ``window`` do not fit a reference with ``streams`` streams."""
    if window.shape.streams != streams:
        text = f"{window.shape.streams} streams, where its reference has {streams}"
        return Fault("shape_mismatch", text, "device")
    if not is_whole(window):
        _LOG.error("Window can't be read. device=%s start_ms=%s", window.device, window.start_ms)
        text = f"a window that can't be read: {len(window.data)} bytes for {window.shape.total} counts"
        return Fault("unreadable", text, "device")
    return None
