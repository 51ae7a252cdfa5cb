"""Two distributions own the same files: one environment may hold one of them."""

from pathlib import Path

import pytest

from wire.errors import InstallationError
from wire.installation import check_alone, install_name

FULL, SLIM = "tinyfleet-0.2.0.dist-info", "tinyfleet_agent-0.2.1.dist-info"


@pytest.mark.parametrize(
    ("folders", "name"),
    [
        ([FULL], "tinyfleet"),
        ([SLIM], "tinyfleet-agent"),
        ([], "tinyfleet"),
        ([FULL, "tinyfleet_agents-1.dist-info", "tinyfleet_agent"], "tinyfleet"),
    ],
)
def test_one_distribution_is_accepted(folders: list[str], name: str, tmp_path: Path) -> None:
    """It also says under which name its extras are installed; a clone is the whole."""
    for folder in folders:
        (tmp_path / folder).mkdir()
    check_alone(tmp_path)
    assert install_name(tmp_path) == name


def test_two_distributions_are_refused_with_the_way_out(tmp_path: Path) -> None:
    """The sentence names both, the folder, and the command."""
    for folder in (FULL, SLIM):
        (tmp_path / folder).mkdir()
    with pytest.raises(InstallationError, match=r"got both in .*; run pip uninstall tinyfleet tinyfleet-agent"):
        check_alone(tmp_path)


def test_a_folder_that_can_not_be_listed_is_no_error(tmp_path: Path) -> None:
    """A program in a zip file has no folder."""
    check_alone(tmp_path / "app.zip")
