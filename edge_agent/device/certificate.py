"""The device's private key and certificate: made, requested, kept and used by short-lived ``openssl`` processes.

``device.key`` (0600) is made at enrolment, never leaves the state directory, and stays the same until the device is
enrolled again: whoever knows its public key needs no new one at a renewal. ``device.pem`` is replaced by one rename,
so that a power cut leaves the old or the new certificate, and each fits the key. Both files are stored twice.

Decides nothing about when: ``control.renewal`` does.
"""

from __future__ import annotations

import itertools
import ssl
import subprocess
from pathlib import Path

from edge_agent.device.disk import Disk, RealDisk
from edge_agent.device.record_file import copy_of, write_twice
from edge_agent.device.tls import OwnCertificate
from edge_agent.errors import CertificateError, reason_of
from wire.canonical import sha256_hex

KEY, CERTIFICATE = "device.key", "device.pem"
_LIMIT_S = 30.0
_TAIL = 300
_TRIAL = ".device.pem.trial"


def make_key() -> bytes:
    """Return a new P-256 key in PEM.

    Raises:
        CertificateError: If there is no ``openssl``, or it fails.
    """
    return _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")


def make_request(key: bytes) -> str:
    """Return a request (PKCS #10, PEM) of a certificate for ``key``; the server takes the name from what it knows.

    Raises:
        CertificateError: If ``openssl`` fails.
    """
    return _openssl("req", "-new", "-sha256", "-key", "/dev/stdin", "-subj", "/CN=device", data=key).decode()


def keep_certificate(state: Path, certificate: str, disk: Disk, key: bytes = b"") -> None:
    """Replace ``device.pem`` by ``certificate`` (PEM); first ``device.key``, if a new ``key`` is given.

    Raises:
        CertificateError: If the certificate is not one for the key; ``device.pem`` is kept then.
        OSError: If a file can't be written; ``device.pem`` is kept then.
    """
    if key:
        write_twice(disk, state / KEY, key)
    trial, data = state / _TRIAL, certificate.encode()
    try:
        disk.write(trial, data)
        OwnCertificate(trial, state / KEY).show(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    except ssl.SSLError as error:
        message = f"Expected a certificate for this device's key, got: {error}: enrol it again with a new claim"
        raise CertificateError(message) from error
    finally:
        trial.unlink(missing_ok=True)
    write_twice(disk, state / CERTIFICATE, data)


def own_certificate(state: Path) -> OwnCertificate:
    """Return the device's certificate and key; a damaged file is restored from its copy.

    Raises:
        CertificateError: If no intact pair is left.
    """
    files = [(state / name, copy_of(state / name)) for name in (CERTIFICATE, KEY)]
    found, problem = OwnCertificate(files[0][0], files[1][0]), ""
    for certificate, key in itertools.product(*files):
        try:
            OwnCertificate(certificate, key).show(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        except OSError as error:
            problem = problem or reason_of(error)
            continue
        for intact, path in ((certificate, found.certificate), (key, found.key)):
            if intact != path:
                RealDisk().write(path, intact.read_bytes())
        return found
    message = f"Expected the certificate of this device in {found.certificate} and its key in {found.key}, got"
    raise CertificateError(f"{message}: {problem}: remove identity.json there and enrol with a new claim")


def validity(own: OwnCertificate) -> tuple[int, int]:
    """Return from when until when the certificate is valid, UTC milliseconds.

    Raises:
        CertificateError: If it can't be read.
    """
    lines = _openssl("x509", "-noout", "-dates", "-in", str(own.certificate)).decode().splitlines()
    dates = dict(line.split("=", 1) for line in lines if "=" in line)
    try:
        since, until = (ssl.cert_time_to_seconds(dates[name]) for name in ("notBefore", "notAfter"))
    except (KeyError, ValueError) as error:
        message = f"Expected the dates of a certificate in {own.certificate}, got: {lines}"
        raise CertificateError(message) from error
    return since * 1000, until * 1000


def signature(own: OwnCertificate, data: bytes) -> bytes:
    """Return the signature of ``data`` by the device's key: ECDSA, SHA-256, DER.

    Raises:
        CertificateError: If ``openssl`` fails.
    """
    return _openssl("dgst", "-sha256", "-sign", str(own.key), data=data)


def fingerprint(own: OwnCertificate) -> str:
    """Return the SHA-256 of the public key (DER), by which a build host knows this device.

    Raises:
        CertificateError: If ``openssl`` fails.
    """
    return sha256_hex(_openssl("pkey", "-in", str(own.key), "-pubout", "-outform", "DER"))


def _openssl(*arguments: str, data: bytes = b"") -> bytes:
    try:
        done = subprocess.run(
            ["openssl", *arguments], input=data, capture_output=True, timeout=_LIMIT_S, check=True, umask=0o077
        )
    except FileNotFoundError as error:
        message = "Expected the program openssl on this device, got none: install it (apt-get install openssl)"
        raise CertificateError(message) from error
    except subprocess.CalledProcessError as error:
        tail = error.stderr.decode(errors="replace").strip()[-_TAIL:]
        message = f"Expected openssl {arguments[0]} to succeed, got exit {error.returncode}: {tail}"
        raise CertificateError(message) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"Expected openssl {arguments[0]} to run, got: {error}"
        raise CertificateError(message) from error
    return done.stdout
