"""A release on a USB stick: what the server exports a device imports, and a stick that is not right changes nothing."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edge_agent.control.care import bring
from edge_agent.control.requests import RequestFile
from edge_agent.device.disk import RealDisk
from edge_agent.errors import RequestRefusedError
from edge_agent.updater.storage.imported import BUNDLE, FOLDER
from edge_agent.updater.storage.stick import DeviceKind, stage
from server.errors import UnknownReleaseError
from server.registry.blobs import Blobs
from server.registry.stick import write_stick
from server.registry.versions import Release
from wire.canonical import sha256_file
from wire.codec import from_document
from wire.messages import Desired

if TYPE_CHECKING:
    from tests.faults.trust.conftest import Scene

DAY_MS = 86_400_000
KIND = DeviceKind(hardware="x86_64", runtimes=("onnx",))


def export(scene: Scene, to: Path) -> Path:
    """Write every published release to a stick."""
    blobs = Blobs(scene.folder / "blobs")
    found = []
    for target in scene.repository.targets():
        version = target.custom.version
        blobs.put(target.sha256, [(scene.folder / f"meter-{version}.tfb").read_bytes()])
        found.append(
            Release(
                name=f"meter-{version}",
                model="meter",
                version=version,
                target="gateway",
                path=target.path,
                sha256=target.sha256,
                length_bytes=target.length_bytes,
                certificate={},
                custom=target.custom,
                registered_ms=0,
            )
        )
    write_stick(to, found[-1:], scene.repository, blobs)
    return to


def bundle_of(stick: Path) -> Path:
    """Return the bundle on a stick."""
    (found,) = (stick / "blobs" / "sha256").iterdir()
    return found


@pytest.mark.parametrize("name", ["usb", "release.zip"])
def test_a_release_is_brought_to_a_device_without_a_network(scene: Scene, tmp_path: Path, name: str) -> None:
    """From a folder or a zip; where no agent runs, it waits for one with its metadata and its bundle."""
    stick, said = export(scene, tmp_path / name), []
    assert "is installed when an agent starts" in bring(scene.device, stick, 60.0, said.append)
    request = RequestFile(scene.device).take()
    wish = from_document(Desired, request.arguments)
    assert (wish.release, wish.target, wish.probation_s) == ("meter-1", "meter-1/gateway.tfb", 60.0)
    assert sha256_file(scene.device / FOLDER / BUNDLE) == wish.sha256
    assert said[0].startswith("meter-1: ")


def half(stick: Path) -> None:
    """Cut the bundle, as by a stick that was pulled out."""
    bundle_of(stick).write_bytes(bundle_of(stick).read_bytes()[:-1])


def longer(stick: Path) -> None:
    """Append to the bundle."""
    bundle_of(stick).write_bytes(bundle_of(stick).read_bytes() + b"x")


def forged(stick: Path) -> None:
    """Change a byte of the signed targets."""
    (path,) = (stick / "tuf").glob("*.targets.json")
    path.write_bytes(path.read_bytes().replace(b"gateway", b"gateweg"))


HURTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "half of the bundle": (half, "digest_mismatch"),
    "a longer bundle": (longer, "digest_mismatch"),
    "no bundle": (lambda stick: bundle_of(stick).unlink(), "import_invalid"),
    "no index": (lambda stick: (stick / "release.json").unlink(), "import_invalid"),
    "half of the index": (lambda stick: (stick / "release.json").write_bytes(b'{"targets": ['), "import_invalid"),
    "an index without end": (lambda stick: (stick / "release.json").write_bytes(b" " * 70_000), "import_invalid"),
    "forged targets": (forged, "signature_invalid"),
    "no metadata": (lambda stick: shutil.rmtree(stick / "tuf"), "metadata_unreachable"),
    "another target": (
        lambda stick: (stick / "release.json").write_bytes(b'{"targets": [{"target": "meter-9/gateway.tfb"}]}'),
        "unknown_target",
    ),
    "nothing listed": (lambda stick: (stick / "release.json").write_bytes(b"{}"), "hardware_mismatch"),
}


@pytest.mark.parametrize("what", HURTS)
def test_a_stick_that_is_not_right_changes_nothing(scene: Scene, tmp_path: Path, what: str) -> None:
    """Each has a code and a sentence; nothing of it is left on the device."""
    stick, (hurt, code) = export(scene, tmp_path / "usb"), HURTS[what]
    hurt(stick)
    with pytest.raises(RequestRefusedError) as refused:
        bring(scene.device, stick, 60.0, lambda _text: None)
    assert refused.value.refused == code, refused.value
    assert not (scene.device / FOLDER).exists()
    assert RequestFile(scene.device).take() is None


def test_another_release_on_the_same_stick_replaces_the_first(scene: Scene, tmp_path: Path) -> None:
    """The bundle of the first is gone, whatever else lies there stays, and the stick is right."""
    stick = export(scene, tmp_path / "usb")
    first, own = bundle_of(stick), stick / "blobs" / "sha256" / "notes.txt"
    own.write_text("a person's")
    scene.release(2)
    export(scene, stick)
    assert (first.exists(), own.exists()) == (False, True)
    bring(scene.device, stick, 60.0, lambda _text: None)


def test_a_damaged_index_of_an_earlier_export_deletes_nothing(scene: Scene, tmp_path: Path) -> None:
    """Neither a file that it names outside of the bundles, nor any bundle if it can't be read."""
    stick = export(scene, tmp_path / "usb")
    first = bundle_of(stick)
    for index in (b'{"targets": [{"sha256": "../../release.txt"}]}', b"{"):
        (stick / "release.json").write_bytes(index)
        (stick / "release.txt").write_text("a person's")
        export(scene, stick)
        assert first.exists()
        assert (stick / "release.txt").exists()


def test_a_zip_that_is_none_is_named(scene: Scene, tmp_path: Path) -> None:
    """Cut off, where the stored bundle may look like the zip, or nothing there."""
    stick = export(scene, tmp_path / "release.zip")
    stick.write_bytes(stick.read_bytes()[: stick.stat().st_size // 2])
    for at in (stick, tmp_path / "none.zip"):
        with pytest.raises(RequestRefusedError, match=r"Expected (a folder or an intact zip|release\.json)") as refused:
            bring(scene.device, at, 60.0, lambda _text: None)
        assert refused.value.refused == "import_invalid"


def test_a_zip_with_a_flipped_byte_is_refused(scene: Scene, tmp_path: Path) -> None:
    """In the bundle that it stores."""
    stick = export(scene, tmp_path / "release.zip")
    with zipfile.ZipFile(stick) as archive:
        name = next(name for name in archive.namelist() if name.startswith("blobs/"))
        at = archive.getinfo(name).header_offset + 200
    data = bytearray(stick.read_bytes())
    data[at] ^= 1
    stick.write_bytes(data)
    with pytest.raises(RequestRefusedError) as refused:
        bring(scene.device, stick, 60.0, lambda _text: None)
    assert refused.value.refused == "digest_mismatch"


def test_metadata_that_have_expired_install_nothing(scene: Scene, tmp_path: Path) -> None:
    """A stick from a drawer could carry a release that was withdrawn since."""
    scene.clock_ms[0] -= 40 * DAY_MS
    scene.release(2)
    with pytest.raises(RequestRefusedError) as refused:
        bring(scene.device, export(scene, tmp_path / "usb"), 60.0, lambda _text: None)
    assert refused.value.refused == "metadata_expired"


def test_a_stick_of_another_fleet_is_refused(scene: Scene, tmp_path: Path) -> None:
    """Trust begins at the root of this device's own enrolment, whatever root the stick has."""
    stick = export(scene, tmp_path / "usb")
    other = scene.read("1.root.json")
    other.signatures.clear()
    (scene.device / "root.json").write_bytes(other.to_bytes())
    with pytest.raises(RequestRefusedError) as refused:
        bring(scene.device, stick, 60.0, lambda _text: None)
    assert refused.value.refused == "root_lost"


def test_an_older_stick_after_a_newer_one_is_a_rollback(scene: Scene, tmp_path: Path) -> None:
    """The versions that this device has seen count, on a stick as over the network."""
    older = export(scene, tmp_path / "older")
    scene.release(2)
    bring(scene.device, export(scene, tmp_path / "newer"), 60.0, lambda _text: None)
    RequestFile(scene.device).take()
    with pytest.raises(RequestRefusedError) as refused:
        bring(scene.device, older, 60.0, lambda _text: None)
    assert refused.value.refused == "metadata_rollback"


def test_a_full_disk_is_named_before_anything_is_copied(scene: Scene, tmp_path: Path) -> None:
    """With the bytes that are missing."""
    stick = export(scene, tmp_path / "usb")
    with pytest.raises(RequestRefusedError, match="bytes free below") as refused:
        stage(scene.device, stick, KIND, RealDisk(), reserve_bytes=1 << 60)
    assert (refused.value.refused, (scene.device / FOLDER).exists()) == ("no_space", False)


def test_a_release_that_is_not_signed_is_not_exported(scene: Scene, tmp_path: Path) -> None:
    """Devices would refuse it; an index from before stays."""
    stick = export(scene, tmp_path / "usb")
    with pytest.raises(UnknownReleaseError):
        write_stick(stick, [], scene.repository, Blobs(scene.folder / "blobs"))
    assert (stick / "release.json").exists()
