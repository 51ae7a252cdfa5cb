"""The settings of retraining, each with its unit and the reason for its default."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetrainingConfig:
    """When a model is trained again.

    enabled: whether verdicts start anything at all.
    sample_bytes_per_day: what a drifted device may upload; 0: nothing leaves a device unless somebody opts in.
    persisted_windows: an alarm must last so many windows.
    min_labelled: different labelled samples of the drift, below which training and judging mean little.
    harm_margin: how far the lower bound of the risk must lie above the source's; two points.
    confidence: of that bound.
    audit_share: share of requested samples that are drawn uniformly, for the bound.
    samples_per_request, request_interval_s: how much is asked for at once, and how often again.
    patience_s: how long an alarm may pause before samples are no longer collected for it.
    cooldown_s: no second retraining for the same model and cause within it; a day.
    auto_rollout: whether a gated release is rolled out without a person; the canary and its thresholds still hold.
    canary: devices in the first group. probation_s: as for any rollout.
    lease_s: a worker that is not heard for so long has lost its job. attempts: so often a job is tried.
    max_sample_bytes, max_device_bytes_per_day: what the server takes, whatever a device sends.
    """

    enabled: bool = True
    sample_bytes_per_day: int = 0
    persisted_windows: int = 3
    min_labelled: int = 200
    harm_margin: float = 0.02
    confidence: float = 0.95
    audit_share: float = 0.25
    samples_per_request: int = 100
    request_interval_s: float = 3_600.0
    patience_s: float = 7_200.0
    cooldown_s: float = 86_400.0
    auto_rollout: bool = False
    canary: int = 1
    probation_s: float = 600.0
    lease_s: float = 120.0
    attempts: int = 3
    max_sample_bytes: int = 2 * 1024 * 1024
    max_device_bytes_per_day: int = 64 * 1024 * 1024
