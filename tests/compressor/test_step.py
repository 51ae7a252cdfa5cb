"""Steps are found again by content, and files appear whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from compressor.errors import PackageError
from compressor.step import Cache, code_digests, network_modules, write_atomically


def test_a_result_is_found_again_for_equal_inputs(tmp_path: Path) -> None:
    """The second run does not make anything."""
    first, second = Cache(tmp_path), Cache(tmp_path)
    made = first.step("a", {"x": "1"}, lambda: b"data")
    again = second.step("a", {"x": "1"}, lambda: pytest.fail("made twice"))
    assert (made.cached, again.cached, again.data, again.digest) == (False, True, b"data", made.digest)
    assert (first.ran, second.found) == (["a"], ["a"])


def test_another_input_makes_another_result(tmp_path: Path) -> None:
    """A changed parameter runs the step again and keeps the old result."""
    cache = Cache(tmp_path)
    cache.step("a", {"x": "1"}, lambda: b"one")
    assert cache.step("a", {"x": "2"}, lambda: b"two").data == b"two"
    assert cache.step("a", {"x": "1"}, lambda: b"never").data == b"one"


def test_a_damaged_result_is_made_anew(tmp_path: Path) -> None:
    """One changed byte is noticed."""
    cache = Cache(tmp_path)
    cache.step("a", {}, lambda: b"data")
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert cache.step("a", {}, lambda: b"data").cached is False


def test_a_step_that_dies_leaves_nothing(tmp_path: Path) -> None:
    """No file appears when making fails."""
    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path).step("a", {}, _interrupted)
    assert list(tmp_path.iterdir()) == []


def _interrupted() -> bytes:
    raise KeyboardInterrupt


def test_changed_code_changes_the_digests() -> None:
    """A module is known by its source, a package by all of its modules."""
    assert len(code_digests(("compressor.step",))["compressor.step"]) == 64
    assert "compressor.data/split.py" in code_digests(("compressor.data",))


@pytest.mark.parametrize(
    ("network", "own"),
    [("resnet8", {"resnet8"}), ("mobilenet_v3_small", {"mobilenet_v3_small", "mobilenet_v2"})],
)
def test_a_network_is_its_own_file_and_what_it_imports(network: str, own: set[str]) -> None:
    """Editing another network makes no training anew."""
    names = {name.rpartition(".")[2] for name in network_modules(network)}
    assert names == {"__init__", *own}
    assert set(code_digests(network_modules(network))) == set(network_modules(network))


def test_a_network_of_ones_own_is_its_package_and_all_of_ours() -> None:
    """It may import any of them, and whatever lies beside it."""
    assert network_modules("mine.nets:build") == ("compressor.networks", "mine.nets", "mine")


def test_knowing_the_code_imports_nothing() -> None:
    """A run that finds every step needs no torch."""
    code = "import sys; from compressor.step import code_digests, network_modules as m; code_digests(m('resnet8'))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print('torch' in sys.modules)"], capture_output=True, check=True
    )
    assert done.stdout.strip() == b"False"


def test_a_folder_that_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    """The message names the path and what to do."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PackageError, match="choose another --out"):
        write_atomically(tmp_path / "file" / "inside", b"data")
