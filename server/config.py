"""All settings of the server: one frozen dataclass from ``server.toml``, every default with its reason.

The tables [drift], [rollout], [retraining], [audit] and [alerts] are defined beside the code that uses them.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, TypeAlias

from server.alerts.config import AlertsConfig
from server.drift.config import DriftConfig
from server.errors import ConfigError
from server.retraining.config import AuditConfig, RetrainingConfig
from server.rollout.config import MAX_TIME_S, Bytes, Count, RolloutConfig, Time
from wire.errors import PathError, SettingsError
from wire.paths import without_tilde
from wire.settings import Bound, check, fields_from, read_toml

_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
Port: TypeAlias = Annotated[int, Bound(0, 65_535)]
Turn: TypeAlias = Annotated[float, Bound(0, 60, above=True)]  # broker, rollouts and health are checked once a turn
Days: TypeAlias = Annotated[float, Bound(0, 36_600, above=True)]
Large: TypeAlias = Annotated[int, Bound(0, 10**9, above=True)]


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """``bind``: loopback unless [tls] is set. ``port`` 0: a free one, kept from then on.

    ``public_url``: the address that devices get, "" for the bound address.
    """

    bind: str = "127.0.0.1"
    port: Port = 0
    public_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerConfig:
    """The private mosquitto. ``port`` 0: a free one, kept from then on. ``public_host``: the host that devices get.

    ``max_queued_messages``: per client; mosquitto's 1,000 drops silently. ``max_packet_bytes`` bounds a sample.
    """

    bind: str = "127.0.0.1"
    port: Port = 0
    public_host: str = ""
    program: str = "mosquitto"
    max_queued_messages: Large = 10_000
    max_packet_bytes: Annotated[int, Bound(0, 268_435_455, above=True)] = 4 * 1024 * 1024  # MQTT 5, 1.5.5: 4 x 7 bits
    start_timeout_s: Annotated[float, Bound(0, 3_600, above=True)] = 10.0


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """PEM files for broker and HTTP, all or none: needed to listen beyond loopback. Devices get ``ca``.

    A relative path is relative to the folder of ``server.toml``; ``~`` is the home directory.
    """

    certificate: str = ""
    key: str = ""
    ca: str = ""

    @property
    def enabled(self) -> bool:
        """Whether connections are encrypted."""
        return bool(self.certificate and self.key and self.ca)

    def below(self, folder: Path) -> TlsConfig:
        """Return the same with relative paths below ``folder``.

        Raises:
            PathError: If one begins with ``~user`` and there is no such user.
        """
        if not self.enabled:
            return self
        return TlsConfig(*(str(folder / without_tilde(name)) for name in (self.certificate, self.key, self.ca)))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCertificatesConfig:
    """The authority that signs devices' certificates; without one, devices have passwords. Needs [tls].

    ``ca``: PEM file with the authority's certificate, then those above it. ``key``: its private key, 0600.
    ``broker_port``: where the broker expects certificates; 0: a free one, kept. ``required``: no device may use a
    password. ``life_days``: a device renews its certificate after two thirds of it.
    """

    ca: str = ""
    key: str = ""
    broker_port: Port = 0
    required: bool = False
    life_days: Annotated[float, Bound(0.0001, 3_650)] = 90.0  # a stolen one that nobody notices ends within a season

    @property
    def enabled(self) -> bool:
        """Whether devices can get certificates."""
        return bool(self.ca and self.key)

    def below(self, folder: Path) -> DeviceCertificatesConfig:
        """Return the same with relative paths below ``folder``.

        Raises:
            PathError: If one begins with ``~user`` and there is no such user.
        """
        if not self.enabled:
            return self
        return replace(self, ca=str(folder / without_tilde(self.ca)), key=str(folder / without_tilde(self.key)))


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessConfig:
    """People on the pages. ``session_idle_s``: a session ends when its person has done nothing for this long.

    ``session_s``: it ends after this in any case. ``password_memory_kib`` and ``password_passes``: the cost of one hash
    of a password (argon2id); each password keeps the cost with which it was set.
    """

    session_idle_s: Time = 4 * 3_600.0  # a long meeting; a page that refreshes itself is nothing done
    session_s: Time = 12 * 3_600.0  # a working day
    password_memory_kib: Annotated[int, Bound(32, 4 * 1024 * 1024)] = 65_536  # RFC 9106, section 4, second choice
    password_passes: Annotated[int, Bound(1, 1_000)] = 3  # likewise


@dataclass(frozen=True, slots=True)
class EnrolmentConfig:
    """``claim_ttl_s``: a week, long enough to post a device."""

    claim_ttl_s: Annotated[float, Bound(0, 10 * MAX_TIME_S, above=True)] = 7 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestConfig:
    """``queue_messages`` bounds the memory, ``batch_messages`` one transaction.

    ``clock_skew_s``: a device whose clock is off by more is marked. ``retention_days``: telemetry older than that is
    deleted: windows, measurements, events of devices, evidence, faults that are over, and what expired before.
    ``device_bytes_per_day``: more than that of one device is not stored and waits on it, each message counted with its
    payload and 1 KiB; 0: no limit.
    """

    queue_messages: Large = 20_000
    batch_messages: Count = 500
    clock_skew_s: Time = 300.0
    retention_days: Annotated[float, Bound(0, 36_600, above=True)] = 90.0
    device_bytes_per_day: Bytes = 64 * 1024 * 1024  # 45 times what a device at rest sends; a faulty one sends GBs


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionConfig:
    """How long what is not kept for ``ingest.retention_days`` is.

    ``measurements_days``: rows of ``infer``, ``hw`` and ``answer``, one a minute each; at most ``retention_days``.
    ``hourly_days``: windows stay as they came, at least a day longer than ``drift.horizon_ms``; then they are
    merged to days. ``daily_days``: days stay; then they are merged to months. ``monthly_days``: older ones are deleted.
    ``governance_days``: acts (events of rollouts, places, …) and verdicts are deleted then; 0: never.
    """

    measurements_days: Days = (
        14.0  # to look at a fault of last week; 90 days of a device take more than all its windows
    )
    hourly_days: Days = 35.0  # drift detection reads back 30 days; a device that was away for a month is still hourly
    daily_days: Days = 400.0  # a season beside the one of the year before
    monthly_days: Days = 3_660.0  # ten years: 120 rows a device and release, about 80 kB
    governance_days: Annotated[float, Bound(0, 36_600)] = 0.0  # a few rows a day; who did what is asked years later


@dataclass(frozen=True, slots=True)
class FleetConfig:
    """``silent_s``: a connected device that has sent nothing for this long counts as silent; two hourly windows."""

    silent_s: Time = 7_200.0


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """``min_free_bytes``: with less free disk for the state directory the server reports unhealthy (HTTP 503)."""

    min_free_bytes: Bytes = 64 * 1024 * 1024  # a bundle of usual size still fits, and there is time to act


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """``url``: an SQLAlchemy URL; "" for ``fleet.db`` in the state directory."""

    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Everything in ``server.toml``. ``turn_interval_s``: how often ``turn`` of every service is called."""

    turn_interval_s: Turn = 0.5
    http: HttpConfig = field(default_factory=HttpConfig)
    broker: BrokerConfig = field(default_factory=BrokerConfig)
    tls: TlsConfig = field(default_factory=TlsConfig)
    certificates: DeviceCertificatesConfig = field(default_factory=DeviceCertificatesConfig)
    access: AccessConfig = field(default_factory=AccessConfig)
    enrolment: EnrolmentConfig = field(default_factory=EnrolmentConfig)
    ingest: IngestConfig = field(default_factory=IngestConfig)
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    fleet: FleetConfig = field(default_factory=FleetConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    drift: DriftConfig = field(default_factory=DriftConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    retraining: RetrainingConfig = field(default_factory=RetrainingConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
    alerts: AlertsConfig = field(default_factory=AlertsConfig)


def read_config(path: Path) -> ServerConfig:
    """Return the settings in ``path``.

    Raises:
        ConfigError: If a key is unknown or a value is invalid.
    """
    try:
        config = fields_from(ServerConfig, read_toml(path), str(path))
        broker = replace(config.broker, program=without_tilde(config.broker.program))
        folder = path.parent.resolve()
        config = replace(config, broker=broker, tls=config.tls.below(folder))
        config = replace(config, certificates=config.certificates.below(folder), alerts=config.alerts.below(folder))
    except SettingsError as error:
        raise ConfigError(str(error)) from error
    except PathError as error:
        message = f"{path}: {error}"
        raise ConfigError(message) from error
    return check_config(config)


def check_config(config: ServerConfig) -> ServerConfig:
    """Return ``config`` if it is valid.

    Raises:
        ConfigError: If a number is out of its bounds, or an address beyond loopback or an authority lacks TLS.
    """
    try:
        check(config, "server.toml")
    except SettingsError as error:
        message = f"{error}: correct it in server.toml"
        raise ConfigError(message) from error
    tls = config.tls
    _require(
        tls.enabled or not (tls.certificate or tls.key or tls.ca),
        "all of certificate, key and ca in [tls], or none",
        "some",
    )
    certificates = config.certificates
    _require(certificates.enabled or not (certificates.ca or certificates.key), "both of ca and key in [certificates]",
             "one")  # fmt: skip
    _require(certificates.enabled or not certificates.required, "ca and key in [certificates] if required = true", "")
    _require(tls.enabled or not certificates.enabled, "[tls] of the server if [certificates] has an authority", "none")
    for name, bind in (("http.bind", config.http.bind), ("broker.bind", config.broker.bind)):
        _require(tls.enabled or is_loopback(bind), f"{name} on loopback while [tls] is empty", bind)
    for name, public, bind in (
        ("http.public_url", config.http.public_url, config.http.bind),
        ("broker.public_host", config.broker.public_host, config.broker.bind),
    ):
        required = f"{name}, the address for devices, when bound to {bind}"
        _require(bool(public) or bind not in _EVERYWHERE, required, public)
    return config


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach ``address``."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _require(holds: bool, what: str, value: object) -> None:  # noqa: FBT001 - the condition is the subject
    if not holds:
        message = f"Expected {what}, got {value!r}: correct it in server.toml"
        raise ConfigError(message)
