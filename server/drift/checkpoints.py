"""The state of drift detection in the database: checkpoints and completed baselines.

A checkpoint saves a restart from processing the whole horizon again.

Decides what a checkpoint holds, which ones are kept, and whether one is valid. It is valid if the same code with the
same settings made it, the registry still knows every bank, and the store has every baseline that it names; otherwise
it is discarded, and processing the windows again gives the same bits.
A completed baseline is kept for good. A device that returns after longer than the horizon is compared with its old
baseline; only a new release (another reference or artifact), a return to a model after another one was kept, or a
person who commissions the device again, makes a new one. Those from before stay for the slots before, which a late
window may make the server compute again.

``cursor`` is the position in the windows up to which a checkpoint has processed them: the reader continues from there.
A later arrival that belongs to a slot before the checkpoint's own makes it stale.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from server.drift.config import DriftConfig
from server.drift.detection.baseline import Collected, Commissioning, Kept, KeptOfDevice
from server.drift.detection.carrying import BankKey, Carried
from server.drift.detection.clock import HourlySums
from server.drift.detection.detector_bank import DETECTORS, ROWS, DetectorBank, arrays_of
from server.drift.detection.movement import FleetMovement, Movement, Ordinary, ScoreColumns
from server.drift.detection.pools import Pool, PoolMovement, PoolName
from server.drift.detection.reference import Singles
from server.drift.detection.slot_update import Current, FoldState, since_ms
from server.drift.health import Fault
from server.store.database import Database
from server.store.monitoring import checkpoints as store
from wire.histogram import BINS

_LOG = logging.getLogger(__name__)
_COUNT, _SCORE, _DETECTOR = np.dtype("<i8"), np.dtype("<f8"), np.dtype("<f4")
_MEAN = np.dtype("<f2")
_SCORES = 3
_OF_POOLS = ("members", "stage", "collecting")
SPANS = (8, 64, 256)
"""In slots. For each length, the first slots of the newest span and of the one before are kept: fewer far back."""


@dataclass(slots=True)
class HealthMemory:
    """The health checks' memory of one device between windows."""

    last_slot: int
    empty: int = 0
    fault: Fault | None = None


@dataclass(slots=True)
class FleetMoment:
    """The fleet after a slot: the detectors' state, the health checks' memory, and the windows processed so far."""

    state: FoldState = field(default_factory=FoldState)
    health: dict[str, HealthMemory] = field(default_factory=dict)
    cursor: int = -1

    def copy(self, spare: FleetMoment | None = None) -> FleetMoment:
        """Return an independent copy; it reuses the arrays of ``spare``, which must not be used afterwards."""
        health = {device: HealthMemory(one.last_slot, one.empty, one.fault) for device, one in self.health.items()}
        return FleetMoment(self.state.copy(spare.state if spare else None), health, self.cursor)


@dataclass(frozen=True, slots=True)
class BankAccess:
    """Callbacks to the service for reading a checkpoint.

    ``open``: opens the banks of these keys in the state and returns whether all could be opened; ``kept``: the kept
    baselines of an open bank, by device.
    """

    open: Callable[[FoldState, list[BankKey]], bool]
    kept: Callable[[BankKey], Mapping[str, KeptOfDevice]]


def is_due(slot: int, before: int, newest: int) -> bool:
    """Return whether ``slot``, processed after ``before``, begins a span that gets a checkpoint.

    Short spans get none while processing is far behind ``newest``, the last slot that is due.
    """
    spans = SPANS if newest - slot < 2 * SPANS[0] else SPANS[1:]
    return any(slot // span != before // span for span in spans)


def wanted(slots: list[int]) -> set[int]:
    """Return the ``slots`` whose checkpoint is kept: per length, the first of the newest span and the one before."""
    found: set[int] = set()
    newest = max(slots, default=0)
    for span in SPANS:
        first = {slot // span: slot for slot in sorted(slots, reverse=True)}
        found |= {first[part] for part in (newest // span - 1, newest // span) if part in first}
    return found


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The checkpoints of one server; only the drift service's thread may use them."""

    database: Database
    config: DriftConfig

    def save(self, moment: FleetMoment) -> None:
        """Write a checkpoint, block by block, and delete those no longer needed."""
        slot = moment.state.slot
        self.drop(slot)
        firsts: dict[int, int] = {}
        for number, (bank, block) in enumerate(_blocks(moment.state), start=1):
            if bank is not None:
                firsts.setdefault(bank, number)
            with self.database.begin() as connection:  # one transaction each: the database is never locked for long
                store.put_block(connection, slot, number, block)
        header = _header(moment) | {"stamp": self._stamp(), "detectors": firsts}
        with self.database.begin() as connection:
            store.put_block(connection, slot, 0, json.dumps(header).encode())
            slots = store.checkpoint_slots(connection)
            unfinished = store.unfinished_slots(connection)
            store.delete_checkpoints(connection, [*unfinished, *(set(slots) - wanted(slots))])

    def drop(self, slot: int) -> None:
        """Delete the checkpoints of ``slot`` and later slots: their input has changed."""
        with self.database.begin() as connection:
            late = [one for one in store.checkpoint_slots(connection) if one >= slot]
            store.delete_checkpoints(connection, [*late, *store.unfinished_slots(connection)])

    def newest(self, banks: BankAccess) -> FleetMoment | None:
        """Return the newest valid checkpoint; invalid ones are deleted."""
        with self.database.begin() as connection:
            slots = store.checkpoint_slots(connection)
        for slot in slots:
            try:
                with self.database.begin() as connection:
                    return self._read(store.checkpoint_blocks(connection, slot), banks)
            except (ValueError, LookupError, TypeError, StopIteration) as error:
                _LOG.info("Checkpoint does not fit: its windows are folded again. slot=%s reason=%s", slot, error)
                self.drop(slot)
        return None

    def detectors_of(self, slot: int, key: BankKey, devices: Sequence[str]) -> dict[str, dict[str, Singles]]:
        """Return the rows of the detectors of those of ``devices`` that a valid checkpoint has in one bank, by device.

        Only the blocks with these devices are read. ``slot``: of the checkpoint; without a valid one there are none.
        """
        found: dict[str, dict[str, Singles]] = {}
        with self.database.begin() as connection:
            header = json.loads(store.one_block(connection, slot, 0) or b"{}")
            banks = [(bank["ref_id"], bank["artifact"]) for bank in header.get("banks", ())]
            if header.get("stamp") != self._stamp() or key not in banks:
                return {}
            place = banks.index(key)
            described, first = header["banks"][place], header["detectors"].get(str(place))
            rows = {device: row for row, device in enumerate(described["devices"])}
            columns = ScoreColumns(described["streams"], tuple(described["classes"]))
            widths = {name: arrays_of(columns)[name][0] for name in DETECTORS}
            for number in sorted({rows[device] // ROWS for device in devices if device in rows}):
                size = min(ROWS, len(rows) - number * ROWS)
                block = store.one_block(connection, slot, first + number) or b""
                parts = _unpacked(block, _DETECTOR, {name: (size, *width) for name, width in widths.items()})
                for device in devices:
                    if rows.get(device, -1) // ROWS == number:
                        found[device] = {name: part[rows[device] % ROWS].copy() for name, part in parts.items()}
        return found

    def slots(self) -> list[int]:
        """Return the slots of the finished checkpoints, newest first."""
        with self.database.begin() as connection:
            return store.checkpoint_slots(connection)

    def _stamp(self) -> str:
        return f"{code_digest()} {self.config.window_ms} {self.config.settings}"

    def _read(self, blocks: Iterator[bytes], banks: BankAccess) -> FleetMoment:
        header = json.loads(next(blocks))
        if header["stamp"] != self._stamp():
            message = "made by another version or with other settings"
            raise ValueError(message)
        since = header["flagged_since"]
        state = FoldState(
            slot=header["slot"], flagged=frozenset(header["flagged"]), flagged_since=since,
            commissioned=header["commissioned"], committed=header["committed"],
        )  # fmt: skip
        keys = [(bank["ref_id"], bank["artifact"]) for bank in header["banks"]]
        if not banks.open(state, keys):
            message = "a reference is not in the registry any more"
            raise ValueError(message)
        for key, described in zip(keys, header["banks"], strict=True):
            _refill(state.banks[key], described, blocks, banks.kept(key), self.config)
        for pool in header["pools"]:
            key = keys[pool["bank"]]
            found: dict[str, Any] = _unpacked(next(blocks), _SCORE, _shapes(Pool.empty(state.banks[key].columns)))
            own = {part: pool[part] for part in _OF_POOLS}
            state.pools[key, (pool["name"], pool["value"])] = Pool(**found, **own)
        for moved in header["movement"]:
            key = keys[moved["bank"]]
            movement = read_movement(next(blocks), state.banks[key].columns, moved["slot"])
            state.movement.setdefault(key, {})[moved["name"], moved["value"]] = movement
        for one in header["carried"]:
            carried = Carried(facts=state.facts[keys[one["bank"]]])
            for device, origin in one["origins"].items():
                older = (keys[origin], state.banks[keys[origin]], state.facts[keys[origin]])
                carried.carry(device, older, state.slot)
            carried.judge_no_more(carried.kept.keys() - set(one["judged"]))
            _refill_carried(carried, one["devices"], blocks, self.config)
            state.carried[keys[one["bank"]]] = carried
        for device, (bank, since_slot, previous, was_quiet) in header["current"].items():
            before = None if previous is None else (previous[0], previous[1])
            state.current[device] = Current(key=keys[bank], since_slot=since_slot, previous=before, was_quiet=was_quiet)
        health = {
            device: HealthMemory(last_slot, empty, Fault(*fault) if fault else None)
            for device, (last_slot, empty, fault) in header["health"].items()
        }
        return FleetMoment(state, health, header["cursor"])


@cache
def code_digest() -> str:
    """Return a digest of this folder's source: any change to it may change the meaning of the state."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.name.encode() + file.read_bytes() for file in files)).hexdigest()


def _header(moment: FleetMoment) -> dict[str, Any]:
    state = moment.state
    keys = list(state.banks)
    return {
        "slot": state.slot, "cursor": moment.cursor, "flagged": sorted(state.flagged),
        "flagged_since": state.flagged_since, "commissioned": state.commissioned, "committed": state.committed,
        "carried": [
            {"bank": keys.index(key), "devices": carried.bank.devices,
             "origins": {device: keys.index(origin) for device, origin in carried.origins.items()},
             "judged": sorted(carried.kept)}
            for key, carried in state.carried.items()
        ],
        "banks": [_described(key, bank) for key, bank in state.banks.items()],
        "pools": [
            {"bank": keys.index(key), "name": name, "value": value,
             **{part: getattr(pool, part) for part in _OF_POOLS}}
            for (key, (name, value)), pool in state.pools.items()
        ],
        "movement": [
            {"bank": keys.index(key), "name": name, "value": value, "slot": moved.slot}
            for key, of_bank in state.movement.items()
            for (name, value), moved in of_bank.items()
        ],
        "current": {
            device: (keys.index(now.key), now.since_slot, now.previous, now.was_quiet)
            for device, now in state.current.items()
        },
        "health": {
            device: (one.last_slot, one.empty, (one.fault.code, one.fault.text, one.fault.kind) if one.fault else None)
            for device, one in moment.health.items()
        },
    }  # fmt: skip


def _described(key: BankKey, bank: DetectorBank) -> dict[str, Any]:
    """Return the header's entry of a bank.

    ``collecting``: (row, context, windows, whether it is the provisional baseline) of incomplete baselines;
    ``movement``: by context the devices that are followed, and the numbers of the batches in their series.
    """
    return {
        "ref_id": key[0], "artifact": key[1], "streams": bank.streams, "devices": bank.devices,
        "classes": list(bank.columns.classes),
        "complete": [sorted(part.complete) for part in bank.commissioning],
        "collecting": [(row, context, one.windows, used) for row, context, one, used in _collecting(bank)],
        "movement": [(context, one.devices, list(one.series)) for context, one in bank.movement.items()],
    }  # fmt: skip


def _collecting(bank: DetectorBank) -> list[tuple[int, int, Collected, bool]]:
    return [
        (row, context, one, used)
        for row, part in enumerate(bank.commissioning)
        for used, collected in ((False, part.seen), (True, part.estimated))
        for context, one in collected.items()
        if context not in part.complete
    ]


def _blocks(state: FoldState) -> Iterator[tuple[int | None, bytes]]:
    """Yield the arrays; those of a bank's own detectors with the number of the bank.

    Per bank what its fleet moved, the detectors in chunks of devices, incomplete baselines and their movement; last
    the pools, and how they moved.
    """
    for place, bank in enumerate(state.banks.values()):
        yield None, _packed(_SCORE, *_arrays(bank.fleet).values())
        yield from ((place, block) for block in _detector_blocks(bank))
        collecting = [(one, used) for _, _, one, used in _collecting(bank)]
        for first in range(0, len(collecting), ROWS):
            some = [one for one, _ in collecting[first : first + ROWS]]
            counts = b"".join(one.counts.astype(_COUNT).tobytes() for one in some)
            yield None, counts + b"".join(one.squares.astype(_SCORE).tobytes() for one in some)
        for one, used in collecting:
            if used:
                yield None, packed_ordinary(one.ordinary) if one.ordinary else b""
        yield from ((None, block) for block in _movement_blocks(bank))
    for pool in state.pools.values():
        yield None, _packed(_SCORE, *_arrays(pool).values())
    for of_bank in state.movement.values():
        for moved in of_bank.values():
            yield None, packed_movement(moved)
    for carried in state.carried.values():
        yield from ((None, block) for block in _detector_blocks(carried.bank))


def _movement_blocks(bank: DetectorBank) -> Iterator[bytes]:
    for movement in bank.movement.values():
        for name, (_, _, kind, _) in movement.layout(bank.columns).items():
            yield _packed(np.dtype(kind), getattr(movement, name))
        yield _packed(_SCORE, movement.level)
        for number, means in movement.series.items():
            yield _packed(_MEAN, means)
            yield _packed(_SCORE, movement.levels[number])


def _detector_blocks(bank: DetectorBank) -> Iterator[bytes]:
    for first in range(0, len(bank.devices), ROWS):
        yield _packed(_DETECTOR, *(getattr(bank, name)[first : first + ROWS] for name in DETECTORS))


def _read_detectors(bank: DetectorBank, devices: int, blocks: Iterator[bytes]) -> dict[str, Singles]:
    """Return the detectors of so many ``devices`` of ``bank``, as ``_detector_blocks`` wrote them."""
    widths = {name: arrays_of(bank.columns)[name][0] for name in DETECTORS}
    detectors: dict[str, Singles] = {name: np.empty((devices, *width), np.float32) for name, width in widths.items()}
    for first in range(0, devices, ROWS):
        rows = min(ROWS, devices - first)
        parts = _unpacked(next(blocks), _DETECTOR, {name: (rows, *width) for name, width in widths.items()})
        for name, part in parts.items():
            detectors[name][first : first + rows] = part
    return detectors


def _refill_carried(carried: Carried, devices: list[str], blocks: Iterator[bytes], config: DriftConfig) -> None:
    """Read the detectors of ``devices``, which have or had a release that is compared with the one before."""
    commissioning = []
    for device in devices:
        own = {context: kept.collected for context, kept in carried.kept.get(device, {}).items()}
        commissioning.append(Commissioning(stages=(1,), seen=own, complete=frozenset(own), estimated=dict(own)))
    carried.bank.refill(devices, commissioning, _read_detectors(carried.bank, len(devices), blocks), config.settings)


def _packed(kind: np.dtype[Any], *arrays: np.ndarray) -> bytes:
    return b"".join(array.astype(kind).tobytes() for array in arrays)


def _unpacked(block: bytes, kind: np.dtype[Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return the arrays of ``shapes`` that stand one after the other in ``block``."""
    found, at = {}, 0
    for name, shape in shapes.items():
        end = at + math.prod(shape) * kind.itemsize
        found[name], at = _array(block[at:end], kind, shape), end
    if at != len(block):
        message = f"{len(block)} bytes, where {at} were expected"
        raise ValueError(message)
    return found


def _arrays(one: Pool | PoolMovement | HourlySums | FleetMovement | Ordinary) -> dict[str, np.ndarray]:
    values = {part.name: getattr(one, part.name) for part in fields(one)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def _shapes(empty: Pool | PoolMovement | HourlySums | FleetMovement) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in _arrays(empty).items()}


def packed_ordinary(one: Ordinary) -> bytes:
    """Return how a device moved, as bytes."""
    return _packed(_DETECTOR, *_arrays(one).values())


def read_ordinary(data: bytes, columns: ScoreColumns) -> Ordinary | None:
    """Return what ``packed_ordinary`` wrote of one device for these columns; None for anything else."""
    layout = Ordinary.layout(columns)
    hours = np.zeros(layout["hours"], np.float32)
    older = {name: shape for name, shape in layout.items() if name != "hours"}  # as versions before wrote it
    for shapes, rest in ((layout, {}), (older, {"hours": hours})):
        with suppress(ValueError):
            return Ordinary(**_unpacked(data, _DETECTOR, shapes), **rest)
    return None


def packed_movement(moved: PoolMovement) -> bytes:
    """Return how a pool moved, as bytes."""
    windows = np.array([moved.weekend_windows])
    clock = () if moved.clock is None else _arrays(moved.clock).values()
    return _packed(_SCORE, *_arrays(moved).values(), windows, *clock)


def read_movement(data: bytes, columns: ScoreColumns, slot: int) -> PoolMovement:
    """Return what ``packed_movement`` wrote.

    Raises:
        ValueError: If it does not fit ``columns``.
    """
    shapes = _shapes(PoolMovement.empty(columns)) | {"weekend_windows": (1,)}
    split = _SCORE.itemsize * sum(math.prod(shape) for shape in shapes.values())
    found: dict[str, Any] = _unpacked(data[:split], _SCORE, shapes)
    windows = int(found.pop("weekend_windows")[0])
    clock: dict[str, Any] = _unpacked(data[split:], _SCORE, _shapes(HourlySums.empty(columns))) if data[split:] else {}
    return PoolMovement(**found, weekend_windows=windows, slot=slot, clock=HourlySums(**clock) if clock else None)


def _refill(
    bank: DetectorBank, described: Mapping[str, Any], blocks: Iterator[bytes], kept: Mapping[str, KeptOfDevice],
    config: DriftConfig,
) -> None:  # fmt: skip
    devices, streams = described["devices"], described["streams"]
    if streams != bank.streams:
        message = f"{streams} streams, where the reference has {bank.streams}"
        raise ValueError(message)
    bank.fleet = FleetMovement(**_unpacked(next(blocks), _SCORE, _shapes(bank.fleet)))
    detectors = _read_detectors(bank, len(devices), blocks)
    commissioning = []
    for device, complete in zip(devices, described["complete"], strict=True):
        own = {context: kept[device][context].collected for context in complete}
        commissioning.append(
            Commissioning(stages=config.settings.stages, seen=own, complete=frozenset(complete), estimated=dict(own))
        )
    _read_collecting(commissioning, described["collecting"], blocks, bank.columns)
    for context, followed, numbers in described["movement"]:
        movement = Movement(
            columns=bank.columns, devices=followed, rows={name: row for row, name in enumerate(followed)}
        )
        for name, (lead, width, kind, _) in movement.layout(bank.columns).items():
            setattr(movement, name, _array(next(blocks), np.dtype(kind), (*lead, len(followed), *width)))
        movement.level = _array(next(blocks), _SCORE, (bank.columns.count,))
        shape = (len(followed), bank.columns.count)
        for number in numbers:
            movement.series[number] = _array(next(blocks), _MEAN, shape)
            movement.levels[number] = _array(next(blocks), _SCORE, (bank.columns.count,))
        bank.movement[context] = movement
    bank.refill(devices, commissioning, detectors, config.settings)


def _read_collecting(
    commissioning: list[Commissioning], collecting: list[tuple[int, int, int, bool]], blocks: Iterator[bytes],
    columns: ScoreColumns,
) -> None:  # fmt: skip
    """Read the baselines that are still collected, and the provisional ones in use, as ``_described`` lists them."""
    for first in range(0, len(collecting), ROWS):
        some = collecting[first : first + ROWS]
        block, split = next(blocks), len(some) * columns.streams * BINS * _COUNT.itemsize
        counts = _array(block[:split], _COUNT, (len(some), columns.streams, BINS))
        squares = _array(block[split:], _SCORE, (len(some), columns.streams, _SCORES))
        for place, (row, context, windows, used) in enumerate(some):
            own = commissioning[row].estimated if used else commissioning[row].seen
            own[context] = Collected(windows=windows, counts=counts[place].copy(), squares=squares[place].copy())
    for row, context, _, used in collecting:
        if used:
            commissioning[row].estimated[context].ordinary = read_ordinary(next(blocks), columns)


def _array(block: bytes, kind: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(block, kind).reshape(shape).astype(kind.newbyteorder("="))


_KeptOfBank = dict[str, dict[int, Kept]]


@dataclass(slots=True, kw_only=True)
class KeptBaselines:
    """The kept baselines of open banks; only the drift service's thread may use it.

    ``banks``: those that apply, as ``commissioned`` (UTC ms by device, of devices that were commissioned again) and
    ``committed`` (UTC ms by device and model, of devices that kept another one) say; ``models``: of which a bank is;
    ``every``: all of each bank and device, by the moment since which their windows were collected.
    """

    database: Database
    window_ms: int
    banks: dict[BankKey, _KeptOfBank] = field(default_factory=dict)
    pools: dict[BankKey, dict[PoolName, PoolMovement]] = field(default_factory=dict)
    every: dict[BankKey, dict[str, dict[int, dict[int, Kept]]]] = field(default_factory=dict)
    models: dict[BankKey, str] = field(default_factory=dict)
    commissioned: Mapping[str, int] = field(default_factory=dict)
    committed: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def open(self, key: BankKey, columns: ScoreColumns, model: str) -> None:
        """Read the baselines of the bank ``key``, once, and how its pools moved; what does not fit is left out."""
        if key in self.banks:
            return
        streams, self.pools[key], self.every[key], self.models[key] = columns.streams, {}, {}, model
        with self.database.begin() as connection:
            for row in store.baselines_of(connection, *key):
                if len(row["counts"]) == streams * BINS * _COUNT.itemsize:
                    collected = Collected(
                        windows=row["windows"],
                        counts=np.frombuffer(row["counts"], _COUNT).astype(np.int64).reshape(streams, BINS),
                        squares=np.frombuffer(row["squares"], _SCORE).astype(np.float64).reshape(streams, _SCORES),
                        ordinary=read_ordinary(row["movement"] or b"", columns),
                    )
                    kept = Kept(row["completed_ms"] // self.window_ms, collected, bool(row["provisional"]))
                    of_device = self.every[key].setdefault(row["device"], {})
                    of_device.setdefault(row["since_ms"], {})[row["context"]] = kept
            for row in store.pool_movements_of(connection, *key):
                with suppress(ValueError):
                    movement = read_movement(row["data"], columns, row["slot_ms"] // self.window_ms)
                    self.pools[key][row["attribute"], row["value"]] = movement
        self.banks[key] = {}
        self._show(key, self.every[key])

    def apply(self, state: FoldState) -> None:
        """Let ``banks`` have the baselines since the moment that ``state`` has of each device, or its installation."""
        if (state.commissioned, state.committed) == (self.commissioned, self.committed):
            return
        pairs = ((self.commissioned, state.commissioned), (self.committed, state.committed))
        changed = {
            one
            for older, newer in pairs
            for one in {**older, **newer}
            if older.get(one) != newer.get(one)
        }  # fmt: skip
        self.commissioned = dict(state.commissioned)
        self.committed = {device: dict(one) for device, one in state.committed.items()}
        for key in self.banks:
            self._show(key, changed)

    def _since_ms(self, key: BankKey, device: str) -> int:
        return since_ms(device, self.models.get(key, ""), self.commissioned, self.committed)

    def _show(self, key: BankKey, devices: Iterable[str]) -> None:
        for device in devices:
            of_device = self.every.setdefault(key, {}).setdefault(device, {})
            self.banks[key][device] = of_device.setdefault(self._since_ms(key, device), {})

    def add(
        self, completed: Mapping[BankKey, Mapping[tuple[str, int], Kept]],
        movement: Mapping[BankKey, Mapping[PoolName, PoolMovement]],
    ) -> None:  # fmt: skip
        """Store newly estimated baselines, and how the pools of their banks moved; complete ones are never replaced."""
        fresh = [
            (key, device, context, kept)
            for key, found in completed.items()
            for (device, context), kept in found.items()
            if _replaces(kept, self.banks[key].get(device, {}).get(context))
        ]
        if not fresh:
            return
        with self.database.begin() as connection:
            store.add_baselines(connection, [self._row(*one) for one in fresh])
            store.put_pool_movements(connection, [
                {"ref_id": key[0], "artifact": key[1], "attribute": name, "value": value,
                 "slot_ms": moved.slot * self.window_ms, "data": packed_movement(moved)}
                for key in {key for key, *_ in fresh}
                for (name, value), moved in movement.get(key, {}).items()
            ])  # fmt: skip
        for key, device, context, kept in fresh:
            self._show(key, [device])
            self.banks[key][device][context] = kept

    def _row(self, key: BankKey, device: str, context: int, kept: Kept) -> dict[str, object]:
        return {
            "ref_id": key[0], "artifact": key[1], "device": device, "context": context,
            "since_ms": self._since_ms(key, device),
            "completed_ms": kept.slot * self.window_ms, "windows": kept.collected.windows,
            "counts": kept.collected.counts.astype(_COUNT).tobytes(),
            "squares": kept.collected.squares.astype(_SCORE).tobytes(),
            "movement": packed_ordinary(kept.collected.ordinary) if kept.collected.ordinary else None,
            "provisional": kept.provisional,
        }  # fmt: skip


def _replaces(kept: Kept, older: Kept | None) -> bool:
    return older is None or (older.provisional and kept.collected.windows > older.collected.windows)
