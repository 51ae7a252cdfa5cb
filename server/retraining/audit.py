"""The steady audit: a few uniform samples of each model a day, without any alarm, for a person to label.

Nothing but labels shows that the same inputs have other right answers now. Once a day every device of a model gets one
probability, the wanted samples over the inferences of all of them, and takes each of its inputs by it: a device that
sees more sends more, so that the error rate of the samples is that of the mean image, not of the mean device.
Decides when whom to ask for how many, and for which groups of devices the labels are judged; how is in ``harm``.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

import sqlalchemy as sa

from server.access.audit_log import record_act
from server.drift.rows import device_attributes
from server.errors import (
    AuditOffError,
    DeviceEndedError,
    NoPicturesError,
    NotAskedError,
    ServerError,
    UnknownDeviceError,
)
from server.fleet.fleet import Device, Fleet
from server.people import SERVER_ACTOR, By
from server.registry.versions import Release, Versions
from server.retraining.config import AuditConfig, RetrainingConfig
from server.retraining.harm import DEVICE, AuditedSample, GroupRisk, LabelledScene, log_evidence, risk_of, scenes_of
from server.retraining.labelling import LabelForm
from server.retraining.samples import (
    ONCE,
    STEADY,
    SampleStore,
    StoredSample,
    audited_samples,
    distinct,
    stored_sample,
)
from server.store import retraining as store
from server.store.commissions import newest_moments
from server.store.database import Database
from server.store.monitoring.windows import images_since
from server.wording import listed
from wire.codec import Json
from wire.errors import WireError

_LOG = logging.getLogger(__name__)
SETTING = "sample_bytes_per_day"
_DAY_MS = 86_400_000
_HOUR_MS = 3_600_000
_TTL_S = 86_400.0  # a device that was away gets the request when it returns
_ASKED_A_TURN = 100
_AHEAD = 1.3  # so many times the wanted samples are drawn in a day, so that one ask ends within about a day
_LEAST = 8
_UNREADABLE = "arguments_invalid"
_SLACK = 4
_NAMED = 3  # groups of a release in one line


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAudit:
    """What uniform samples of one release say, which at least one device runs.

    ``samples_per_day``: how many are wanted of its model, 0: the audit is off. ``asked_ms``: when its devices were
    asked last, 0: never; ``ratio``: with which probability they take an input since; ``devices``: how many were asked
    that had not refused before, ``images_per_day``: what they see. ``waiting``: samples without a label. ``groups``:
    all devices first, then cohorts and devices with enough labels or harm. ``not_asked``: why its devices are never
    asked and it has no groups, "" if they are.
    """

    model: str
    release: str
    samples_per_day: float
    asked_ms: int = 0
    ratio: float = 0.0
    devices: int = 0
    images_per_day: float = 0.0
    waiting: int = 0
    groups: tuple[GroupRisk, ...] = ()
    not_asked: str = ""


@dataclass(slots=True, kw_only=True)
class SteadyAudit:
    """Asks devices for audit samples. Only one thread calls ``turn``; any may call the other methods."""

    database: Database
    fleet: Fleet
    versions: Versions
    samples: SampleStore
    config: AuditConfig = field(default_factory=AuditConfig)
    retraining: RetrainingConfig = field(default_factory=RetrainingConfig)
    _due: deque[tuple[str, dict[str, Json]]] = field(default_factory=deque)
    _next_ms: int = 0
    _known: tuple[object, tuple[ModelAudit, ...]] = (None, ())
    _members: tuple[int, tuple[tuple[str, str, str], ...]] = (-1, ())  # by the revision of the roster

    def ask_once(self, device: str, count: int = 30, *, by: By = "") -> str:
        """Ask ``device`` once, from now on, for ``count`` samples drawn uniformly; return the request's name.

        The samples come in the lane ``audit`` with the next windows and wait for labels as all others
        (``SampleStore``). Where the device's rate is known from its windows, they are spread over about a day, so that
        they show different scenes; else, and from an agent that refused a request as unreadable since it is too old for
        ratios, they are drawn from its next window. The device sends none if its owner does
        not allow it, and fewer if its budget of bytes ends; ``fleet.last_command(device, "samples")`` has its answer.
        Asking again adds another request. It is an act of ``by``, "" for the server itself.

        Raises:
            UnknownDeviceError: If there is none of that id.
            DeviceEndedError: If it was revoked or removed.
            AuditOffError: If neither [audit] nor [retraining] of server.toml allows to ask devices for inputs.
            NoPicturesError: If the inputs of the device's release are no pictures: it sends none.
            NotAskedError: If its answers are of a task without classes, which no label here judges.
        """
        running = self.fleet.active_device(device).release
        budget_bytes = max(
            self.config.device_bytes_per_day if self.config.enabled else 0, self.retraining.sample_bytes_per_day
        )
        if not budget_bytes:
            message = (
                f"Expected a server that may ask {device} for inputs, got none of [audit] enabled = true and "
                "[retraining] sample_bytes_per_day: set one in server.toml"
            )
            raise AuditOffError(message)
        form = next((self._form(one) for one in self.versions.releases() if one.name == running), LabelForm())
        if not form.pictures:
            raise NoPicturesError(f"Expected a device that sends pictures to label, got {device} with {form.not_asked}")
        if form.not_asked:
            message = f"Expected a device whose answers one class can correct, got {device} with {form.not_asked}"
            raise NotAskedError(message)
        now_ms = self.fleet.clock()
        request = f"{ONCE}-{now_ms // 1000}-{count}"
        images = self._images_per_day(now_ms).get(device, 0.0)
        limit: dict[str, Json] = {"count": count}
        last = self.fleet.last_command(device, "samples")
        if images and not (last is not None and last.code == _UNREADABLE):
            limit = {"ratio": min(1.0, _AHEAD * count / images), "at_most": count}
        self._ask(device, {"request": request, **limit}, budget_bytes, by or SERVER_ACTOR)
        return request

    def turn(self, now_ms: int) -> None:
        """Ask the devices of each model that is due, at most a hundred a turn; let old unlabelled samples expire."""
        for _ in range(min(_ASKED_A_TURN, len(self._due))):
            device, arguments = self._due.popleft()
            try:
                self._ask(device, arguments, self.config.device_bytes_per_day)
            except (UnknownDeviceError, DeviceEndedError):
                _LOG.info("Left the fleet before it was asked for audit samples. device=%s", device)
        if now_ms < self._next_ms or self._due:
            return
        self._next_ms = now_ms + _HOUR_MS
        self.samples.expire(now_ms)
        with self.database.begin() as connection:
            asked = store.all_audits(connection)
        known = {release.name: release for release in self.versions.releases()}
        running: dict[str, list[Device]] = {}
        for one in self.fleet.devices():
            release = known.get(one.release)
            if release is not None and not self.why_not(release):
                running.setdefault(release.model, []).append(one)
        for model, devices in sorted(running.items()):
            last_ms = asked[model]["asked_ms"] if model in asked else 0
            if self.config.samples_of(model) and now_ms - last_ms >= _DAY_MS:
                self._begin(model, devices, now_ms)

    def audits(self) -> tuple[ModelAudit, ...]:
        """Return what the labels say of each release that a device runs; computed again when it may have changed."""
        releases, roster = self.versions.releases(), self.fleet.roster()
        with self.database.begin() as connection:
            asked = store.all_audits(connection)
            counts = store.count_samples(connection, expired_since_ms=0)
            unlabelled = store.count_waiting(connection, "audit")
            commissioned = newest_moments(connection)
        if self._members[0] != roster.revision:
            self._members = roster.revision, tuple((one.device, one.site, one.release) for one in roster.devices)
        stamp = (counts, unlabelled, asked, commissioned, self._members[1])
        if self._known[0] != stamp:
            running, devices = {device.release for device in roster.devices}, roster.devices
            names = sorted({one.name for one in releases if one.name in running})
            found = []
            for name in names:
                try:
                    targets = [one for one in releases if one.name == name]
                    found.append(self._audit(targets, devices, asked, commissioned))
                except (ServerError, WireError) as error:  # such as a bundle that is missing or damaged
                    _LOG.warning("Release not audited. release=%s error=%s", name, error)
            self._known = (stamp, tuple(found))
        return self._known[1]

    def latest(self) -> tuple[ModelAudit, ...]:
        """Return the last ``audits``, without a look whether they changed, which retraining takes."""
        return self._known[1] if self._known[0] else self.audits()

    def harmed(self) -> tuple[str, ...]:
        """Return each release shown to be wrong more often than allowed, and where, as of the last ``audits``."""
        found: dict[str, list[str]] = {}
        for audit in self._known[1]:
            for group in audit.groups:
                if group.harmful:
                    words = f"{group.name} (at least {group.risk.at_least:.1%}, allowed {group.allowed:.1%})"
                    found.setdefault(audit.release, []).append(words)
        return tuple(f"{release} on {listed(groups, _NAMED)}" for release, groups in found.items())

    def _audit(
        self,
        targets: Sequence[Release],
        devices: Sequence[Device],
        asked: dict[str, sa.RowMapping],
        commissioned: Mapping[str, int],
    ) -> ModelAudit:
        """Return what the labels of one release, of all its target classes, say.

        A device's own group begins anew where it was commissioned again: ``commissioned`` has from when on (UTC ms).
        What is wrong of all devices and of a cohort stays: the release answered so.
        """
        release = targets[0]
        if not_asked := self.versions.label_form_of_bundle(release.sha256).not_asked:
            return ModelAudit(model=release.model, release=release.name, samples_per_day=0.0, not_asked=not_asked)
        with self.database.begin() as connection:
            rows = store.audit_samples(connection, release.model, [one.custom.artifact_sha256 for one in targets])
        samples = [stored_sample(row) for row in rows]
        labelled = [sample for sample in samples if sample.label]
        references = [self.versions.reference(one.custom.ref_id) for one in targets]
        rates = [one.error_rate for one in references if one is not None]
        known = [rate for rate in rates if rate is not None]
        unlabelled = len(known) < len(rates)  # nobody knows how often it is wrong where it came from: nothing is more
        allowed = 1.0 if unlabelled else max(known, default=0.0) + self.retraining.harm_margin
        last = asked.get(release.model)
        return ModelAudit(
            model=release.model,
            release=release.name,
            samples_per_day=self.config.samples_of(release.model),
            asked_ms=last["asked_ms"] if last else 0,
            ratio=last["ratio"] if last else 0.0,
            devices=last["devices"] if last else 0,
            images_per_day=last["images_per_day"] if last else 0.0,
            waiting=len(samples) - len(labelled),
            groups=self._groups(
                labelled,
                [one for one in devices if one.release == release.name],
                allowed,
                _count_groups(devices),
                [sample for sample in labelled if sample.at_ms >= commissioned.get(sample.device, 0)],
            ),
        )

    def _groups(
        self,
        labelled: Sequence[StoredSample],
        devices: Sequence[Device],
        allowed: float,
        among: int,
        own: Sequence[StoredSample],
    ) -> tuple[GroupRisk, ...]:
        """Return the error rate of all, and of each cohort and device with enough labels or with harm.

        Half of the risk of a false harm is that of all devices; all cohorts and devices of the fleet share the rest
        equally, ``among`` them: the share must not depend on the labels. So harm needs no least number of labels; few
        of them rarely show anything, and are left out as long as they don't. What a single device was asked beside the
        steady audit counts for that device only. ``own``: the labelled samples that say what their device sees now.
        """
        block_s = self.retraining.source_block_s
        steady = distinct(sample for sample in labelled if sample.request == STEADY)
        everything = audited_samples(steady, self.versions.label_form, block_s)
        members = {"": {"": [device.device for device in devices]}}
        for device in devices:
            for attribute, value in device_attributes(device).items():
                members.setdefault(attribute, {}).setdefault(value, []).append(device.device)
        drawn: list[tuple[str, str, tuple[str, ...], list[AuditedSample]]] = []
        for attribute, values in members.items():
            for value, names in values.items():
                if attribute in {"", DEVICE} or not 1 < len(names) < len(devices):
                    continue
                inside = frozenset(names)
                chosen = [one for one in steady if one.device in inside]
                audited = audited_samples(chosen, self.versions.label_form, block_s)
                drawn.append((attribute, value, tuple(names), audited))
        by_device: dict[str, list[StoredSample]] = {}
        for sample in own:
            by_device.setdefault(sample.device, []).append(sample)
        for device in devices:
            own_samples = distinct(by_device.get(device.device, ()))
            audited = audited_samples(own_samples, self.versions.label_form, block_s)
            drawn.append((DEVICE, device.device, (device.device,), audited))
        level = (1 - self.retraining.confidence) / 2
        groups = [_group("", "", tuple(members[""][""]), _alike(everything), allowed, level)]
        for attribute, value, within, samples in drawn:
            scenes = _alike(samples)
            if len(scenes) >= self.config.min_labels or _shown(scenes, allowed, level / among):
                groups.append(_group(attribute, value, within, scenes, allowed, level / among))
        return tuple(groups)

    def _begin(self, model: str, devices: list[Device], now_ms: int) -> None:
        """Queue the requests of one day for the devices of ``model``; wait if none has sent a window."""
        images = self._images_per_day(now_ms)
        willing = [device.device for device in devices if not self._refuses(device.device)]
        total = sum(images.get(device, 0.0) for device in willing)
        if not total:
            willing = [device.device for device in devices]
            total = sum(images.get(device, 0.0) for device in willing)
        if not total:
            return
        ratio = min(1.0, self.config.samples_of(model) / total)
        for known in devices:  # also those that refused: their owners may have changed their minds
            expected = ratio * images.get(known.device, 0.0)
            limit = math.ceil(_SLACK * expected) + _LEAST
            self._due.append((known.device, {"request": STEADY, "ratio": ratio, "at_most": limit}))
        row = {
            "model": model, "asked_ms": now_ms, "ratio": ratio, "devices": len(willing), "images_per_day": total,
        }  # fmt: skip
        with self.database.begin() as connection:
            store.put_audit(connection, row)
            data: dict[str, Json] = {"devices": len(devices), "ratio": ratio}
            record_act(connection, SERVER_ACTOR, "audit.ask", model, now_ms, data=data)

    def why_not(self, release: Release) -> str:
        """Return why no device that runs ``release`` is asked for samples, "" if they are (``LabelForm``)."""
        return self._form(release).not_asked

    def _form(self, release: Release) -> LabelForm:
        try:
            return self.versions.label_form_of_bundle(release.sha256)
        except (ServerError, WireError):
            return LabelForm(not_asked="a bundle that is missing or damaged")

    def idle_settings(self) -> tuple[str, ...]:
        """Return what in ``models`` of [audit] has no effect, with why and what to do.

        A name that no release is of, once any release is published, and a number of samples of a model of which no
        release's inputs are asked for.
        """
        return tuple(text for _, text in self._idle())

    def idle_keys(self) -> tuple[str, ...]:
        """Return the keys of ``idle_settings``, each with why in a few words."""
        return tuple(key for key, _ in self._idle())

    def _idle(self) -> Iterator[tuple[str, str]]:
        of_model: dict[str, list[Release]] = {}
        for release in self.versions.releases():
            of_model.setdefault(release.model, []).append(release)
        if not of_model:  # a new server: its settings are written before its first release
            return
        for name, wanted in sorted(self.config.models.items()):
            key = f"[audit] models {name!r}"
            if name not in of_model:
                near = get_close_matches(name, of_model, 1)
                hint = f"did you mean {near[0]!r}?" if near else "correct it, or publish a release of it"
                yield f"{key} (no release)", f"[audit] models names {name!r}, which no release is of: {hint}"
            elif wanted and all(map(self._never_asked, of_model[name])):
                newest = of_model[name][-1]
                text = (
                    f"[audit] models wants {wanted:g} samples a day of {name!r} and gets none: {newest.name} is a "
                    f"release with {self._never_asked(newest)}; take {name} out of models"
                )
                yield f"{key} (never asked)", text

    def _never_asked(self, release: Release) -> str:
        """Return why devices with ``release`` are not asked, "" if they are or while its bundle can't be read."""
        try:
            return self.versions.label_form_of_bundle(release.sha256).not_asked
        except (ServerError, WireError):
            return ""

    def _images_per_day(self, now_ms: int) -> dict[str, float]:
        """Return how many inferences each device makes a day, by its windows of the last one."""
        with self.database.begin() as connection:
            found = images_since(connection, now_ms - _DAY_MS)
        return {
            device: n * _DAY_MS / max(min(now_ms - first_ms, _DAY_MS), _HOUR_MS)
            for device, (n, first_ms) in found.items()
        }

    def _refuses(self, device: str) -> bool:
        """Return whether the device refused the last request for samples: its owner, or its agent is too old."""
        last = self.fleet.last_command(device, "samples")
        return last is not None and last.answered_ms > 0 and not last.ok

    def _ask(self, device: str, arguments: dict[str, Json], budget_bytes: int, by: By = "") -> None:
        """Send a request, after the setting has room for it beside the steady audit."""
        known, wanted = self.fleet.device(device), budget_bytes
        if self.config.enabled and arguments["request"] != STEADY:
            wanted += self.config.device_bytes_per_day
        allowed = known.desired.config.get(SETTING, 0) if known.desired else 0
        if not isinstance(allowed, int) or allowed < wanted:
            self.fleet.set_config(device, {SETTING: wanted})
        arguments = {"lane": "audit", "budget_bytes": budget_bytes, **arguments}
        self.fleet.send_command(device, "samples", arguments, _TTL_S, by=by)


def _count_groups(devices: Sequence[Device]) -> int:
    """Return how many devices and cohorts there are, whichever release they run; at least 1."""
    return max(1, len(devices) + len({pair for device in devices for pair in device_attributes(device).items()}))


def _alike(samples: Iterable[AuditedSample]) -> tuple[LabelledScene, ...]:
    """Return the scenes of ``samples``, which were drawn by one probability a day: each counts as each other."""
    return scenes_of([replace(sample, inclusion_ratio=0.0) for sample in samples])


def _shown(scenes: Sequence[LabelledScene], allowed: float, level: float) -> bool:
    """Return whether ``scenes`` show an error rate above ``allowed``; cheaper than its bounds."""
    if not scenes or allowed <= 0.0:
        return any(scene.wrong for scene in scenes)
    return log_evidence(scenes, scenes[0].at_ms, allowed) >= -math.log(level)


def _group(
    attribute: str, value: str, devices: tuple[str, ...], scenes: Sequence[LabelledScene], allowed: float, level: float
) -> GroupRisk:
    risk = risk_of(scenes, scenes[0].at_ms if scenes else 0, level)
    return GroupRisk(attribute=attribute, value=value, devices=devices, risk=risk, allowed=allowed)
