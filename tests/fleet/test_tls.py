"""A fleet beyond loopback's trust: broker and HTTP over TLS with a private authority, every check switched on.

Also under a wrong clock, by which certificates are not valid.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import queue
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from compressor.worker.client import ServerClient
from edge_agent.config import AgentConfig
from edge_agent.control.assembly import mqtt_settings
from edge_agent.device.identity import read_identity
from edge_agent.transports.mqtt import MqttTransport
from wire.transport import Link

if TYPE_CHECKING:
    from conftest import Device, Fleet, Wait

pytestmark = [pytest.mark.broker, pytest.mark.slow]
HOST = "127.0.0.1"
EXIT_ENROLMENT = 5
TLS = '[tls]\ncertificate = "server.pem"\nkey = "server.key"\nca = "ca.pem"\n'


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey, *, authority: bool
) -> bytes:
    now = dt.datetime.now(dt.UTC)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))])
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    builder = (
        builder if authority else builder.add_extension(names, critical=False).add_extension(usage, critical=False)
    )
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _authority(folder: Path) -> None:
    """Write ``ca.pem`` and a certificate for the loopback address alone, with its key."""
    root, leaf = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    (folder / "ca.pem").write_bytes(_certificate("test ca", root, "test ca", root, authority=True))
    (folder / "server.pem").write_bytes(_certificate("server", leaf, "test ca", root, authority=False))
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "server.key").write_bytes(leaf.private_bytes(encoding, form, serialization.NoEncryption()))


@pytest.fixture
def secure(fleet: Fleet) -> Fleet:
    """A running server that speaks TLS only."""
    fleet.server.stop()
    _authority(fleet.state)
    config = fleet.state / "server.toml"
    config.write_text(config.read_text() + TLS)
    fleet.ca = fleet.state / "ca.pem"
    fleet.start()
    return fleet


def _run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def _enrol(fleet: Fleet, url: str, claim: str, *more: object) -> str:
    """Return the output of an enrolment that must be refused."""
    ended = _run("edge-agent", "enrol", "--server", url, "--claim", claim, "--state", fleet.root / "refused", *more)
    assert ended.returncode == EXIT_ENROLMENT
    assert not (fleet.root / "refused").exists()
    return ended.stderr


def test_a_release_reaches_a_device_over_tls_alone(secure: Fleet) -> None:
    """Enrolment, MQTT, metadata and bundle: each trusts the private authority, and nothing is in the clear."""
    device = secure.add("dev")
    identity = json.loads((device.state / "identity.json").read_bytes())
    assert identity["http_url"].startswith("https://")
    assert identity["mqtt_tls_ca"] == secure.ca.read_text()
    path, token = secure.build(1), secure.state / "builder.token"
    url = str(secure.client.base_url)
    command = ["publish", path, "--keys", secure.keys, "--server", url, "--token-file", token]
    assert "CERTIFICATE_VERIFY_FAILED" in _run("compressor", *command).stderr
    assert _run("compressor", *command, "--ca", secure.ca).returncode == 0
    secure.roll_out("tiny-1")
    device.reaches("committed", "tiny-1")
    assert _run("edge-agent", "selftest", "--state", device.state).returncode == 0
    with ServerClient(url, token.read_text().strip(), "worker", secure.ca) as client:
        assert client.lease() is None


def test_who_does_not_prove_its_name_is_not_believed(secure: Fleet) -> None:
    """Without the authority, or under another name than the certificate's, enrolment ends and the claim stays."""
    claim = secure.claim("dev")
    url = str(secure.client.base_url)
    assert "CERTIFICATE_VERIFY_FAILED" in _enrol(secure, url, claim)
    assert "Hostname mismatch" in _enrol(secure, url.replace(HOST, "localhost"), claim, "--ca", secure.ca)
    assert "Expected PEM certificates" in _enrol(secure, url, claim, "--ca", secure.root / "absent.pem")
    assert secure.client.post("/api/enrol", json={"claim": claim}).status_code == 200


@pytest.mark.parametrize("name", [HOST, "localhost"])
def test_a_device_checks_the_brokers_name(secure: Fleet, name: str) -> None:
    """A broker with a valid certificate of another name is refused, by the reason that the device gives."""
    device, heard = secure.enrol("dev", secure.root / "dev"), queue.SimpleQueue()
    identity = replace(read_identity(device.state), mqtt_host=name)
    transport = MqttTransport(mqtt_settings(identity, AgentConfig()))
    transport.start(heard.put, subscriptions=())
    first = heard.get(timeout=20)
    transport.stop()
    assert (first.link, "Hostname mismatch" in first.reason) == (
        (Link.UP, False) if name == HOST else (Link.UNREACHABLE, True)
    )


class WrongClock:
    """The wall clock of one program; its monotonic clock stays right."""

    def __init__(self, device: Device, offset_s: float) -> None:
        """Let the device's agent start with a clock that is wrong by ``offset_s``."""
        compiler, library = shutil.which("cc"), device.fleet.root / "wrong_clock.so"
        if compiler is None:
            pytest.skip("a wrong clock needs a C compiler: apt-get install gcc libc6-dev")
        source = Path(__file__).with_name("wrong_clock.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", source, "-o", library], check=True)
        self._file = device.fleet.root / "clock"
        self.show(offset_s)
        device.program.environment |= {"LD_PRELOAD": str(library), "WRONG_CLOCK": str(self._file)}

    def show(self, offset_s: float) -> None:
        """Set the clock: 0 is right."""
        self._file.with_suffix(".new").write_text(str(round(offset_s)))
        self._file.with_suffix(".new").rename(self._file)


@pytest.mark.nightly
def test_a_device_in_1970_serves_names_its_clock_and_connects_once_it_is_set(secure: Fleet, wait: Wait) -> None:
    """No certificate is valid then; nothing is restarted when somebody sets the clock."""
    device = secure.add("dev")
    secure.roll_out(secure.release(1))
    device.reaches("committed", "tiny-1")
    device.program.stop()
    clock = WrongClock(device, 60 - time.time())
    device.program.start()
    wait(lambda: "certificate is not yet valid: set the clock" in device.status().get("unreached", ""), "the reason")
    wait(lambda: device.status()["serving"], "a device that serves")
    assert "code=clock_behind" in device.program.tail()
    clock.show(0)
    wait(lambda: device.status()["connected"] and device.status()["unreached"] == "", "a connection")
    release = secure.release(2)
    secure.roll_out(release)
    device.reaches("committed", release)


def test_a_clock_that_jumps_a_year_ahead_installs_nothing_until_it_is_set(secure: Fleet, wait: Wait) -> None:
    """The connection stays, the update waits under its own code; new connections name the certificate."""
    device = secure.enrol("dev", secure.root / "dev", "defer_max_s = 1.0")
    clock = WrongClock(device, 0)
    device.program.start()
    secure.roll_out(secure.release(1))
    device.reaches("committed", "tiny-1")
    clock.show(365 * 86_400)
    release = secure.release(2)
    secure.roll_out(release)
    assert device.reaches("deferred", release)["code"] == "clock_ahead"
    secure.kill_broker()
    wait(lambda: "certificate has expired: set the clock" in device.status().get("unreached", ""), "the reason")
    assert device.status()["serving"]
    clock.show(0)
    device.reaches("committed", release)
