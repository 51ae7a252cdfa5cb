"""A report counts if the noted key of its device signed it; a server can't invent one, nor can its authority."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from compressor.devices.pins import check_signed, note_pin, read_pins
from compressor.errors import DeviceMeasureError, TrustError
from compressor.release.keys import keys
from wire.canonical import sha256_hex
from wire.errors import MessageError
from wire.measurement import (
    MeasureOrder,
    ReportStatement,
    SignedStatement,
    decode_statement,
    encode_statement,
    signed_bytes,
)

ORDER = MeasureOrder(order="ab" * 16, device="cam-1")
REPORT = b"TFM1 any bytes"
SAID = ReportStatement(order=ORDER.order, device="cam-1", report_sha256=sha256_hex(REPORT))
KEY, SERVERS = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))


def _fingerprint(key: ec.EllipticCurvePrivateKey) -> str:
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return sha256_hex(key.public_key().public_bytes(*form))


def _certificate(key: ec.EllipticCurvePrivateKey) -> str:
    """Return a certificate of cam-1, as the fleet's authority would sign it."""
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cam-1")]), dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    return builder.sign(SERVERS, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def _signed(
    said: ReportStatement, key: ec.EllipticCurvePrivateKey = KEY, shown: ec.EllipticCurvePrivateKey | None = None
) -> bytes:
    signature = key.sign(signed_bytes(said), ec.ECDSA(hashes.SHA256()))
    return encode_statement(SignedStatement(said, signature, _certificate(shown or key)))


def test_what_the_noted_key_signed_counts() -> None:
    """For this order and these bytes."""
    check_signed(ORDER, REPORT, _signed(SAID), _fingerprint(KEY))


@pytest.mark.parametrize("forged", [
    b"", b"{}", b"nonsense",
    _signed(SAID, SERVERS),  # a certificate of cam-1 that a taken-over server gave itself
    _signed(SAID, SERVERS, KEY),  # the device's own certificate beside a signature of the server
    _signed(replace(SAID, order="cd" * 16)),  # an older report of the device
    _signed(replace(SAID, device="cam-2")),
    _signed(replace(SAID, report_sha256="00" * 32)),
], ids=["none", "empty", "nonsense", "authority", "signature", "replayed", "device", "bytes"])  # fmt: skip
def test_what_a_server_could_invent_does_not_count(forged: bytes) -> None:
    """Whatever the server, its authority and its database say."""
    with pytest.raises(DeviceMeasureError, match="signed by the noted key"):
        check_signed(ORDER, REPORT, forged, _fingerprint(KEY))


def test_a_report_changed_on_its_way_does_not_count() -> None:
    """One byte is enough."""
    with pytest.raises(DeviceMeasureError, match="a signature of something else"):
        check_signed(ORDER, REPORT + b"x", _signed(SAID), _fingerprint(KEY))


def test_a_person_notes_the_keys_of_devices(tmp_path: Path) -> None:
    """By the command; a device that was enrolled again is noted again."""
    for key in (KEY, SERVERS):
        done = CliRunner().invoke(keys, ["pin", str(tmp_path), "cam-1", _fingerprint(key)])
        assert (done.exit_code, read_pins(tmp_path)) == (0, {"cam-1": _fingerprint(key)})


@pytest.mark.parametrize(("device", "fingerprint"), [("cam 1", "ab" * 32), ("cam-1", "ab" * 31), ("cam-1", "AB" * 32)])
def test_a_note_that_could_never_match_is_refused(tmp_path: Path, device: str, fingerprint: str) -> None:
    """At once, not at the next measurement."""
    with pytest.raises(TrustError, match="Expected"):
        note_pin(tmp_path, device, fingerprint)
    assert read_pins(tmp_path) == {}


@pytest.mark.parametrize("text", ["", "[]", '{"cam-1": "x"}', "{"])
def test_damaged_notes_end_a_run(tmp_path: Path, text: str) -> None:
    """Otherwise a lost note would make every key good."""
    (tmp_path / "devices.json").write_text(text)
    with pytest.raises(TrustError, match=r"devices\.json"):
        read_pins(tmp_path)


def test_an_order_s_envelope_is_no_statement() -> None:
    """Each has a type of its own, which is signed too."""
    with pytest.raises(MessageError, match="Expected a statement of"):
        decode_statement(b'{"payload": "", "payloadType": "application/vnd.tinyfleet.measurement-order+json"}')
