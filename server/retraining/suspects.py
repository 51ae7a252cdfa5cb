"""Asks devices whose new release answers otherwise for labels, and decides whether it is worse there.

About thirty uniform samples of each of a few devices of a verdict ``release_regression``, by the mechanism of the
audit. Decides what the labels show: not worse, if the error rate is surely at most ``place_margin`` above that of the
release where it was gated, or at most that of the release before on the same device, as far as earlier labels prove it;
worse, if it is surely more than ``harm_margin`` above both. Bounds hold however often one looks.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

from server.drift.suspects import SuspectDevice, Suspects, SuspectState
from server.drift.verdicts import VerdictKind
from server.errors import ServerError
from server.registry.versions import Versions
from server.retraining.asking import follow
from server.retraining.audit import SteadyAudit
from server.retraining.config import RetrainingConfig
from server.retraining.harm import LabelledScene, lower_bound, scenes_of, upper_bound
from server.retraining.samples import SampleStore, StoredSample, audited_samples, distinct

_LOG = logging.getLogger(__name__)
DEVICES = 3
"""Of a verdict that are asked at a time: the labels of a person are few."""
_EVERY_MS = 5_000


@dataclass(slots=True, kw_only=True)
class SuspectReleases:
    """Suspects of one server. Only one thread calls ``turn``."""

    suspects: Suspects
    audit: SteadyAudit
    samples: SampleStore
    versions: Versions
    config: RetrainingConfig = field(default_factory=RetrainingConfig)
    _next_ms: int = 0

    def turn(self, now_ms: int) -> None:
        """Ask devices of open verdicts for samples; note what the labels of the others show."""
        if now_ms < self._next_ms:
            return
        self._next_ms = now_ms + _EVERY_MS
        alarms = self.suspects.verdicts.open(VerdictKind.RELEASE_REGRESSION)
        known = {(one.verdict, one.device): one for one in self.suspects.all()} if alarms else {}
        for alarm in alarms:
            new = (SuspectDevice(verdict=alarm.id, device=one, release=alarm.release) for one in alarm.devices)
            mine = [known.get((one.verdict, one.device), one) for one in new]
            undecided = [one for one in mine if one.state is SuspectState.OPEN]
            free = max(0, DEVICES - sum(one.state is SuspectState.WORSE for one in mine))
            for suspect in sorted(undecided, key=_order)[:free]:
                try:
                    self._move(suspect, now_ms)
                except ServerError as error:  # such as a release that is no longer there
                    _LOG.info("Suspect not followed. device=%s error=%s", suspect.device, error)

    def _move(self, known: SuspectDevice, now_ms: int) -> None:
        suspect, labelled = self._judged(known, now_ms)
        if suspect.state is SuspectState.OPEN:
            suspect = follow(self.audit, self.samples, suspect, labelled, now_ms)
        if suspect != known:
            self.suspects.put(suspect, now_ms, told=suspect.state is not known.state)

    def _judged(self, suspect: SuspectDevice, now_ms: int) -> tuple[SuspectDevice, int]:
        """Return ``suspect`` with what its labels show, and how many uniform samples of the release are labelled."""
        release = self.versions.release(suspect.release)
        reference = self.versions.reference(release.custom.ref_id)
        artifact = release.custom.artifact_sha256
        since_ms = self.suspects.since_ms(suspect.device)
        # another model has other errors: they excuse none of this one's
        found = distinct(self.samples.labelled((suspect.device,), since_ms, release.model))
        of_release = [one for one in found if one.artifact_sha256 == artifact]
        earlier = [one for one in found if one.artifact_sha256 != artifact]
        last = max(earlier, key=lambda one: one.at_ms).artifact_sha256 if earlier else ""
        scenes, labelled = self._scenes(of_release)
        before, _ = self._scenes([one for one in earlier if one.artifact_sha256 == last])
        confidence = 1 - (1 - self.config.confidence) / (2 if before else 1)  # two bounds share the risk
        lower, upper = lower_bound(scenes, confidence), upper_bound(scenes, confidence)
        rate = 0.0 if reference is None else reference.error_rate
        risk = rate or 0.0
        allowed = max(risk + self.config.place_margin, lower_bound(before, confidence))
        surely = max(risk, upper_bound(before, confidence) if before else 0.0) + self.config.harm_margin
        surely = 1.0 if rate is None and not before else surely  # of a release that was made without labels
        suspect = replace(
            suspect, audited=len(scenes), wrong=sum(one.wrong for one in scenes), lower_risk=lower, upper_risk=upper,
            allowed_risk=allowed,
        )  # fmt: skip
        if scenes and upper <= allowed:
            return replace(suspect, state=SuspectState.HARMLESS, decided_ms=now_ms), labelled
        if scenes and lower > surely:
            return replace(suspect, state=SuspectState.WORSE, decided_ms=now_ms), labelled
        return suspect, labelled

    def _scenes(self, samples: list[StoredSample]) -> tuple[tuple[LabelledScene, ...], int]:
        audited = audited_samples(samples, self.versions.label_form, self.config.source_block_s)
        return scenes_of([replace(one, inclusion_ratio=0.0) for one in audited]), len(audited)


def _order(suspect: SuspectDevice) -> tuple[bool, bool]:
    """Return by what undecided suspects are sorted: those that send samples, then those never asked, then the rest.

    The rest can't be asked, left the fleet, or sent nothing, as their text says.
    """
    return bool(suspect.text), suspect.asks == 0
