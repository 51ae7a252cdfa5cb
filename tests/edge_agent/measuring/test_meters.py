"""Energy, temperature and throttling, from a made /sys."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.measuring.meters import UNKNOWN, Meters


def put(root: Path, name: str, text: object) -> None:
    """Write a file of /sys."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(f"{text}\n")


RAPL = "class/powercap/intel-rapl"


def test_energy_is_the_sum_of_the_packages_without_their_parts(tmp_path: Path) -> None:
    """Two packages count; the cores of one are in its count already."""
    for name, value in {":0": 100, ":1": 40, ":0:0": 7}.items():
        put(tmp_path, f"{RAPL}{name}/energy_uj", value)
    meters = Meters(sys=tmp_path)
    before = meters.energy_uj()
    assert sorted(before.values()) == [40, 100]
    put(tmp_path, f"{RAPL}:0/energy_uj", 350)
    put(tmp_path, f"{RAPL}:1/energy_uj", 41)
    assert meters.spent_uj(before) == 251


@pytest.mark.parametrize(("range_uj", "spent"), [(1000, 60), (None, 0), (500, 0)])
def test_a_counter_that_began_again_counts_from_its_range(tmp_path: Path, range_uj: int | None, spent: int) -> None:
    """From 950 over 1000 to 10 are 60; a meter without a range, or with one too short, has no known energy."""
    put(tmp_path, f"{RAPL}:0/energy_uj", 950)
    if range_uj:
        put(tmp_path, f"{RAPL}:0/max_energy_range_uj", range_uj)
    meters = Meters(sys=tmp_path)
    before = meters.energy_uj()
    put(tmp_path, f"{RAPL}:0/energy_uj", 10)
    assert meters.spent_uj(before) == spent


def test_a_meter_of_ones_own_is_a_file_that_counts(tmp_path: Path) -> None:
    """It replaces RAPL; one that can't be read is none."""
    put(tmp_path, f"{RAPL}:0/energy_uj", 5)
    put(tmp_path, "meter", 20)
    meters = Meters(tmp_path / "meter", tmp_path)
    before = meters.energy_uj()
    put(tmp_path, "meter", 50)
    assert meters.spent_uj(before) == 30
    assert Meters(tmp_path / "none", tmp_path).energy_uj() == {}


def test_throttling_is_counted_or_seen_as_a_brake(tmp_path: Path) -> None:
    """Counts of x86 since the start, a cooling device that brakes now, and the flags of a Raspberry Pi."""
    meters = Meters(sys=tmp_path)
    assert meters.throttle_events(0) == UNKNOWN
    put(tmp_path, "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", 3)
    since = meters.throttle_count()
    assert meters.throttle_events(since) == 0
    put(tmp_path, "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", 5)
    assert meters.throttle_events(since) == 2
    put(tmp_path, "class/thermal/cooling_device0/type", "thermal-cpufreq-0")
    put(tmp_path, "class/thermal/cooling_device0/cur_state", 2)
    put(tmp_path, "class/thermal/cooling_device1/type", "fan")
    put(tmp_path, "class/thermal/cooling_device1/cur_state", 1)
    assert meters.throttle_events(since) == 3
    put(tmp_path, "devices/platform/soc/soc:firmware/get_throttled", "50000")
    assert meters.throttle_events(since) == 3
    put(tmp_path, "devices/platform/soc/soc:firmware/get_throttled", "50004")
    assert meters.throttle_events(since) == 4
