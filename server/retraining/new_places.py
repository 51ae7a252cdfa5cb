"""Asks devices at new places for labels, and keeps the error rate there with its bounds.

A device that training does not know may be wrong from its first day, and nothing but labels can tell. About thirty
uniform samples are asked for when the verdict opens, by the mechanism of the audit. Decides what the labels show: harm,
if the error rate is surely more than ``harm_margin`` above that of training; none, if it is surely less than
``place_margin`` above it. Both bounds hold however often one looks.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

from server.drift.ledger import StoredVerdict
from server.drift.places import NOT_KNOWN, NewPlace, Places, PlaceState, place_of_verdict
from server.drift.verdicts import VerdictKind
from server.errors import ServerError
from server.registry.versions import Versions
from server.retraining.asking import follow
from server.retraining.audit import SteadyAudit
from server.retraining.config import RetrainingConfig
from server.retraining.harm import lower_bound, scenes_of, upper_bound
from server.retraining.samples import SampleStore, audited_samples, distinct

_LOG = logging.getLogger(__name__)
_EVERY_MS = 5_000


@dataclass(slots=True, kw_only=True)
class NewPlaces:
    """New places of one server. Only one thread calls ``turn``."""

    places: Places
    audit: SteadyAudit
    samples: SampleStore
    versions: Versions
    config: RetrainingConfig = field(default_factory=RetrainingConfig)
    _next_ms: int = 0

    def turn(self, now_ms: int) -> None:
        """Ask the device of each new verdict for samples; note what the labels of the others show."""
        if now_ms < self._next_ms:
            return
        self._next_ms = now_ms + _EVERY_MS
        alarms = self.places.verdicts.open(VerdictKind.NEW_PLACE)
        known = {place.verdict: place for place in self.places.all()} if alarms else {}
        for alarm in alarms:
            try:
                self._move(alarm, known.get(alarm.id), now_ms)
            except ServerError as error:  # such as a release that is no longer there
                _LOG.info("New place not followed. device=%s error=%s", alarm.devices[0], error)

    def _move(self, alarm: StoredVerdict, known: NewPlace | None, now_ms: int) -> None:
        device = alarm.devices[0]
        place = known or place_of_verdict(alarm, self.audit.fleet.device(device).site)
        if known is not None and known.decided_ms:
            return
        place, labelled = self._judged(place, alarm.first_window_ms, now_ms)
        if known is None or place.state is PlaceState.OPEN:
            place = follow(self.audit, self.samples, place, labelled, now_ms)
        if known is None:
            self.places.add(place)
        elif place != known:
            self.places.note(place, now_ms)

    def _judged(self, place: NewPlace, since_ms: int, now_ms: int) -> tuple[NewPlace, int]:
        """Return ``place`` with what its labels show, and how many uniform samples are labelled."""
        release = self.versions.release(place.release)
        reference = self.versions.reference(release.custom.ref_id)
        found = distinct(self.samples.labelled((place.device,), since_ms, place.model))
        audited = audited_samples(found, self.versions.label_form, self.config.source_block_s)
        scenes, labelled = scenes_of([replace(one, inclusion_ratio=0.0) for one in audited]), len(audited)
        n, wrong = len(scenes), sum(scene.wrong for scene in scenes)
        rate, confidence = 0.0 if reference is None else reference.error_rate, self.config.confidence
        risk = rate or 0.0
        lower, upper = lower_bound(scenes, confidence), upper_bound(scenes, confidence)
        place = replace(
            place,
            audited=n,
            wrong=wrong,
            lower_risk=lower,
            upper_risk=upper,
            source_risk=NOT_KNOWN if rate is None else rate,
        )
        if n and rate is not None and lower > risk + self.config.harm_margin:
            return replace(place, state=PlaceState.HARMFUL), labelled
        if n and upper <= risk + self.config.place_margin:
            return replace(place, state=PlaceState.HARMLESS, decided_ms=now_ms, decided_by="labels"), labelled
        return place, labelled
