"""The standard checks try both sides of each limit, on reports as a device sends them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compressor import tasks
from compressor.devices.bench import DeviceAnswer
from compressor.devices.inventory import DeviceLimits, EmulatedEntry, Entry, LocalEntry
from compressor.devices.shell import this_host
from compressor.devices.under_test import BundleUnderTest, DeviceUnderTest, read_bundle_under_test
from compressor.errors import CannotError
from compressor.recipe.model import DataRecipe
from scripts.hil import checks
from wire.manifest import Budgets
from wire.measurement import MeasureReport

GOOD = MeasureReport(
    golden_rows=4, latency_p50_ms=1.0, latency_p95_ms=2.0, peak_memory_bytes=1000, temperature_celsius=60.0,
    throttle_events=0, energy_mj=0.5,
)  # fmt: skip
LABELS = np.arange(10) % 2
RIGHT = np.eye(2, dtype=np.float32)[LABELS]
Check = Callable[[DeviceUnderTest, BundleUnderTest], None]


def answered(bundle: BundleUnderTest, report: MeasureReport, *, entry: Entry, wrong: int = 0) -> DeviceUnderTest:
    """Return a device that has measured the bundle: ``wrong`` of ten rows have the other label."""
    logits = RIGHT.copy()
    logits[:wrong] = logits[:wrong, ::-1]
    key = bundle.subject.artifact_sha256, bundle.subject.n
    return DeviceUnderTest(name="pi", entry=entry, bench=this_host(), answers={key: DeviceAnswer(report, logits)})


@pytest.fixture
def bundle(tiny_bundle: Path) -> BundleUnderTest:
    """The tiny bundle with budgets and ten labelled rows."""
    found = read_bundle_under_test(tiny_bundle, None, most=0)
    budgets = Budgets(latency_p95_ms=3.0, peak_memory_bytes=2000, golden_max_abs=0.1, golden_max_flips=1)
    return replace(
        found, manifest=replace(found.manifest, budgets=budgets), labels=LABELS, task=tasks.of(DataRecipe()),
        subject=replace(found.subject, n=len(LABELS)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("check", "fits", "exceeds", "limits"),
    [
        (checks.test_golden_vectors_are_reproduced, {"golden_max_abs": 0.1}, {"golden_max_abs": 0.11}, {}),
        (checks.test_golden_vectors_are_reproduced, {"golden_flips": 1}, {"golden_flips": 2}, {}),
        (checks.test_golden_vectors_are_reproduced, {}, {"golden_rows": 0}, {}),
        (checks.test_latency_is_within_its_limits, {"latency_p95_ms": 3.0}, {"latency_p95_ms": 3.1}, {}),
        (
            checks.test_latency_is_within_its_limits,
            {"latency_p95_ms": 9.0},
            {"latency_p95_ms": 9.1},
            {"latency_p95_ms": 9.0},
        ),
        (
            checks.test_latency_is_within_its_limits,
            {"latency_p50_ms": 1.5},
            {"latency_p50_ms": 1.6},
            {"latency_p50_ms": 1.5},
        ),
        (checks.test_memory_is_within_its_limit, {"peak_memory_bytes": 2000}, {"peak_memory_bytes": 2001}, {}),
        (checks.test_it_stays_cool, {"temperature_celsius": 80.0}, {"temperature_celsius": 80.1}, {}),
        (checks.test_it_stays_cool, {"throttle_events": -1}, {"throttle_events": 1}, {}),
        (checks.test_energy_is_within_its_limit, {"energy_mj": 0.7}, {"energy_mj": 0.71}, {"energy_mj": 0.7}),
    ],
)
def test_each_limit_holds_on_both_sides(
    bundle: BundleUnderTest, check: Check, fits: dict[str, float], exceeds: dict[str, float], limits: dict[str, float]
) -> None:
    """At the limit it passes, beyond it fails: the device's own limit, or else the bundle's budget."""
    entry = LocalEntry(limits=DeviceLimits(**limits))
    check(answered(bundle, replace(GOOD, **fits), entry=entry), bundle)
    with pytest.raises(AssertionError):
        check(answered(bundle, replace(GOOD, **exceeds), entry=entry), bundle)


@pytest.mark.parametrize(
    ("check", "lacks"),
    [
        (checks.test_it_stays_cool, {"temperature_celsius": 0.0, "throttle_events": -1}),
        (checks.test_energy_is_within_its_limit, {"energy_mj": 0.0}),
    ],
)
def test_a_figure_that_a_device_does_not_have_is_not_judged(
    bundle: BundleUnderTest, check: Check, lacks: dict[str, float]
) -> None:
    """Skipped with its reason, never passed."""
    with pytest.raises(CannotError, match="pi has n"):
        check(answered(bundle, replace(GOOD, **lacks), entry=LocalEntry()), bundle)


def test_an_emulated_device_has_no_times_and_only_its_own_memory_limit(bundle: BundleUnderTest) -> None:
    """Its memory has the emulator's in it."""
    device = answered(bundle, replace(GOOD, peak_memory_bytes=10**9), entry=EmulatedEntry(root=Path("/nowhere")))
    checks.test_memory_is_within_its_limit(device, bundle)
    with pytest.raises(CannotError, match="emulated"):
        checks.test_latency_is_within_its_limits(device, bundle)
    entry = EmulatedEntry(root=Path("/nowhere"), limits=DeviceLimits(peak_memory_bytes=10**9 - 1))
    with pytest.raises(AssertionError):
        checks.test_memory_is_within_its_limit(replace(device, entry=entry), bundle)


@pytest.mark.parametrize(("allowed", "passes"), [(0.1, True), (0.09, False)])
def test_accuracy_is_judged_beside_this_host(bundle: BundleUnderTest, allowed: float, *, passes: bool) -> None:
    """One of ten rows lost: as much as is allowed, or more."""
    entry = LocalEntry(limits=DeviceLimits(accuracy_drop=allowed, flip_ratio=allowed))
    device, host = (answered(bundle, GOOD, entry=entry, wrong=wrong) for wrong in (1, 0))
    for check in (checks.test_accuracy_on_the_probe, checks.test_it_answers_as_this_host_does):
        if passes:
            check(device, bundle, host)
        else:
            with pytest.raises(AssertionError):
                check(device, bundle, host)
    with pytest.raises(AssertionError):
        checks.test_accuracy_on_the_probe(
            replace(device, entry=LocalEntry(limits=DeviceLimits(accuracy=0.91))), bundle, host
        )
