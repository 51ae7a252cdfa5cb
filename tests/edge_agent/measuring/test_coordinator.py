"""When a device starts a measurement, when it stops it, and its answers: no threads, no processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from edge_agent.config import MeasureConfig
from edge_agent.device.disk import RealDisk
from edge_agent.device.hardware import Hardware
from edge_agent.measuring.coordinator import (
    FOLDER,
    NOTE,
    DeviceCondition,
    MeasureDone,
    MeasurementCoordinator,
    NoMeasurer,
    SubmittedReport,
    refusal,
)
from edge_agent.updater.ports import FetchProgress, Refusal
from wire.messages import MAX_ENVELOPE_BYTES, Command, Response

ORDER = {"payloadType": "t", "payload": "e30=", "signatures": []}
COMMAND = Command(id="c-1", verb="measure", arguments={"order": ORDER})


@dataclass
class HeldMeasurer:
    """A measurer whose measurement lasts until the test ends it."""

    done: list[Callable[[object], None]] = field(default_factory=list)
    progress: list[FetchProgress] = field(default_factory=list)

    def start(self, envelope: bytes, progress: FetchProgress, done: Callable[[object], None]) -> None:
        """Keep it."""
        assert envelope
        self.done.append(done)
        self.progress.append(progress)


@dataclass
class Scene:
    """A coordinator and all its answers."""

    state: Path
    measurer: HeldMeasurer = field(default_factory=HeldMeasurer)
    condition: DeviceCondition = field(default_factory=DeviceCondition)
    answers: list[Response] = field(default_factory=list)
    notices: list[MeasureDone] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def coordinator(self, config: MeasureConfig | None = None) -> MeasurementCoordinator:
        """Return a coordinator on this state."""
        return MeasurementCoordinator(
            state=self.state,
            disk=RealDisk(),
            measurer=self.measurer,
            config=config or MeasureConfig(),
            condition=lambda: self.condition,
            put=self.notices.append,
            answer=self.answers.append,
            report=lambda code, _text: self.events.append(code),
        )


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A device without a measurement."""
    return Scene(tmp_path)


def test_answers_when_the_measurement_has_ended(scene: Scene) -> None:
    """Nothing is answered at once; then the report's digest is."""
    coordinator = scene.coordinator()
    assert coordinator.receive(COMMAND) is None
    scene.measurer.done[0](SubmittedReport("ab" * 16, "cd" * 32))
    coordinator.finished(scene.notices[0])
    assert scene.events == ["measure_begun", "measured"]
    assert scene.answers == [Response(id="c-1", ok=True, data={"order": "ab" * 16, "report_sha256": "cd" * 32})]
    assert not (scene.state / NOTE).exists()


def test_measures_one_at_a_time(scene: Scene) -> None:
    """A second order is refused while the first runs, and taken up after it."""
    coordinator = scene.coordinator()
    coordinator.receive(COMMAND)
    second = coordinator.receive(replace(COMMAND, id="c-2"))
    assert second is not None
    assert second.code == "busy"
    scene.measurer.done[0](Refusal("no_space", "full"))
    coordinator.finished(scene.notices[0])
    assert [answer.code for answer in scene.answers] == ["no_space"]
    assert coordinator.receive(replace(COMMAND, id="c-3")) is None


@pytest.mark.parametrize(
    ("condition", "config", "code"),
    [
        (DeviceCondition(), MeasureConfig(enabled=False), "measure_disabled"),
        (DeviceCondition(updating=True), MeasureConfig(), "busy"),
        (DeviceCondition(temperature_celsius=80.5), MeasureConfig(), "throttled"),
        (DeviceCondition(battery_ratio=0.29), MeasureConfig(), "battery_low"),
        (DeviceCondition(99.0, 0.31), MeasureConfig(max_temperature_celsius=0.0), ""),
        (DeviceCondition(), MeasureConfig(), ""),
    ],
)
def test_a_weak_or_busy_device_refuses(condition: DeviceCondition, config: MeasureConfig, code: str) -> None:
    """Its owner, an update, heat and an empty battery come first."""
    refused = refusal(condition, config)
    assert (refused.code if refused else "") == code


@pytest.mark.parametrize("order", [None, "text", {"payload": "x" * MAX_ENVELOPE_BYTES}], ids=["none", "text", "long"])
def test_an_order_that_is_none_is_refused(scene: Scene, order: object) -> None:
    """Before anything is written or started."""
    refused = scene.coordinator().receive(Command(id="c-1", verb="measure", arguments={"order": order}))  # type: ignore[dict-item]
    assert refused is not None
    assert refused.code == "arguments_invalid"
    assert list(scene.state.iterdir()) == []


def test_gives_way_to_an_update(scene: Scene) -> None:
    """An update in the middle ends the measurement."""
    coordinator = scene.coordinator()
    coordinator.receive(COMMAND)
    coordinator.turn()
    assert not scene.measurer.progress[0].cancelled.is_set()
    scene.condition = DeviceCondition(updating=True)
    coordinator.turn()
    assert scene.measurer.progress[0].cancelled.is_set()


def test_says_that_a_restart_cut_a_measurement_short(scene: Scene) -> None:
    """The next start answers the command that was in progress and deletes its files."""
    scene.coordinator().receive(COMMAND)
    (scene.state / FOLDER).mkdir()
    (scene.state / FOLDER / "rows").write_bytes(b"half")
    scene.coordinator().resume()
    assert [(answer.id, answer.code) for answer in scene.answers] == [("c-1", "interrupted")]
    assert list(scene.state.iterdir()) == []
    scene.coordinator().resume()
    assert (len(scene.answers), scene.events) == (1, ["measure_begun", "interrupted"])


def test_a_damaged_note_stops_nothing(scene: Scene) -> None:
    """A note that a power cut left half-written is deleted."""
    (scene.state / NOTE).write_bytes(b"{")
    scene.coordinator().resume()
    assert scene.answers == []
    assert list(scene.state.iterdir()) == []


def test_a_fault_of_ours_is_answered_too(scene: Scene) -> None:
    """The waiting host gets an answer."""
    coordinator = scene.coordinator()
    coordinator.receive(COMMAND)
    scene.measurer.done[0](ZeroDivisionError("by zero"))
    coordinator.finished(scene.notices[0])
    assert (scene.answers[0].ok, scene.answers[0].code) == (False, "measure_failed")
    assert scene.events == ["measure_begun", "measure_failed"]


def test_an_agent_that_does_not_measure_says_so(scene: Scene) -> None:
    """No order is left without an answer."""
    coordinator = replace(scene.coordinator(), measurer=NoMeasurer())
    coordinator.receive(COMMAND)
    coordinator.finished(scene.notices[0])
    assert scene.answers[0].code == "unsupported"


def test_the_emptiest_discharging_battery_counts(tmp_path: Path) -> None:
    """A battery on the charger and a device without one count as full."""
    hardware = Hardware(state=tmp_path, sys=tmp_path)
    assert hardware.battery_ratio() == 1.0
    for name, capacity, status in (("a", 20, "Charging"), ("b", 45, "Discharging"), ("c", 50, "Discharging")):
        folder = tmp_path / "class" / "power_supply" / name
        folder.mkdir(parents=True)
        (folder / "capacity").write_text(f"{capacity}\n")
        (folder / "status").write_text(f"{status}\n")
    assert hardware.battery_ratio() == 0.45
