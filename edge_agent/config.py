"""The agent's configuration: one frozen dataclass from ``agent.toml``; each default has its reason.

Decides which keys exist and which values are valid; a source's own keys are in its file. Secrets are never here: they
are in ``identity.json``. A relative path is relative to the folder of ``agent.toml``; ``~`` is the home directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from edge_agent.errors import AgentConfigError
from edge_agent.local_api.settings import ApiConfig
from edge_agent.plugin_tables import MAX_SINKS, SinkConfig, SourceConfig
from wire.codec import Json
from wire.errors import SettingsError
from wire.settings import Bound, fields_from, given_of, names_of, read_toml
from wire.topics import is_name

_MOST_S = 366 * 86_400  # a wait of more than a year is a typing error
_MOST = 2**53  # larger integers are not exact in JSON
_LEAST_S = 0.001  # times are sent in milliseconds
_U16, _U32 = 2**16 - 1, 2**32 - 1
HTTP = "http"
CARRIERS = (HTTP, "mqtt")

Time: TypeAlias = Annotated[float, Bound(_LEAST_S, _MOST_S)]
Wait: TypeAlias = Annotated[float, Bound(0, _MOST_S)]
Bytes: TypeAlias = Annotated[int, Bound(0, _MOST)]
Count: TypeAlias = Annotated[int, Bound(1, 1_000_000)]
Number: TypeAlias = Annotated[float, Bound(0, _MOST)]
Batch: TypeAlias = Annotated[int, Bound(1, 10_000)]
Share: TypeAlias = Annotated[float, Bound(0, 1)]
TwoBytes: TypeAlias = Annotated[int, Bound(0, _U16)]
FourBytes: TypeAlias = Annotated[int, Bound(0, min(_U32, _MOST_S))]  # MQTT 5, 3.1.2.11.2 and 3.1.3.2.2


def _check_order(config: object, low: str, high: str) -> None:
    """Check that the value of ``low`` is at most that of ``high``.

    Raises:
        SettingsError: If it is more.
    """
    least, most = getattr(config, low), getattr(config, high)
    if least > most:
        message = f"Expected {low} of at most {high} ({most:g}), got {least:g}"
        raise SettingsError(message)


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """The device. ``hardware``: its class, as named in bundles; empty: the processor's architecture."""

    hardware: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorConfig:
    """Windows of drift counters, and intervals of the rows of infer and hw."""

    window_s: Time = 3600.0  # one report an hour: 800 bytes an hour
    checkpoint_s: Time = 45.0  # a window's counts are written this often: a power cut loses at most this and a second
    infer_s: Time = 60.0
    hw_s: Time = 60.0
    rows_a_batch: Batch = 10  # batching rows on the device multiplies the server's ingest rate
    context: TwoBytes = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportConfig:
    """MQTT: how a connection is kept, and how much is in flight at once."""

    keepalive_s: Annotated[int, Bound(5, _U16)] = 30  # 0 would leave a dead link unseen; MQTT 5, 3.1.2.10: two bytes
    min_backoff_s: Time = 1.0
    max_backoff_s: Time = 300.0  # full jitter up to five minutes: a thousand devices must not return at once
    session_expiry_s: FourBytes = 3600  # finite: a device that is gone must not keep a queue at the broker forever
    will_delay_s: FourBytes = 30  # a short loss of network is not reported
    inflight_messages: Annotated[int, Bound(1, _U16)] = 16  # what paho may hold (MQTT 5, 2.2.1); the rest is spooled
    ack_timeout_s: Time = 30.0  # without an application acknowledgement for this long: send again
    unacked_rows: Count = 256  # sent and not yet acknowledged by the server, at most
    replay_bytes_per_s: Bytes = 8192  # after an outage, beside what is new: 1,000 devices are 8 MB/s. 0: no limit

    def __post_init__(self) -> None:
        """Reject a shortest wait above the longest."""
        _check_order(self, "min_backoff_s", "max_backoff_s")


@dataclass(frozen=True, slots=True)
class SpoolConfig:
    """The durable queue."""

    limit_bytes: Annotated[int, Bound(64 * 1024, _MOST)] = 16 * 1024 * 1024
    commit_s: Wait = 1.0  # 3.6 x fewer bytes to flash than one commit per row
    lazy_commit_s: Wait = 300.0  # readings of the machine wait for another write, at most this long


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateConfig:
    """Limits of an update. A deadline ends each phase, so that "stuck" is an outcome."""

    max_bytes_per_s: Bytes = 0  # 0: the device sets no limit
    carriers: tuple[str, ...] = CARRIERS  # of bundles, in this order: the next where one fails
    stall_s: Time = 30.0  # without a byte for this long: connect again
    download_attempts: Count = 8
    retry_min_s: Wait = 1.0
    retry_max_s: Time = 60.0
    defer_max_s: Time = 3600.0  # between two tries of an update that waits for a clock, a disk or a network
    verify_deadline_s: Time = 300.0
    probe_deadline_s: Time = 300.0
    repair_s: Time = 600.0  # how often the installed files are read and compared with their digests
    max_boots: Count = 3  # starts of a slot without becoming healthy, before the other slot is used
    max_machine_ends: Count = 20  # power cuts in one probation, before the release is considered their cause
    max_error_ratio: Share = 0.05  # of inferences in probation
    latency_slack_ratio: Number = 1.5  # over the budget, in probation: other programs run too
    reserve_bytes: Bytes = 16 * 1024 * 1024  # stays free on disk after a download

    def __post_init__(self) -> None:
        """Reject a shortest wait above the longest, and carriers that there are not."""
        _check_order(self, "retry_min_s", "retry_max_s")
        if not self.carriers or set(self.carriers) - set(CARRIERS) or len(set(self.carriers)) < len(self.carriers):
            message = f"Expected carriers of {' and '.join(CARRIERS)}, each at most once, got {list(self.carriers)}"
            raise SettingsError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildConfig:
    """The inference child, and when it counts as hung."""

    beat_s: Time = 1.0
    hang_s: Time = 20.0  # without a heartbeat for this long: killed and restarted
    start_s: Time = 120.0  # loading a large model on a slow disk
    restart_min_s: Wait = 1.0
    restart_max_s: Time = 60.0
    healthy_s: Wait = 10.0  # with heartbeats for this long, the start counts as good
    max_memory_bytes: Bytes = (
        0  # private memory of the child and of the probe; 0: the limit of the control group or machine
    )

    def __post_init__(self) -> None:
        """Reject a shortest wait above the longest, and a heartbeat that comes too late."""
        _check_order(self, "restart_min_s", "restart_max_s")
        _check_order(self, "beat_s", "hang_s")


@dataclass(frozen=True, slots=True)
class SampleConfig:
    """Raw inputs leave the device only within this budget; the server may lower it, but never raise it."""

    max_bytes_per_day: Bytes = 0  # nothing leaves a device unless its owner allows it


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureConfig:
    """Measurements ordered by the build host; each is signed with the release key and never installed."""

    enabled: bool = True
    max_bytes: Bytes = 128 * 1024 * 1024  # bundle and rows of one measurement, together
    limit_s: Time = 600.0  # time limit of the measuring child
    max_temperature_celsius: Number = 80.0  # hotter processors are throttled; 0 never refuses
    min_battery_ratio: Share = 0.3  # below it, and not charging, energy is reserved for the served model
    energy: Path | None = None  # a file that counts microjoules; "": RAPL, where the agent may read it


@dataclass(frozen=True, slots=True, kw_only=True)
class HookConfig:
    """A program that is asked before a release is switched to; ``updater/hook.py`` defines its exit codes."""

    before_switch: tuple[str, ...] = ()  # an absolute path and arguments; empty: nobody is asked
    timeout_s: Time = 30.0  # without an end by then it is killed, with all that it started
    ask_again_s: Time = 60.0  # after an answer that it is busy
    user: str = ""  # whose rights it has; empty: the agent's

    def __post_init__(self) -> None:
        """Check the command.

        Raises:
            SettingsError: If it does not begin with an absolute path.
        """
        command = self.before_switch
        if command and (not command[0].startswith("/") or any("\0" in part for part in command)):
            got = repr(list(command))
            message = f'Expected an absolute path and arguments, got {got}: before_switch = ["/usr/local/bin/idle"]'
            raise SettingsError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """All settings of a device integrator."""

    device: DeviceConfig = field(default_factory=DeviceConfig)
    source: SourceConfig = field(default_factory=SourceConfig)
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    transport: TransportConfig = field(default_factory=TransportConfig)
    spool: SpoolConfig = field(default_factory=SpoolConfig)
    update: UpdateConfig = field(default_factory=UpdateConfig)
    hooks: HookConfig = field(default_factory=HookConfig)
    child: ChildConfig = field(default_factory=ChildConfig)
    samples: SampleConfig = field(default_factory=SampleConfig)
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    sinks: Mapping[str, SinkConfig] = field(default_factory=dict)
    api: ApiConfig = field(default_factory=ApiConfig)

    def __post_init__(self) -> None:
        """Reject more sinks than have an account, unfit names of sinks, and two sinks with one path or topic.

        Raises:
            SettingsError: If there are such, or if inputs are to come by a local interface that is off.
        """
        if self.source.kind == "push" and not self.api.on:
            raise SettingsError('Expected [api] listen or unix beside kind = "push" in [source], got neither: set one')
        for name in self.sinks:
            if not is_name(name):
                message = f"Expected a name of a sink of 1 to 63 characters a-z 0-9 _ -, got {name!r}: rename it"
                raise SettingsError(message)
        at: dict[object, str] = {}
        for name, sink in self.sinks.items():
            path = sink.keys.get("path")
            if path is not None and ":" not in sink.kind and at.setdefault(path, name) != name:
                message = f"Expected [sinks.{name}] path of its own, got that of [sinks.{at[path]}], {path}: change one"
                raise SettingsError(message)
            place = tuple(sink.keys.get(key) for key in ("host", "port", "topic"))  # absent: the same default
            if sink.kind == "mqtt" and at.setdefault(place, name) != name:
                message = f"Expected [sinks.{name}] a topic of its own at its broker, got that of [sinks.{at[place]}]"
                raise SettingsError(f"{message}: set topic in one, or applications read each answer twice")
        if len(self.sinks) > MAX_SINKS:
            message = f"Expected at most {MAX_SINKS} tables [sinks.NAME], got {len(self.sinks)}: remove some"
            raise SettingsError(message)


def read_config(path: Path) -> AgentConfig:
    """Return the configuration in the TOML file at ``path``, with absolute paths.

    Raises:
        AgentConfigError: If the file can't be read, a key is unknown, or a value is invalid.
    """
    try:
        config = fields_from(AgentConfig, read_toml(path), str(path), folder=path.parent.resolve())
    except SettingsError as error:
        hint = "" if path.exists() else ": write it, or leave --config out: every setting has a default"
        message = f"{error}{hint}"
        raise AgentConfigError(message) from error
    return config


def document_of(config: AgentConfig) -> dict[str, Json]:
    """Return ``config`` as JSON for the control process, which reads no TOML and imports no plug-in to check it."""
    sinks: Json = {name: sink.document for name, sink in config.sinks.items()}
    tables: dict[str, Json] = {name: given_of(getattr(config, name)) for name in names_of(config) - {"source", "sinks"}}
    return {**tables, "source": config.source.document, "sinks": sinks}


def config_from(document: Mapping[str, Any]) -> AgentConfig:
    """Return the configuration of a ``document`` of ``document_of``; source and sinks are not checked again.

    Raises:
        AgentConfigError: If it is another document.
    """
    tables = dict(document)
    try:
        source, sinks = SourceConfig.checked(tables.pop("source")), tables.pop("sinks").items()
        given = {"source": source, "sinks": {name: SinkConfig.checked(sink) for name, sink in sinks}}
        return fields_from(AgentConfig, tables, "the checked configuration", given=given)
    except (KeyError, SettingsError) as error:
        raise AgentConfigError(f"Expected a configuration that edge-agent run has checked, got: {error}") from error
