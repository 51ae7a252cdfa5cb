"""Trust files damaged on the device's disk: repaired from the rest, or closed; damage never opens anything."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edge_agent.device.record_file import copy_of
from edge_agent.updater.storage.time_floor import TrustedTime

if TYPE_CHECKING:
    from conftest import Scene

DAY_MS = 86_400_000


def files(scene: Scene) -> list[Path]:
    """Return every file that lasts in the trust of a device."""
    found = [*scene.device.glob("*.json"), *scene.device.glob("tuf/**/*")]
    return sorted(path for path in found if path.is_file())


def test_any_one_damaged_file_neither_stops_nor_opens_the_device(scene: Scene, damage: Callable) -> None:
    """Each file in turn: the good release is still accepted, and replayed metadata still refused."""
    old = scene.saved()["timestamp.json"]
    scene.release(2)
    assert scene.ask().ok
    new, whole = scene.saved()["timestamp.json"], scene.folder / "whole"
    shutil.copytree(scene.device, whole, symlinks=True)
    names = [path.relative_to(scene.device) for path in files(scene)]
    assert len(names) >= 8
    for name in names:
        for timestamp, code in [(old, "metadata_rollback"), (new, "")]:
            shutil.rmtree(scene.device)
            shutil.copytree(whole, scene.device, symlinks=True)
            damage(scene.device / name)
            scene.restore({"timestamp.json": timestamp})
            assert (name, scene.ask().code) == (name, code)


@pytest.mark.parametrize(("name", "code"), [("tuf/time_floor.json", "floor_lost"), ("root.json", "root_lost")])
def test_refuses_when_nothing_is_left_to_go_by(scene: Scene, damage: Callable, name: str, code: str) -> None:
    """Both copies damaged: no install, and the text names the next step. Both missing: as before a first install."""
    assert scene.ask().ok
    damage(scene.device / name)
    damage(copy_of(scene.device / name))
    shutil.rmtree(scene.device / "tuf" / "root_history")
    verdict = scene.ask()
    expected = "" if damage.__name__ == "lose" and code == "floor_lost" else code
    assert verdict.code == expected
    assert "enrol" in verdict.text or not expected


def test_a_root_that_followed_stands_in_for_the_first(scene: Scene) -> None:
    """Root and copy lost: the history that python-tuf keeps is signed just as well."""
    assert scene.ask().ok
    (scene.device / "root.json").unlink()
    copy_of(scene.device / "root.json").unlink()
    assert scene.ask().ok
    assert (scene.device / "root.json").is_file()


def test_a_new_root_may_begin_anew() -> None:
    """Versions bind under one root: how an owner recovers from a stolen online key."""
    seen = TrustedTime(versions={"root": 1, "timestamp": 9})
    assert seen.behind({"root": 1, "timestamp": 8}) == "timestamp"
    assert seen.behind({"root": 1, "timestamp": 9}) == ""
    assert seen.behind({"root": 2, "timestamp": 1}) == ""
    assert TrustedTime(versions={"root": 2}).behind({"root": 1}) == "root"


def test_what_a_killed_verification_left_half_written_is_removed(scene: Scene) -> None:
    """python-tuf never removes it: a device that is switched off often would fill its disk."""
    assert scene.ask().ok
    left = [scene.device / "tuf" / "tmp0a1b2c3d", scene.device / "tuf" / "root_history" / "tmp4e5f"]
    for path in left:
        path.write_bytes(b"{")
    assert scene.ask().ok
    assert [path.exists() for path in left] == [False, False]
