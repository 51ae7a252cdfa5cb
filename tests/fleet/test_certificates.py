"""Devices with a certificate each: a key made on the device, TLS both ways with broker and HTTP, and revocation."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from compressor.devices.bench import Subject
from compressor.devices.pins import note_pin
from compressor.errors import DeviceMeasureError
from edge_agent.device.certificate import own_certificate, validity
from edge_agent.device.tls import client_context
from wire.bundle import build_bundle, read_bundle

if TYPE_CHECKING:
    from conftest import Device, Fleet, Wait

pytestmark = [pytest.mark.broker, pytest.mark.slow]
BIN = Path(sys.executable).parent
CERTIFIED = pytest.mark.parametrize("fleet", ["certified"], indirect=True)


@CERTIFIED
def test_a_release_reaches_a_device_that_has_no_password(fleet: Fleet) -> None:
    """Enrolment, MQTT and bundle by a key that was made on the device and is nowhere else."""
    device = fleet.add("dev")
    identity = json.loads((device.state / "identity.json").read_bytes())
    assert (identity["certified"], identity["password"]) == (True, "")
    key = device.state / "device.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert not [path for path in fleet.state.rglob("*") if path.is_file() and key.read_bytes() in path.read_bytes()]
    fleet.release(1)
    fleet.roll_out("tiny-1")
    device.reaches("committed", "tiny-1")


def _asked(fleet: Fleet, device: Device) -> int:
    """Return the status of a request for a bundle with the device's certificate: 404 if it is let in."""
    context = client_context(fleet.ca.read_text(), own_certificate(device.state))
    url = f"{fleet.client.base_url}/blobs/{'0' * 64}"
    return httpx.get(url, verify=context, trust_env=False).status_code


@CERTIFIED
def test_a_revoked_device_is_cut_and_refused_on_both_ways(fleet: Fleet, wait: Wait) -> None:
    """Its live session ends, new ones are refused in the handshake, HTTP answers 401; another device stays."""
    device, other = fleet.add("dev"), fleet.add("other")
    assert (_asked(fleet, device), _asked(fleet, other)) == (403, 403)
    fleet.post("/api/devices/dev/revoke", {"why": "stolen"})
    wait(lambda: device.status()["connected"] is False, "the end of the live session")
    wait(lambda: "certificate revoked" in device.status()["refused"], "a refusal that names its reason")
    assert (_asked(fleet, device), _asked(fleet, other)) == (401, 403)
    command = [BIN / "edge-agent", "selftest", "--state"]
    found = [
        subprocess.run([*command, one.state], capture_output=True, text=True, check=False) for one in (device, other)
    ]
    assert [one.returncode for one in found] == [1, 0]
    assert "FAIL access: Expected a server that takes this device's certificate, got 401" in found[0].stdout
    assert other.status()["connected"]
    assert "identity_in_use_twice" not in device.program.tail()
    assert not (fleet.state / "broker" / "take-over.pem").exists()


@CERTIFIED
def test_a_new_claim_gives_a_new_key_and_ends_the_old_certificate(fleet: Fleet, wait: Wait) -> None:
    """Whoever copied the old state directory is out."""
    device = fleet.add("dev")
    device.program.stop()
    old = fleet.root / "copy"
    device.state.rename(old)
    again = fleet.enrol("dev", fleet.root / "dev")
    again.program.start()
    wait(lambda: again.status().get("connected"), "dev connected again")
    assert (old / "device.key").read_bytes() != (again.state / "device.key").read_bytes()
    assert (_asked(fleet, again), _asked(fleet, replace(device, state=old))) == (403, 401)


@CERTIFIED
def test_a_fleet_may_mix_certificates_and_passwords(fleet: Fleet, wait: Wait) -> None:
    """A device that enrols with --password uses the other port of the broker."""
    fleet.add("dev")
    claim = fleet.claim("plain")
    state = fleet.root / "plain"
    enrolled = _enrol(fleet, state, claim, "--password")
    assert "proof=password" in enrolled.stdout
    (state / "agent.toml").write_text((fleet.devices[0].state / "agent.toml").read_text())
    plain = replace(fleet.devices[0], name="plain", state=state, program=fleet.agent("plain", state))
    fleet.devices.append(plain)
    plain.program.start()
    wait(lambda: plain.status().get("connected"), "plain connected")
    assert not (state / "device.key").exists()


@pytest.mark.parametrize("fleet", ["certified required = true"], indirect=True)
def test_a_server_may_require_certificates(fleet: Fleet) -> None:
    """Enrolment by password is refused with the next step, and the claim stays."""
    claim = fleet.claim("dev")
    refused = _enrol(fleet, fleet.root / "dev", claim, "--password")
    assert (refused.returncode, "passwords are switched off here" in refused.stderr) == (5, True)
    assert _enrol(fleet, fleet.root / "dev", claim).returncode == 0


@pytest.mark.parametrize("fleet", ["certified life_days = 0.00018"], indirect=True)
def test_a_device_renews_its_certificate_while_it_serves(fleet: Fleet, wait: Wait) -> None:
    """A life of 16 s: the new one is for the same key, and opens the next session and the next request."""
    device = fleet.add("dev")
    key, first = ((device.state / name).read_bytes() for name in ("device.key", "device.pem"))
    wait(lambda: (device.state / "device.pem").read_bytes() != first, "a renewal")
    assert (device.state / "device.key").read_bytes() == key
    assert _asked(fleet, device) == 403
    fleet.server.stop()
    fleet.start()
    wait(lambda: device.document()["presence"] == "there", "the device at the new server")
    wait(lambda: "certificate_renewed" in _codes(fleet), "its event")
    assert device.status()["certificate"]["problem"] == ""


@pytest.mark.parametrize("fleet", ["certified life_days = 0.0001"], indirect=True)
def test_a_device_whose_certificate_expired_names_the_way_back(fleet: Fleet, wait: Wait) -> None:
    """A life of 9 s, over before the agent starts: a new claim lets it in again."""
    device = fleet.enrol("dev", fleet.root / "dev")
    certificate = own_certificate(device.state)
    wait(lambda: validity(certificate)[1] < time.time() * 1000, "the end of the certificate")
    device.program.start()
    wait(lambda: "get a new claim" in device.status().get("certificate", {}).get("problem", ""), "the way back")
    status = subprocess.run([BIN / "edge-agent", "status", "--state", device.state], capture_output=True, check=False)
    assert b"get a new claim (fleet-server claim), remove identity.json" in status.stdout
    device.program.stop()
    (device.state / "identity.json").unlink()
    claim = fleet.claim("dev")
    assert _enrol(fleet, device.state, claim).returncode == 0


def _codes(fleet: Fleet) -> list[str]:
    return [event["code"] for event in fleet.events()]


def _enrol(fleet: Fleet, state: Path, claim: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "edge-agent"), "enrol", "--server", str(fleet.client.base_url), "--ca", str(fleet.ca)]
    command += ["--claim", claim, "--state", str(state), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@CERTIFIED
def test_what_a_device_measured_is_signed_by_its_key(fleet: Fleet) -> None:
    """The build host notes the key that the device prints, and believes no other."""
    device = fleet.add("cam-1")
    built = read_bundle(fleet.build(1))
    bundle = build_bundle(built.manifest, {name: built.files[name] for name in ("model.onnx", "golden.npz")})
    subject = Subject(artifact_sha256=built.manifest.artifact_sha256, bundle=bundle)
    bench = fleet.bench()
    checked = subprocess.run([BIN / "edge-agent", "selftest", "--state", device.state], capture_output=True, check=True)
    note_pin(fleet.keys, "cam-1", re.search(r"cam-1 at site, key (\w{64})", checked.stdout.decode())[1])
    assert bench.measure(subject, "cam-1").report.golden_flips == 0
    note_pin(fleet.keys, "cam-1", "0" * 64)
    with pytest.raises(DeviceMeasureError, match=r"got one by the key .* enrolled again"):
        bench.measure(subject, "cam-1")
