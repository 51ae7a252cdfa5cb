"""Every act that a person or a program does over HTTP is in the log, under the account that was proved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from server.access.tokens import TokenOrder
from server.errors import DatabaseRefusedError
from server.retraining.jobs import JobOrder
from server.store.people import audit_log
from wire.canonical import sha256_hex
from wire.tuf_target import TargetCustom, target_path

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet


@pytest.fixture
def busy(fleet: MemoryFleet) -> MemoryFleet:
    """A fleet with a device and two releases, the first withdrawn later."""
    fleet.enrol("cam-1")
    versions = fleet.app.parts.versions
    for version in (1, 2):
        data = f"bundle {version}".encode()
        versions.blobs.put(sha256_hex(data), [data])
        custom = TargetCustom(model="m", version=version, target="gateway")
        path = target_path("m", version, "gateway")
        versions.register(path, custom, sha256=sha256_hex(data), length_bytes=len(data), now_ms=version, by="build")
    return fleet


ACTS = (
    ("POST", "/api/claims", {"site": "north", "device": "cam-2"}, "device.claim", "cam-2"),
    ("POST", "/api/devices/cam-1/commands", {"verb": "logs"}, "device.command", "cam-1"),
    ("POST", "/api/devices/cam-1/commission", {"why": "lens"}, "device.commission", "cam-1"),
    ("POST", "/api/commissions", {"attribute": "lens", "value": "a", "why": "x"}, "device.commission", "lens=a"),
    ("POST", "/api/devices/cam-1/revoke", {"why": "stolen"}, "device.revoke", "cam-1"),
    ("POST", "/api/devices/cam-1/remove", {}, "device.remove", "cam-1"),
    ("POST", "/api/releases/m-1/withdraw", {"why": "bad"}, "release.withdraw", "m-1"),
)  # fmt: skip


def test_acts_are_recorded_with_account_and_subject(busy: MemoryFleet) -> None:
    """Claims, commands, commissions, revocations, withdrawals; publications and enrolments beside them."""
    client, log = busy.client(), busy.app.parts.acts
    seen = [(one.act, one.account) for one in log.after(0, 99)]
    published = ("release.publish", "build")
    assert seen == [("device.claim", "server"), ("device.enrol", "cam-1"), published, published]
    for method, path, body, act, subject in ACTS:
        answer = client.request(method, path, json=body | ({"by": "ada"} if "why" in body else {}))
        assert answer.is_success, answer.text
        newest = log.latest(1)[0]
        said = "ada" if "why" in body else ""
        assert (newest.act, newest.subject, newest.account, newest.through, newest.said) == (
            act, subject, "operator", "operator.token", said
        )  # fmt: skip
    assert log.verify().broken_seq == 0


def test_a_rollouts_whole_life_is_in_the_log(busy: MemoryFleet) -> None:
    """Created, approved, paused, resumed, aborted, each by who did it."""
    secret = busy.app.parts.tokens.issue(TokenOrder(name="robot", role="approver"), by="test")[1]
    client = busy.client(None)
    client.headers["Authorization"] = f"Bearer {secret}"
    made = client.post("/api/rollouts", json={"release": "m-2", "scope": {"devices": ["cam-1"]}}).json()
    for act in ("approve", "pause", "resume", "abort"):
        assert client.post(f"/api/rollouts/{made['id']}/{act}", json={"by": "ada"}).is_success
    acts = [(one.act, one.account, one.said) for one in busy.app.parts.acts.after(0, 99) if one.subject == made["id"]]
    assert acts == [("rollout.create", "robot", "")] + [
        (f"rollout.{act}", "robot", "ada") for act in ("approve", "pause", "resume", "abort")
    ]


def test_an_act_that_can_not_be_recorded_does_not_happen(busy: MemoryFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are one transaction: a device is not revoked without the record of who did it."""

    def full(*_: object) -> None:
        raise sa.exc.OperationalError("INSERT", {}, Exception("database or disk is locked"))

    monkeypatch.setattr(audit_log, "append_act", full)
    with pytest.raises(DatabaseRefusedError):
        busy.app.parts.revocations.revoke("cam-1", "stolen", by="ada")
    assert busy.app.parts.fleet.device("cam-1").ended == ""
    assert "revoked" not in busy.codes()


def test_people_and_tokens_over_rest(fleet: MemoryFleet) -> None:
    """An admin adds a user, issues a token, which acts under its name, and revokes it; the log says all of it."""
    admin = fleet.app.parts.tokens.issue(TokenOrder(name="boss", role="admin"), by="test")[1]
    client = fleet.client(None)
    client.headers["Authorization"] = f"Bearer {admin}"
    user = {"name": "ada", "role": "operator", "password": "a long enough password"}
    assert client.post("/api/users", json=user).status_code == 201
    issued = client.post("/api/tokens", json={"name": "notebook", "role": "operator", "owner": "ada"}).json()
    me = fleet.client(None).get("/api/me", headers={"Authorization": f"Bearer {issued['secret']}"}).json()
    assert me == {"account": "ada", "kind": "user", "role": "operator", "read_only": False}
    assert "secret" not in client.get("/api/tokens").json()["tokens"][0]
    assert client.post(f"/api/tokens/{issued['id']}/revoke").json()["revoked_by"] == "boss"
    for act in ("disable", "enable", "log-out"):
        assert client.post(f"/api/users/ada/{act}").is_success
    assert client.post("/api/users/ada/role", json={"role": "builder"}).json()["code"] == "user_refused"
    acts = client.get("/api/acts?after=1").json()["acts"]
    assert [one["act"] for one in acts] == [
        "user.add", "token.issue", "token.revoke", "user.disable", "user.enable", "user.log_out_everywhere",
    ]  # fmt: skip
    assert {one["account"] for one in acts} == {"boss"}
    assert "a long enough password" not in str(acts)


def test_the_log_is_asked_by_person_act_subject_and_time(busy: MemoryFleet) -> None:
    """A page at a time, oldest first in each; beside ``after`` there are no filters."""
    admin = busy.app.parts.tokens.issue(TokenOrder(name="boss", role="admin"), by="test")[1]
    client = busy.client(None)
    client.headers["Authorization"] = f"Bearer {admin}"

    def acts(query: str) -> list[tuple[str, str]]:
        return [(one["act"], one["subject"]) for one in client.get(f"/api/acts?{query}").json()["acts"]]

    assert acts("person=build") == [("release.publish", "m-1"), ("release.publish", "m-2")]
    assert acts("act=release&search=M-2") == [("release.publish", "m-2")]
    assert acts("act=device.claim&subject=cam-1") == [("device.claim", "cam-1")]
    assert acts(f"until_ms={busy.clock()}&act=token") == []
    newest = client.get("/api/acts?act=release&limit=1").json()
    assert [one["subject"] for one in newest["acts"]] == ["m-2"]
    assert acts(f"act=release&limit=1&cursor={newest['next']}") == [("release.publish", "m-1")]
    assert client.get("/api/acts?after=1&person=build").status_code == 422
    assert client.get("/api/acts?cursor=nonsense").json()["code"] == "cursor_refused"


def test_the_life_of_a_job_is_in_the_log(busy: MemoryFleet) -> None:
    """Made by the server, leased, returned, leased again and failed by a build host; nothing to lease is no act."""
    jobs, client = busy.app.parts.retraining.jobs, busy.client("builder")
    assert client.post("/api/jobs/lease", json={"worker": "w1"}).status_code == 204
    order = JobOrder(retraining=1, model="m", base_release="m-1", base_sha256="0" * 64, cause="x", labelled=3)
    job = jobs.create(order, b"zip", busy.clock()).id
    for path, body in (
        ("lease", {}), (f"{job}/heartbeat", {}), (f"{job}/failed", {"code": "released"}), ("lease", {}),
        (f"{job}/failed", {"code": "gate_fail"}),
    ):  # fmt: skip
        assert client.post(f"/api/jobs/{path}", json={"worker": "w1", **body}).is_success
    assert client.post(f"/api/jobs/{job}/failed", json={"worker": "w2", "code": "late"}).status_code == 409
    acts = [
        (one.act, one.account, one.data.get("worker")) for one in busy.app.parts.acts.after(0, 99) if one.subject == job
    ]
    assert acts == [("job.create", "server", None)] + [
        (f"job.{act}", "builder", "w1") for act in ("lease", "return", "lease", "fail")
    ]


def test_a_job_that_ends_without_its_record_does_not_end(busy: MemoryFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are one transaction."""
    jobs = busy.app.parts.retraining.jobs
    order = JobOrder(retraining=1, model="m", base_release="m-1", base_sha256="0" * 64, cause="x", labelled=3)
    job = jobs.create(order, b"zip", busy.clock()).id
    jobs.lease("w", busy.clock(), by="build")

    def full(*_: object) -> None:
        raise sa.exc.OperationalError("INSERT", {}, Exception("database or disk is locked"))

    monkeypatch.setattr(audit_log, "append_act", full)
    with pytest.raises(DatabaseRefusedError):
        jobs.done(job, "w", "m-2", {}, busy.clock(), by="build")
    assert jobs.job(job).state == "leased"
