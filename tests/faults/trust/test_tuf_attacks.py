"""Every attack on the way from build host to device is refused, with a code that the operator sees."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Signed, TargetFile, Targets

from edge_agent.device.record_file import copy_of
from edge_agent.updater.verification import DirectoryFetcher, run, verify
from server.errors import MetadataRefusedError
from server.trust.online_keys import load_online_key
from wire.canonical import sha256_hex
from wire.tuf_target import MAX_TARGET_BYTES

if TYPE_CHECKING:
    from conftest import Scene

TARGET = "meter-1/gateway.tfb"
DAY_MS = 86_400_000
BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "cryptography":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
from edge_agent.updater.verification import main
code = main(sys.argv[1:])
assert not any(name.startswith("cryptography") for name in sys.modules)
assert not {"numpy", "torch", "fastapi", "onnxruntime"} & set(sys.modules)
raise SystemExit(code)
"""


def sign(signed: Signed, *signers: CryptoSigner) -> bytes:
    """Return metadata signed with the given keys."""
    metadata = Metadata(signed)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes()


def take_over(scene: Scene, targets: bytes, version: int) -> None:
    """Let a compromised server sign snapshot and timestamp over ``targets`` with its own, real keys."""
    state = scene.folder / "server"
    timestamp = scene.read("timestamp.json").signed
    snapshot = scene.read(f"{timestamp.snapshot_meta.version}.snapshot.json").signed
    snapshot.version += 1
    snapshot.meta["targets.json"] = MetaFile.from_data(version, targets, ["sha256"])
    data = sign(snapshot, load_online_key(state, "snapshot"))
    timestamp.version += 1
    timestamp.snapshot_meta = MetaFile.from_data(snapshot.version, data, ["sha256"])
    files = {f"{version}.targets.json": targets, f"{snapshot.version}.snapshot.json": data}
    scene.restore({**files, "timestamp.json": sign(timestamp, load_online_key(state, "timestamp"))})


def invented(version: int, length_bytes: int = 9) -> Targets:
    """Return targets with a release that passed no gates."""
    file = TargetFile(length_bytes, {"sha256": "e" * 64}, "evil-1/gateway.tfb")
    return Targets(version=version, expires=datetime.now(UTC) + timedelta(days=9), targets={file.path: file})


def test_accepts_the_current_release_and_passes_its_custom_data_on(scene: Scene) -> None:
    """The valid case, with the data that the updater needs to refuse an older security floor."""
    scene.release(2, security_floor=7)
    verdict = scene.ask("meter-2/gateway.tfb")
    assert verdict.ok
    assert (verdict.custom.security_floor, verdict.custom.version) == (7, 2)
    data = (scene.folder / "meter-2.tfb").read_bytes()
    assert (verdict.sha256, verdict.length_bytes) == (sha256_hex(data), len(data))
    assert verdict.custom.certificate == {"verdict": "pass", "accuracy": "0.97"}


def test_new_timestamp_version_rollback(scene: Scene) -> None:
    """An old timestamp, replayed after a newer one was seen, is refused."""
    old = scene.saved()
    scene.release(2)
    assert scene.ask().ok
    scene.restore({"timestamp.json": old["timestamp.json"]})
    assert scene.ask().code == "metadata_rollback"


def test_new_snapshot_version_rollback(scene: Scene) -> None:
    """A fresh timestamp that points back at an old snapshot is refused."""
    old = scene.read("timestamp.json").signed.snapshot_meta
    scene.release(2)
    assert scene.ask().ok
    timestamp = scene.read("timestamp.json").signed
    timestamp.version, timestamp.snapshot_meta = timestamp.version + 1, old
    scene.restore({"timestamp.json": sign(timestamp, load_online_key(scene.folder / "server", "timestamp"))})
    assert scene.ask().code == "metadata_rollback"


def test_new_targets_version_rollback(scene: Scene) -> None:
    """A compromised server can't restore an older list of releases."""
    version = scene.read("1.snapshot.json").signed.meta["targets.json"].version
    old = scene.saved()[f"{version}.targets.json"]
    scene.release(2)
    assert scene.ask().ok
    take_over(scene, old, version)
    assert scene.ask().code == "metadata_rollback"


def test_freeze(scene: Scene) -> None:
    """A server that stops signing, or is held back, is noticed when the timestamp expires."""
    scene.clock_ms[0] -= 8 * DAY_MS
    scene.release(2)
    assert scene.ask().code == "metadata_expired"


def test_mix_and_match(scene: Scene) -> None:
    """Files of two moments don't pass as one state."""
    old = scene.saved()
    scene.release(2)
    scene.restore({"2.snapshot.json": old["1.snapshot.json"]})
    assert scene.ask().code == "signature_invalid"


def test_one_byte_changed(scene: Scene) -> None:
    """Signed targets with one byte changed are refused."""
    name = max(name for name in scene.saved() if name.endswith(".targets.json"))
    data = scene.saved()[name]
    scene.restore({name: data.replace(b"gateway", b"gatewaz", 1)})
    assert scene.ask().code == "signature_invalid"


def test_wrong_key(scene: Scene) -> None:
    """Neither server nor device accepts targets that another key signed."""
    forged = sign(invented(9), CryptoSigner.generate_ed25519())
    with pytest.raises(MetadataRefusedError, match="release key"):
        scene.repository.publish_targets(forged, lambda _sha256: True, base=2)
    take_over(scene, forged, 9)
    assert scene.ask("evil-1/gateway.tfb").code == "signature_invalid"


def test_arbitrary_release_invented_by_a_compromised_server(scene: Scene) -> None:
    """With the snapshot and timestamp keys only, no device can be made to run anything."""
    state = scene.folder / "server"
    forged = sign(invented(9), load_online_key(state, "snapshot"), load_online_key(state, "timestamp"))
    take_over(scene, forged, 9)
    assert scene.ask("evil-1/gateway.tfb").code == "signature_invalid"


def test_oversize_metadata(scene: Scene) -> None:
    """Endless metadata is cut off at its limit."""
    scene.restore({"timestamp.json": b" " * 1_000_000})
    assert scene.ask().code == "too_large"


def test_oversize_bundle(scene: Scene) -> None:
    """A signed bundle larger than any device takes is refused before the download."""
    root = scene.repository.root()
    signer = CryptoSigner.generate_ed25519()
    metadata = Metadata.from_bytes(root or b"")
    metadata.signed.roles["targets"].keyids = []
    metadata.signed.add_key(signer.public_key, "targets")
    pem = (scene.keys / "root.key").read_bytes()
    (scene.device / "root.json").write_bytes(sign(metadata.signed, signer_from(pem)))
    take_over(scene, sign(invented(9, MAX_TARGET_BYTES + 1), signer), 9)
    assert scene.ask("evil-1/gateway.tfb").code == "too_large"


def signer_from(pem: bytes) -> CryptoSigner:
    """Return the signer of a private key in PEM."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 - tests of the device

    return CryptoSigner(load_pem_private_key(pem, None))


def test_unknown_target(scene: Scene) -> None:
    """A pointer to an unsigned release is refused, whatever it looks like."""
    assert scene.ask("../../etc/passwd").code == "unknown_target"


def test_foreign_root(scene: Scene) -> None:
    """A root that its own keys did not sign is invalid: nothing of this server is accepted."""
    metadata = scene.read("1.root.json")
    metadata.signed.expires += timedelta(seconds=1)
    (scene.device / "root.json").write_bytes(metadata.to_bytes())
    assert scene.ask().code == "root_lost"


def test_clock_set_back(scene: Scene) -> None:
    """A clock behind the floor installs nothing: expired metadata would look fresh."""
    assert scene.ask().ok
    assert scene.ask(at_ms=scene.clock_ms[0] - DAY_MS).code == "clock_behind"
    assert scene.ask().ok


def test_clock_never_set(scene: Scene) -> None:
    """A device that wakes up in 1970 installs nothing, on its first day too."""
    assert scene.ask(at_ms=0).code == "clock_behind"


def test_failed_checks_do_not_raise_the_floor(scene: Scene) -> None:
    """A clock far in the future can't lock the device out while metadata does not verify."""
    scene.restore({"timestamp.json": b"{}"})
    assert not scene.ask(at_ms=scene.clock_ms[0] + 9000 * DAY_MS).ok
    assert scene.ask().code != "clock_behind"


def test_unreachable_server_is_no_verdict(scene: Scene) -> None:
    """No answer, a missing file and a device that never enrolled have their own code."""
    (scene.tuf / "timestamp.json").unlink()
    assert scene.ask().code == "metadata_unreachable"
    (scene.device / "identity.json").write_text(
        json.dumps({"site": "s", "device": "d", "http_url": "http://127.0.0.1:9"})
    )
    away = scene.ask()
    assert (away.code, "http://127.0.0.1:9/tuf/" in away.text) == ("metadata_unreachable", True)
    identity = scene.device / "identity.json"
    for path in (identity, copy_of(identity)):
        path.unlink()
    never = scene.ask()
    assert (never.code, "run edge-agent enrol" in never.text) == ("metadata_unreachable", True)


def test_air_gap_reads_the_same_metadata_from_a_folder(scene: Scene) -> None:
    """Without any server: a USB stick with the published files."""
    (scene.device / "identity.json").unlink()
    assert run(scene.device, TARGET, scene.tuf, scene.clock_ms[0]).ok
    (scene.tuf / "timestamp.json").unlink()
    verdict = run(scene.device, TARGET, scene.tuf, scene.clock_ms[0])
    assert (verdict.code, verdict.server_ms) == ("metadata_unreachable", 0)


def test_follows_the_root_that_the_old_root_signed(scene: Scene) -> None:
    """Devices in the field accept a rotated root that its predecessor signed."""
    metadata = scene.read("1.root.json")
    metadata.signed.version = 2
    data = sign(metadata.signed, signer_from((scene.keys / "root.key").read_bytes()))
    scene.restore({"2.root.json": data})
    fetcher = DirectoryFetcher(scene.tuf)
    url = scene.tuf.as_uri()
    assert verify(scene.device, TARGET, fetcher=fetcher, base_url=url, now_ms=scene.clock_ms[0]).ok
    assert (scene.device / "tuf" / "root_history" / "2.root.json").read_bytes() == data


def test_the_child_runs_without_cryptography_and_prints_one_line(scene: Scene) -> None:
    """On a device there is no ``cryptography``: ed25519 is verified in pure Python."""
    arguments = ["--state", str(scene.device), "--target", TARGET]
    done = subprocess.run([sys.executable, "-c", BLOCKED, *arguments], capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["ok"] is True
