"""A device's key and certificate on the disk, and when it is renewed; with the real ``openssl``."""

from __future__ import annotations

import itertools
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_agent.control.renewal import RENEWAL, Renewal
from edge_agent.device.certificate import (
    keep_certificate,
    make_key,
    make_request,
    own_certificate,
    signature,
    validity,
)
from edge_agent.device.disk import RealDisk
from edge_agent.device.selftest import certificate_check
from edge_agent.errors import CertificateError
from edge_agent.updater.ports import InlineWorker, JobDone
from tests.edge_agent.updater.test_crashes import Crash, CrashingDisk

DAY_MS = 86_400_000


def _certificate(key: bytes, folder: Path, days: int = 90) -> str:
    """Return a certificate for ``key``, signed by itself."""
    path = folder / "any.key"
    path.write_bytes(key)
    return _run("req", "-x509", "-key", path, "-subj", "/CN=cam-1", "-days", days).stdout.decode()


def _run(*arguments: object, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["openssl", *map(str, arguments)], input=text, check=False, capture_output=True)


@pytest.fixture(scope="module")
def keys() -> tuple[bytes, bytes]:
    """Two keys."""
    return make_key(), make_key()


@pytest.fixture
def state(tmp_path: Path, keys: tuple[bytes, bytes]) -> Path:
    """A state directory with a key and its certificate."""
    folder = tmp_path / "state"
    folder.mkdir()
    keep_certificate(folder, _certificate(keys[0], tmp_path), RealDisk(), keys[0])
    return folder


def test_a_key_is_its_owners_alone_and_signs(state: Path, tmp_path: Path) -> None:
    """Anybody verifies with the certificate; another text has another signature."""
    own = own_certificate(state)
    assert {stat.S_IMODE(path.stat().st_mode) for path in state.iterdir()} == {0o600}
    (tmp_path / "signature").write_bytes(signature(own, b"text"))
    (tmp_path / "public").write_bytes(_run("x509", "-in", own.certificate, "-pubkey", "-noout").stdout)
    check = ["dgst", "-sha256", "-verify", tmp_path / "public", "-signature", tmp_path / "signature"]
    assert [_run(*check, text=text).returncode for text in (b"text", b"texT")] == [0, 1]


def test_a_request_is_for_the_key(keys: tuple[bytes, bytes]) -> None:
    """And signed with it."""
    assert _run("req", "-verify", "-noout", text=make_request(keys[0]).encode()).returncode == 0


def test_a_certificate_of_another_key_replaces_nothing(state: Path, keys: tuple[bytes, bytes], tmp_path: Path) -> None:
    """The device would lock itself out."""
    before = (state / "device.pem").read_bytes()
    with pytest.raises(CertificateError, match="a certificate for this device's key"):
        keep_certificate(state, _certificate(keys[1], tmp_path), RealDisk())
    assert (state / "device.pem").read_bytes() == before
    assert sorted(path.name for path in state.iterdir()) == [
        "device.copy.key", "device.copy.pem", "device.key", "device.pem",
    ]  # fmt: skip


@pytest.mark.parametrize(("step", "before"), [*itertools.product(range(1, 4), (True, False))])
def test_a_power_cut_in_a_renewal_leaves_a_working_pair(
    state: Path, keys: tuple[bytes, bytes], tmp_path: Path, *, step: int, before: bool
) -> None:
    """Around each of its three writes: the trial, the copy, and the file itself."""
    disk, new = CrashingDisk(step, before), _certificate(keys[0], tmp_path, 180)
    with pytest.raises(Crash):
        keep_certificate(state, new, disk)
    life_days = [(until - since) / DAY_MS for since, until in [validity(own_certificate(state))]]
    assert life_days == [180 if (step, before) == (3, False) else 90]
    keep_certificate(state, new, RealDisk())
    assert own_certificate(state).certificate.read_text() == new


@pytest.mark.parametrize("damaged", ["device.pem", "device.key", "device.copy.pem", "device.copy.key"])
@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----", None])
def test_one_damaged_file_is_restored_from_its_copy(state: Path, damaged: str, text: str | None) -> None:
    """Empty, cut or missing."""
    (state / damaged).unlink() if text is None else (state / damaged).write_text(text)
    own = own_certificate(state)
    assert validity(own)[1] > 0
    assert own.key.read_bytes().startswith(b"-----BEGIN")


def test_without_an_intact_pair_the_next_step_is_named(state: Path) -> None:
    """The identity can't be proved any more."""
    for name in ("device.key", "device.copy.key"):
        (state / name).write_text("x")
    with pytest.raises(CertificateError, match="enrol with a new claim"):
        own_certificate(state)


@pytest.mark.parametrize(("days", "ok"), [(-1, False), (1, True), (89, True), (91, False)])
def test_the_selftest_sees_that_a_certificate_is_not_valid_now(state: Path, days: int, ok: bool) -> None:  # noqa: FBT001 - a table
    """Expired, or not yet valid for a clock that is behind; the next step is named."""
    own = own_certificate(state)
    found = certificate_check(own, validity(own)[0] / 1000 + days * 86_400)
    assert (found.ok, "enrol" in found.text, found.own) == (ok, not ok, True)


def test_a_device_without_openssl_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the command that installs it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CertificateError, match="apt-get install openssl"):
        make_key()


@dataclass
class Life:
    """A renewer in memory: a certificate of 90 days from day 0."""

    results: list[object] = field(default_factory=list)
    renewals: int = 0

    def validity(self) -> tuple[int, int]:
        """Return it."""
        return 0, 90 * DAY_MS

    def renew(self) -> tuple[int, int]:
        """Return the next result, or raise it."""
        self.renewals += 1
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


def _at(renewal: Renewal, day: float, now_s: float) -> list[object]:
    """Return what one turn and its job report."""
    renewal.turn(round(day * DAY_MS), now_s)
    done: list[JobDone] = []
    renewal.worker.put = done.append
    renewal.worker.work()
    assert {job.token for job in done} <= {RENEWAL}
    return [renewal.finished(job.result, round(day * DAY_MS), now_s) for job in done]


def _renewal(chance: float, *results: object) -> Renewal:
    made = Renewal(renewer=Life(list(results)), worker=InlineWorker(lambda _: None), chance=chance)
    assert _at(made, 0, 0.0) == [None]
    return made


@pytest.mark.parametrize(("chance", "early", "due"), [(0.0, 59.9, 60.0), (1.0, 67.4, 67.5)])
def test_it_is_due_after_two_thirds_of_the_life_and_a_little_chance(chance: float, early: float, due: float) -> None:
    """Before, nothing is asked."""
    renewal = _renewal(chance, (60 * DAY_MS, 150 * DAY_MS))
    assert _at(renewal, early, 1.0) == []
    (note,) = _at(renewal, due, 2.0)
    assert (note.code, renewal.status()["until"]) == ("certificate_renewed", "1970-05-31 00:00 UTC")
    assert _at(renewal, due + 30, 3.0) == []


def test_a_failure_is_tried_again_within_an_hour() -> None:
    """The problem is in the status until it is over."""
    renewal = _renewal(0.0, CertificateError("Expected an answer, got none"), (70 * DAY_MS, 160 * DAY_MS))
    (note,) = _at(renewal, 70, 0.0)
    assert (note.code, "got none" in str(renewal.status()["problem"])) == ("certificate_not_renewed", True)
    assert _at(renewal, 70, 3599.0) == []
    (note,) = _at(renewal, 70, 3600.0)
    assert (note.code, renewal.status()["problem"]) == ("certificate_renewed", "")


def test_an_expired_certificate_names_the_way_back() -> None:
    """Only a person can help: with a new claim, or by setting the clock, until the broker takes the certificate."""
    renewal = _renewal(0.0, CertificateError("alert certificate expired"), CertificateError("got none"))
    (note,) = _at(renewal, 90, 0.0)
    assert note.code == "certificate_expired"
    assert "expired 1970-04-01 00:00 UTC: if it is not 1970-04-01 00:00 UTC now, set the clock; else get" in note.text
    renewal.accepted()
    assert renewal.status()["problem"] == ""
    assert [made.code for made in _at(renewal, 80, 9999.0)] == ["certificate_not_renewed"]
    renewal.accepted()
    assert "got none" in str(renewal.status()["problem"])


def test_a_clock_in_1970_renews_nothing() -> None:
    """The certificate is of a later time; nothing is due, and nothing has expired."""
    renewal = Renewal(renewer=Life(), worker=InlineWorker(lambda _: None), chance=0.0)
    renewal._valid_ms = (20_000 * DAY_MS, 20_090 * DAY_MS)
    assert _at(renewal, 0, 0.0) == []
