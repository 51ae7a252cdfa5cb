"""The rules that turn flags and pools into verdicts."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import replace

import pytest

from server.drift.verdicts import DeviceView, Pools, VerdictKind, conclude, hypergeometric_p


def fleet(size: int, flagged: Iterable[int], lens_b: Iterable[int] = ()) -> list[DeviceView]:
    """Return devices on sites of ten; those in ``lens_b`` have another lens."""
    hits, other = set(flagged), set(lens_b)
    return [
        DeviceView(
            device=f"d{i:04d}",
            attributes={"site": f"s{i // 10}", "lens": "b" if i in other else "a"},
            flagged=i in hits,
        )
        for i in range(size)
    ]


def test_nothing_flagged_is_no_verdict() -> None:
    """Silence stays silence."""
    assert conclude(fleet(100, []), {}) == ()


def test_few_unrelated_devices_are_local() -> None:
    """Each is its own affair."""
    found = conclude(fleet(100, [3, 47]), {})
    assert [verdict.kind for verdict in found] == [VerdictKind.DEVICE_LOCAL] * 2


def test_a_shared_attribute_is_the_cohort() -> None:
    """The smallest attribute set that explains the flags is named, not the site of each."""
    lens_b = range(5, 100, 10)
    (found,) = conclude(fleet(100, lens_b, lens_b), {})
    assert (found.kind, found.attributes, len(found.devices)) == (VerdictKind.COHORT, (("lens", "b"),), 10)


def test_half_of_a_site_is_the_site() -> None:
    """Even two devices of a site of three, which no test would call significant."""
    devices = [DeviceView(device=f"d{i}", attributes={"site": "a" if i < 3 else "b"}, flagged=i < 2) for i in range(6)]
    (found,) = conclude(devices, {})
    assert (found.kind, found.attributes) == (VerdictKind.SITE, (("site", "a"),))


def test_most_devices_without_concentration_are_the_fleet() -> None:
    """When all sites are hit, it is the world."""
    (found,) = conclude(fleet(20, range(20)), {})
    assert found.kind is VerdictKind.FLEET


def test_a_fleet_pool_alone_is_the_fleet_and_one_cohorts_pool_the_cohort() -> None:
    """Pools detect changes that no single device shows."""
    watched = frozenset({("lens", "a"), ("lens", "b")})
    (everyone,) = conclude(fleet(20, [], range(10)), {"": Pools(fleet=True, cohorts=watched, watched=watched)})
    (cohort,) = conclude(
        fleet(20, [], range(10)), {"": Pools(fleet=True, cohorts=frozenset({("lens", "b")}), watched=watched)}
    )
    assert everyone.kind is VerdictKind.FLEET
    assert (cohort.kind, cohort.attributes) == (VerdictKind.COHORT, (("lens", "b"),))


def test_each_model_is_a_fleet_of_its_own() -> None:
    """All devices of two models drift at once: two verdicts; and one device of a third is found alone."""
    devices = [
        DeviceView(device=f"{model}{i}", attributes={"site": f"s{i}"}, flagged=True, model=model)
        for model, size in (("a", 4), ("b", 3), ("c", 1))
        for i in range(size)
    ]
    found = [(verdict.kind, verdict.model, len(verdict.devices)) for verdict in conclude(devices, {})]
    assert found == [(VerdictKind.FLEET, "a", 4), (VerdictKind.FLEET, "b", 3), (VerdictKind.DEVICE_LOCAL, "c", 1)]


def test_a_pool_of_one_model_says_nothing_of_another() -> None:
    """The fleet's pool of one model alarms: its devices drift, those of the other don't."""
    devices = [DeviceView(device=f"d{i}", attributes={"site": "xy"[i // 3]}, model="ab"[i % 2]) for i in range(6)]
    (found,) = conclude(devices, {"a": Pools(fleet=True), "b": Pools()})
    assert (found.kind, found.model, found.devices) == (VerdictKind.FLEET, "a", ("d0", "d2", "d4"))


@pytest.mark.parametrize("size", [2, 12])
def test_a_fleet_at_one_site_is_that_site(size: int) -> None:
    """By its pool, and by flagged devices: the same verdict; others of the model elsewhere make it the fleet again."""
    by_pool = [DeviceView(device=f"d{i:02}", attributes={"site": "oslo"}, model="a") for i in range(size)]
    flagged = [replace(view, flagged=True) for view in by_pool]
    elsewhere = DeviceView(device="e", attributes={"site": "rome"}, model="a", fault="silent")
    found = [conclude(by_pool, {"a": Pools(fleet=True)})[0], conclude(flagged, {})[0]]
    assert {(one.kind, one.key, len(one.devices)) for one in found} == {(VerdictKind.SITE, "site:site=oslo:", size)}
    assert conclude([*by_pool, elsewhere], {"a": Pools(fleet=True)})[-1].kind is VerdictKind.FLEET


def test_a_pool_of_one_release_at_one_site_is_that_site() -> None:
    """As at the first devices of a rollout, while the others of the model are elsewhere."""
    devices = [DeviceView(device=f"d{i}", attributes={"site": "xy"[i // 3]}) for i in range(6)]
    (found,) = conclude(devices, {"": Pools(fleet=True, site="y")})
    assert (found.kind, found.devices, found.attributes) == (VerdictKind.SITE, ("d3", "d4", "d5"), (("site", "y"),))


def test_one_device_of_a_model_alone_at_its_site_is_local() -> None:
    """It has no pool, and one device is no site."""
    (found,) = conclude([DeviceView(device="d", attributes={"site": "oslo"}, flagged=True)], {})
    assert found.kind is VerdictKind.DEVICE_LOCAL


def test_devices_of_another_model_concentrate_nothing() -> None:
    """Three of three devices with a lens are no cohort because twenty of another model don't drift."""
    devices = [DeviceView(device=f"d{i}", attributes={"lens": "b"}, flagged=True, model="a") for i in range(3)]
    devices += [DeviceView(device=f"e{i}", attributes={"lens": "a"}, model="b") for i in range(20)]
    (found,) = conclude(devices, {})
    assert (found.kind, found.model) == (VerdictKind.FLEET, "a")


def test_faults_and_regressions_come_before_drift() -> None:
    """A flagged device with a fault is a fault; one whose release broke it is the release's."""
    devices = [
        DeviceView(device="a", attributes={"site": "x"}, flagged=True, fault="stuck"),
        DeviceView(device="b", attributes={"site": "x"}, flagged=True, regression="model-2"),
    ]
    assert [verdict.kind for verdict in conclude(devices, {})] == [
        VerdictKind.DEVICE_FAULT, VerdictKind.RELEASE_REGRESSION,
    ]  # fmt: skip


def test_the_hypergeometric_tail_is_fishers() -> None:
    """Three of three drawn marked, three of six marked: one in twenty."""
    assert math.isclose(hypergeometric_p(3, 3, 3, 6), 1 / 20)
    assert math.isclose(hypergeometric_p(0, 3, 3, 6), 1.0)


def test_the_tail_of_a_large_fleet_is_as_exact_as_of_a_small_one() -> None:
    """Against the sum of exact integers, at sizes where these have thousands of digits."""
    exact = sum(math.comb(400, k) * math.comb(3600, 1000 - k) for k in range(130, 401)) / math.comb(4000, 1000)
    assert math.isclose(hypergeometric_p(130, 1000, 400, 4000), exact, rel_tol=1e-9)
    assert hypergeometric_p(401, 1000, 400, 4000) == 0.0
    assert math.isclose(hypergeometric_p(0, 1000, 400, 4000), 1.0)


@pytest.mark.parametrize("every", [1, 4])
def test_a_large_fleet_is_concluded_on_soon(every: int) -> None:
    """5,000 devices on sites of ten, all or every fourth site flagged: seconds where it took minutes."""
    hits = [i for i in range(5000) if i // 10 % every == 0]
    start_s = time.perf_counter()
    found = conclude(fleet(5000, hits), {})
    assert time.perf_counter() - start_s < 4.0
    assert len(found) == (1 if every == 1 else 125)
    assert {verdict.kind for verdict in found} == {VerdictKind.FLEET if every == 1 else VerdictKind.SITE}
