"""The settings of retraining, each with its unit and the reason for its default."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

from server.rollout.config import MAX_TIME_S, Bytes, Canary, Count, Share, Time
from wire.settings import Bound

Wait: TypeAlias = Annotated[float, Bound(0, MAX_TIME_S)]
Confidence: TypeAlias = Annotated[float, Bound(0, math.nextafter(1, 0), above=True)]  # certainty has no bound

DailySamples: TypeAlias = Annotated[float, Bound(0, 100_000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditConfig:
    """The settings of the steady audit, which asks for a few labels a day without any alarm.

    enabled: whether devices are asked; each device's owner must allow it too (``[samples]`` of agent.toml).
    samples_per_day: how many inputs of a model are drawn a day, over all devices that run it; a person labels five in
    a minute. models: other numbers for some models, by name; 0: none.
    device_bytes_per_day: limit of one device's uploads for it; five photos of 200 KB.
    min_labels: a device or a cohort with fewer labelled scenes is listed only if they show harm: fewer decide little.
    """

    enabled: bool = False
    samples_per_day: DailySamples = 5.0
    models: Mapping[str, DailySamples] = field(default_factory=dict)
    device_bytes_per_day: Bytes = 1024 * 1024
    min_labels: Count = 20

    def samples_of(self, model: str) -> float:
        """Return how many inputs of ``model`` are drawn a day; 0 if the audit is off."""
        return self.models.get(model, self.samples_per_day) if self.enabled else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainingConfig:
    """The settings of retraining.

    enabled: whether verdicts start a retraining at all.
    sample_bytes_per_day: limit of a drifted device's uploads; 0: nothing leaves a device unless somebody opts in.
    persisted_windows: how many windows an alarm must last.
    second_person: share of the images that two people label, each without the other's answer, 0..1; classes only. Their
    label counts once two have given the same one. second_person_models: other shares for some models, by name.
    min_labelled: the least number of distinct labelled samples; training and gates mean little with fewer.
    source_block_s: samples of one device in one block of this length are one source: frames of one scene, which count
    as one observation and are never in two splits; 0: every sample is its own (for frames drawn at random).
    harm_margin: how far the lower bound of the error rate must lie above the source's; two percentage points.
    place_margin: how far the upper bound of the error rate at a place that training does not know may lie above the
        source's for the place to count as harmless; ten percentage points, which about sixty labels can show.
    confidence: confidence level of these bounds.
    max_waiting: how many images of each lane may wait for a label; older ones expire and are deleted.
    audit_share: share of requested samples that are drawn uniformly, for the bound and to judge a retrained model by;
    the others only teach.
    samples_per_request, request_interval_s: how many samples one request asks for, and how often it is repeated.
    patience_s: how long an alarm may be quiet before no more samples are collected for it.
    cooldown_s: the least time between two retrainings for the same model and cause; a day.
    max_looks: how many retrainings may be judged on one gate split; their looks share the risk of the gates, and the
    20th needs four times the rows of the first (``docs/explanation/gates.md``).
    auto_rollout: whether a gated release is rolled out without a person; canary and thresholds still apply.
    canary: devices in the first group. probation_s: as for any rollout.
    lease_s: a worker without a heartbeat for this long loses its job. attempts: how often a job is tried.
    max_sample_bytes, max_device_bytes_per_day: the server's own limits, whatever a device sends.
    """

    enabled: bool = True
    sample_bytes_per_day: Bytes = 0
    persisted_windows: Annotated[int, Bound(0, 10**6)] = 3
    second_person: Share = 0.0
    second_person_models: Mapping[str, Share] = field(default_factory=dict)
    min_labelled: Annotated[int, Bound(0, 10**9)] = 200
    source_block_s: Wait = 600.0
    harm_margin: Share = 0.02
    place_margin: Share = 0.10
    confidence: Confidence = 0.95
    max_waiting: Count = 500
    audit_share: Share = 0.5
    samples_per_request: Count = 100
    request_interval_s: Time = 3_600.0
    patience_s: Wait = 7_200.0
    cooldown_s: Wait = 86_400.0
    max_looks: Annotated[int, Bound(1, 20)] = 20
    auto_rollout: bool = False
    canary: Canary = 1
    probation_s: Time = 600.0
    lease_s: Time = 120.0
    attempts: Annotated[int, Bound(1, 1_000)] = 3
    max_sample_bytes: Annotated[int, Bound(0, 10**15, above=True)] = 2 * 1024 * 1024
    max_device_bytes_per_day: Bytes = 64 * 1024 * 1024

    def share_for_two(self, model: str) -> float:
        """Return the share of the images of ``model`` that two people label, 0..1."""
        return self.second_person_models.get(model, self.second_person)
