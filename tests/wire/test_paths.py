"""Paths of configurations."""

import os
import pwd

import pytest

from wire.errors import PathError
from wire.paths import without_tilde


@pytest.mark.parametrize("path", ["", "a/b", "/a/~", "./~/a", "a~"])
def test_leaves_every_other_path_as_it_is(path: str) -> None:
    """A tilde means a home at the start alone."""
    assert without_tilde(path) == path


def test_a_tilde_is_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this user, as the environment has it, or of the one that is named."""
    monkeypatch.setenv("HOME", "/home/of me")
    assert (without_tilde("~"), without_tilde("~/a")) == ("/home/of me", "/home/of me/a")
    user = pwd.getpwuid(os.getuid())
    assert without_tilde(f"~{user.pw_name}/a") == os.path.join(user.pw_dir, "a")  # noqa: PTH118 - as it is written


def test_a_home_that_nobody_has_is_refused() -> None:
    """No folder named ``~nobody-here`` is created."""
    with pytest.raises(PathError, match="a home directory for ~nobody-here in the path ~nobody-here/a, got none"):
        without_tilde("~nobody-here/a")


def test_a_nul_character_is_refused() -> None:
    """The system would answer with an error that names no path."""
    with pytest.raises(PathError, match=r"without a NUL character, got 'a\\x00b'"):
        without_tilde("a\0b")
