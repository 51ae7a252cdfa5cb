"""One measurement on the device: free space, order of steps, and no files left."""

from __future__ import annotations

import errno
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.device.disk import RealDisk
from edge_agent.measuring.job import JobLimits, ProcessMeasurer, _verdict, submit
from edge_agent.updater.download import FetchSettings
from edge_agent.updater.ports import FetchProgress, Refusal
from wire.measurement import MeasureOrder

LIMITS = JobLimits(max_bytes=1000, limit_s=30.0, reserve_bytes=0)
NOWHERE = FetchSettings(
    base_url="http://127.0.0.1:9", username="cam-1", password="secret", attempts=1, retry_min_s=0.0, retry_max_s=0.0
)
ORDER = MeasureOrder(order="ab" * 16, bundle_length_bytes=600, rows_length_bytes=300, rows=1)


@pytest.fixture
def measurer(tmp_path: Path) -> ProcessMeasurer:
    """Return a measurer whose server is not reachable."""
    (tmp_path / "measure").mkdir()
    return ProcessMeasurer(state=tmp_path, settings=NOWHERE, disk=RealDisk(), limits=LIMITS)


@pytest.mark.parametrize(
    ("change", "code"),
    [({}, ""), ({"rows_length_bytes": 500}, "too_large"), ({"bundle_length_bytes": 1 << 60}, "too_large")],
    ids=["fits", "rows", "bundle"],
)  # fmt: skip
def test_takes_no_more_bytes_than_the_owner_allows(
    measurer: ProcessMeasurer, change: dict[str, int], code: str
) -> None:
    """Bundle and rows together."""
    refused = measurer._no_room(replace(ORDER, **change))
    assert (refused.code if refused else "") == code


def test_leaves_the_reserve_on_the_disk(measurer: ProcessMeasurer) -> None:
    """The updater's reserve stays free."""
    tight = replace(measurer, limits=replace(LIMITS, reserve_bytes=1 << 62))
    refused = tight._no_room(ORDER)
    assert refused is not None
    assert refused.code == "no_space"


def test_an_order_that_nobody_signed_ends_before_a_byte_is_fetched(measurer: ProcessMeasurer) -> None:
    """A device that is not enrolled trusts no signature, and its folder is empty again."""
    ended = measurer.run(b'{"payload": ""}', FetchProgress())
    assert isinstance(ended, Refusal)
    assert ended.code == "metadata_unreachable"
    assert list(measurer.state.iterdir()) == []


def test_a_full_disk_ends_a_measurement_with_its_reason(measurer: ProcessMeasurer) -> None:
    """The check comes before the download, and partial files are deleted."""

    class FullDisk(RealDisk):
        """A disk without room."""

        def write(self, path: Path, data: bytes) -> None:
            """Fail as the kernel does."""
            raise OSError(errno.ENOSPC, f"No space left on device for {len(data)} bytes", str(path))

    ended = replace(measurer, disk=FullDisk()).run(b"{}", FetchProgress())
    assert isinstance(ended, Refusal)
    assert ended.code == "no_space"
    assert list(measurer.state.iterdir()) == []


def test_a_report_that_the_server_does_not_take_is_said(measurer: ProcessMeasurer, tmp_path: Path) -> None:
    """A server that stays away ends in an answer, not in silence."""
    (tmp_path / "report").write_bytes(b"data")
    refused = submit(NOWHERE, "/api/measurements/x/report", tmp_path / "report", FetchProgress(), {})
    assert refused is not None
    assert refused.code == "report_undelivered"
    assert "secret" not in refused.text
    assert measurer.limits == LIMITS


def test_a_child_that_was_killed_is_told_from_one_that_fell_over(tmp_path: Path) -> None:
    """The kernel kills the measurement first if memory is exhausted; the error explains that."""
    log = tmp_path / "child.log"
    log.write_bytes(b"Traceback: x\n")
    killed, fallen = _verdict(-9, log), _verdict(1, log)
    assert killed is not None
    assert fallen is not None
    assert "no memory for a second model" in killed.text
    assert fallen.text.endswith("exit 1: Traceback: x")


def test_the_measurer_tells_its_end_from_its_own_thread(measurer: ProcessMeasurer) -> None:
    """The callback runs once, in the measurement's own thread."""
    heard: list[object] = []
    ended = threading.Event()
    measurer.start(b"{}", FetchProgress(), lambda result: (heard.append(result), ended.set()))  # type: ignore[func-returns-value]
    assert ended.wait(30)
    assert [type(item) for item in heard] == [Refusal]
