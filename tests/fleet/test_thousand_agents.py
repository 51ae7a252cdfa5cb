"""1,000 devices with connections of their own come back at once to a server and a broker that were killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.bench.connections import measure, rows_of

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.nightly]


def test_a_thousand_devices_come_back_and_nothing_is_lost(tmp_path: Path) -> None:
    """Each is admitted, its state, report and window are stored, and it gets its ``desired``; how fast is a bench's."""
    rows = rows_of(measure(tmp_path, 1000))
    counted = [row for row in rows if row.target in {"all", "0"}]
    assert len(counted) == 8
    assert [row for row in counted if not row.met] == []
