"""From build host to server over real HTTP: only passed releases, nothing twice, nothing partial."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from compressor.errors import (
    GateNotPassedError,
    PackageError,
    PublishError,
    ReleaseExistsError,
    ServerUnreachableError,
    TrustError,
    VersionConflictError,
)
from compressor.release.keys import init_keys
from compressor.release.publish import Published, _check, publish
from compressor.release.signing import sign_bundles
from edge_agent.updater.verification import TargetVerdict, run
from server.app.server import ServerApp
from server.app.state_directory import init_state
from server.cli import main
from server.errors import MetadataRefusedError
from server.trust.online_keys import init_online_keys
from server.trust.repository import _check_targets, mark_copy
from server.trust.roots import install_root
from wire.canonical import sha256_hex
from wire.memory_broker import MemoryBroker, MemoryTransport
from wire.patch import apply_patch

Bundles = Callable[..., Path]


@dataclass
class Site:
    """A complete server on HTTP and a build host."""

    folder: Path
    app: ServerApp
    token: str
    sent: list[int] = field(default_factory=list)  # bytes of each piece that was sent

    def publish(self, *bundles: Path, keys: str = "keys", token: str | None = None) -> Published:
        """Publish from one of the build hosts."""
        where = {"keys": self.folder / keys, "server_url": self.app.http_url, "token": token or self.token}
        return publish(list(bundles), **where, progress=self.sent.append)

    def ask(self, target: str) -> TargetVerdict:
        """Let a device judge a target."""
        device = self.folder / "device"
        device.mkdir(exist_ok=True)
        (device / "root.json").write_bytes(self.app.parts.trust.root() or b"")
        (device / "identity.json").write_text(json.dumps({"site": "s", "device": "d", "http_url": self.app.http_url}))
        return run(device, target, None, self.app.clock())

    def releases(self) -> list[str]:
        """Return the names of all releases that may be rolled out."""
        return [release.name for release in self.app.parts.versions.releases()]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A server with a root, running."""
    state = init_state(tmp_path / "state")
    install_root(state.path, init_keys(tmp_path / "keys", init_online_keys(state.path)))
    app = ServerApp.open(state.path, transport=MemoryTransport(broker=MemoryBroker(), client_id="server"), pages=False)
    app.start()
    yield Site(tmp_path, app, state.token("builder"))
    app.stop()


def test_publishes_registers_and_devices_believe(site: Site, bundle: Bundles) -> None:
    """All steps, twice: the second time nothing is sent."""
    first = site.publish(bundle(1), bundle(2, security_floor=3))
    assert first.paths == ("meter-1/gateway.tfb", "meter-2/gateway.tfb")
    assert sum(site.sent) > 0
    site.sent.clear()
    site.publish(bundle(1))
    assert site.sent == []
    assert site.releases() == ["meter-1", "meter-2"]
    verdict = site.ask("meter-2/gateway.tfb")
    assert (verdict.ok, verdict.custom.security_floor) == (True, 3)


def test_an_export_makes_no_folder_but_the_last_and_says_so(site: Site, bundle: Bundles) -> None:
    """Below a folder that is not there (not mounted, mistyped) it is refused; the second time none is made."""
    site.publish(bundle(1))
    export = ["releases", "export", str(site.folder / "state"), "meter-1"]
    done = CliRunner().invoke(main, [*export, str(site.folder / "media" / "usb")])
    assert (done.exit_code, f"Expected a folder at {site.folder / 'media'}, got none" in done.stderr) == (2, True)
    assert not (site.folder / "media").exists()
    for made in (True, False):
        done = CliRunner().invoke(main, [*export, str(site.folder / "usb")])
        assert (done.exit_code, done.stdout.startswith("meter-1: 1 bundle, ")) == (0, True)
        assert (f"in a new folder, {site.folder / 'usb'}\n" in done.stdout) is made


def test_signs_nothing_that_did_not_pass(site: Site, bundle: Bundles) -> None:
    """Failed and inconclusive certificates, and files that are no bundle, are not published."""
    for verdict in ("fail", "inconclusive", "PASS!"):
        with pytest.raises(GateNotPassedError):
            site.publish(bundle(1, verdict=verdict))
    broken = site.folder / "broken.tfb"
    broken.write_bytes(b"no zip")
    with pytest.raises(PackageError):
        site.publish(broken)
    assert site.releases() == []


def test_a_name_is_never_signed_twice_with_other_bytes(site: Site, bundle: Bundles) -> None:
    """Other bytes need another version."""
    site.publish(bundle(1))
    with pytest.raises(ReleaseExistsError):
        site.publish(bundle(1, security_floor=1))


def test_takes_the_server_s_newer_list_when_our_key_signed_it(site: Site, bundle: Bundles) -> None:
    """A second build host with the same keys adds to the releases of the first."""
    shutil.copytree(site.folder / "keys", site.folder / "other")
    site.publish(bundle(1))
    assert site.publish(bundle(2), keys="other").version == 3
    assert site.releases() == ["meter-1", "meter-2"]


def test_a_server_of_an_older_copy_is_believed_again_once_a_release_that_it_has_is_published(
    site: Site, bundle: Bundles
) -> None:
    """A device that saw the later list refuses its own; the build host signs it again above, and only once."""
    state = site.folder / "state"
    site.publish(bundle(1))
    shutil.copytree(state / "tuf", site.folder / "copy" / "tuf")
    mark_copy(site.folder / "copy", site.app.clock())
    site.publish(bundle(2))
    assert site.ask("meter-2/gateway.tfb").ok
    shutil.rmtree(state / "tuf")
    shutil.move(site.folder / "copy" / "tuf", state / "tuf")
    assert site.app.parts.trust.leap(site.app.clock())
    refused = site.ask("meter-1/gateway.tfb")
    assert (refused.code, "publish again from the build host" in refused.text) == ("metadata_rollback", True)
    assert site.publish(bundle(1)).version == site.publish(bundle(1)).version == 4
    assert site.ask("meter-1/gateway.tfb").ok


def test_refuses_a_list_that_another_key_signed(site: Site, bundle: Bundles) -> None:
    """Keys of another fleet can neither read nor publish."""
    site.publish(bundle(1))
    init_keys(site.folder / "foreign", site.folder / "state" / "online.pub.json")
    with pytest.raises(TrustError):
        site.publish(bundle(2), keys="foreign")


def test_a_patch_from_a_base_is_signed_and_uploaded(site: Site, bundle: Bundles) -> None:
    """The device reads it in the signed target, the server has its bytes; another model's bundle gives none."""
    base, new, other = bundle(1), bundle(2), bundle(3, model="other")
    site.publish(base)
    where = {"keys": site.folder / "keys", "server_url": site.app.http_url, "token": site.token}
    done = publish([new], **where, bases=[base, other, new])
    (delta,) = site.ask("meter-2/gateway.tfb").custom.deltas
    assert delta.base_sha256 == sha256_hex(base.read_bytes())
    made = io.BytesIO()
    patch = site.app.parts.blobs.read(delta.sha256)
    with base.open("rb") as old:
        apply_patch(old, io.BytesIO(patch), made.write, new.stat().st_size)
    assert made.getvalue() == new.read_bytes()
    assert done.patches["meter-2/gateway.tfb"] == ((len(patch), len(patch) / new.stat().st_size),)


def test_metadata_without_its_patch_is_refused(site: Site, bundle: Bundles) -> None:
    """A target must not name a patch that nobody can fetch."""
    base, new = bundle(1), bundle(2)
    site.publish(base)
    where = {"keys": site.folder / "keys", "server_url": site.app.http_url, "token": site.token}
    publish([new], **where, bases=[base])
    newest = site.app.parts.trust.current_targets()
    (delta,) = site.ask("meter-2/gateway.tfb").custom.deltas
    with pytest.raises(MetadataRefusedError, match="patches of meter-2"):
        _check_targets(site.app.parts.trust.targets(), (), lambda sha256: sha256 != delta.sha256)
    assert site.app.parts.trust.current_targets() == newest


def test_a_conflict_changes_nothing_here_and_nothing_there(site: Site, bundle: Bundles) -> None:
    """The second publisher with an old base gets an error."""
    site.publish(bundle(1))
    before = site.app.parts.trust.current_targets()
    stale = sign_bundles([bundle(2)], site.folder / "keys").read_bytes()
    headers = {"Authorization": f"Bearer {site.token}"}
    answer = httpx.post(site.app.http_url + "/api/tuf/targets?base=1", content=stale, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "version_conflict")
    assert site.app.parts.trust.current_targets() == before
    with pytest.raises(VersionConflictError, match="run the command again"):
        _check(answer)


def test_wrong_token_and_no_server_are_told_apart(site: Site, bundle: Bundles) -> None:
    """Both are coded; our own list of targets stays as it was."""
    targets = site.folder / "keys" / "metadata" / "targets.json"
    before = targets.read_bytes()
    with pytest.raises(PublishError, match="401"):
        site.publish(bundle(1), token="wrong")
    with pytest.raises(ServerUnreachableError):
        publish([bundle(1)], keys=site.folder / "keys", server_url="http://127.0.0.1:9", token="x")
    assert targets.read_bytes() == before


def test_metadata_without_its_bundle_is_refused(site: Site, bundle: Bundles) -> None:
    """Blobs first: metadata must never name a missing file."""
    data = sign_bundles([bundle(1)], site.folder / "keys").read_bytes()
    headers = {"Authorization": f"Bearer {site.token}"}
    answer = httpx.post(site.app.http_url + "/api/tuf/targets", content=data, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "metadata_refused")
    assert httpx.get(site.app.http_url + "/api/tuf/targets", headers=headers).status_code == 404
    assert httpx.post(site.app.http_url + "/api/tuf/targets", content=data).status_code == 401
