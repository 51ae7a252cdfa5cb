"""Results are found again by their inputs, and files are complete or absent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from compressor.cache import Cache, Stage, write_atomically
from compressor.errors import PackageError


def giving(data: bytes | BaseException) -> Callable[[], bytes]:
    """Return a function of one of our modules that makes ``data``."""

    def make() -> bytes:
        if isinstance(data, BaseException):
            raise data
        return data

    make.__module__ = "wire.durable"
    return make


def test_a_result_is_found_again_for_equal_inputs(tmp_path: Path) -> None:
    """The second run does not make anything."""
    first, second = Cache(tmp_path), Cache(tmp_path)
    made = first.result(Stage(name="a", inputs={"x": "1"}, make=giving(b"data")))
    again = second.result(Stage(name="a", inputs={"x": "1"}, make=giving(AssertionError("made twice"))))
    assert (made.cached, again.cached, again.data, again.digest) == (False, True, b"data", made.digest)
    assert (first.ran, second.found) == (["a"], ["a"])


def test_another_input_makes_another_result(tmp_path: Path) -> None:
    """A changed parameter runs the step again and keeps the old result."""
    cache = Cache(tmp_path)
    cache.result(Stage(name="a", inputs={"x": "1"}, make=giving(b"one")))
    assert cache.result(Stage(name="a", inputs={"x": "2"}, make=giving(b"two"))).data == b"two"
    assert cache.result(Stage(name="a", inputs={"x": "1"}, make=giving(b"never"))).data == b"one"


def test_a_damaged_result_is_made_anew(tmp_path: Path) -> None:
    """One changed byte is noticed."""
    cache = Cache(tmp_path)
    cache.result(Stage(name="a", inputs={}, make=giving(b"data")))
    (file,) = cache.results.iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert cache.result(Stage(name="a", inputs={}, make=giving(b"data"))).cached is False


def test_a_step_that_dies_leaves_nothing(tmp_path: Path) -> None:
    """No file appears when making fails."""
    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path).result(Stage(name="a", inputs={}, make=giving(KeyboardInterrupt())))
    assert list(tmp_path.iterdir()) == []


def test_other_code_makes_another_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an edit of a module that an entry imports, earlier results are not found."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "entry_y.py").write_text("def run():\n    import deep_y\n")
    (tmp_path / "deep_y.py").write_text("FACTOR = 1\n")
    cache, uses = Cache(tmp_path / "cache"), ("entry_y",)
    made = [cache.result(Stage(name="a", inputs={}, make=giving(b"one"), uses=uses)).cached for _ in range(2)]
    (tmp_path / "deep_y.py").write_text("FACTOR = 2\n")
    assert [*made, cache.result(Stage(name="a", inputs={}, make=giving(b"two"), uses=uses)).cached] == [
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("left", "said"),
    [("train-0123456789abcdef01234567", "of an older version"), ("v1", "of version 1"), ("v99", "of version 99")],
)
def test_a_cache_of_another_version_is_left_aside_with_a_sentence(tmp_path: Path, left: str, said: str) -> None:
    """Neither read nor removed; the message is printed once, before there are results of this version."""
    (tmp_path / left).write_bytes(b"another layout")
    cache = Cache(tmp_path)
    assert said in cache.left_aside()
    assert cache.result(Stage(name="train", inputs={}, make=giving(b"data"))).cached is False
    assert (tmp_path / left).read_bytes() == b"another layout"
    assert cache.left_aside() == ""


def test_a_cache_of_this_version_or_none_is_no_news(tmp_path: Path) -> None:
    """An empty or missing folder is a first run."""
    assert Cache(tmp_path / "none").left_aside() == Cache(tmp_path).left_aside() == ""


def test_a_folder_that_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    """The message names the path and the next step."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PackageError, match="choose another --out"):
        write_atomically(tmp_path / "file" / "inside", b"data")
