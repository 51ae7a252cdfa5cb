"""How the agent's previous run ended, from one record on a real disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.device import last_end
from edge_agent.device.disk import RealDisk
from edge_agent.device.last_end import LastEnd


def _boots(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(last_end, "boot_id", lambda: name)


def test_the_first_start_knows_of_nothing(tmp_path: Path) -> None:
    """It counts as after a crash, as it always did."""
    assert last_end.begin(tmp_path, RealDisk()) is LastEnd.AGENT


@pytest.mark.parametrize(("orders", "boot", "expected"), [
    (0, "one", LastEnd.AGENT), (0, "two", LastEnd.MACHINE), (0, "", LastEnd.AGENT),
    (1, "one", LastEnd.IN_ORDER), (1, "two", LastEnd.IN_ORDER),
])  # fmt: skip
def test_an_end_is_known_by_the_boot_and_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orders: int, boot: str, expected: LastEnd
) -> None:
    """Without a boot id of the kernel, a power cut and a crash can't be distinguished."""
    _boots(monkeypatch, "one")
    last_end.begin(tmp_path, RealDisk())
    for _ in range(orders):
        last_end.end(tmp_path, RealDisk())
    _boots(monkeypatch, boot)
    assert last_end.begin(tmp_path, RealDisk()) is expected


def test_an_order_to_end_holds_for_one_start(tmp_path: Path) -> None:
    """The run after it may crash again."""
    last_end.end(tmp_path, RealDisk())
    last_end.begin(tmp_path, RealDisk())
    assert last_end.begin(tmp_path, RealDisk()) is LastEnd.AGENT


def test_a_damaged_record_counts_as_a_crash(tmp_path: Path) -> None:
    """It is replaced by a valid one."""
    (tmp_path / "last_start.json").write_bytes(b"\x00" * 40)
    assert last_end.begin(tmp_path, RealDisk()) is LastEnd.AGENT
    last_end.end(tmp_path, RealDisk())
    assert last_end.begin(tmp_path, RealDisk()) is LastEnd.IN_ORDER
