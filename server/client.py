"""A client of the server's REST interface, for operators' notebooks and scripts.

Sends the operator's token and parses the answers; decides nothing about a fleet. Every field of an answer has a
default and unknown fields are ignored, so that client and server may have different versions.

    with FleetClient("https://fleet.example:8080", "operator.token", ca="ca.pem") as fleet:
        for device in fleet.devices():
            print(device.device, device.release, device.presence)

Every error is a ``ServerError``. Nothing is printed, and the token is in no message and no ``repr``.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx

from server.errors import (
    AnsweredError,
    AnswerInvalidError,
    ClientFileError,
    NotRunningError,
    PageNeededError,
    ServerUntrustedError,
)
from server.people import SOMEBODY
from wire.codec import Json, from_document, parse_json
from wire.errors import MessageError

__all__ = [
    "AlertActInfo", "AlertDeliveryInfo", "AlertInfo", "AlertRouteInfo",
    "AuditInfo", "ClaimChangeInfo", "CommandInfo", "CommissionInfo", "ComponentInfo", "ComponentRunnerInfo", "Concern",
    "DeviceInfo", "EventInfo",
    "FleetClient", "FleetStatus", "GivenSampleInfo", "GroupRiskInfo", "LabelChangeInfo", "LineageActInfo",
    "LineageEdgeInfo", "LineageInfo", "LineageNodeInfo", "PatchInfo", "PlaceInfo", "ReleaseInfo", "ReleaseRunInfo",
    "RiskInfo", "RolloutDevice", "RolloutGroup", "RolloutInfo", "SampleInfo", "SoftwareRunInfo", "VerdictInfo",
]  # fmt: skip


class _Page(Protocol):
    """A page of a list: ``next`` is the cursor of the page after it, None for none."""

    @property
    def next(self) -> str | None: ...


T = TypeVar("T")
P = TypeVar("P", bound=_Page)
MAX_ANSWER_BYTES = 256 * 1024 * 1024
MAX_TOKEN_BYTES = 4096
_PAGE = 500
_PAGE_NEEDED = PageNeededError.code
_ANSWER_PAUSE_S = 0.25
_TEXT = 500
_FIRST_ERROR, _UNAUTHORIZED, _UNWELL = 400, 401, 503


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """One device: its registry entry and its last report. Times are UTC milliseconds, 0 for never.

    ``presence``: there, away, silent, never_heard or gone. ``evidence``: drift evidence of the newest window: phase,
    threshold_ratio (1 and above is an alarm), flagged, fault, cause, provisional (its baseline is not complete), and
    baseline_windows of the wanted_windows that change this; empty before the first. ``ended``: "", revoked,
    retired or removed. ``concern``: what it does with its inputs while its release runs and answers none, else "".
    ``tags`` and ``title``: what people call it. ``muted_ms``: since when ``muted_by`` muted it, 0 for not, until
    ``muted_until_ms`` (0: until it is unmuted). ``reported`` and ``desired``: as on the wire
    (``docs/reference/wire.md``), None before the first.
    """

    device: str = ""
    site: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    state: str = ""
    presence: str = ""
    release: str = ""
    phase: str = ""
    desired_gen: int = 0
    desired_release: str = ""
    last_seen_ms: int = 0
    enrolled_ms: int = 0
    clock_skew_ms: int = 0
    reported: Mapping[str, Json] | None = None
    desired: Mapping[str, Json] | None = None
    evidence: Mapping[str, Json] = field(default_factory=dict)
    concern: str = ""
    ended: str = ""
    ended_ms: int = 0
    ended_why: str = ""
    tags: tuple[str, ...] = ()
    title: str = ""
    muted_ms: int = 0
    muted_until_ms: int = 0
    muted_why: str = ""
    muted_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandInfo:
    """A command to a device and, once ``answered_ms`` is not 0, its answer: ``data`` if ``ok``, else code and text."""

    id: str = ""
    device: str = ""
    verb: str = ""
    issued_ms: int = 0
    expires_ms: int = 0
    answered_ms: int = 0
    ok: bool = False
    code: str = ""
    text: str = ""
    data: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchInfo:
    """A patch: what a device that has the bundle ``base_sha256`` fetches instead of the whole."""

    base_sha256: str = ""
    sha256: str = ""
    length_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseInfo:
    """One release for one target. ``withdrawn_ms`` is 0 as long as it may be rolled out."""

    name: str = ""
    model: str = ""
    version: int = 0
    target: str = ""
    path: str = ""
    sha256: str = ""
    length_bytes: int = 0
    runtime: str = ""
    hardware: tuple[str, ...] = ()
    security_floor: int = 0
    registered_ms: int = 0
    certificate: Mapping[str, Json] = field(default_factory=dict)
    patches: tuple[PatchInfo, ...] = ()
    withdrawn_ms: int = 0
    withdrawn_why: str = ""
    withdrawn_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutDevice:
    """One device of a rollout; ``group`` is the index of its group, ``code`` the cause of a failure.

    ``replaced_by``: the person who let another device try in its place. ``retried_from``: its earlier outcome, failed
    or stuck, during a retry. ``air_bytes``: what it fetched over the network in all attempts, of the bundle and of
    patches; ``bundle_bytes``: of an older agent, which does not count that: how much of the bundle it had.
    ``waits_for``: the code why it has put the update off, or ``away``, "" for none. ``answered``: how many inputs the
    release had answered when it was committed, None if that is not known. ``forecast_bytes``: what it was to fetch,
    None if nobody forecast it; ``forecast_upper``: at most that.
    """

    device: str = ""
    group: int = 0
    standing: str = ""
    code: str = ""
    gen: int = 0
    assigned_ms: int = 0
    settled_ms: int = 0
    air_bytes: int = 0
    bundle_bytes: int = 0
    replaced_by: str = ""
    retried_from: str = ""
    waits_for: str = ""
    answered: int | None = None
    forecast_bytes: int | None = None
    forecast_upper: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutGroup:
    """One group of a rollout. Cancelled devices are not counted; ``replaced`` ones are left out when it is judged.

    ``unproven``: devices committed, and none of them has answered an input with the release yet, so the next waits.
    ``forecast_bytes``: what its devices were to fetch, beside ``air_bytes``; for ``forecast_upper`` of them at most.
    """

    name: str = ""
    open: bool = False
    success_ratio: float = 0.0
    error_ratio: float = 0.0
    total: int = 0
    committed: int = 0
    failed: int = 0
    stuck: int = 0
    awaited: int = 0
    pending: int = 0
    replaced: int = 0
    success_reached: bool = False
    unproven: bool = False
    skipped_by: str = ""
    skipped_ms: int = 0
    forecast_bytes: int | None = None
    forecast_upper: int = 0
    air_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutInfo:
    """One rollout, its groups and its devices (``members``; None in a list without those of large rollouts).

    ``devices``: how many they are, 0 from an older server.
    ``failed`` and ``stuck`` include devices that were replaced or removed later; ``committed_ratio`` is
    ``committed`` / (``committed`` + ``failed`` + ``stuck``), None while all three are 0. ``waiting``: how many devices
    have put the update off, by the code of the reason. ``scope``: which devices it is for (``docs/reference/rest.md``);
    ``newcomers``: whether devices of the scope that enrol meanwhile join. ``cautions``: devices that come last or are
    left out, with the reason. ``failing``: how often the release fails on devices, with bounds that hold at any look
    (mean, at_least, at_most, allowed, exceeded, devices, risk, text); ``disagreeing``: how far its answers differ.
    ``created_by`` and ``approvals``: who created it, and who has approved it so far.
    """

    id: str = ""
    release: str = ""
    phase: str = ""
    code: str = ""
    text: str = ""
    scope: Mapping[str, Json] = field(default_factory=dict)
    newcomers: bool = False
    probation_s: float = 0.0
    deadline_s: float = 0.0
    created_by: str = ""
    approvals: tuple[str, ...] = ()
    created_ms: int = 0
    updated_ms: int = 0
    committed: int = 0
    failed: int = 0
    stuck: int = 0
    pending: int = 0
    replaced: int = 0
    removed: int = 0
    committed_ratio: float | None = None
    air_bytes: int = 0
    bundle_bytes: int = 0
    forecast_bytes: int | None = None
    forecast_upper: int = 0
    max_bytes_per_s: int = 0
    window: Mapping[str, Json] | None = None
    shadow: Mapping[str, Json] | None = None
    failing: Mapping[str, Json] = field(default_factory=dict)
    disagreeing: Mapping[str, Json] | None = None
    shadow_counts: Mapping[str, Json] | None = None
    replay_counts: Mapping[str, Json] | None = None
    waiting: Mapping[str, int] = field(default_factory=dict)
    cautions: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[RolloutGroup, ...] = ()
    devices: int = 0
    members: tuple[RolloutDevice, ...] | None = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleInfo:
    """One input that a device uploaded. ``label`` is "" until a person labels it; ``predicted`` is a class index.

    ``label_by`` and ``labelled_ms``: who gave the label, and when. ``claimed``: in the lane ``correction``, what the
    device's user says that it is. ``model``: the model that took it, to which the label belongs; the digest of its
    artifact, as long as no release of the server is of that.
    """

    id: int = 0
    device: str = ""
    sha256: str = ""
    media_type: str = ""
    length_bytes: int = 0
    lane: str = ""
    inclusion_ratio: float = 0.0
    predicted: int = 0
    confidence: float = 0.0
    at_ms: int = 0
    label: str = ""
    label_by: str = ""
    labelled_ms: int = 0
    claimed: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelChangeInfo:
    """A label that ``label_by`` gave a sample's image and ``changed_by`` replaced by ``new_label``; "": took off."""

    label: str = ""
    label_by: str = ""
    labelled_ms: int = 0
    new_label: str = ""
    changed_by: str = ""
    changed_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimChangeInfo:
    """What the user of ``device`` had said of a sample's image, and said otherwise later: ``new_claimed``."""

    device: str = ""
    claimed: str = ""
    new_claimed: str = ""
    changed_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskInfo:
    """An error rate, ``at_least`` to ``at_most`` at any look, by the labels of so many ``scenes``.

    ``wrong``: of these, as shares; ``since_ms``: since when it is ``at_least`` that.
    """

    scenes: int = 0
    wrong: float = 0.0
    at_least: float = 0.0
    at_most: float = 1.0
    since_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRiskInfo:
    """The error rate on some devices: ``attribute`` "" for all of them, "device" for one, otherwise a cohort's.

    ``harmful``: it is shown to be above ``allowed``.
    """

    attribute: str = ""
    value: str = ""
    devices: tuple[str, ...] = ()
    risk: RiskInfo = field(default_factory=RiskInfo)
    allowed: float = 0.0
    harmful: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditInfo:
    """The audit of one release that devices run; ``samples_per_day`` is 0 where nothing is asked.

    ``ratio``: the probability with which ``devices`` devices take an input since ``asked_ms``, of ``images_per_day``;
    ``waiting``: samples without a label; ``groups``: all devices first, then cohorts and devices with enough labels or
    harm.
    ``not_asked``: why no device is ever asked, "" if they are.
    """

    model: str = ""
    release: str = ""
    samples_per_day: float = 0.0
    asked_ms: int = 0
    ratio: float = 0.0
    devices: int = 0
    images_per_day: float = 0.0
    waiting: int = 0
    groups: tuple[GroupRiskInfo, ...] = ()
    not_asked: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictInfo:
    """One verdict on drift: its kind, the devices concerned, and the cause. ``closed_ms`` is 0 while it is open.

    ``provisional``: the baselines of most of its devices are not complete yet. ``dismissed_ms``: when a person let a
    ``release_regression`` hold no rollout; 0 if nobody did.
    """

    id: int = 0
    kind: str = ""
    first_window_ms: int = 0
    last_window_ms: int = 0
    windows: int = 0
    opened_ms: int = 0
    closed_ms: int = 0
    devices: tuple[str, ...] = ()
    attributes: Mapping[str, Json] = field(default_factory=dict)
    cause: str = ""
    action: str = ""
    detail: str = ""
    release: str = ""
    model: str = ""
    provisional: bool = False
    dismissed_ms: int = 0
    dismissed_by: str = ""
    dismissed_why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceInfo:
    """A device at a place that training does not know: its state, and between what bounds its error rate there lies.

    ``state``: ``open`` (labels are missing), ``harmful``, ``harmless``, ``accepted`` by a person, ``withdrawn`` (the
    acceptance was taken back), or ``commissioned`` (the device was commissioned again: this is of before).
    """

    verdict: int = 0
    device: str = ""
    site: str = ""
    model: str = ""
    release: str = ""
    state: str = ""
    asks: int = 0
    asked_ms: int = 0
    request: str = ""
    audited: int = 0
    wrong: float = 0.0
    lower_risk: float = 0.0
    upper_risk: float = 1.0
    source_risk: float = 0.0
    decided_ms: int = 0
    decided_by: str = ""
    why: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommissionInfo:
    """A device whose baseline began anew with the window of ``from_ms`` (UTC ms), who said so, and why.

    ``attribute`` and ``value``: if it was said of all devices that have them, else "".
    """

    id: int = 0
    device: str = ""
    from_ms: int = 0
    decided_ms: int = 0
    decided_by: str = ""
    why: str = ""
    attribute: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventInfo:
    """One event, of a device or (``device`` None) of the server; ``record``: ``act`` or ``telemetry``."""

    id: int = 0
    at_ms: int = 0
    kind: str = ""
    code: str = ""
    severity: str = ""
    record: str = ""
    text: str = ""
    device: str | None = None
    boot: str = ""
    seq: int = 0
    data: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertActInfo:
    """Something that happened to an alert, or that ``by`` did about it ("" for the server)."""

    id: int = 0
    at_ms: int = 0
    act: str = ""
    by: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertDeliveryInfo:
    """How far a notice is by one route. ``delivered_ms``: 0 until the receiver accepted it, with its ``answer``."""

    id: int = 0
    route: str = ""
    event: str = ""
    key: str = ""
    created_ms: int = 0
    attempts: int = 0
    next_ms: int = 0
    failed_ms: int = 0
    error: str = ""
    delivered_ms: int = 0
    answer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertInfo:
    """One alert. Times are UTC milliseconds, 0 for never.

    ``devices``: the first of ``device_count``. ``state``: open, acknowledged, snoozed or resolved. ``gone_ms``: since
    when its cause is over, 0 while it lasts. ``verdict``: the one whose evidence shows it, 0 for none. ``history`` and
    ``deliveries``, oldest first, are empty in lists. ``promise``: what an alert promises and what it does not.
    """

    id: int = 0
    key: str = ""
    kind: str = ""
    severity: str = ""
    state: str = ""
    title: str = ""
    cause: str = ""
    action: str = ""
    devices: tuple[str, ...] = ()
    device_count: int = 0
    sites: tuple[str, ...] = ()
    owner: str = ""
    opened_ms: int = 0
    seen_ms: int = 0
    gone_ms: int = 0
    snoozed_until_ms: int = 0
    resolved_ms: int = 0
    resolved_by: str = ""
    reopened: int = 0
    verdict: int = 0
    page: str = ""
    history: tuple[AlertActInfo, ...] = ()
    deliveries: tuple[AlertDeliveryInfo, ...] = ()
    promise: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRouteInfo:
    """A route by which something is not delivered: how much, since when, how often it was tried, and the error."""

    route: str = ""
    waiting: int = 0
    since_ms: int = 0
    attempts: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageActInfo:
    """What somebody did about a node: the code in the log of acts, who, when, and why ("" for no reason)."""

    at_ms: int = 0
    by: str = ""
    act: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageNodeInfo:
    """One thing; edges name it ``kind:id``. ``known``: False for what the server does not know, as ``words`` says."""

    kind: str = ""
    id: str = ""
    words: str = ""
    link: str = ""
    at_ms: int = 0
    known: bool = True
    facts: Mapping[str, Json] = field(default_factory=dict)
    acts: tuple[LineageActInfo, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageEdgeInfo:
    """``target`` came of ``source``: how (``words``), and where that is known from."""

    source: str = ""
    target: str = ""
    words: str = ""
    known_from: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageInfo:
    """Where ``subject`` (``kind:id``) comes from and what came of it, as a graph and in sentences (``answers``).

    ``left_out``: how many of a kind there are beyond those shown.
    """

    subject: str = ""
    answers: tuple[str, ...] = ()
    nodes: tuple[LineageNodeInfo, ...] = ()
    edges: tuple[LineageEdgeInfo, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentInfo:
    """A component of software that ``devices`` devices run now."""

    kind: str = ""
    name: str = ""
    version: str = ""
    devices: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentRunnerInfo:
    """A device that runs a component now; ``from_ms``: since when it runs its whole list, whose digest is ``list``."""

    device: str = ""
    site: str = ""
    state: str = ""
    last_seen_ms: int = 0
    from_ms: int = 0
    kind: str = ""
    name: str = ""
    version: str = ""
    sha256: str = ""
    list: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareRunInfo:
    """A time at which a device ran a list of software; ``until_ms``: 0 for what it reported last."""

    device: str = ""
    list: str = ""
    from_ms: int = 0
    until_ms: int = 0
    received_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRunInfo:
    """A time at which a device ran a release, by its reports; ``until_ms`` is 0 if it reported nothing else since.

    ``received_ms``: when the server learned of it. ``left``: the device is no longer in the fleet.
    """

    device: str = ""
    site: str = ""
    release: str = ""
    from_ms: int = 0
    until_ms: int = 0
    received_ms: int = 0
    left: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenSampleInfo:
    """A sample that a job was given, with its label then and now, "" for none; ``label_by``: "" if not known.

    ``watched``: of a device that did not drift.
    """

    sample: int = 0
    device: str = ""
    sha256: str = ""
    lane: str = ""
    label: str = ""
    label_by: str = ""
    labelled_ms: int = 0
    watched: bool = False
    label_now: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Concern:
    """One problem. ``names``: the first 50 of the devices, releases or rollouts that it concerns; ``count``: of all.

    ``address``: where all are; ``FleetClient.concern_names`` yields them. An older server has all in ``names``, and
    no ``address``.
    """

    signal: str = ""
    level: str = ""
    text: str = ""
    count: int = 0
    names: tuple[str, ...] = ()
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetStatus:
    """``well``: no signal reports a problem. ``level``: well, unknown, attention, alarm: the worst of ``concerns``."""

    well: bool = False
    level: str = ""
    text: str = ""
    concerns: tuple[Concern, ...] = ()


@dataclass(frozen=True, slots=True)
class _ConcernNames:
    names: tuple[str, ...] = ()
    next: str | None = None


@dataclass(frozen=True, slots=True)
class _Devices:
    devices: tuple[DeviceInfo, ...] = ()
    next: str | None = None


@dataclass(frozen=True, slots=True)
class _Releases:
    releases: tuple[ReleaseInfo, ...] = ()
    next: str | None = None


@dataclass(frozen=True, slots=True)
class _RunningOn:
    running: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Rollouts:
    rollouts: tuple[RolloutInfo, ...] = ()
    next: str | None = None


@dataclass(frozen=True, slots=True)
class _Members:
    members: tuple[RolloutDevice, ...] = ()
    next: str | None = None


@dataclass(frozen=True, slots=True)
class _Samples:
    samples: tuple[SampleInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class _LabelChanges:
    changes: tuple[LabelChangeInfo, ...] = ()
    claims: tuple[ClaimChangeInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class _Audits:
    audits: tuple[AuditInfo, ...] = ()
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Verdicts:
    verdicts: tuple[VerdictInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class _Places:
    places: tuple[PlaceInfo, ...] = ()
    next: str | None = None


@dataclass(frozen=True, slots=True)
class _Commissions:
    commissions: tuple[CommissionInfo, ...] = ()
    next: str | None = None


@dataclass(frozen=True, slots=True)
class _Alerts:
    alerts: tuple[AlertInfo, ...] = ()
    next: str | None = None


@dataclass(frozen=True, slots=True)
class _AlertRoutes:
    routes: tuple[AlertRouteInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class _Events:
    events: tuple[EventInfo, ...] = ()
    last_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Components:
    components: tuple[ComponentInfo, ...] = ()
    next: str | None = None
    unreported: int = 0
    missing: int = 0


@dataclass(frozen=True, slots=True)
class _ComponentRunners:
    runners: tuple[ComponentRunnerInfo, ...] = ()
    next: str | None = None


@dataclass(frozen=True, slots=True)
class _SoftwareRuns:
    runs: tuple[SoftwareRunInfo, ...] = ()
    next: str | None = None


@dataclass(frozen=True, slots=True)
class _ReleaseRuns:
    runs: tuple[ReleaseRunInfo, ...] = ()
    next: str | None = None


@dataclass(frozen=True, slots=True)
class _GivenSamples:
    samples: tuple[GivenSampleInfo, ...] = ()
    next: str | None = None


class FleetClient:
    """The REST interface for operators. Close it, or use ``with``; may be shared between threads.

    Every method raises ``NotRunningError`` if no server answers in time, ``AnsweredError`` if it refuses (``answered``
    is its code), and ``AnswerInvalidError`` if the answer is not one that a server of this project gives.
    """

    def __init__(
        self, url: str, token_file: Path | str, *, ca: Path | str | None = None, timeout_s: float = 30.0,
        proxies: bool = True,
    ) -> None:  # fmt: skip
        """Read the files; connect on first use.

        Args:
            url: Address of the server, http://… or https://….
            token_file: File with the operator's token (``operator.token`` in the server's state directory).
            ca: PEM file whose certificates are trusted instead of the system's.
            timeout_s: Limit for connecting, and between two pieces of an answer.
            proxies: Whether to use the proxies that the environment names.

        Raises:
            ClientFileError: If a file can't be read or holds something else, or the address is invalid.
        """
        if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
            raise ClientFileError(f"Expected an address as https://HOST:PORT, got {url[:200]!r}: see what run prints")
        headers = {"Authorization": f"Bearer {_token(Path(token_file))}"}
        verify = True if ca is None else _trusted(Path(ca))
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, verify=verify, trust_env=proxies)
        self.url = url.rstrip("/")

    def __repr__(self) -> str:
        """Return the address alone."""
        return f"<FleetClient of {self.url}>"

    def request(
        self, method: str, path: str, body: Mapping[str, Json] | None = None, *, query: Mapping[str, str] | None = None
    ) -> Mapping[str, Json]:
        """Return the server's JSON answer, for a REST call that has no method here."""
        return self._document(self._ask(method, path, body, query=query))

    def health(self) -> Mapping[str, Json]:
        """Return the server's health: ``ok``, ``text`` with what is wrong, ``version`` and ``signs``."""
        return self._document(self._ask("GET", "/api/health", may_be=(_UNWELL,)))

    def devices(  # noqa: PLR0913 - one argument a parameter of the query
        self, *, ended: bool = False, retired: bool = False, search: str = "", site: str = "", state: str = "",
        release: str = "", tag: str = "", condition: str = "",
    ) -> tuple[DeviceInfo, ...]:  # fmt: skip
        """Return every device of the fleet, by id; with ``ended``, those that left it, newest first.

        With ``retired``, of those the ones that were retired.

        ``search``: words in id, name, tags, site, release or attributes. ``condition``: connected, lost, disconnected,
        silent, never_connected, updating, failing, drifting, commissioning, paused or muted. An older server refuses
        filters. A large fleet takes several requests.
        """
        filters = {
            "search": search, "site": site, "state": state, "release": release, "tag": tag, "condition": condition,
        }  # fmt: skip
        filters["retired"] = "true" if retired else ""  # an older server refuses it
        query = {"ended": str(ended).lower()} | {name: value for name, value in filters.items() if value}
        return tuple(one for page in self._pages(_Devices, "/api/devices", query) for one in page.devices)

    def device(self, device: str) -> DeviceInfo:
        """Return one device."""
        return self._get(DeviceInfo, f"/api/devices/{part(device)}")

    def tag_device(
        self, device: str, *, add: Sequence[str] = (), remove: Sequence[str] = (), by: str = SOMEBODY
    ) -> DeviceInfo:
        """Give a device tags and take others from it; return it. ``by``: who decided it."""
        body: dict[str, Json] = {"add": list(add), "remove": list(remove), "by": by}
        self._post(DeviceInfo, f"/api/devices/{part(device)}/tags", body)
        return self.device(device)

    def rename_device(self, device: str, title: str, *, by: str = SOMEBODY) -> DeviceInfo:
        """Show a device under the name ``title`` beside its id, "" for none; return it. ``by``: who decided it."""
        self._post(DeviceInfo, f"/api/devices/{part(device)}/title", {"title": title, "by": by})
        return self.device(device)

    def mute_device(
        self, device: str, until_ms: int = 0, *, why: str = "", by: str = SOMEBODY
    ) -> DeviceInfo:  # fmt: skip
        """Let a device raise no alert and no concern of its own; return it.

        ``until_ms``: a moment to come (UTC ms), 0 for until it is unmuted. ``by``: who decided it.
        """
        body: dict[str, Json] = {"until_ms": until_ms, "why": why, "by": by}
        self._post(DeviceInfo, f"/api/devices/{part(device)}/mute", body)
        return self.device(device)

    def unmute_device(self, device: str, *, by: str = SOMEBODY) -> DeviceInfo:
        """Let a device raise alerts and concerns again; return it. ``by``: who decided it."""
        self._post(DeviceInfo, f"/api/devices/{part(device)}/unmute", {"by": by})
        return self.device(device)

    def retire_device(self, device: str, *, why: str = "", by: str = SOMEBODY) -> DeviceInfo:
        """Let a device that is gone for good leave the fleet; return it. ``why``, ``by``: the reason, and who decided.

        It is revoked and has no assignment any more; its tags, its name and its history stay.
        """
        self._post(DeviceInfo, f"/api/devices/{part(device)}/retire", {"why": why, "by": by})
        return self.device(device)

    def command(
        self, device: str, verb: str, arguments: Mapping[str, Json] | None = None, *, wait_s: float = 30.0
    ) -> CommandInfo:
        """Send a command to a device and return it with its answer; ``answered_ms`` is 0 if none came in ``wait_s``.

        ``verb``: selftest, benchmark, logs, … (``docs/reference/wire.md``). The command expires after ``wait_s``.
        """
        path = f"/api/devices/{part(device)}/commands"
        body: dict[str, Json] = {"verb": verb, "arguments": dict(arguments or {}), "ttl_s": wait_s}
        found, until_s = self._post(CommandInfo, path, body), time.monotonic() + wait_s
        while not found.answered_ms and time.monotonic() < until_s:
            time.sleep(_ANSWER_PAUSE_S)
            found = self._get(CommandInfo, f"{path}/{part(found.id)}")
        return found

    def releases(self) -> tuple[ReleaseInfo, ...]:
        """Return every release, oldest first, one entry per target."""
        return tuple(one for page in self._pages(_Releases, "/api/releases", {}) for one in page.releases)

    def running(self, release: str) -> tuple[str, ...]:
        """Return the ids of the devices that report running ``release``."""
        return self._get(_RunningOn, f"/api/releases/{part(release)}").running

    def rollouts(self, *, members: bool = True) -> tuple[RolloutInfo, ...]:
        """Return every rollout, newest first; ``members``: with the devices of each, else ``members`` may be None."""
        found = [one for page in self._pages(_Rollouts, "/api/rollouts", {}) for one in page.rollouts]
        return tuple(self._whole(one) if members else one for one in found)

    def rollout(self, rollout: str) -> RolloutInfo:
        """Return one rollout."""
        return self._whole(self._get(RolloutInfo, f"/api/rollouts/{part(rollout)}"))

    def rollout_devices(
        self, rollout: str, *, standing: str = "", search: str = ""
    ) -> Iterator[RolloutDevice]:  # fmt: skip
        """Yield the devices of a rollout, by group and id; ``standing``: such as "failed"; ``search``: part of the id.

        An older server has no such list: its rollouts have all members.
        """
        query = {name: value for name, value in (("standing", standing), ("search", search)) if value}
        path = f"/api/rollouts/{part(rollout)}/members"
        for page in self._pages(_Members, path, {"limit": str(_PAGE), **query}):
            yield from page.members

    def _whole(self, rollout: RolloutInfo) -> RolloutInfo:
        """Return a rollout with its members; those of a large one come in pages."""
        return (
            rollout
            if rollout.members is not None
            else replace(rollout, members=tuple(self.rollout_devices(rollout.id)))
        )

    def create_rollout(
        self, release: str, *, canary: int | Sequence[str] | None = None, approved: bool = False,
        scope: Mapping[str, Json] | None = None, newcomers: bool = False,
    ) -> RolloutInfo:  # fmt: skip
        """Create a rollout, which starts when approved; ``canary``: how many devices come first, or a list.

        ``scope``: which devices it is for, by ``devices``, ``sites``, ``attributes``, ``tags``, ``hardware``,
        ``releases`` and ``models``, and whether it may ``move`` devices of another model
        (``docs/reference/rest.md``). ``newcomers``: devices of the scope that enrol while it runs join.
        """
        chosen: Json = canary if canary is None or isinstance(canary, int) else list(canary)
        body: dict[str, Json] = {"release": release, "canary": chosen, "approved": approved}
        if newcomers:  # an older server refuses keys that it does not know
            body["newcomers"] = True
        return self._whole(self._post(RolloutInfo, "/api/rollouts", body | ({"scope": dict(scope)} if scope else {})))

    def approve(self, rollout: str, *, by: str = SOMEBODY) -> RolloutInfo:
        """Approve a rollout, so that it starts; ``by``: who decided it."""
        return self._whole(self._post(RolloutInfo, f"/api/rollouts/{part(rollout)}/approve", {"by": by}))

    def pause(self, rollout: str, *, by: str = SOMEBODY, why: str = "") -> RolloutInfo:
        """Pause a rollout: no further device is assigned the release. ``by`` and ``why`` are recorded."""
        return self._whole(self._post(RolloutInfo, f"/api/rollouts/{part(rollout)}/pause", {"by": by, "why": why}))

    def resume(self, rollout: str, *, how: str = "retry", by: str = SOMEBODY) -> RolloutInfo:
        """Resume a paused rollout; ``how``: ``retry``, ``replace`` or ``tolerate``; ``by``: who decided it."""
        return self._whole(self._post(RolloutInfo, f"/api/rollouts/{part(rollout)}/resume", {"how": how, "by": by}))

    def abort(self, rollout: str, *, by: str = SOMEBODY, why: str = "") -> RolloutInfo:
        """Abort a rollout; devices that have not committed go back. ``by`` and ``why`` are recorded."""
        return self._whole(self._post(RolloutInfo, f"/api/rollouts/{part(rollout)}/abort", {"by": by, "why": why}))

    def samples(self, *, unlabelled: bool = False, page: int = _PAGE) -> Iterator[SampleInfo]:
        """Yield the samples, newest first; with ``unlabelled``, each unlabelled image once, oldest first.

        ``page``: how many one request fetches, 1 to 5,000.

        Raises:
            AnswerInvalidError: If the server is too old to continue after a page.
        """
        query = {"unlabelled": str(unlabelled).lower(), "limit": str(page)}
        last: SampleInfo | None = None
        while True:
            cursor = {} if last is None else {"after": str(last.id)}
            found = self._get(_Samples, "/api/samples", query | cursor).samples
            if last is not None and found and (found[0].id > last.id) != unlabelled:
                message = f"Expected samples after {last.id}, got {found[0].id}: the server is older than this client"
                raise AnswerInvalidError(f"{message}: update it, or take as many in one page")
            yield from found
            if len(found) < page:
                return
            last = found[-1]

    def image(self, sample: int) -> bytes:
        """Return the file that the device uploaded as ``sample``."""
        return self._ask("GET", f"/api/samples/{sample}/image").content

    def label(self, sample: int, label: str, *, by: str, replaces: str | None = None) -> SampleInfo:
        """Label the image of a sample with a class of its model, or numbers ("3.7"); ``by``: the person.

        An image that another person has labelled otherwise is refused (``label_taken``; the text has who and what),
        unless ``replaces`` is the label that it has. What is replaced is kept: ``label_changes``.
        """
        body: dict[str, Json] = {"label": label, "by": by}
        if replaces is not None:
            body["replaces"] = replaces
        return self._as(SampleInfo, self._ask("PUT", f"/api/samples/{sample}/label", body))

    def label_changes(self, sample: int) -> tuple[LabelChangeInfo, ...]:
        """Return what the label of a sample's image was before, the first change first."""
        return self._get(_LabelChanges, f"/api/samples/{sample}/changes").changes

    def claim_changes(self, sample: int) -> tuple[ClaimChangeInfo, ...]:
        """Return what users of devices had said of a sample's image before they corrected that, the first first."""
        return self._get(_LabelChanges, f"/api/samples/{sample}/changes").claims

    def audits(self) -> tuple[AuditInfo, ...]:
        """Return what the labels of uniform samples say of each release that a device runs."""
        return self._get(_Audits, "/api/audit").audits

    def idle_audit_settings(self) -> tuple[str, ...]:
        """Return the settings of [audit] in server.toml that have no effect, each with why and what to do."""
        return self._get(_Audits, "/api/audit").settings

    def verdicts(self, *, limit: int = 50) -> tuple[VerdictInfo, ...]:
        """Return the newest verdicts on drift, newest first, at most ``limit`` (1 to 1,000)."""
        return self._get(_Verdicts, "/api/verdicts", {"limit": str(limit)}).verdicts

    def dismiss_verdict(self, verdict: int, *, why: str, by: str) -> VerdictInfo:
        """Let an open ``release_regression`` hold no rollout of its release; ``why`` is needed, ``by``: the person."""
        return self._post(VerdictInfo, f"/api/verdicts/{verdict}/dismiss", {"why": why, "by": by})

    def alerts(self, *, state: str = "unresolved", kind: str = "", search: str = "") -> tuple[AlertInfo, ...]:
        """Return what needs a person, the newest first.

        Args:
            state: unresolved, all, open, acknowledged, snoozed or resolved.
            kind: verdict, rollout, away, answers_nothing, server, metadata, harmed, or "" for all.
            search: Words of title or cause.
        """
        query = {name: value for name, value in (("state", state), ("kind", kind), ("search", search)) if value}
        return tuple(one for page in self._pages(_Alerts, "/api/alerts", query) for one in page.alerts)

    def alert(self, alert: int) -> AlertInfo:
        """Return one alert with its history and deliveries."""
        return self._get(AlertInfo, f"/api/alerts/{alert}")

    def acknowledge_alert(self, alert: int, *, note: str = "", by: str = SOMEBODY) -> AlertInfo:
        """Record that a person has seen an alert; ``by``: the person."""
        return self._post(AlertInfo, f"/api/alerts/{alert}/acknowledge", {"note": note, "by": by})

    def take_alert(self, alert: int, *, note: str = "", by: str = SOMEBODY) -> AlertInfo:
        """Record that ``by`` looks after an alert."""
        return self._post(AlertInfo, f"/api/alerts/{alert}/take", {"note": note, "by": by})

    def snooze_alert(self, alert: int, seconds: float, *, note: str = "", by: str = SOMEBODY) -> AlertInfo:
        """Let nothing be sent about an alert for ``seconds``, at most 90 days, but its end."""
        body: dict[str, Json] = {"seconds": seconds, "note": note, "by": by}
        return self._post(AlertInfo, f"/api/alerts/{alert}/snooze", body)

    def resolve_alert(self, alert: int, *, note: str, by: str = SOMEBODY) -> AlertInfo:
        """End an alert for the reason ``note``, although its cause may last."""
        return self._post(AlertInfo, f"/api/alerts/{alert}/resolve", {"note": note, "by": by})

    def note_alert(self, alert: int, *, note: str, by: str = SOMEBODY) -> AlertInfo:
        """Add a note to an alert."""
        return self._post(AlertInfo, f"/api/alerts/{alert}/note", {"note": note, "by": by})

    def alert_picture(self, alert: int) -> bytes:
        """Return the picture of an alert (PNG)."""
        return self._ask("GET", f"/api/alerts/{alert}/picture").content

    def alert_routes(self) -> tuple[AlertRouteInfo, ...]:
        """Return the routes by which something is not delivered yet."""
        return self._get(_AlertRoutes, "/api/alerts/routes").routes

    def lineage(
        self, *, release: str = "", device: str = "", at_ms: int | None = None, sample: int | None = None, job: str = ""
    ) -> LineageInfo:
        """Return where one of these comes from and what came of it.

        ``at_ms``: of what ``device`` ran at that time, UTC milliseconds, by default now.
        """
        wanted = {"release": release, "device": device, "job": job}
        wanted |= {"at": "" if at_ms is None else str(at_ms), "sample": "" if sample is None else str(sample)}
        return self._get(LineageInfo, "/api/lineage", {name: value for name, value in wanted.items() if value})

    def release_runs(
        self, *, release: str = "", sample: int | None = None, now: bool | None = None
    ) -> Iterator[ReleaseRunInfo]:
        """Yield when devices ran ``release``, or one that learned from ``sample`` or was made from such a one.

        ``now``: only what they report now, or only what they ran before.
        """
        query = {"release": release} if release else {"sample": str(sample)}
        query |= {} if now is None else {"now": str(now).lower()}
        for page in self._pages(_ReleaseRuns, "/api/lineage/devices", {"limit": str(_PAGE), **query}):
            yield from page.runs

    def given_samples(self, job: str) -> Iterator[GivenSampleInfo]:
        """Yield the samples that a training job was given, with their labels then and now."""
        for page in self._pages(_GivenSamples, "/api/lineage/samples", {"limit": str(_PAGE), "job": job}):
            yield from page.samples

    def software(self, *, search: str = "", kind: str = "") -> Iterator[ComponentInfo]:
        """Yield what devices run now, with how many do; ``search``: words in the name, ``kind``: "" for any."""
        query = {"limit": str(_PAGE), "search": search, "kind": kind}
        for page in self._pages(_Components, "/api/software", {key: value for key, value in query.items() if value}):
            yield from page.components

    def software_devices(self, name: str, *, version: str = "", kind: str = "") -> Iterator[ComponentRunnerInfo]:
        """Yield the devices that run ``name`` now; ``version``: one, or its beginning and ``.*``, "" for any."""
        query = {"limit": str(_PAGE), "name": name, "version": version, "kind": kind}
        query = {key: value for key, value in query.items() if value}
        for page in self._pages(_ComponentRunners, "/api/software/devices", query):
            yield from page.runners

    def software_unknown(self) -> tuple[int, int]:
        """Return how many devices report no list of software, and how many one that the server does not have yet."""
        found = self._get(_Components, "/api/software", {"limit": "1"})
        return found.unreported, found.missing

    def software_of(self, device: str, *, at_ms: int | None = None) -> Mapping[str, Json]:
        """Return what ``device`` ran at a time (UTC ms), by default now, as a CycloneDX document."""
        query = {} if at_ms is None else {"at": str(at_ms)}
        return self._document(self._ask("GET", f"/api/devices/{quote(device, safe='')}/software", query=query))

    def software_runs(self, device: str) -> Iterator[SoftwareRunInfo]:
        """Yield what ``device`` ran when, the newest first."""
        path = f"/api/devices/{quote(device, safe='')}/software/runs"
        for page in self._pages(_SoftwareRuns, path, {"limit": str(_PAGE)}):
            yield from page.runs

    def places(self) -> tuple[PlaceInfo, ...]:
        """Return the devices at places that training does not know, the newest verdict first."""
        return tuple(one for page in self._pages(_Places, "/api/places", {}) for one in page.places)

    def accept_place(self, device: str, *, why: str = "", by: str) -> PlaceInfo:
        """Accept the place of ``device``: its verdict ends with its next window; ``by``: the person."""
        answer = self._ask("POST", f"/api/places/{quote(device, safe='')}/accept", {"why": why, "by": by})
        return self._as(PlaceInfo, answer)

    def withdraw_place(self, device: str, *, why: str = "", by: str) -> PlaceInfo:
        """Take back that the place of ``device`` was accepted: it is new again with its next window."""
        answer = self._ask("POST", f"/api/places/{quote(device, safe='')}/withdraw", {"why": why, "by": by})
        return self._as(PlaceInfo, answer)

    def commissions(self) -> tuple[CommissionInfo, ...]:
        """Return who commissioned which device again, the newest first."""
        return tuple(one for page in self._pages(_Commissions, "/api/commissions", {}) for one in page.commissions)

    def commission(self, device: str, *, why: str, by: str) -> CommissionInfo:
        """Let the baseline of ``device`` begin anew with its next window, and end its alarms; ``why``: what changed."""
        return self._post(CommissionInfo, f"/api/devices/{part(device)}/commission", {"why": why, "by": by})

    def commission_all(self, attribute: str, value: str, *, why: str, by: str) -> tuple[CommissionInfo, ...]:
        """Do the same for all devices that have ``value`` of ``attribute``, such as "site"; return one for each."""
        body = {"attribute": attribute, "value": value, "why": why, "by": by}
        return self._post(_Commissions, "/api/commissions", body).commissions

    def events(self, *, after: int = 0, device: str = "", page: int = _PAGE) -> Iterator[EventInfo]:
        """Yield the events with a higher id than ``after``; within a page, in the order in which they happened.

        To follow the log, call again with the highest id so far. ``page``: how many one request fetches, 1 to 1,000.
        """
        while True:
            query = {"after": str(after), "limit": str(page)} | ({"device": device} if device else {})
            found = self._get(_Events, "/api/events", query)
            yield from found.events
            if len(found.events) < page or found.last_id <= after:
                return
            after = found.last_id

    def status(self) -> FleetStatus:
        """Return the overall status of fleet and server, with every concern."""
        return self._get(FleetStatus, "/api/overall")

    def concern_names(self, signal: str) -> Iterator[str]:
        """Yield everything that a concern of the overall status names, each once and sorted; page by page."""
        for page in self._pages(_ConcernNames, f"/api/overall/{part(signal)}", {}):
            yield from page.names

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def _get(self, cls: type[T], path: str, query: Mapping[str, str] | None = None) -> T:
        return self._as(cls, self._ask("GET", path, query=query))

    def _pages(self, cls: type[P], path: str, query: Mapping[str, str]) -> Iterator[P]:
        """Yield the pages of a list; an older server, and one with few rows, has one page."""
        try:
            found = self._get(cls, path, query)
        except AnsweredError as error:
            if error.answered != _PAGE_NEEDED:
                raise
            query = {**query, "limit": str(_PAGE)}
            found = self._get(cls, path, query)
        yield found
        while found.next is not None:
            found = self._get(cls, path, {**query, "cursor": found.next})
            yield found

    def _post(self, cls: type[T], path: str, body: Mapping[str, Json] | None = None) -> T:
        return self._as(cls, self._ask("POST", path, body))

    def _ask(
        self, verb: str, path: str, body: Mapping[str, Json] | None = None, *, query: Mapping[str, str] | None = None,
        may_be: tuple[int, ...] = (),
    ) -> httpx.Response:  # fmt: skip
        """Return the server's answer; ``may_be``: statuses that are no refusal here.

        Raises:
            NotRunningError: If there is no answer in time; ``ServerUntrustedError`` if its certificate is not trusted.
            AnsweredError: If the server refuses; carries its code and text.
        """
        try:
            answer = self._http.request(verb, path, json=body, params=query)
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
            said = str(error) or type(error).__name__
            if "CERTIFICATE" in said or "certificate" in said:
                hint = "give ca= (--ca) the server's CA, and the host name that its certificate has"
                raise ServerUntrustedError(f"Expected an answer from {self.url}, got: {said}: {hint}") from error
            hint = "see that the server runs (fleet-server run) and can be reached from here"
            raise NotRunningError(f"Expected an answer from {self.url}, got: {said}: {hint}") from error
        if answer.status_code < _FIRST_ERROR or answer.status_code in may_be:
            return answer
        code, text = _refusal(answer)
        hint = ": give the operator.token of this server's state" if answer.status_code == _UNAUTHORIZED else ""
        raise AnsweredError(code, text + hint)

    def _document(self, answer: httpx.Response) -> dict[str, Json]:
        try:
            return parse_json(answer.content, limit_bytes=MAX_ANSWER_BYTES)
        except MessageError as error:
            raise _invalid(answer, error) from error

    def _as(self, cls: type[T], answer: httpx.Response) -> T:
        try:
            return from_document(cls, self._document(answer))
        except MessageError as error:
            raise _invalid(answer, error) from error


def _invalid(answer: httpx.Response, error: MessageError) -> AnswerInvalidError:
    message = f"Expected the answer of a fleet server at {answer.url.path}, got: {error}"
    return AnswerInvalidError(f"{message}: check the address, and the versions of both")


def _refusal(answer: httpx.Response) -> tuple[str, str]:
    try:
        document = parse_json(answer.content)
    except MessageError:
        document = {}
    text = str(document.get("text") or f"Expected {answer.url.path} to work, got HTTP {answer.status_code}")
    return str(document.get("code") or f"http_{answer.status_code}"), text[:_TEXT]


def part(name: str) -> str:
    """Return ``name`` percent-encoded, as one segment of a path."""
    return quote(name, safe="")


def _token(path: Path) -> str:
    hint = "give the operator.token of the server's state"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TOKEN_BYTES + 1).strip()
    except OSError as error:
        raise ClientFileError(f"Expected a token in {path}, got: {error.strerror}: {hint}") from error
    if not data or len(data) > MAX_TOKEN_BYTES or not data.isascii() or not data.decode("latin-1").isprintable():
        raise ClientFileError(f"Expected one line with a token in {path}, got {len(data)} bytes of something: {hint}")
    return data.decode()


def _trusted(path: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:  # ssl.SSLError is one
        message = f"Expected PEM certificates in {path}, got: {error}: give the ca.pem of the server's [tls]"
        raise ClientFileError(message) from error
