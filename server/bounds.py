"""How large each number of ``server.toml`` may be: what no server could obey is refused when it is read.

One table, by dotted name. A test checks that it has every number of ``ServerConfig`` and that no default is outside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass

from server.errors import ConfigError
from server.rollout.config import MAX_TIME_S
from server.rollout.thresholds import MAX_CANARIES


@dataclass(frozen=True, slots=True)
class Bound:
    """A number from ``low`` to ``high``, neither infinite nor NaN; with ``above``, ``low`` itself is too small."""

    low: float
    high: float
    above: bool = False

    def holds(self, value: float) -> bool:
        """Return whether ``value`` is within; NaN never is."""
        return (self.low < value or (self.low == value and not self.above)) and value <= self.high

    @property
    def text(self) -> str:
        """The bound in words."""
        low, high = (f"{value:.15g}" for value in (self.low, self.high))
        return f"above {low} and at most {high}" if self.above else f"from {low} to {high}"


_YEAR_S = MAX_TIME_S
_TIME_S = Bound(0, _YEAR_S, above=True)
_WAIT_MS = Bound(0, _YEAR_S * 1000)
_COUNT = Bound(0, 10**6, above=True)
_BYTES = Bound(0, 10**15)
_RATIO = Bound(0, 1)
_PORT = Bound(0, 65_535)

BOUNDS: Mapping[str, Bound] = {
    "turn_interval_s": Bound(0, 60, above=True),  # broker, rollouts and health are looked after once a turn
    "http.port": _PORT,
    "broker.port": _PORT,
    "broker.max_queued_messages": Bound(0, 10**9, above=True),
    "broker.max_packet_bytes": Bound(0, 268_435_455, above=True),  # MQTT 5, 1.5.5: four bytes of seven bits
    "broker.start_timeout_s": Bound(0, 3_600, above=True),
    "enrolment.claim_ttl_s": Bound(0, 10 * _YEAR_S, above=True),
    "ingest.queue_messages": Bound(0, 10**9, above=True),
    "ingest.batch_messages": _COUNT,
    "ingest.clock_skew_s": _TIME_S,
    "ingest.retention_days": Bound(0, 36_600, above=True),
    "fleet.silent_s": _TIME_S,
    "health.min_free_bytes": _BYTES,
    "drift.window_ms": Bound(0, _YEAR_S * 1000, above=True),
    "drift.budget_per_day": Bound(0, 1_000, above=True),
    "drift.baseline_windows": _COUNT,
    "drift.z": Bound(0, 100),
    "drift.epsilon": Bound(0, 0.02),
    "drift.grace_ms": _WAIT_MS,
    "drift.silence_windows": Bound(0, 10**6),
    "drift.silence_ms": _WAIT_MS,
    "drift.quiet_windows": Bound(0, 10**6),
    "drift.release_windows": Bound(0, 10**6),
    "drift.empty_windows": Bound(0, 10**6),
    "drift.horizon_ms": Bound(0, 10 * _YEAR_S * 1000, above=True),
    "rollout.probation_s": _TIME_S,
    "rollout.deadline_s": _TIME_S,
    "rollout.success_ratio": _RATIO,
    "rollout.error_ratio": _RATIO,
    "rollout.canary": Bound(1, MAX_CANARIES),
    "rollout.assignments_a_turn": _COUNT,
    "retraining.sample_bytes_per_day": _BYTES,
    "retraining.persisted_windows": Bound(0, 10**6),
    "retraining.min_labelled": Bound(0, 10**9),
    "retraining.harm_margin": _RATIO,
    "retraining.confidence": Bound(0, math.nextafter(1, 0), above=True),  # of certainty there is no bound
    "retraining.audit_share": _RATIO,
    "retraining.samples_per_request": _COUNT,
    "retraining.request_interval_s": _TIME_S,
    "retraining.patience_s": Bound(0, _YEAR_S),
    "retraining.cooldown_s": Bound(0, _YEAR_S),
    "retraining.canary": Bound(1, MAX_CANARIES),
    "retraining.probation_s": _TIME_S,
    "retraining.lease_s": _TIME_S,
    "retraining.attempts": Bound(1, 1_000),
    "retraining.max_sample_bytes": Bound(0, 10**15, above=True),
    "retraining.max_device_bytes_per_day": _BYTES,
}


def check_bounds(config: object) -> None:
    """Check every number of a configuration.

    Raises:
        ConfigError: If one is outside its bound, infinite or NaN; the message names it, the bound and the value.
    """
    for name, value in numbers_of(config):
        if not BOUNDS[name].holds(value):
            message = f"Expected {name} {BOUNDS[name].text}, got {value!r}: correct it in server.toml"
            raise ConfigError(message)


def numbers_of(config: object, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the dotted name and the value of every number in a dataclass and those in it."""
    for field in fields(config):  # type: ignore[arg-type]  # a dataclass, by the caller
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from numbers_of(value, f"{prefix}{field.name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{field.name}", value
