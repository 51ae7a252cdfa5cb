"""The rules that turn flags and pools into verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterable

from server.drift.verdicts import DeviceView, Pools, VerdictKind, conclude, hypergeometric_p


def fleet(size: int, flagged: Iterable[int], lens_b: Iterable[int] = ()) -> list[DeviceView]:
    """Return devices on sites of ten; those in ``lens_b`` have another lens."""
    hits, other = set(flagged), set(lens_b)
    return [
        DeviceView(
            f"d{i:04d}", {"site": f"s{i // 10}", "lens": "b" if i in other else "a"}, flagged=i in hits
        )
        for i in range(size)
    ]  # fmt: skip


def test_nothing_flagged_is_no_verdict() -> None:
    """Silence stays silence."""
    assert conclude(fleet(100, []), Pools()) == ()


def test_few_unrelated_devices_are_local() -> None:
    """Each is its own affair."""
    found = conclude(fleet(100, [3, 47]), Pools())
    assert [verdict.kind for verdict in found] == [VerdictKind.DEVICE_LOCAL] * 2


def test_a_shared_attribute_is_the_cohort() -> None:
    """The smallest attribute set that explains the flags is named, not the site of each."""
    lens_b = range(5, 100, 10)
    (found,) = conclude(fleet(100, lens_b, lens_b), Pools())
    assert (found.kind, found.attributes, len(found.devices)) == (VerdictKind.COHORT, (("lens", "b"),), 10)


def test_half_of_a_site_is_the_site() -> None:
    """Even two devices of a site of three, which no test would call significant."""
    devices = [DeviceView(f"d{i}", {"site": "a" if i < 3 else "b"}, flagged=i < 2) for i in range(6)]
    (found,) = conclude(devices, Pools())
    assert (found.kind, found.attributes) == (VerdictKind.SITE, (("site", "a"),))


def test_most_devices_without_concentration_are_the_fleet() -> None:
    """When all sites are hit, it is the world."""
    (found,) = conclude(fleet(20, range(20)), Pools())
    assert found.kind is VerdictKind.FLEET


def test_a_fleet_pool_alone_is_the_fleet_and_one_cohorts_pool_the_cohort() -> None:
    """Pools hear what no single device shows."""
    watched = frozenset({("lens", "a"), ("lens", "b")})
    (everyone,) = conclude(fleet(20, [], range(10)), Pools(fleet=True, cohorts=watched, watched=watched))
    (cohort,) = conclude(
        fleet(20, [], range(10)), Pools(fleet=True, cohorts=frozenset({("lens", "b")}), watched=watched)
    )
    assert everyone.kind is VerdictKind.FLEET
    assert (cohort.kind, cohort.attributes) == (VerdictKind.COHORT, (("lens", "b"),))


def test_faults_and_regressions_come_before_drift() -> None:
    """A flagged device with a fault is a fault; one whose release broke it is the release's."""
    devices = [
        DeviceView("a", {"site": "x"}, flagged=True, fault="stuck"),
        DeviceView("b", {"site": "x"}, flagged=True, regression="model-2"),
    ]
    assert [verdict.kind for verdict in conclude(devices, Pools())] == [
        VerdictKind.DEVICE_FAULT, VerdictKind.RELEASE_REGRESSION,
    ]  # fmt: skip


def test_the_hypergeometric_tail_is_fishers() -> None:
    """Three of three drawn marked, three of six marked: one in twenty."""
    assert math.isclose(hypergeometric_p(3, 3, 3, 6), 1 / 20)
    assert math.isclose(hypergeometric_p(0, 3, 3, 6), 1.0)
