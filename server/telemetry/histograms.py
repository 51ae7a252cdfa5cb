"""A device's window beside a reference, stream by stream: where the values lie now, and where they did.

The reference is the device's own baseline, with which it is judged, or the release's, made of the training data. All
contexts of either are added up. Says what differs and by how much; it is a look at one window and never an alarm, which
adds up the evidence of many windows against what the fleet ordinarily moves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np

from server.drift.detection.attribution import words
from server.drift.detection.reference import (
    SHAPE_MEMORY,
    SHAPES,
    Floats,
    Ints,
    own_deviations,
    proportions,
    scores,
    shift_of,
)
from server.drift.rows import jensen_shannon, kolmogorov_smirnov, psi
from server.errors import ServerError
from server.ingest.packed_counts import unpack
from server.registry.versions import Release
from server.store.database import Database
from server.store.monitoring.checkpoints import baselines_of_device
from server.store.monitoring.spans import pinned_between
from server.store.monitoring.windows import starts_beside
from wire.errors import WireError
from wire.histogram import BINS, Shape
from wire.reference import Reference

ERRORS = 3.0
"""Standard errors, of independent samples, by which a stream must differ before it is said to."""
_PLAIN = 1 / 3  # as in the words of a cause: a shift has this share of the largest difference


class ReferenceKind(StrEnum):
    """With what a window is compared."""

    OWN = "own"
    TRAINING = "training"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamHistogram:
    """One stream of a window beside the reference.

    ``window`` and ``reference``: shares of the samples in each of 16 bins, which the ``edges`` part (15 values, none if
    they are not known). ``differs``: by more than ``ERRORS`` standard errors. ``words``: how, "" if it does not.
    ``shift_sd``: how far a normal stream would have moved to look like this, in standard deviations; None of classes.
    ``js``, ``ks`` and ``psi``: the usual measures; ``n`` of ``reference_n`` samples.
    """

    name: str
    kind: str
    words: str
    differs: bool
    shift_sd: float | None
    js: float
    ks: float
    psi: float
    n: int
    reference_n: int
    invalid: int
    window: tuple[float, ...]
    reference: tuple[float, ...]
    edges: tuple[float, ...]
    categorical: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowComparison:
    """A window of a device beside a reference; ``start_ms`` None: there is no such window.

    ``release``: whose reference its counts belong to, "" if the registry does not know it. ``against``: with what it is
    compared, None if there is nothing to compare with; ``choices``: with what it could be. ``note``: what a reader
    should know, in words. ``earlier_ms`` and ``later_ms``: the windows beside it. ``streams``: those that differ first.
    """

    start_ms: int | None
    len_ms: int = 0
    n: int = 0
    release: str = ""
    against: ReferenceKind | None = None
    choices: tuple[ReferenceKind, ...] = ()
    reference_words: str = ""
    note: str = ""
    earlier_ms: int | None = None
    later_ms: int | None = None
    streams: tuple[StreamHistogram, ...] = ()


class Registry(Protocol):
    """The part of the registry that is needed; ``registry.versions.Versions`` implements it."""

    def reference(self, ref_id: str) -> Reference | None:
        """Return the reference whose id starts with ``ref_id``."""

    def releases(self) -> tuple[Release, ...]:
        """Return every release."""


@dataclass(frozen=True, slots=True)
class _Counts:
    """Counts (S, 16) with the words for where they are from."""

    counts: Ints
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowHistograms:
    """Compares windows of devices. ``has_pictures``: whether the inputs of a release are, for the words."""

    database: Database
    registry: Registry
    has_pictures: Callable[[Release], bool] = lambda _release: True

    def newest(self, device: str) -> int | None:
        """Return the start of the newest window of ``device``, None without any."""
        with self.database.begin() as connection:
            return starts_beside(connection, device, None)[0]

    def compare(self, device: str, at_ms: int | None = None, against: ReferenceKind | None = None) -> WindowComparison:
        """Return the window of ``device`` at ``at_ms``, by default its newest, beside a reference.

        ``against``: the one that is wanted; the device's own baseline if it has one, by default. Windows that were
        merged into days, after some weeks, are not among them.

        Raises:
            HistogramError: If the window is damaged.
        """
        with self.database.begin() as connection:
            start_ms, earlier_ms, later_ms = starts_beside(connection, device, at_ms)
            if start_ms is None:
                return WindowComparison(start_ms=None, later_ms=later_ms)
            rows = pinned_between(connection, device, start_ms, start_ms + 1)
            row = rows[-1]
            alike = [one for one in rows if _key(one) == _key(row)]
            baselines = baselines_of_device(connection, device, row["ref_id"], row["artifact"], start_ms)
        shape = Shape(row["streams"], row["classes"], row["confidence_bins"])
        counts = np.sum([unpack(bytes(one["values"]), shape.total) for one in alike], axis=0)
        release, training = self._release(str(row["ref_id"]), shape)
        known = {
            ReferenceKind.OWN: _own(baselines, shape, start_ms),
            ReferenceKind.TRAINING: _training(training),
        }
        choices = tuple(one for one, found in known.items() if found is not None)
        chosen = against if against in choices else next(iter(choices), None)
        reference = known[chosen] if chosen is not None else None
        pictures = release is None or self.has_pictures(release)
        return WindowComparison(
            start_ms=start_ms, len_ms=int(row["len_ms"]), n=sum(int(one["n"]) for one in alike),
            release=release.name if release else "", against=chosen, choices=choices,
            reference_words=reference.words if reference else "",
            note=_note(len(rows) - len(alike), against, chosen, training), earlier_ms=earlier_ms, later_ms=later_ms,
            streams=_streams(counts, shape, reference, training, pictures=pictures),
        )  # fmt: skip

    def _release(self, ref_id: str, shape: Shape) -> tuple[Release | None, Reference | None]:
        """Return the release of a reference and that reference, if it is known and fits the window."""
        release = next((one for one in self.registry.releases() if one.custom.ref_id.startswith(ref_id)), None)
        if release is None:
            return None, None
        try:
            found = self.registry.reference(ref_id)
        except (ServerError, WireError):  # such as a bundle that is gone
            found = None
        return release, found if found is not None and len(found.streams) == shape.streams else None


def _key(row: Any) -> tuple[object, ...]:  # noqa: ANN401 - a row of the store
    return tuple(row[name] for name in ("ref_id", "artifact", "streams", "classes", "confidence_bins"))


def _own(baselines: Sequence[Any], shape: Shape, start_ms: int) -> _Counts | None:
    whole = [row for row in baselines if len(row["counts"]) == shape.streams * BINS * 8]
    if not whole:
        return None
    counts = np.sum([np.frombuffer(row["counts"], "<i8").reshape(shape.streams, BINS) for row in whole], axis=0)
    windows, inside = sum(int(row["windows"]) for row in whole), any(row["completed_ms"] >= start_ms for row in whole)
    state = "provisional so far" if any(row["provisional"] for row in whole) else "complete"
    told = f"its own usual, of {windows:,} windows ({state})"
    return _Counts(counts, told + ("; this window may be one of them" if inside else ""))


def _training(reference: Reference | None) -> _Counts | None:
    if reference is None or not reference.contexts:
        return None
    counts = np.array([one.counts for one in reference.contexts], np.int64)
    places = f", {len(reference.contexts)} contexts together" if len(reference.contexts) > 1 else ""
    return _Counts(counts.reshape(-1, len(reference.streams), BINS).sum(axis=0), f"the release's training data{places}")


def _note(others: int, wanted: ReferenceKind | None, chosen: ReferenceKind | None, training: Reference | None) -> str:
    parts = []
    if others:
        other = "Another release" if others == 1 else f"{others} others"
        parts.append(f"{other} sent counts in this window too; the newest is shown.")
    if training is None:
        parts.append("The registry does not have the release's reference: streams have numbers for names.")
    if chosen is None:
        parts.append("There is nothing to compare with yet: the device has no baseline under this release.")
    elif wanted is not None and wanted is not chosen:
        missing = {ReferenceKind.OWN: "The device has no baseline under this release yet",
                   ReferenceKind.TRAINING: "The release's reference is not known"}  # fmt: skip
        parts.append(f"{missing[wanted]}: it is compared with {chosen.value.replace('own', 'its own usual')}.")
    return " ".join(parts)


def _streams(
    counts: Ints, shape: Shape, reference: _Counts | None, training: Reference | None, *, pictures: bool
) -> tuple[StreamHistogram, ...]:  # fmt: skip
    bins = counts[: shape.streams * BINS].reshape(shape.streams, BINS)
    invalid = counts[shape.streams * BINS : shape.streams * (BINS + 1)]
    usual = reference.counts if reference is not None else np.zeros_like(bins)
    far = {"js": jensen_shannon(bins, usual), "ks": kolmogorov_smirnov(bins, usual), "psi": psi(bins, usual)}
    moved, n, of = _moved(bins, usual), bins.sum(axis=1), usual.sum(axis=1)
    found = []
    for i in range(shape.streams):
        spec = training.streams[i] if training is not None else None
        name, categorical = (spec.name, spec.categorical) if spec else (f"stream {i}", False)
        least = ERRORS * math.sqrt(1 / max(int(n[i]), 1) + 1 / max(int(of[i]), 1))
        differs = bool(n[i]) and bool(of[i]) and float(np.abs(moved[i]).max()) > least
        shift = math.copysign(float(shift_of(np.asarray(abs(moved[i, 0])))), float(moved[i, 0]))
        found.append(StreamHistogram(
            name=name, kind=spec.kind if spec else "", differs=differs, categorical=categorical,
            words=words(name, _shape(moved[i]), pictures=pictures) if differs else "",
            shift_sd=None if categorical or not (n[i] and of[i]) else round(shift, 2),
            n=int(n[i]), reference_n=int(of[i]), invalid=int(invalid[i]), window=_shares(bins[i]),
            reference=_shares(usual[i]), edges=training.edges[i] if training is not None and training.edges else (),
            **{measure: round(float(values[i]), 4) for measure, values in far.items()},
        ))  # fmt: skip
    return tuple(sorted(found, key=lambda one: (not one.differs, -one.js, one.name)))


def _moved(bins: Ints, usual: Ints) -> Floats:
    """Return how far the mean of each of the eight shapes moved from ``usual`` (S, 8), in standard deviations."""
    p = proportions(usual)
    means = scores(bins, p) / np.maximum(bins.sum(axis=1), 1)[:, None] - scores(p, p)
    deviations = own_deviations(p)[:, SHAPE_MEMORY]
    return np.asarray(means / np.maximum(deviations, 1e-9))


def _shape(moved: Floats) -> str:
    plain = SHAPES[0] if moved[0] > 0 else SHAPES[1]
    return plain if abs(float(moved[0])) >= _PLAIN * float(np.abs(moved).max()) else SHAPES[int(moved.argmax())]


def _shares(counts: Ints) -> tuple[float, ...]:
    total = int(counts.sum())
    return tuple(round(float(one) / total, 4) for one in counts) if total else ()
