"""The settings of drift detection, each with its unit and the reason for its default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from server.drift.detection.detector_bank import DetectorSettings
from server.drift.detection.evidence import log_alpha
from wire.settings import Bound

_DAY_MS = 86_400_000
_YEAR_MS = 366 * _DAY_MS

Windows: TypeAlias = Annotated[int, Bound(0, 10**6)]
Wait: TypeAlias = Annotated[int, Bound(0, _YEAR_MS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftConfig:
    """The settings of drift detection.

    window_ms: length of the agents' windows, UTC aligned; an hour in production, seconds in a demo.
    budget_per_day: false alerts a day over the whole fleet, 0.05: one in twenty days, as long as nothing moves further
        than the fleet ordinarily did in its baselines (``docs/explanation/drift.md``, "What is promised").
    baseline_windows: number of a device's first windows that form its baseline; 336: fourteen days of hourly windows,
        with two weekends, which show weather and scenes that stay; three days show only what comes back within a day.
    provisional_windows: from this number of windows on, a device of a fleet of at least eight is judged, provisionally;
        72: three days. The baseline is estimated again at half of ``baseline_windows``, and is complete with all of
        them; windows with an alarm do not count. 0, or as many as ``baseline_windows``: nothing is provisional.
    z: allowance for the reference's sampling error, in standard errors; 4: with less, small baselines raise alarms.
    epsilon: share of arbitrary samples to tolerate (0..0.02); costs sensitivity.
    grace_ms: how long after its end a window is waited for; later ones cause reprocessing.
    silence_windows, silence_ms: a device is silent when it missed both.
    quiet_windows: a verdict closes after this many windows without it (or when all its devices are silent).
    release_windows: an alarm within this many windows after a new release is attributed to the release.
    horizon_ms: older windows count as a clock fault; 30 days. After a restart without a checkpoint, evidence is
        computed from there; completed baselines are kept for good.
    """

    window_ms: Annotated[int, Bound(0, _YEAR_MS, above=True)] = 3_600_000
    budget_per_day: Annotated[float, Bound(0, 1_000, above=True)] = 0.05
    baseline_windows: Annotated[int, Bound(0, 10**6, above=True)] = 336
    provisional_windows: Windows = 72
    z: Annotated[float, Bound(0, 100)] = 4.0
    epsilon: Annotated[float, Bound(0, 0.02)] = 0.0
    grace_ms: Wait = 120_000
    silence_windows: Windows = 3
    silence_ms: Wait = 900_000
    quiet_windows: Windows = 2
    release_windows: Windows = 6
    empty_windows: Windows = 3
    horizon_ms: Annotated[int, Bound(0, 10 * _YEAR_MS, above=True)] = 30 * _DAY_MS

    @property
    def silent_ms(self) -> int:
        """How long a device sends nothing before it counts as silent (the larger of both limits), in milliseconds."""
        return max(self.silence_windows * self.window_ms, self.silence_ms)

    @property
    def settings(self) -> DetectorSettings:
        """The settings of the statistics."""
        return DetectorSettings(
            baseline_windows=self.baseline_windows,
            provisional_windows=self.provisional_windows,
            z=self.z,
            epsilon=self.epsilon,
            log_alpha=log_alpha(self.budget_per_day, self.window_ms),
            window_ms=self.window_ms,
        )
