"""The JSON messages on the topics; ``docs/reference/wire.md`` shows each with an example.

Every field has a default, times are UTC milliseconds, and unknown keys are kept in ``extra``. Messages of a telemetry
stream have the key (device, stream, boot, seq), which makes redelivery idempotent, and ``oldest_seq``, the lowest
number that the device still holds for that boot: lower ones will never arrive, so the server's contiguous watermark may
skip them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum

from wire.codec import OMIT_DEFAULT, Json
from wire.errors import MessageError
from wire.shadow import ShadowCounts, ShadowOrder
from wire.software import InstalledSoftware

MEASURE_VERB = "measure"
MAX_ENVELOPE_BYTES = 16 * 1024  # of the signed order in a command to measure (``wire.measurement``)
MAX_GEN = 2**53  # the largest integer that every JSON reader represents exactly
MAX_GEN_STEP = 2**32  # a generation further ahead than this of the last one is not from a server


class DeviceState(StrEnum):
    """The device's state; ``lost`` is set by the will, ``disconnected`` by an orderly shutdown."""

    INIT = "init"
    READY = "ready"
    DEGRADED = "degraded"
    UPDATING = "updating"
    DISCONNECTED = "disconnected"
    LOST = "lost"


class UpdatePhase(StrEnum):
    """Phase of an update on the device. Only ``committed`` is success."""

    IDLE = "idle"
    OFFERED = "offered"
    DEFERRED = "deferred"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    STAGED = "staged"
    SHADOW = "shadow"
    PROBATION = "probation"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"
    REFUSED = "refused"


class Stream(StrEnum):
    """The last level of ``tele``; ``event`` is acknowledged like a stream too."""

    DRIFT = "drift"
    INFER = "infer"
    HW = "hw"
    SAMPLE = "sample"
    ANSWER = "answer"
    EVENT = "event"


class Severity(StrEnum):
    """How urgent an event is: info, warning (healed itself), error (a person must act)."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class DriftState(StrEnum):
    """What the server has found about the inputs of one device: its baseline is still collected, or it is judged.

    ``new_place``: the training data has nothing like them, and nobody has accepted that.
    """

    LEARNING = "learning"
    QUIET = "quiet"
    DRIFT = "drift"
    FAULT = "fault"
    NEW_PLACE = "new_place"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """``state``, retained: the device's connection state; ``reason``: a code for why it is not ready."""

    state: DeviceState | None = DeviceState.INIT
    at_ms: int = 0
    boot: str = ""
    agent_version: str = ""
    reason: str = field(default="", metadata=OMIT_DEFAULT)
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InstalledRelease:
    """A release on the device: its name (``<model>-<version>``) and bundle digest."""

    release: str = ""
    sha256: str = ""
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStatus:
    """Progress towards ``desired``; ``code`` is the reason if it was refused, rolled back or deferred.

    ``until_ms``: when a deferred update goes on, as far as the device knows; 0: unknown.
    ``done_bytes``: how much of the bundle is on the device, however it came there (while a patch comes: of the patch).
    ``fetched_bytes``: how much this attempt received over the network, of the bundle and of patches, also what was
    thrown away (bodies of HTTP, chunks of MQTT; without the headers below, which ``DayUsage`` has); None: an older
    agent, which does not count it.
    ``shadow``: what was counted in the shadow of this attempt; None: there was none.
    ``replay``: how the answers to inputs that the release before had served differ from its own, after the switch;
    without inputs (``n`` and ``errors`` 0) the device had kept none; None: not replayed (yet), or an older agent.
    ``answered``: how many inputs the release had answered when it was committed; if none, how many it had by the first
    heartbeat with any. None: not committed, or an older agent.
    """

    phase: UpdatePhase | None = UpdatePhase.IDLE
    gen: int = 0
    release: str = ""
    code: str = ""
    text: str = ""
    since_ms: int = 0
    done_bytes: int = 0
    total_bytes: int = 0
    until_ms: int = field(default=0, metadata=OMIT_DEFAULT)
    fetched_bytes: int | None = field(default=None, metadata=OMIT_DEFAULT)
    shadow: ShadowCounts | None = field(default=None, metadata=OMIT_DEFAULT)
    replay: ShadowCounts | None = field(default=None, metadata=OMIT_DEFAULT)
    answered: int | None = field(default=None, metadata=OMIT_DEFAULT)
    extra: Mapping[str, Json] = field(default_factory=dict)


ANSWERS_NOTHING = "answers_nothing"
"""The ``reason`` of a device that runs its release and answers none of its inputs (``UnreadInputs``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadInputs:
    """Inputs since the last answer of the release that a device serves, none of which was answered.

    ``ignored``: files that the release does not read; ``unreadable``: that could not be opened; ``refused``: inputs
    that could not be decoded or answered; ``dropped``: that nothing took in time. ``names``: of some. ``text``: what
    was found, and the next step. ``never``: the release has answered no input on this device, so there is no last
    answer.
    """

    ignored: int = 0
    unreadable: int = 0
    refused: int = 0
    dropped: int = 0
    names: tuple[str, ...] = ()
    text: str = ""
    never: bool = field(default=False, metadata=OMIT_DEFAULT)
    extra: Mapping[str, Json] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many there are."""
        return self.ignored + self.unreadable + self.refused + self.dropped

    @property
    def words(self) -> str:
        """The numbers in a sentence, such as "ignores 2 files (a.csv, b.csv)"; "" if there are none."""
        counted = [
            f"{verb} {count} {one if count == 1 else one + 's'}"
            for verb, count, one in (
                ("ignores", self.ignored, "file"),
                ("can't open", self.unreadable, "file"),
                ("refused", self.refused, "input"),
                ("lost", self.dropped, "input"),
            )
            if count > 0
        ]
        more = ", …" if self.ignored + self.unreadable > len(self.names) else ""
        return ", ".join(counted) + (f" ({', '.join(self.names)}{more})" if self.names and counted else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """``reported``, retained: the full document of the device and its software; ``reason`` as in ``State``.

    ``unread``: while ``reason`` is ``ANSWERS_NOTHING``, the inputs that were not answered; else None. It is reported
    again once there are twice as many.

    ``clock_error_ms``: how far the device's own clock is ahead of the server's time (behind: below 0), while it is so
    wrong that the device does not use it: then the times in its messages are right. 0: it uses its own clock.

    ``software``: which list of software it runs; None: an older agent.
    """

    gen: int = 0
    at_ms: int = 0
    boot: str = ""
    agent_version: str = ""
    hardware: str = ""
    runtimes: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    current: InstalledRelease | None = None
    previous: InstalledRelease | None = None
    update: UpdateStatus = field(default_factory=UpdateStatus)
    safe_mode: bool = False
    reason: str = field(default="", metadata=OMIT_DEFAULT)
    clock_error_ms: int = field(default=0, metadata=OMIT_DEFAULT)
    unread: UnreadInputs | None = field(default=None, metadata=OMIT_DEFAULT)
    software: InstalledSoftware | None = field(default=None, metadata=OMIT_DEFAULT)
    extra: Mapping[str, Json] = field(default_factory=dict)


DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceWindow:
    """A window that recurs, by the clock on the wall: from ``start`` to ``end`` (``HH:MM``), on ``days``.

    An ``end`` at or before ``start`` is on the next day. ``days``: those on which it starts, ``mon`` to ``sun``; none:
    each day. ``time_zone``: a name of the IANA database, such as ``Europe/Berlin``; "": the device's own.
    """

    start: str = "00:00"
    end: str = "00:00"
    days: tuple[str, ...] = ()
    time_zone: str = ""
    extra: Mapping[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Reject times and days that are none.

        Raises:
            MessageError: If there are such.
        """
        for name in ("start", "end"):
            if not _CLOCK.fullmatch(getattr(self, name)):
                message = f"Expected {name} of the maintenance window from 00:00 to 23:59, got {getattr(self, name)!r}"
                raise MessageError(message)
        for day in self.days:
            if day not in DAYS:
                message = f"Expected days of the maintenance window of {' '.join(DAYS)}, got {day!r}"
                raise MessageError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """``desired``, retained: a pointer to a release. Nothing in it is trusted unless signed metadata agrees.

    ``gen`` only grows, from 0 to ``MAX_GEN``; a device ignores one more than ``MAX_GEN_STEP`` above the last it
    accepted. ``target`` is the TUF target path, ``sha256`` its digest. ``probation_s`` is how long the new release must
    stay healthy. ``window``: the device switches inside of it only, and downloads and verifies before; None: at any
    time. ``not_before_ms``/``not_after_ms`` bound the whole attempt (0: no bound), ``deadline_ms`` ends it (0: never),
    unless the device has switched by then. ``config`` carries agent settings: ``sample_bytes_per_day`` (int, default
    0). ``attempt`` is the ``gen`` of the assignment, which a change of settings keeps; 0: an older server, which does
    not send it. ``shadow``: before it switches, the device compares the release with the one that serves; None: it does
    not.
    """

    gen: int = 0
    release: str = ""
    target: str = ""
    sha256: str = ""
    length_bytes: int = 0
    probation_s: float = 600.0
    not_before_ms: int = 0
    not_after_ms: int = 0
    deadline_ms: int = 0
    max_bytes_per_s: int = 0
    config: Mapping[str, Json] = field(default_factory=dict)
    attempt: int = field(default=0, metadata=OMIT_DEFAULT)
    window: MaintenanceWindow | None = field(default=None, metadata=OMIT_DEFAULT)
    shadow: ShadowOrder | None = field(default=None, metadata=OMIT_DEFAULT)
    extra: Mapping[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Reject an invalid generation.

        Raises:
            MessageError: If ``gen`` is out of range.
        """
        if not 0 <= self.gen <= MAX_GEN:
            message = f"Expected a gen from 0 to {MAX_GEN}, got {self.gen}"
            raise MessageError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """``event``: an update transition or an alarm, with a stable ``code``."""

    boot: str = ""
    seq: int = 0
    oldest_seq: int = 0
    at_ms: int = 0
    kind: str = ""
    code: str = ""
    severity: Severity | None = Severity.INFO
    text: str = ""
    data: Mapping[str, Json] = field(default_factory=dict)
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """``tele/infer``, ``tele/hw`` and ``tele/answer``: ``n`` rows that start at ``t0_ms``.

    infer rows: {at_ms, n, errors, p50_ms, p95_ms, classes: [count…]}.
    answer rows: ``wire.answers.AnswerRecord``.
    hw rows: {at_ms, rss_bytes, pss_bytes, cpu_ratio, temperature_celsius, disk_free_bytes, spool_bytes, written_bytes},
    and now and then ``usage``: ``DayUsage``.
    """

    stream: Stream | None = Stream.INFER
    boot: str = ""
    seq: int = 0
    oldest_seq: int = 0
    t0_ms: int = 0
    n: int = 0
    rows: tuple[Mapping[str, Json], ...] = ()
    late: bool = False
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DayUsage:
    """``usage`` in a row of ``tele/hw``: what a device has used so far in one UTC day, ``day`` as YYYY-MM-DD.

    ``sent_bytes`` and ``received_bytes`` on air, ``written_bytes`` to the disk. ``dropped``: records by stream that the
    spool had no room for, and ``merged``: drift reports that it merged into others, both since the spool was created.
    """

    day: str = ""
    sent_bytes: int = 0
    received_bytes: int = 0
    written_bytes: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    merged: int = 0
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """``tele/sample``: one input that the server requested, or that the device's user corrected.

    ``lane`` is ``audit`` (uniform, with the probability ``inclusion_ratio``), ``drift``, or ``correction``: then
    ``label`` is what the user says that it is. ``data`` is the encoded image in base64, ``sha256`` the digest of the
    decoded bytes.
    """

    boot: str = ""
    seq: int = 0
    oldest_seq: int = 0
    at_ms: int = 0
    request: str = ""
    sha256: str = ""
    media_type: str = "image/png"
    lane: str = "audit"
    inclusion_ratio: float = 1.0
    predicted: int = -1
    confidence: float = 0.0
    artifact_sha256: str = ""
    label: str = field(default="", metadata=OMIT_DEFAULT)
    data: str = ""
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """``cmd/<verb>``: a request that expires; the response goes to ``res`` with the same ``id``.

    Verbs: ``ack`` (arguments ``watermarks``), ``samples`` (``request``, ``count``, ``budget_bytes``, ``lane``; or, with
    ``ratio``, the probability of each input, ``at_most`` in place of ``count``), ``measure`` (``order``: a DSSE
    envelope, see ``wire.measurement``), ``selftest``, ``benchmark`` (answered by ``BenchmarkAnswer``), ``logs``
    (``LogsRequest``, answered by ``LogsAnswer``), ``software`` (``sha256``, answered by ``SoftwareAnswer``).
    """

    id: str = ""
    verb: str = ""
    issued_ms: int = 0
    expires_ms: int = 0
    arguments: Mapping[str, Json] = field(default_factory=dict)
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """``res``: the response to one command."""

    id: str = ""
    ok: bool = False
    code: str = ""
    text: str = ""
    data: Mapping[str, Json] = field(default_factory=dict)
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsRequest:
    """The arguments of the command ``logs``: at most ``lines`` of ``level`` and above since ``since_ms``."""

    lines: int = 100
    since_ms: int = 0
    level: str = "INFO"
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogsAnswer:
    """The data of its response, oldest first; ``left_out``: how many more there are that were too much to send."""

    lines: tuple[str, ...] = ()
    left_out: int = 0
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkAnswer:
    """The data of the response to ``benchmark``: one inference at a time of the release that is current on the device.

    ``shared``: a model was served at the same time, at a higher priority. ``peak_memory_bytes``: of a fresh process.
    """

    release: str = ""
    sha256: str = ""
    runs: int = 0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    peak_memory_bytes: int = 0
    shared: bool = False
    temperature_celsius: float = 0.0
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Watermark:
    """The server has stored all of ``stream`` in ``boot`` up to and including ``through_seq``.

    ``ahead``: it has stored these too, of those that have just arrived. What is new on a device that replays, or stands
    behind numbers that merging left out, need not wait for the watermark.
    """

    stream: Stream | None = None
    boot: str = ""
    through_seq: int = 0
    _: KW_ONLY
    ahead: tuple[int, ...] = field(default=(), metadata=OMIT_DEFAULT)


@dataclass(frozen=True, slots=True)
class Ack:
    """``cmd/ack``: the only message that lets the device delete rows from its spool.

    ``drift``: what the server's newest evidence says about the device's inputs; None: nothing that is recent.
    """

    watermarks: tuple[Watermark, ...] = ()
    at_ms: int = 0
    _: KW_ONLY
    drift: DriftState | None = field(default=None, metadata=OMIT_DEFAULT)
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Get:
    """``get``: what the device requests again after it connected (``desired``)."""

    what: str = "desired"
    at_ms: int = 0
    extra: Mapping[str, Json] = field(default_factory=dict)
