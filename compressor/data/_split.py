"""Splits: train, calibration, gate and reference, disjoint by content and by source.

A row's split depends only on a keyed hash of its source, so it is fixed by the seed and does not change when rows are
added: a retrained model is judged on the same gate rows as its predecessor. Sources that share a content hash count as
one. The gate split has one row per source, because the paired test needs independent rows (all of them for a task
that judges their course in time); the other splits have all rows.

The labelled samples from the fleet that a retraining uses have two parts, to learn from and to judge, by a hash of
their source alone: no later retraining trains on a sample that an earlier one held out. Samples that a device chose
because the model was unsure (lane ``drift``), or that its user corrected, may teach but not judge: the model of before
is wrong on them more often than it is on all, so that any other model seems better. Where a sample's lane is known,
only uniformly drawn ones (``audit``) judge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compressor import tasks
from compressor.data._table import DEFAULT_SHARES, Integers, Shares, Table, Texts, align
from compressor.errors import SplitError
from wire.settings import nearest

_NAMES = ("train", "calibration", "gate", "reference")
_DRAWN = ("calibration", "reference")
"""The splits that are drawn from others if the data set gives no rows of them."""
SEARCH_SHARE = 0.15
TRAIN_SHARE = 0.7
"""Of the drifted samples of a retraining, if it is not known how they were drawn."""
UNIFORM_TRAIN_SHARE = 0.5
"""Of the sources with uniformly drawn samples, if others only teach."""
_UNIFORM = "audit"
WATCHED_TRAIN_SHARE = 0.5
"""Of the labelled samples of sites that did not drift: few are labelled there, and a bound needs them most."""
WITHOUT_TRAIN = (
    "no train rows: the edges of the drift reference come from the calibration rows, the extremes that calibrate a "
    "regression from the reference rows"
)
_HASH_RANGE = 2**64
_NAMED = 5
_ROUNDING = 1e-9
Positions = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """Rows of each split, int64 indices into the table, ascending; ``other`` are rows of slices not trained on."""

    train: Integers
    calibration: Integers
    gate: Integers
    reference: Integers
    other: Integers

    def n_effective(self, table: Table, rows: Integers) -> int:
        """Return the number of independent samples among ``rows``: of their sources."""
        return len(np.unique(table.sources[rows]))


def split(
    table: Table, seed: int, *, slices: Sequence[str] = (), shares: Shares | None = None, learns: bool = True
) -> Splits:
    """Return the splits of ``table`` with ``seed``; ``slices`` are those to train on (empty: all).

    ``shares`` default to those of the table. If the data set gives the split of a row, the row is in it, with its whole
    group; if it gives no calibration or reference rows, these are drawn from the train rows. ``learns``: False if
    nothing is trained: there may be no train rows then, and of calibration and reference one is drawn from the other.

    Raises:
        SplitError: If a slice does not exist, shares don't sum to 1, a split is empty, or the data set gives an unknown
            split, or two for one content or source.
    """
    shares = shares or table.shares
    if not learns and not table.labelled:
        shares = shares.without_train  # nothing else could use these rows
    known = set(table.slices.tolist())
    if unknown := [name for name in slices if name not in known]:
        message = f"Expected train_slices among {', '.join(sorted(known))}, got {', '.join(unknown)}"
        raise SplitError(message + nearest(unknown[0], known))
    wanted = np.isin(table.slices, list(slices)) if len(slices) else np.ones(len(table), dtype=bool)
    keys = _group_keys(table)
    positions = np.array([_position(seed, key) for key in keys])
    parts_of_one = [shares.train, shares.calibration, shares.gate, shares.reference]
    if min(parts_of_one[0 if learns else 1 :]) <= 0 or shares.train < 0 or abs(sum(parts_of_one) - 1) > _ROUNDING:
        message = f"Expected positive shares that sum to 1, got {parts_of_one}"
        raise SplitError(message)
    assigned = np.searchsorted(np.cumsum(parts_of_one)[:-1], positions, side="right")
    if table.told is not None:
        assigned = _as_told(told_groups(table, keys=keys), positions, shares, assigned)
    parts = {name: np.flatnonzero(wanted & (assigned == i)) for i, name in enumerate(_NAMES)}
    if not tasks.of_rows(table).whole_sources:
        parts["gate"] = _one_of_each(table, parts["gate"], keys, seed)
    for name, rows in parts.items():
        if not len(rows) and (learns or name != "train"):
            count = len({key for key, one in zip(keys, wanted.tolist(), strict=True) if one})
            message = f"Expected rows in the {name} split, got none of {int(wanted.sum())} rows of {count} sources"
            raise SplitError(f"{message}: add data of other sources, for a source is never in two splits")
    splits = Splits(**parts, other=np.flatnonzero(~wanted))
    check_disjoint(table, splits)
    return splits


def set_aside(table: Table, seed: int, share: float = SEARCH_SHARE) -> tuple[Table, Table]:
    """Return ``table`` in two parts: rows to learn from, and ``share`` of its sources to judge choices by.

    The gate split is never used for a choice: it could not judge what was chosen on it.

    Raises:
        SplitError: If one part would be empty.
    """
    keys = _group_keys(table)
    held = np.array([_position(seed, f"search {key}") < share for key in keys], dtype=bool)
    if not held.any() or held.all():
        message = f"Expected training sources to learn from and to choose by, got {len(set(keys))}: add data"
        raise SplitError(message)
    return table.take(~held), table.take(held)


def check_disjoint(table: Table, splits: Splits) -> None:
    """Check that no content and no source is in two splits.

    Raises:
        SplitError: If one is.
    """
    for column in (table.hashes, table.sources):
        seen: dict[str, str] = {}
        for name in _NAMES:
            rows: Integers = getattr(splits, name)
            for value in np.unique(column[rows]).tolist():
                if seen.setdefault(value, name) != name:
                    message = f"Expected disjoint splits, got {value[:16]!r} in {seen[value]} and {name}"
                    raise SplitError(message)


def absences(table: Table, splits: Splits) -> list[str]:
    """Return remarks on classes without train rows or without gate rows, and on what takes the place of train rows."""
    labels = tasks.of_rows(table).targets.classes(table.labels)
    said = [] if len(splits.train) else [WITHOUT_TRAIN]
    if labels is None:
        return said
    learnt = [("train", "nothing is learnt of them")] if len(splits.train) else []
    for name, meaning in (*learnt, ("gate", "no gate looks at them")):
        there = set(labels[getattr(splits, name)].tolist())
        classes = [own for label, own in enumerate(table.class_names) if label not in there]
        if classes:
            more = f" and {len(classes) - _NAMED} more" if len(classes) > _NAMED else ""
            said.append(f"no {name} rows of {', '.join(classes[:_NAMED])}{more}: {meaning}")
    return said


def told_groups(table: Table, *, keys: Sequence[str] = (), names: Sequence[str] = ()) -> Texts:
    """Return the split that ``table`` gives for the group of each row, str (N,), empty if it gives none.

    ``keys`` are the rows' groups if they are known, ``names`` the rows' names in messages.

    Raises:
        SplitError: If it gives an unknown split, or one content or source is in two.
    """
    keys = keys or _group_keys(table)
    rows = [] if table.told is None else table.told.tolist()
    found: dict[str, tuple[str, int]] = {}
    for row, name in enumerate(rows):
        if name and name not in _NAMES:
            message = f"Expected a split of {', '.join(_NAMES)}, got {name!r} for {_called(names, row)}"
            raise SplitError(message + nearest(name, _NAMES))
        first, other = found.setdefault(keys[row], (name, row)) if name else ("", row)
        if name and first != name:
            both = f"{_called(names, other)} in {first} and {_called(names, row)} in {name}"
            message = f"Expected disjoint splits, got the same content or source twice: {both}"
            own = (
                "; if they only look alike, give each row a source (near copies count as one without), or, if the "
                "splits are those of a benchmark, set [data] near_copies = 'as_told'"
            )
            raise SplitError(f"{message}: leave one out, or give both one split{own if not names else ''}")
    return np.array([found.get(key, ("", 0))[0] for key in keys], dtype=np.str_)


def _called(names: Sequence[str], row: int) -> str:
    return repr(names[row]) if names else f"row {row}"


def _as_told(told: Texts, positions: Positions, shares: Shares, assigned: Indices) -> Indices:
    """Return the split of each row: as given, else as ``assigned``; splits without given rows are drawn from train.

    Without given train rows, calibration and reference are drawn from that of the two that is given: in halves, unless
    the recipe has shares, because by the usual ones a fourteenth of them would calibrate.
    """
    given = set(told.tolist())
    lacking = [name for name in _DRAWN if name not in given]
    origin = "train" if given & {"train", ""} else next((name for name in _DRAWN if name in given), "train")
    kinds = [origin, *lacking]
    sizes = np.array([getattr(shares, name) for name in kinds])
    if origin != "train" and shares == DEFAULT_SHARES:
        sizes = np.ones(len(kinds))
    drawn = np.searchsorted(np.cumsum(sizes / sizes.sum())[:-1], positions, side="right")
    from_origin = np.array([_NAMES.index(name) for name in kinds])[drawn]
    whole = np.array([_NAMES.index(name) if name else 0 for name in told.tolist()])
    return np.where(told == "", assigned, np.where(told == origin, from_origin, whole))


def _position(seed: int, key: str) -> float:
    """Return the position of ``key`` in 0..1 for ``seed``: uniform, and independent of all other keys."""
    digest = hashlib.blake2b(key.encode(), digest_size=8, key=seed.to_bytes(8, "big")).digest()
    return int.from_bytes(digest, "big") / _HASH_RANGE


def joined(links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the first name, by its letters, of those that ``links`` join, also over several steps (union-find)."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for one, other in links:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return {name: root(name) for name in tuple(parent)}


def _group_keys(table: Table) -> list[str]:
    """Return the group key of each row: sources that share a content hash are one group."""
    owner: dict[str, str] = {}
    sources = table.sources.tolist()
    rows = zip(sources, table.hashes.tolist(), strict=True)
    keys = joined((source, owner.setdefault(content, source)) for source, content in rows)
    return [keys[source] for source in sources]


def _one_of_each(table: Table, rows: Integers, keys: list[str], seed: int) -> Integers:
    """Return one row per source: its first, or one drawn by the seed if its rows are of several classes.

    Otherwise the order of rows would choose the class: if all recordings begin alike, the gate would have one class.
    """
    found: dict[str, list[int]] = {}
    for row in rows.tolist():
        found.setdefault(keys[row], []).append(row)
    labels = tasks.of_rows(table).targets.classes(table.labels)
    return np.array(sorted(_one(table, labels, own, seed) for own in found.values()), dtype=np.int64)


def _one(table: Table, labels: Integers | None, rows: list[int], seed: int) -> int:
    if labels is None or len(set(labels[rows].tolist())) == 1:
        return rows[0]
    return min(rows, key=lambda row: _position(seed, f"gate {table.hashes[row]}"))


@dataclass(frozen=True, slots=True, eq=False)
class Drifted:
    """Labelled samples from the fleet: ``train`` to learn from, ``held`` to judge."""

    train: Table
    held: Table


def part(extra: Table, used: Table) -> Drifted:
    """Return ``extra`` in two parts, labels aligned with ``used`` (the base's splits), without samples in ``used``.

    Raises:
        DataError: If ``extra`` has a class that ``used`` lacks.
        SplitError: If one part would be empty.
    """
    extra = align(extra.take(~np.isin(extra.hashes, used.hashes)), used.class_names)
    places = _places(extra, b"drifted")
    uniform = np.ones(len(extra), dtype=bool) if extra.lanes is None else extra.lanes == _UNIFORM
    if uniform.all():
        learns = places < TRAIN_SHARE
    else:
        judging = set(extra.sources[uniform].tolist())
        learns = (places < UNIFORM_TRAIN_SHARE) | ~np.isin(extra.sources, list(judging))
    held = uniform & ~learns
    if not learns.any() or not held.any():
        message = f"Expected new labelled samples for training and for judging, got {len(extra)}"
        raise SplitError(f"{message}, {int(uniform.sum())} of them drawn uniformly (lane audit): label more of these")
    return Drifted(extra.take(learns), extra.take(held))


def part_watched(watched: Table, used: Table, drifted: Drifted) -> Drifted:
    """Return labelled samples of sites that did not drift in two parts, by a hash of their source: replayed, and held.

    Labels are aligned with ``used``, whose content is left out, as is that of ``drifted``. Either part may be empty.

    Raises:
        DataError: If ``watched`` has a class that ``used`` lacks.
    """
    known = np.concatenate([used.hashes, drifted.train.hashes, drifted.held.hashes])
    fresh = align(watched.take(~np.isin(watched.hashes, known)), used.class_names)
    learns = _places(fresh, b"watched") < WATCHED_TRAIN_SHARE
    return Drifted(fresh.take(learns), fresh.take(~learns))


def _places(table: Table, purpose: bytes) -> Positions:
    """Return where in 0..1 the source of each row is for ``purpose``, by a hash of its name alone."""
    sources = table.sources.tolist()
    digests = [hashlib.blake2b(source.encode(), digest_size=8, person=purpose).digest() for source in sources]
    return np.array([int.from_bytes(digest, "big") / _HASH_RANGE for digest in digests])


def repeats(train_rows: int, drifted_rows: int) -> int:
    """Return how often the drifted training samples are repeated, to make up about a third of an epoch."""
    return int(np.clip(round(train_rows / (2 * max(drifted_rows, 1))), 1, 16))
