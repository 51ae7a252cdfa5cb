"""Certificates of devices: what they say, who gets one, and how they end."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from server.config import DeviceCertificatesConfig
from server.errors import CertificateRefusedError, ConfigError, StateDirectoryError
from server.fleet.enrolment import Enrolment
from server.fleet.identity.certificates import Certificates
from server.trust.authority import Authority, host_name, init_authority, load_authority, names_missing
from tests.server.conftest import EPOCH_MS
from wire.canonical import sha256_hex
from wire.measurement import MeasureOrder, ReportStatement, SignedStatement, encode_statement, signed_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.server.conftest import MemoryFleet

DAY_MS = 86_400_000


def _request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, name: str = "server") -> str:
    """Return a request whose own name is a lie."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A private authority."""
    init_authority(tmp_path / "ca", ["fleet.example.org", "192.0.2.1"], EPOCH_MS)
    return load_authority(_config(tmp_path / "ca"))


def _config(folder: Path) -> DeviceCertificatesConfig:
    return DeviceCertificatesConfig(ca=str(folder / "ca.pem"), key=str(folder / "ca.key"))


@pytest.fixture
def certificates(fleet: MemoryFleet, authority: Authority) -> Certificates:
    """Certificates of a fleet whose clock stands still."""
    return Certificates(database=fleet.app.parts.database, clock=fleet.clock, authority=authority)


@pytest.fixture
def enrolment(certificates: Certificates) -> Enrolment:
    """Enrolment that gives certificates."""
    return Enrolment(database=certificates.database, clock=certificates.clock, certificates=certificates)


def _enrol(enrolment: Enrolment, key: ec.EllipticCurvePrivateKey = KEY) -> x509.Certificate:
    identity = enrolment.enrol(enrolment.claim("berlin", "cam-1", {}), _request(key))
    return x509.load_pem_x509_certificate(identity.certificate.encode())


def test_the_name_is_that_of_the_claim(enrolment: Enrolment) -> None:
    """A request that names the server gets a device's certificate, for TLS clients alone."""
    made = _enrol(enrolment)
    assert made.subject.rfc4514_string() == "CN=cam-1,O=berlin"
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert made.not_valid_after_utc.timestamp() * 1000 == EPOCH_MS + 90 * DAY_MS
    assert enrolment.password_hashes() == {}


def test_a_certificate_names_its_holder_until_it_ends(
    fleet: MemoryFleet, certificates: Certificates, enrolment: Enrolment
) -> None:
    """Expired, and of another authority, it is nobody's."""
    der = _enrol(enrolment).public_bytes(serialization.Encoding.DER)
    assert (certificates.holder(der), certificates.holder(der[:-1])) == ("cam-1", "")
    fleet.clock.now_ms += 90 * DAY_MS
    assert certificates.holder(der) == ""


def test_a_certificate_has_an_end_also_after_it(
    fleet: MemoryFleet, certificates: Certificates, enrolment: Enrolment
) -> None:
    """The page of a device that was off for too long says since when; without a certificate there is none."""
    _enrol(enrolment)
    ends_ms = EPOCH_MS + 90 * DAY_MS
    for fleet.clock.now_ms in (EPOCH_MS, ends_ms + DAY_MS):
        assert (certificates.expires_ms("cam-1"), certificates.expires_ms("cam-2")) == (ends_ms, None)


def test_revoking_a_device_lists_its_certificates(
    fleet: MemoryFleet, certificates: Certificates, enrolment: Enrolment
) -> None:
    """The list is signed by the authority; a new claim gives a valid certificate again."""
    made = _enrol(enrolment)
    fleet.app.parts.revocations.revoke("cam-1")
    listed = x509.load_pem_x509_crl(certificates.revocation_list())
    assert [one.serial_number for one in listed] == [made.serial_number]
    assert listed.is_signature_valid(certificates.authority.chain[0].public_key())
    assert certificates.holder(made.public_bytes(serialization.Encoding.DER)) == ""
    again = _enrol(enrolment)
    assert certificates.holder(again.public_bytes(serialization.Encoding.DER)) == "cam-1"


def test_a_renewal_is_for_the_same_key_and_comes_once(
    fleet: MemoryFleet, certificates: Certificates, enrolment: Enrolment
) -> None:
    """An answer that was lost is given again; another key is refused."""
    _enrol(enrolment)
    fleet.clock.now_ms += 60 * DAY_MS
    first = certificates.renew("berlin", "cam-1", _request(KEY))
    fleet.clock.now_ms += DAY_MS
    assert certificates.renew("berlin", "cam-1", _request(KEY)) == first
    until = x509.load_pem_x509_certificate(first.encode()).not_valid_after_utc.timestamp() * 1000
    assert until == EPOCH_MS + 150 * DAY_MS
    assert fleet.codes().count("certificate_renewed") == 1
    with pytest.raises(CertificateRefusedError, match="the key that cam-1 enrolled with"):
        certificates.renew("berlin", "cam-1", _request(OTHER))


REQUESTS = {
    "nonsense": "nonsense",
    "rsa": _request(rsa.generate_private_key(65537, 2048)),
    "p384": _request(ec.generate_private_key(ec.SECP384R1())),
    "cut": _request(KEY)[:-80],
    "long": "-----BEGIN CERTIFICATE REQUEST-----\n" + "A" * 20_000,
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_what_is_no_request_for_a_p256_key_is_refused(enrolment: Enrolment, kind: str) -> None:
    """And the claim is not used up."""
    claim = enrolment.claim("berlin", "cam-1", {})
    with pytest.raises(CertificateRefusedError, match="Expected a certificate request"):
        enrolment.enrol(claim, REQUESTS[kind])
    assert enrolment.enrol(claim, _request(KEY)).device == "cam-1"


def test_a_request_signed_by_another_key_is_refused(enrolment: Enrolment) -> None:
    """Who asks for a certificate must have its private key."""
    der = x509.load_pem_x509_csr(_request(KEY).encode()).public_bytes(serialization.Encoding.DER)
    forged = x509.load_der_x509_csr(der[:-1] + bytes([der[-1] ^ 1]))
    text = forged.public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(CertificateRefusedError, match="signed with its own key"):
        enrolment.enrol(enrolment.claim("berlin", "cam-1", {}), text)


def test_a_server_without_an_authority_gives_passwords_alone(fleet: MemoryFleet) -> None:
    """The refusal names both ways out."""
    enrolment = fleet.app.parts.enrolment
    with pytest.raises(CertificateRefusedError, match=r"\[certificates\] in server.toml, or enrol with --password"):
        enrolment.enrol(enrolment.claim("berlin", "cam-1", {}), _request(KEY))


@pytest.mark.usefixtures("authority")
def test_an_authority_that_can_t_sign_is_named(tmp_path: Path) -> None:
    """A key that others may read, a key of another authority, and a certificate that may not sign."""
    folder = tmp_path / "ca"
    with pytest.raises(StateDirectoryError, match="never overwritten"):
        init_authority(folder, ["fleet.example.org"], EPOCH_MS)
    server = DeviceCertificatesConfig(ca=str(folder / "server.pem"), key=str(folder / "server.key"))
    with pytest.raises(ConfigError, match="may sign others"):
        load_authority(server)
    with pytest.raises(ConfigError, match="got another key"):
        load_authority(DeviceCertificatesConfig(ca=str(folder / "ca.pem"), key=str(folder / "server.key")))
    (folder / "ca.key").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_authority(_config(folder))


@pytest.mark.parametrize("host", ["", "a b", "fleet example", "x" * 254, "ä.example"])
def test_a_name_that_is_no_host_is_refused(host: str) -> None:
    """Devices could never verify it."""
    with pytest.raises(StateDirectoryError, match="Expected a host name or an IP address"):
        host_name(host)


@pytest.mark.usefixtures("authority")
def test_the_server_s_certificate_is_for_the_hosts_given_and_for_loopback(tmp_path: Path) -> None:
    """A server without a public address tells devices its loopback address, which they verify, too."""
    made = (tmp_path / "ca" / "server.pem").read_bytes()
    known = ("fleet.example.org", "FLEET.example.org.", "192.0.2.1", "127.0.0.1", "::1", "localhost")
    others = ("192.0.2.2", "example.org", "a.fleet.example.org")
    assert names_missing(made, (*known, *others)) == others


def test_only_the_enrolled_key_signs_for_its_device(certificates: Certificates, enrolment: Enrolment) -> None:
    """The certificate in the envelope proves nothing."""
    _enrol(enrolment)
    said = ReportStatement(order="ab" * 16, device="cam-1", report_sha256="cd" * 32)
    by = [SignedStatement(said, key.sign(signed_bytes(said), ec.ECDSA(hashes.SHA256())), "any") for key in (KEY, OTHER)]
    assert [certificates.signed_by("cam-1", signed) for signed in by] == [True, False]
    assert not certificates.signed_by("cam-2", by[0])


def test_a_device_with_a_certificate_can_t_report_unsigned(
    fleet: MemoryFleet, certificates: Certificates, enrolment: Enrolment
) -> None:
    """Nor with a signature of another report; a device with a password reports as before."""
    _enrol(enrolment)
    order = MeasureOrder(order="ab" * 16, device="cam-1")
    measurements = replace(fleet.app.parts.measurements, certificates=certificates)

    def problem(said: ReportStatement | None) -> str:
        sign = lambda one: KEY.sign(signed_bytes(one), ec.ECDSA(hashes.SHA256()))  # noqa: E731 - of this test
        envelope = b"" if said is None else encode_statement(SignedStatement(said, sign(said), "any"))
        return measurements._unsigned(order, b"report", envelope)

    said = ReportStatement(order=order.order, device="cam-1", report_sha256=sha256_hex(b"report"))
    assert problem(said) == ""
    assert "got no signature" in problem(None)
    assert "got another signature" in problem(replace(said, report_sha256=sha256_hex(b"other")))
    assert measurements._unsigned(replace(order, device="cam-2"), b"report", b"") == ""
