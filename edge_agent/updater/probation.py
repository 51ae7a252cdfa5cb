"""Is the new release healthy on this device? Pure: facts in, verdict out. Decided offline too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median

ENOUGH_INFERENCES = 20  # below, a ratio says nothing
ENOUGH_BEATS = 5
KEPT_BEATS = 60


@dataclass(frozen=True, slots=True)
class Limits:
    """What a release on probation must keep. ``latency_p95_ms`` of 0: no limit."""

    probation_s: float = 600.0
    max_error_ratio: float = 0.05
    latency_p95_ms: float = 0.0
    latency_slack_ratio: float = 1.5  # other programs run too; the probe judged the bare budget


@dataclass(frozen=True, slots=True)
class Health:
    """What was seen since the switch: ``p95_ms`` of the last heartbeats, sums of the others."""

    crashes: int = 0
    hangs: int = 0
    beats: int = 0
    inferences: int = 0
    errors: int = 0
    p95_ms: tuple[float, ...] = ()
    alive: bool = False

    def beat(self, *, n: int, errors: int, p95_ms: float) -> Health:
        """Return this health after one heartbeat with its own counts."""
        p95s = (*self.p95_ms, p95_ms)[-KEPT_BEATS:] if n else self.p95_ms
        return replace(
            self, beats=self.beats + 1, inferences=self.inferences + n, errors=self.errors + errors,
            p95_ms=p95s, alive=True,
        )  # fmt: skip

    def crashed(self) -> Health:
        """Return this health after the child ended by itself."""
        return replace(self, crashes=self.crashes + 1, alive=False)

    def hung(self) -> Health:
        """Return this health after the child missed its heartbeats and was killed."""
        return replace(self, hangs=self.hangs + 1, alive=False)


@dataclass(frozen=True, slots=True)
class Judgement:
    """``over``: decided; ``code`` empty: healthy."""

    over: bool = False
    code: str = ""
    text: str = ""


def judge(health: Health, limits: Limits, elapsed_s: float) -> Judgement:
    """Return whether probation is over, and how it ended."""
    tried = health.inferences + health.errors
    error_ratio = health.errors / tried if tried else 0.0
    p95_ms = median(health.p95_ms) if health.p95_ms else 0.0
    allowed_ms = limits.latency_p95_ms * limits.latency_slack_ratio
    if health.crashes:
        return Judgement(True, "child_crashed", f"the child ended {health.crashes} times in probation")
    if health.hangs:
        return Judgement(True, "child_hung", f"the child missed its heartbeats {health.hangs} times in probation")
    if tried >= ENOUGH_INFERENCES and error_ratio > limits.max_error_ratio:
        return Judgement(
            True, "error_rate", f"Expected at most {limits.max_error_ratio:.2%} errors, got {error_ratio:.2%}"
        )
    if allowed_ms and len(health.p95_ms) >= ENOUGH_BEATS and p95_ms > allowed_ms:
        return Judgement(
            True, "latency_over_budget", f"Expected p95 of at most {allowed_ms:.1f} ms, got {p95_ms:.1f} ms"
        )
    return Judgement(over=elapsed_s >= limits.probation_s and health.alive)
