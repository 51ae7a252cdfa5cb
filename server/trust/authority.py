"""The certificate authority of the fleet: signs certificates of devices, and lists those that are revoked.

Decides what a device's certificate says: common name and site come from the claim, never from the device's request;
it is good for TLS clients alone, so it can't pass for the server. Keeps no record: ``fleet.certificates`` does.
``init_authority`` makes a private authority and the server's own certificate; another authority, such as an
intermediate one under an offline root, is used as well.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from server.config import DeviceCertificatesConfig
from server.errors import CertificateRefusedError, ConfigError, StateDirectoryError
from wire.durable import write_atomically
from wire.enrolment import MAX_REQUEST_BYTES

_BEFORE = dt.timedelta(hours=1)  # a device whose clock is a little behind can use its certificate at once
_AUTHORITY_LIFE = dt.timedelta(days=3650)  # nobody replaces the certificates of a private fleet sooner
_LIST_LIFE = dt.timedelta(days=3650)  # read by our own broker from the disk, and written anew at each change and start
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HOST_NAME_BYTES = 253  # RFC 1035, 2.3.4
_COMMON_NAME_CHARACTERS = 64  # RFC 5280, appendix A.1: ub-common-name
AUTHORITY_FILES = ("ca.pem", "ca.key")
SERVER_FILES = ("server.pem", "server.key")


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedCertificate:
    """A new certificate: ``pem`` with the certificates up to the authority, its serial number, and when it expires."""

    pem: str
    sha256: str
    serial: int
    expires_ms: int


@dataclass(frozen=True, slots=True, eq=False)
class Authority:
    """The authority's certificates, its own first, and its private key."""

    chain: tuple[x509.Certificate, ...]
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

    def sign(self, request: str, names: tuple[str, str], now_ms: int, life_s: float) -> IssuedCertificate:
        """Return a certificate for the key in ``request``, a PKCS #10 request in PEM.

        Args:
            request: untrusted; only its public key is taken, its signature proves that the device has the private one.
            names: site and id of the device.
            now_ms: the time, UTC.
            life_s: how long it is valid, at most as long as the authority's own.

        Raises:
            CertificateRefusedError: If ``request`` is not a request for a P-256 key, signed with it.
        """
        public, now = requested_key(request), dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC).replace(microsecond=0)
        until = min(now + dt.timedelta(seconds=life_s), self.chain[0].not_valid_after_utc)
        site, device = names
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, site), x509.NameAttribute(NameOID.COMMON_NAME, device)]
        since = now - min(_BEFORE, dt.timedelta(seconds=life_s / 10))
        builder = _builder(subject, public, self.chain[0].subject, (since, until))
        made = _leaf(builder, ExtendedKeyUsageOID.CLIENT_AUTH, self).sign(self.key, hashes.SHA256())
        return IssuedCertificate(
            pem=b"".join(map(_pem, (made, *self.chain))).decode(),
            sha256=made.fingerprint(hashes.SHA256()).hex(),
            serial=made.serial_number,
            expires_ms=round(until.timestamp() * 1000),
        )

    def revocation_list(self, revoked: Mapping[int, int], now_ms: int) -> bytes:
        """Return the list of revoked certificates in PEM; ``revoked``: when each was revoked (UTC ms), by serial."""
        now = dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.chain[0].subject)
        builder = builder.last_update(now - _BEFORE).next_update(now + _LIST_LIFE)
        builder = builder.add_extension(x509.CRLNumber(now_ms), critical=False)
        for serial, at_ms in sorted(revoked.items()):
            when = dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC)
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def short_lived(self, names: tuple[str, str], now_ms: int) -> bytes:
        """Return a certificate of a device and its key in PEM, valid for minutes, for this server's own use.

        The broker ends a live session only when another client of the same name connects.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        text = request.public_bytes(serialization.Encoding.PEM).decode()
        return self.sign(text, names, now_ms, 600).pem.encode() + _private(key)


def load_authority(config: DeviceCertificatesConfig) -> Authority:
    """Return the authority whose files ``config`` names.

    Raises:
        ConfigError: If a file can't be read, others may read the key, or key and certificate don't belong together.
    """
    where = f"{config.ca} and {config.key} ([certificates] in server.toml)"
    try:
        if Path(config.key).stat().st_mode & 0o077:
            message = f"Expected a key that only its owner can read in {config.key}, got other rights: chmod 600 it"
            raise ConfigError(message)
        chain = tuple(x509.load_pem_x509_certificates(Path(config.ca).read_bytes()))
        key = serialization.load_pem_private_key(Path(config.key).read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        message = f"Expected a certificate authority in {where}, got: {error}: correct the paths"
        raise ConfigError(message) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        message = f"Expected an elliptic curve or RSA key in {config.key}, got another kind: make one with openssl"
        raise ConfigError(message)
    if chain[0].public_key() != key.public_key():
        message = f"Expected the authority's own certificate first, and its key, in {where}, got another key"
        raise ConfigError(message)
    try:
        constraints = chain[0].extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        constraints = x509.BasicConstraints(ca=False, path_length=None)
    if not constraints.ca:
        message = f"Expected a certificate that may sign others first in {config.ca}, got one that may not"
        raise ConfigError(message)
    return Authority(chain, key)


def init_authority(folder: Path, hosts: Sequence[str], now_ms: int) -> None:
    """Make a private authority in ``folder``, and a certificate of the server for ``hosts``: names or addresses.

    The certificate also names loopback: a server without a public address tells devices that one.

    Raises:
        StateDirectoryError: If there is one already, which is never overwritten, or a host is not a name.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any((folder / name).exists() for name in (*AUTHORITY_FILES, *SERVER_FILES)):
        message = f"Expected no certificates in {folder}, got some: devices trust them, so they are never overwritten"
        raise StateDirectoryError(message)
    now = dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC).replace(microsecond=0)
    root, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = [x509.NameAttribute(NameOID.COMMON_NAME, "tinyfleet private authority")]
    times = (now - _BEFORE, now + _AUTHORITY_LIFE)
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    own = (
        _builder(name, root.public_key(), x509.Name(name), times)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(root.public_key()), critical=False)
        .sign(root, hashes.SHA256())
    )
    authority = Authority((own,), root)
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:_COMMON_NAME_CHARACTERS])]
    server = _leaf(
        _builder(subject, key.public_key(), own.subject, times), ExtendedKeyUsageOID.SERVER_AUTH, authority
    ).add_extension(
        x509.SubjectAlternativeName([host_name(host) for host in dict.fromkeys((*hosts, *_LOOPBACK))]), critical=False
    )
    written = (_pem(own), _private(root), _pem(server.sign(root, hashes.SHA256())), _private(key))
    for file, data in zip((*AUTHORITY_FILES, *SERVER_FILES), written, strict=True):
        write_atomically(folder / file, data, mode=0o600)


def names_missing(certificate: bytes, hosts: Sequence[str]) -> tuple[str, ...]:
    """Return those of ``hosts`` that the server's ``certificate`` (PEM, its own first) is not for.

    A certificate without alternative names lacks nothing: clients judge its common name, each in its own way.
    Source: RFC 9525, 6.3 and 6.5: an address is compared as such; ``*`` stands for one whole label, the first.
    """
    try:
        made = x509.load_pem_x509_certificates(certificate)[0]
        names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    addresses = set(map(str, names.get_values_for_type(x509.IPAddress)))
    domains = {name.lower() for name in names.get_values_for_type(x509.DNSName)}
    missing = []
    for host in hosts:
        plain = host.lower().rstrip(".")
        if not addresses & {plain} and not domains & {plain, f"*.{plain.partition('.')[2]}"}:
            missing.append(host)
    return tuple(dict.fromkeys(missing))


def requested_key(text: str) -> ec.EllipticCurvePublicKey:
    """Return the public key in a certificate request that its private key signed.

    Raises:
        CertificateRefusedError: If ``text`` is not a request for a P-256 key, signed with it.
    """
    try:
        request = x509.load_pem_x509_csr(text.encode()[:MAX_REQUEST_BYTES])
        public, signed = request.public_key(), request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        message = f"Expected a certificate request (PKCS #10, PEM, {MAX_REQUEST_BYTES} bytes at most), got: {error}"
        raise CertificateRefusedError(message) from error
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise CertificateRefusedError("Expected a certificate request for a P-256 key, got one for another kind of key")
    if not signed:
        raise CertificateRefusedError("Expected a request signed with its own key, got a wrong signature: make it anew")
    return public


def _builder(
    subject: Sequence[x509.NameAttribute[str]], public: ec.EllipticCurvePublicKey, issuer: x509.Name,
    times: tuple[dt.datetime, dt.datetime],
) -> x509.CertificateBuilder:  # fmt: skip
    builder = x509.CertificateBuilder().subject_name(x509.Name(subject)).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(times[0]).not_valid_after(times[1])


def _leaf(
    builder: x509.CertificateBuilder, purpose: x509.ObjectIdentifier, authority: Authority
) -> x509.CertificateBuilder:
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    return builder.add_extension(signer, critical=False)


def host_name(text: str) -> x509.GeneralName:
    """Return ``text`` as it stands in a certificate.

    Raises:
        StateDirectoryError: If it is neither a host name nor an IP address.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    plain = text.isascii() and 0 < len(text) <= _HOST_NAME_BYTES and text.replace("-", "a").replace(".", "a").isalnum()
    if not plain:
        message = f"Expected a host name or an IP address, as fleet.example.org, got {text!r}"
        raise StateDirectoryError(message)
    return x509.DNSName(text)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())
