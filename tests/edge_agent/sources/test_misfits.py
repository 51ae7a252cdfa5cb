"""The next step for files that the release does not read: by what was found and what is wanted."""

import pytest

from edge_agent import front_ends
from edge_agent.sources import IMAGE_SUFFIXES
from edge_agent.sources._misfits import kind_of, step_for

SOUND, ROWS, STROKES = front_ends.suffixes("log_mel"), front_ends.suffixes("window"), front_ends.suffixes("stroke")


@pytest.mark.parametrize(
    ("name", "reads", "found", "wanted"),
    [
        ("a.png", ROWS, "pictures", "rows of numbers"),
        ("a.PNG", SOUND, "pictures", "sound"),
        ("a.csv", SOUND, "rows of numbers", "sound"),
        ("a.wav", IMAGE_SUFFIXES, "sound", "pictures"),
        ("a.mp4", SOUND, "videos", "sound"),
    ],
)
def test_names_model_and_folder_where_the_files_are_of_another_kind(
    name: str, reads: frozenset[str], found: str, wanted: str
) -> None:
    """No suffix mends a wrong model: both that may be wrong are named, and no suffix."""
    step = step_for(name, reads)
    assert f"a release that reads {found}" in step
    assert f"set [source] path to one with {wanted}" in step
    assert "suffixes" not in step


@pytest.mark.parametrize(
    ("name", "reads", "step"),
    [
        ("a.gif", IMAGE_SUFFIXES, "save them as"),
        ("a.mp3", SOUND, "ffmpeg"),
        ("a.csv", STROKES, "save them as .json"),
        ("a.dat", ROWS, "add their suffix in [source] suffixes"),
        ("README", SOUND, "add their suffix in [source] suffixes"),
        ("a.mp4", IMAGE_SUFFIXES, "camera"),
    ],
)
def test_names_one_step_where_the_files_may_be_right(name: str, reads: frozenset[str], step: str) -> None:
    """The same kind in another form is converted or named in the settings, as are files that nobody knows."""
    assert step in step_for(name, reads)
    assert "assign a release" not in step_for(name, reads)


@pytest.mark.parametrize("front_end", ["", *front_ends.names()])
def test_every_kind_of_input_that_a_release_reads_is_known(front_end: str) -> None:
    """A front end whose files nobody knows here would get the hint to add a suffix for pictures."""
    reads = front_ends.suffixes(front_end) if front_end else IMAGE_SUFFIXES
    assert any(kind_of(suffix) for suffix in reads)
