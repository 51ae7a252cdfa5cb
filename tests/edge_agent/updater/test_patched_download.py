"""Bundles made from patches: real patches, the real child, the fallback to the full bundle."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from compressor.release.patches import make_patch
from edge_agent.device.disk import RealDisk
from edge_agent.updater.ports import FetchOrder, FetchProgress, MemoryFetcher, Refusal
from edge_agent.updater.transfer.patched_download import PatchedFetcher
from tests.edge_agent.updater.conftest import Device, Release
from wire.messages import UpdatePhase
from wire.tuf_target import Delta


def digest(data: bytes) -> str:
    """Return the SHA-256."""
    return hashlib.sha256(data).hexdigest()


@dataclass
class Counted:
    """Blobs in memory, and what was fetched."""

    fetcher: MemoryFetcher
    fetched: list[str] = field(default_factory=list)

    def fetch(self, order: FetchOrder, progress: FetchProgress) -> Refusal | None:
        """Fetch and count."""
        self.fetched.append(order.sha256)
        return self.fetcher.fetch(order, progress)


@dataclass
class Patched:
    """A device's blob folder with a base, and what the server has."""

    folder: Path
    base: bytes
    new: bytes
    patch: bytes
    blobs: dict[str, bytes | Refusal]
    counted: Counted
    progress: FetchProgress = field(default_factory=FetchProgress)

    @property
    def delta(self) -> Delta:
        """What the signed target says about the patch."""
        return Delta(base_sha256=digest(self.base), sha256=digest(self.patch), length_bytes=len(self.patch))

    def fetch(self, *deltas: Delta) -> Refusal | None:
        """Fetch the new bundle."""
        order = FetchOrder(digest(self.new), len(self.new), deltas=deltas or (self.delta,))
        return PatchedFetcher(self.counted, self.folder, RealDisk()).fetch(order, self.progress)

    @property
    def there(self) -> list[str]:
        """The names in the blob folder."""
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def patched(tmp_path: Path, release: Callable[..., Release]) -> Patched:
    """A device that has release 1; the server has release 2 and a patch."""
    base, new = release(1).data, release(2).data
    patch = make_patch(base, new)
    blobs: dict[str, bytes | Refusal] = {digest(new): new, digest(patch): patch}
    (tmp_path / digest(base)).write_bytes(base)
    return Patched(tmp_path, base, new, patch, blobs, Counted(MemoryFetcher(blobs, tmp_path)))


def test_fetches_the_patch_and_keeps_only_its_result(patched: Patched) -> None:
    """The full bundle is not fetched; the patch is removed again."""
    assert patched.fetch() is None
    assert patched.counted.fetched == [digest(patched.patch)]
    assert patched.there == sorted([digest(patched.base), digest(patched.new)])
    assert (patched.folder / digest(patched.new)).read_bytes() == patched.new
    assert (patched.progress.done_bytes, patched.progress.fetched_bytes) == (len(patched.new), len(patched.patch))
    assert f"a patch of {len(patched.patch)} bytes" in patched.progress.how


def test_without_its_base_the_patch_is_not_fetched(patched: Patched) -> None:
    """Neither if the base is missing nor if it is damaged."""
    (patched.folder / digest(patched.base)).write_bytes(patched.base[:-1])
    assert patched.fetch() is None
    assert patched.counted.fetched == [digest(patched.new)]
    assert not patched.progress.how


def test_the_rest_of_a_download_is_fetched_if_that_is_less(patched: Patched) -> None:
    """A part that lacks fewer bytes than the patch has goes on."""
    part = patched.folder / f"{digest(patched.new)}.part"
    part.write_bytes(patched.new[: -len(patched.patch)])
    assert patched.fetch() is None
    assert patched.counted.fetched == [digest(patched.new)]


@pytest.mark.parametrize("fault", ["damaged", "missing", "other", "nothing"])
def test_whatever_is_wrong_with_a_patch_the_full_bundle_is_fetched(
    patched: Patched, fault: str, release: Callable[..., Release]
) -> None:
    """Damaged, gone from the server, or of another result; the reason is told."""
    good, name = patched.patch, digest(patched.patch)
    other = make_patch(patched.base, release(3).data)
    served = {"damaged": good[:-3], "missing": Refusal("http_404", "gone"), "other": other, "nothing": b""}
    patched.blobs[name] = served[fault]
    assert patched.fetch() is None
    assert patched.counted.fetched == [name, digest(patched.new)]
    assert patched.there == sorted([digest(patched.base), digest(patched.new)])
    codes = {"damaged": "patch_invalid", "missing": "http_404", "other": "digest_mismatch", "nothing": "patch_invalid"}
    assert codes[fault] in patched.progress.how
    came = b"" if fault == "missing" else patched.blobs[name]
    assert isinstance(came, bytes)
    assert patched.progress.fetched_bytes == len(came) + len(patched.new), "the patch in vain counts too"


def test_a_newer_desired_state_ends_it(patched: Patched) -> None:
    """A cancelled patch does not start the full download."""
    patched.blobs[digest(patched.patch)] = Refusal("superseded", "a newer desired state")
    patched.progress.cancelled.set()
    assert patched.fetch() == Refusal("superseded", "a newer desired state")
    assert patched.counted.fetched == [digest(patched.patch)]


def test_an_update_names_the_patch_in_its_record(device: Device, release: Callable[..., Release]) -> None:
    """The signed patches reach the fetcher, also after a restart; the record says how the bundle came."""
    device.install(release(1))
    new, base = device.publish(release(2)), device.slots.current()
    assert base is not None
    patch = make_patch(release(1).data, new.data)
    delta = Delta(base_sha256=base.sha256, sha256=digest(patch), length_bytes=len(patch))
    device.blobs = {digest(patch): patch}
    device.targets[new.desired.target] = replace(new.target, custom=replace(new.target.custom, deltas=(delta,)))
    device.restart()
    device.offer(new.desired)
    device.worker.work()
    job = device.done.get()
    device.updater.finished(job.token, job.result, device.now_ms, device.now_s)
    assert device.updater.record.phase is UpdatePhase.DOWNLOADING
    device.restart()
    folder = device.state / "blobs" / "sha256"
    fetcher = PatchedFetcher(MemoryFetcher(device.blobs, folder), folder, device.disk)
    device.updater.ports = replace(device.updater.ports, fetcher=fetcher)
    device.work()
    assert "made from a patch" in device.updater.record.text
