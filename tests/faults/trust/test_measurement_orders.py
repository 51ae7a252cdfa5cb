"""Attacks on measurement orders: orders that no device executes, whoever sends them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata

from compressor.devices.bench import Subject, make_order, sign_order
from compressor.release.keys import init_keys, load_signer, read_root, signed_bytes
from edge_agent.measuring.order_check import OrderVerdict, run
from server.trust.online_keys import init_online_keys, load_online_key
from wire.codec import encode
from wire.measurement import ORDER_TYPE, MeasureOrder

if TYPE_CHECKING:
    from tests.faults.trust.conftest import Scene

SUBJECT = Subject(artifact_sha256="ab" * 32, bundle=b"a bundle", rows=b"rows", n=4)
HOUR_MS = 3_600_000
Ask = Callable[..., OrderVerdict]


@pytest.fixture
def order(scene: Scene) -> MeasureOrder:
    """An order for cam-1 that holds for five minutes."""
    (scene.device / "identity.json").write_text(json.dumps({"site": "s", "device": "cam-1", "http_url": scene.url}))
    return make_order(SUBJECT, "cam-1", now_ms=scene.clock_ms[0], holds_s=300.0)


@pytest.fixture
def ask(scene: Scene, tmp_path: Path) -> Ask:
    """Let the device judge an envelope, ``later_ms`` after now."""

    def judged(envelope: Any, later_ms: int = 0) -> OrderVerdict:  # noqa: ANN401 - also what is no envelope
        path = tmp_path / "envelope.json"
        path.write_bytes(json.dumps(envelope).encode())
        return run(scene.device, path, scene.clock_ms[0] + later_ms)

    return judged


def signed(payload: bytes, signer: CryptoSigner, kind: str = ORDER_TYPE) -> dict[str, Any]:
    """Return an envelope signed with any keys."""
    envelope = Envelope(payload, kind, {})
    envelope.sign(signer)
    return dict(envelope.to_dict())


def test_obeys_what_the_release_key_signed(scene: Scene, order: MeasureOrder, ask: Ask) -> None:
    """The order in the envelope is unchanged."""
    assert ask(sign_order(order, scene.keys)) == OrderVerdict(ok=True, order=order)


def test_obeys_before_anything_was_published(scene: Scene, order: MeasureOrder, ask: Ask) -> None:
    """A fleet without a release yet can measure its first candidate."""
    for path in scene.tuf.glob("*[!t].json"):
        if not path.name.endswith("root.json"):
            path.unlink()
    assert ask(sign_order(order, scene.keys)).ok


def test_a_changed_order_is_refused(scene: Scene, order: MeasureOrder, ask: Ask) -> None:
    """Another bundle, device or end under the same signature."""
    envelope = sign_order(order, scene.keys)
    for change in ({"bundle_sha256": "cd" * 32}, {"device": "cam-2"}, {"expires_ms": order.expires_ms + HOUR_MS}):
        payload = base64.b64encode(encode(replace(order, **change))).decode()  # type: ignore[arg-type]
        assert ask({**envelope, "payload": payload}).code == "signature_invalid"


def test_an_unsigned_order_is_refused(scene: Scene, order: MeasureOrder, ask: Ask) -> None:
    """No signature, no envelope, nothing: all are refused."""
    envelope = sign_order(order, scene.keys)
    for broken in ({**envelope, "signatures": []}, {**envelope, "signatures": [7]}, {}, [], {"payload": "e30="}):
        assert ask(broken).code == "signature_invalid"


def test_other_keys_sign_no_order(scene: Scene, order: MeasureOrder, ask: Ask, tmp_path: Path) -> None:
    """The server's own keys, the root key and a stranger's release key."""
    init_keys(tmp_path / "strange", init_online_keys(tmp_path / "elsewhere"))
    signers = [load_online_key(scene.folder / "server", role) for role in ("snapshot", "timestamp")]
    signers.append(load_signer(scene.keys, "root", read_root(scene.keys)))
    assert ask(sign_order(order, tmp_path / "strange")).code == "signature_invalid"
    assert [ask(signed(encode(order), signer)).code for signer in signers] == ["signature_invalid"] * 3


def test_an_order_runs_out(scene: Scene, order: MeasureOrder, ask: Ask) -> None:
    """A stored order can't be used later, nor before it was issued."""
    envelope = sign_order(order, scene.keys)
    assert ask(envelope, 299_000).ok
    assert ask(envelope, 301_000).code == "order_expired"
    assert ask(envelope, -120_000).code == "order_expired"


def test_an_order_for_another_device_is_refused(scene: Scene, order: MeasureOrder, ask: Ask) -> None:
    """Each order has one device."""
    assert ask(sign_order(replace(order, device="cam-2"), scene.keys)).code == "order_invalid"


def test_an_order_may_not_hold_for_ever(scene: Scene, order: MeasureOrder, ask: Ask) -> None:
    """Not even the release key makes one for a week."""
    long = replace(order, expires_ms=order.issued_ms + 168 * HOUR_MS)
    assert ask(sign_order(long, scene.keys)).code == "signature_invalid"


def test_signed_targets_are_no_order(scene: Scene, order: MeasureOrder, ask: Ask) -> None:
    """The release key's TUF signature over the same bytes is not one over an order."""
    targets = (scene.keys / "metadata" / "targets.json").read_bytes()
    assert ask(json.loads(targets)).code == "signature_invalid"
    signer = load_signer(scene.keys, "targets", read_root(scene.keys))
    naked = signer.sign(encode(order)).to_dict()
    naked["sig"] = base64.b64encode(bytes.fromhex(naked["sig"])).decode()
    envelope = {"payload": base64.b64encode(encode(order)).decode(), "payloadType": ORDER_TYPE, "signatures": [naked]}
    assert ask(envelope).code == "signature_invalid"
    assert ask(signed(encode(order), signer, "application/vnd.in-toto+json")).code == "signature_invalid"


def test_a_signed_order_is_no_release(scene: Scene, order: MeasureOrder) -> None:
    """In the place of targets its envelope installs nothing, with whatever snapshot the server signs for it."""
    (path,) = scene.tuf.glob("*.targets.json")
    path.write_text(json.dumps(sign_order(order, scene.keys)))
    (snapshot_path,) = scene.tuf.glob("*.snapshot.json")
    for file, name, role in (
        (snapshot_path, "targets.json", "snapshot"),
        (scene.tuf / "timestamp.json", "", "timestamp"),
    ):
        metadata = Metadata.from_bytes(file.read_bytes())
        meta = metadata.signed.meta[name] if name else metadata.signed.snapshot_meta
        meta.hashes = meta.length = None
        metadata.sign(load_online_key(scene.folder / "server", role))
        file.write_bytes(metadata.to_bytes())
    assert scene.ask().code == "signature_invalid"


def test_a_release_key_that_was_taken_back_signs_no_order(scene: Scene, order: MeasureOrder, ask: Ask) -> None:
    """A new root with another release key ends the old one's orders."""
    root = read_root(scene.keys)
    old, other = root.roles["targets"].keyids[0], CryptoSigner.generate_ed25519()
    root.version += 1
    root.revoke_key(old, "targets")
    root.add_key(other.public_key, "targets")
    (scene.tuf / "2.root.json").write_bytes(signed_bytes(root, load_signer(scene.keys, "root", read_root(scene.keys))))
    for path in [*scene.tuf.glob("*.targets.json"), *scene.tuf.glob("*.snapshot.json"), scene.tuf / "timestamp.json"]:
        path.unlink()
    assert ask(sign_order(order, scene.keys)).code == "signature_invalid"
    assert ask(signed(encode(order), other)).ok


def test_a_clock_set_back_is_noticed(scene: Scene, order: MeasureOrder, ask: Ask) -> None:
    """Otherwise an expired order would look valid."""
    assert scene.ask().ok
    assert ask(sign_order(order, scene.keys), -24 * HOUR_MS).code == "clock_behind"


def test_expired_metadata_stops_orders(scene: Scene, order: MeasureOrder, ask: Ask) -> None:
    """A device that gets no new metadata measures nothing either."""
    late = replace(
        order, issued_ms=order.issued_ms + 40 * 24 * HOUR_MS, expires_ms=order.expires_ms + 40 * 24 * HOUR_MS
    )
    frozen = Metadata.from_bytes((scene.tuf / "timestamp.json").read_bytes())
    frozen.signed.expires = frozen.signed.expires.replace(year=2026, month=1, day=2)
    frozen.sign(load_online_key(scene.folder / "server", "timestamp"))
    (scene.tuf / "timestamp.json").write_bytes(frozen.to_bytes())
    assert ask(sign_order(late, scene.keys)).code == "metadata_expired"


def test_a_server_that_is_away_is_said(scene: Scene, order: MeasureOrder, ask: Ask) -> None:
    """If a newer root can't be fetched, no order is executed."""
    (scene.device / "identity.json").write_text(
        json.dumps({"site": "s", "device": "cam-1", "http_url": "http://127.0.0.1:9"})
    )
    assert ask(sign_order(order, scene.keys)).code == "metadata_unreachable"
