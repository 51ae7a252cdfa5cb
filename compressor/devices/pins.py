"""Keys of devices that this build host has noted (``devices.json`` beside its own keys), and what they signed.

A device prints its key with ``edge-agent selftest``; a person notes it here over a way that is not the server. From
then on only that key answers for the device: neither a server nor its certificate authority can invent a measurement.
A device that is enrolled again has a new key, and must be noted again.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from compressor.errors import DeviceMeasureError, TrustError
from wire.canonical import canonical_bytes, sha256_hex
from wire.durable import write_atomically
from wire.errors import MessageError, NameRefusedError
from wire.measurement import MeasureOrder, ReportStatement, decode_statement, signed_bytes
from wire.topics import check_name

_FILE = "devices.json"
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def read_pins(keys: Path) -> dict[str, str]:
    """Return the SHA-256 of each noted device's public key (DER), by device; empty before the first.

    Raises:
        TrustError: If the file in the folder ``keys`` is damaged: a lost note would make every key good.
    """
    path = keys / _FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        message = f"Expected the keys of devices in {path}, got: {error}: restore it from a copy, or note them again"
        raise TrustError(message) from error
    if not isinstance(found, dict) or not all(_FINGERPRINT.fullmatch(str(key)) for key in found.values()):
        message = f"Expected a fingerprint of 64 hex digits for each device in {path}, got others: note them again"
        raise TrustError(message)
    return found


def note_pin(keys: Path, device: str, fingerprint: str) -> None:
    """Note that ``device`` has the public key with this SHA-256, in the folder ``keys``.

    Raises:
        TrustError: If there is no such folder, or one of the two is none.
    """
    try:
        check_name(device, "a device")
    except NameRefusedError as error:
        raise TrustError(str(error)) from error
    if not _FINGERPRINT.fullmatch(fingerprint) or not keys.is_dir():
        message = f"Expected a folder of keys and 64 lower-case hex digits, got {keys} and {fingerprint[:80]!r}"
        raise TrustError(f"{message}: edge-agent selftest prints them on the device")
    write_atomically(keys / _FILE, canonical_bytes({**read_pins(keys), device: fingerprint}) + b"\n")


def check_signed(order: MeasureOrder, report: bytes, envelope: bytes, fingerprint: str) -> None:
    """Check that the key with this ``fingerprint`` signed ``report`` as the answer to ``order``.

    Args:
        order: the order of this host; its id is used once, so that an old report answers nothing.
        report: the bytes that the server gave.
        envelope: the signed statement that the server gave, empty if there is none.
        fingerprint: of the device's public key, as noted here.

    Raises:
        DeviceMeasureError: If it did not, whatever the server says.
    """
    device, why = order.device, "got no signature: its agent is older, or the server left it out"
    if envelope:
        try:
            signed = decode_statement(envelope)
            key = x509.load_pem_x509_certificate(signed.certificate.encode()).public_key()
            form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
            found = sha256_hex(key.public_bytes(*form))
            said = ReportStatement(order=order.order, device=device, report_sha256=sha256_hex(report))
            why = f"got one by the key {found[:16]}…: if {device} was enrolled again, note its new key"
            if found == fingerprint and isinstance(key, ec.EllipticCurvePublicKey):
                why = "got a signature of something else"
                key.verify(signed.signature, signed_bytes(signed.statement), ec.ECDSA(hashes.SHA256()))
                if signed.statement == said:
                    return
        except (MessageError, ValueError) as error:
            why = f"got: {error}"
        except InvalidSignature:
            pass
    message = f"Expected a report signed by the noted key {fingerprint[:16]}… of {device}, {why}"
    raise DeviceMeasureError(f"{message} (compressor keys pin); it is not believed")
