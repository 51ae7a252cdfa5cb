"""Which folders may be consumed: none that contains files of the agent or of a person."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent import sources
from edge_agent.config import AgentConfig, read_config
from edge_agent.device.clock import FakeClock
from edge_agent.errors import SourceError
from edge_agent.sources import SourceConfig, placed


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a state directory with an agent's usual files, below a separate home."""
    home = tmp_path / "home"
    state = home / "device" / "state"
    for folder in ("blobs/sha256", "slots", "inbox/deep", "source", "bad"):
        (state / folder).mkdir(parents=True)
    for file in ("identity.json", "spool.db", "status.json"):
        (state / file).write_text("kept")
    monkeypatch.setenv("HOME", str(home))
    return state


def _linked(target: Path, link: Path) -> Path:
    link.symlink_to(target)
    return link


@pytest.mark.parametrize(
    "place",
    [
        lambda state: state, lambda state: state.parent, lambda state: state.parent.parent,
        lambda state: state.parents[2], lambda _: Path("/"), lambda state: state / "blobs",
        lambda state: state / "blobs" / "sha256", lambda state: state / "slots", lambda state: state / "new",
        lambda state: state / "inbox" / "..", lambda state: _linked(state, state.parent / "link"),
        lambda state: _linked(state / "slots", state.parent / "link"),
        lambda state: _linked(state.parent, state / "inbox" / "up"),
    ],
)  # fmt: skip
def test_refuses_a_folder_that_holds_or_lies_in_what_is_kept(place: Callable[[Path], Path], state: Path) -> None:
    """State, its parents, home, root and the agent's folders, by any path or link; nothing is touched."""
    before = sorted(str(path) for path in state.rglob("*") if path.is_file())
    folder = place(state)
    with pytest.raises(SourceError, match=r"Expected in \[source\] path a folder of its own"):
        sources.load({"kind": "directory", "path": str(folder)}, FakeClock(), sources.Surroundings(state=state))
    with pytest.raises(SourceError):
        placed(SourceConfig(keys={"path": str(folder)}), state)
    assert sorted(str(path) for path in state.rglob("*") if path.is_file()) == before


def test_a_home_that_can_not_be_looked_at_holds_nothing(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service with ProtectHome=yes, whose user has a home: the agent starts."""
    monkeypatch.setenv("HOME", f"/{'x' * 300}")  # any error but "there is none"; nothing is hidden from root
    config = placed(SourceConfig(keys={"path": str(state / "inbox")}), state)
    assert config.keys["path"] == str(state / "inbox")


def test_refuses_where_a_link_in_the_state_directory_leads(state: Path, tmp_path: Path) -> None:
    """Blobs on another disk are the agent's too."""
    disk = tmp_path / "disk"
    disk.mkdir()
    (state / "blobs2").symlink_to(disk)
    with pytest.raises(SourceError, match="keeps its own files in"):
        placed(SourceConfig(keys={"path": str(disk)}), state)


@pytest.mark.parametrize("name", ["inbox", "inbox/deep"])
def test_takes_the_inbox_of_the_state_directory(name: str, state: Path) -> None:
    """The inbox contains nothing else, and neither do the folders below it."""
    assert placed(SourceConfig(keys={"path": str(state / name)}), state).keys["path"] == str(state / name)


def test_takes_a_folder_of_its_own_anywhere_else(state: Path) -> None:
    """Beside the state directory, and below the home directory."""
    for folder in (state.parent / "pictures", state.parents[1] / "camera"):
        assert placed(SourceConfig(keys={"path": str(folder)}), state).keys["path"] == str(folder)


def test_the_default_lies_below_the_state_directory_never_in_the_working_directory(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With and without agent.toml, wherever the agent is started."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agent.toml").write_text("[monitor]\nwindow_s = 60\n")
    for config in (AgentConfig(), read_config(tmp_path / "agent.toml")):
        assert placed(config.source, state).keys["path"] == str(state / "inbox")
    assert not (tmp_path / "inbox").exists()


def test_a_folder_on_a_card_that_is_away_ends_nothing(state: Path, tmp_path: Path) -> None:
    """Without its card the agent starts degraded and reports it; a file is not accepted as a folder."""
    card = tmp_path / "card"
    (tmp_path / "link").symlink_to(card)
    for folder in (tmp_path / "link", tmp_path / "file" / "pictures"):
        (tmp_path / "file").write_bytes(b"")
        assert placed(SourceConfig(keys={"path": str(folder)}), state).keys["path"] == str(folder)
    with pytest.raises(SourceError, match="which is none: name a folder"):
        placed(SourceConfig(keys={"path": str(tmp_path / "file")}), state)
