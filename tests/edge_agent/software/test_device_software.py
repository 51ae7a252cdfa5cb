"""What a device reports of its software."""

import json
from email.message import Message
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from edge_agent.cli import main
from edge_agent.device.disk import RealDisk
from edge_agent.software.installed import installed_software, packages
from edge_agent.software.running import RunningSoftware
from edge_agent.updater.storage.slots import SlotRelease
from wire import __version__
from wire.codec import from_document
from wire.messages import Command
from wire.software import (
    ComponentKind,
    SoftwareAnswer,
    SoftwareComponent,
    SoftwareList,
    software_of,
    unpack_software,
)

BASE = software_of([SoftwareComponent(ComponentKind.PACKAGE, "numpy", "2.1.0")])
OTHER = software_of([SoftwareComponent(ComponentKind.PACKAGE, "numpy", "2.2.0")])
RELEASE = SlotRelease(release="meter-digits-3", sha256="a" * 64)


class Named(metadata.Distribution):
    """An installed package with made-up metadata."""

    def __init__(self, name: str | None, version: str | None) -> None:
        """Hold the two fields."""
        self._message = Message()
        for key, value in (("Name", name), ("Version", version)):
            if value is not None:
                self._message[key] = value

    @property
    def metadata(self) -> Message:  # type: ignore[override]  # as the standard library's
        """The fields."""
        return self._message

    def read_text(self, filename: str) -> None:
        """Has no files."""

    def locate_file(self, path: object) -> Path:
        """Has no files."""
        return Path(str(path))


def running(state: Path, base: SoftwareList | None = BASE) -> RunningSoftware:
    """Return the reporter of an agent that starts now."""
    return RunningSoftware(state=state, disk=RealDisk(), base=base)


def test_the_list_has_agent_python_system_and_packages() -> None:
    """This machine's own, with the versions that are installed."""
    found = {(one.kind, one.key): one.version for one in installed_software().components}
    assert found[ComponentKind.AGENT, "tinyfleet"] == __version__
    assert found[ComponentKind.PACKAGE, "numpy"] == metadata.version("numpy")
    assert found[ComponentKind.RUNTIME, "onnxruntime"] == metadata.version("onnxruntime")
    kinds = {kind for kind, _ in found}
    assert kinds >= {ComponentKind.PYTHON, ComponentKind.KERNEL, ComponentKind.ARCHITECTURE}


def test_of_two_packages_of_a_name_the_first_counts_and_broken_metadata_are_none() -> None:
    """As Python imports them; an interrupted installation leaves metadata without a name."""
    found = packages(
        [Named("My_Pkg", "1"), Named("my-pkg", "2"), Named(None, None), Named("onnx-rt", None)], {"onnx-rt"}
    )
    assert found == (
        SoftwareComponent(ComponentKind.PACKAGE, "My_Pkg", "1"), SoftwareComponent(ComponentKind.RUNTIME, "onnx-rt"),
    )  # fmt: skip


def test_since_when_it_runs_survives_restarts_and_moves_with_a_change(tmp_path: Path) -> None:
    """The same software keeps its time, weeks later too; another one, or another release, begins anew."""
    first = running(tmp_path).installed((), 1_000)
    assert first is not None
    assert running(tmp_path).installed((), 9_000_000) == first
    changed = running(tmp_path, OTHER).installed((), 9_500_000)
    assert changed is not None
    assert (changed.since_ms, changed.sha256 != first.sha256) == (9_500_000, True)
    agent = running(tmp_path, OTHER)
    released = agent.installed((RELEASE,), 9_600_000)
    assert released is not None
    assert released.since_ms == 9_600_000
    assert agent.installed((RELEASE,), 0) == released


def test_a_damaged_record_counts_as_new(tmp_path: Path) -> None:
    """It never stops the agent."""
    (tmp_path / "software.json").write_bytes(b"\xff{")
    found = running(tmp_path).installed((), 7)
    assert found is not None
    assert found.since_ms == 7


def test_answers_with_the_list_of_the_digest_that_it_reports(tmp_path: Path) -> None:
    """The server gets what was reported, models included; of another digest nothing."""
    agent = running(tmp_path)
    reported = agent.installed((RELEASE,), 1_000)
    assert reported is not None
    answer = agent.answer(Command(id="1", arguments={"sha256": reported.sha256}))
    found, _ = unpack_software(from_document(SoftwareAnswer, answer.data), reported.sha256)
    assert SoftwareComponent(ComponentKind.MODEL, "meter-digits", "3", sha256="a" * 64) in found.components
    for other in ("b" * 64, None, 5):
        refused = agent.answer(Command(id="2", arguments={"sha256": other}))
        assert (refused.ok, refused.code) == (False, "software_changed")


def test_without_a_list_nothing_is_reported(tmp_path: Path) -> None:
    """An agent that is built without it reports as one of before."""
    assert running(tmp_path, None).installed((), 1_000) is None
    assert not (tmp_path / "software.json").exists()


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_prints_the_list(tmp_path: Path, *, as_json: bool) -> None:
    """As a table, and as a valid CycloneDX document."""
    arguments = ["software", "--state", str(tmp_path), *(["--json"] if as_json else [])]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0
    if as_json:
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(result.stdout) is None
        assert json.loads(result.stdout)["specVersion"] == "1.6"
    else:
        assert f"agent\ttinyfleet\t{__version__}\t" in result.stdout.splitlines()
