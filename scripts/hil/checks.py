"""The standard checks of a device: `scripts/hil/run` runs them where no other tests are named.

Each limit is the device's own in the inventory, or else the bundle's budget. A check that a device gives no way to
(no meter, no switch, no agent) is skipped with its reason.
"""

from __future__ import annotations

import time

from compressor.devices.under_test import BundleUnderTest, DeviceUnderTest
from compressor.errors import CannotError, DeviceMeasureError


def missing(text: str, *, limited: bool) -> CannotError | DeviceMeasureError:
    """Return the error that leaves a check out, or fails it where the inventory has a limit of its own for it."""
    return DeviceMeasureError(f"{text}; its limit in the inventory is not checked") if limited else CannotError(text)


def test_golden_vectors_are_reproduced(device: DeviceUnderTest, bundle: BundleUnderTest) -> None:
    """The device computes what the build host computed, within the bundle's tolerance."""
    report, budgets = device.measure(bundle).report, bundle.manifest.budgets
    assert report.golden_rows > 0
    assert report.golden_max_abs <= budgets.golden_max_abs
    assert report.golden_flips <= budgets.golden_max_flips


def test_latency_is_within_its_limits(device: DeviceUnderTest, bundle: BundleUnderTest) -> None:
    """p50 and p95 of one inference."""
    if not device.entry.timed:
        raise CannotError(f"the times of {device.name} mean nothing: it is emulated")
    report = device.measure(bundle).report
    assert 0 < report.latency_p50_ms <= (device.limits.latency_p50_ms or float("inf"))
    budget_ms = device.limits.latency_p95_ms or bundle.manifest.budgets.latency_p95_ms or float("inf")
    assert report.latency_p95_ms <= budget_ms


def test_memory_is_within_its_limit(device: DeviceUnderTest, bundle: BundleUnderTest) -> None:
    """Peak of a fresh process that runs the model; an emulator's own counts, so it has only its own limit."""
    budget = bundle.manifest.budgets.peak_memory_bytes if device.entry.timed else 0
    limit_bytes = device.limits.peak_memory_bytes or budget or float("inf")
    assert 0 < device.measure(bundle).report.peak_memory_bytes <= limit_bytes


def test_it_stays_cool(device: DeviceUnderTest, bundle: BundleUnderTest) -> None:
    """Neither too hot nor slowed down while it measured."""
    report = device.measure(bundle).report
    if report.temperature_celsius == 0 and report.throttle_events < 0:
        raise CannotError(f"{device.name} has neither a temperature sensor nor counts of throttling")
    assert report.temperature_celsius <= device.limits.temperature_celsius
    assert device.limits.may_throttle or report.throttle_events <= 0


def test_energy_is_within_its_limit(device: DeviceUnderTest, bundle: BundleUnderTest) -> None:
    """Energy of one inference, all that the meter counts in its time."""
    report = device.measure(bundle).report
    if report.energy_mj == 0:
        text = f"{device.name} has no energy meter that moves: name one as energy in the inventory"
        raise missing(text, limited=device.limits.energy_mj is not None)
    assert report.energy_mj <= (device.limits.energy_mj or float("inf"))


def test_accuracy_on_the_probe(device: DeviceUnderTest, bundle: BundleUnderTest, host: DeviceUnderTest) -> None:
    """On the same rows the device is as accurate as it must be, and not worse than this host."""
    if bundle.labels is None:
        text = "Expected a probe to measure accuracy, got none: give --hil-probe RECIPE"
        raise missing(text, limited=device.limits.accuracy > 0)
    answer = device.measure(bundle)
    accuracy = bundle.accuracy(answer)
    assert accuracy >= device.limits.accuracy
    assert bundle.accuracy(host.measure(bundle)) - accuracy <= device.limits.accuracy_drop


def test_it_answers_as_this_host_does(device: DeviceUnderTest, bundle: BundleUnderTest, host: DeviceUnderTest) -> None:
    """Few rows of the probe have another answer."""
    flips = bundle.flips(device.measure(bundle), host.measure(bundle))
    assert flips <= device.limits.flip_ratio * bundle.subject.n


def test_it_is_fit_for_a_rollout(device: DeviceUnderTest) -> None:
    """Its server sees it online on the desired release, its self-test passes, and its drift window is not overdue."""
    assert [f"{check.name}: {check.text}" for check in device.fitness() if not check.ok] == []


def test_it_serves_again_after_a_power_cut(device: DeviceUnderTest) -> None:
    """The agent comes back by itself, on the same release."""
    before = device.wait(lambda status: status["health"] == "serving", "an agent that serves")
    with device.power_cut():
        pass
    after = device.wait(lambda status: status["health"] == "serving", "an agent that serves again")
    assert after.get("current") == before.get("current")


def test_it_goes_on_through_a_network_cut(device: DeviceUnderTest) -> None:
    """It serves without a network for ``cut_s``, and is connected again afterwards."""
    device.wait(lambda status: bool(status["connected"]), "a connection")
    with device.network_cut():
        time.sleep(device.entry.cut_s)
        if device.sees_itself:
            assert device.agent()["health"] == "serving"
    device.wait(lambda status: bool(status["connected"]), "a connection again")
