"""The pages of users, tokens and acts: for admins alone, whatever names hold, empty and with ten thousand rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from server.access.audit_log import RecordedAct
from server.access.tokens import TokenOrder
from server.app.server import ServerApp
from server.app.state_directory import init_state
from server.dashboard.pages.people.acts import act_row
from server.people import SERVER_ACTOR, Actor, ActorKind
from server.store.people.audit_log import AUDIT_HEAD, AUDIT_LOG
from server.trust.online_keys import init_online_keys
from wire.memory_broker import MemoryBroker, MemoryTransport

PASSWORD = "a long enough password"
PAGES = ("/users", "/users/boss", "/tokens", "/tokens/none", "/acts", "/acts/export")
HOSTILE = '<img src=x onerror=alert(1)>"{{7*7}}'


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerApp]:
    """A running server with an admin and an approver."""
    state = init_state(tmp_path_factory.mktemp("people") / "state")
    init_online_keys(state.path)
    config = "[access]\npassword_memory_kib = 64\npassword_passes = 1\n"
    state.config.write_text(state.config.read_text(encoding="utf-8") + config, encoding="utf-8")
    app = ServerApp.open(state.path, transport=MemoryTransport(broker=MemoryBroker(), client_id="server"))
    app.parts.users.add("boss", "admin", PASSWORD, by="test")
    app.parts.users.add("ann", "approver", PASSWORD, by="test")
    app.start()
    yield app
    app.stop()


def visitor(app: ServerApp, name: str) -> httpx.Client:
    """Return a browser in which a user has logged in."""
    client = httpx.Client(base_url=app.http_url)
    assert client.post("/login", data={"name": name, "password": PASSWORD}).status_code == 303
    return client


def test_only_admins_see_people_and_acts(app: ServerApp) -> None:
    """Others read whom the page is for, and the menu does not offer it; who is not logged in goes to the login."""
    with closing(visitor(app, "ann")) as ann, closing(visitor(app, "boss")) as boss:
        for path in PAGES:
            answer = ann.get(path)
            assert (answer.status_code, "admin" in answer.text) == (403, True), path
            assert "user.add" not in answer.text
            assert httpx.get(f"{app.http_url}{path}").headers["location"] == "/login"
        assert ["People" in one.get("/events").text for one in (ann, boss)] == [False, True]
        assert [boss.get(path).status_code for path in PAGES] == [200, 200, 200, 404, 200, 200]
        assert boss.get("/users/nobody").status_code == 404


def test_a_demoted_admins_open_page_shows_no_more(app: ServerApp) -> None:
    """The page asks at each look, not only when it was opened."""
    app.parts.users.add("carl", "admin", PASSWORD, by="test")
    with closing(visitor(app, "carl")) as carl:
        assert carl.get("/acts").status_code == 200
        app.parts.users.set_role("carl", "viewer", by="test")
        assert [carl.get(path).status_code for path in ("/acts", "/users", "/acts/export")] == [403] * 3
        app.parts.users.disable("carl", by="test")
        assert carl.get("/acts/export").headers["location"] == "/login"


def test_the_export_is_the_whole_log(app: ServerApp) -> None:
    """Line by line as the command prints it."""
    with closing(visitor(app, "boss")) as boss:
        answer = boss.get("/acts/export")
    assert answer.headers["content-disposition"] == 'attachment; filename="acts.jsonl"'
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [one["seq"] for one in lines] == list(range(1, len(lines) + 1))
    assert lines[-1]["sha256"] == app.parts.acts.head()[1]


@pytest.mark.parametrize(("query", "said"), [
    ("since=yesterday", "Expected since to be a day"), ("until=9999-12-31", "Expected until to be a day"),
    ("since=2026-02-30", "Expected since to be a day"), ("cursor=x", "No such list"), ("colour=red", "No such list"),
    ("person=nobody", "No acts here"), ("since=2026-01-01&until=2026-01-01", "No acts here"),
    ("search=%00", "No acts here"),
])  # fmt: skip
def test_odd_filters_are_named_or_find_nothing(app: ServerApp, query: str, said: str) -> None:
    """A wrong one is not left out: the list would look like another."""
    with closing(visitor(app, "boss")) as boss:
        answer = boss.get(f"/acts?{query}")
    assert (answer.status_code, said in answer.text) == (200, True)


def test_a_hostile_subject_is_text_and_leads_nowhere_else(app: ServerApp) -> None:
    """Anybody can write one by a login that fails; its link stays a path of this server."""
    app.parts.acts.add(SERVER_ACTOR, "device.claim", HOSTILE, 1, data={"site": HOSTILE})
    with closing(visitor(app, "boss")) as boss:
        text = boss.get("/acts?act=device.claim").text
    assert "<img src=x" not in text
    row = act_row(app.parts.acts.latest(9)[-1])
    assert all(not link.href or link.href.startswith("/") for link in (row.who, row.subject))


def test_each_act_leads_to_what_it_concerns() -> None:
    """Where that has a page; a device's attribute has none, and who only said a name is no user."""

    def page(act: str, subject: str, kind: ActorKind = ActorKind.USER, **data: str) -> str:
        recorded = RecordedAct(
            seq=1, at_ms=1, account="ada", kind=kind.value, said="", through="page", address="", act=act,
            subject=subject, data=data, previous_sha256="", sha256="",
        )  # fmt: skip
        return act_row(recorded).subject.href

    found = [
        page("rollout.approve", "a/b"), page("device.revoke", "cam 1"), page("device.commission", "lens=a"),
        page("place.accept", "cam"), page("sample.label", "7"), page("alert.take", "3"), page("user.role", "bob"),
        page("token.revoke", "notebook", id="3f"), page("login", "ada"), page("login", "operator", ActorKind.TOKEN),
        page("policy.change", "server.toml"), page("login.refuse", "root", ActorKind.ANYBODY),
    ]  # fmt: skip
    assert found == [
        "/rollouts/a%2Fb", "/device/cam%201", "", "/device/cam", "/samples/7", "/alerts?id=3", "/users/bob",
        "/tokens/3f", "/users/ada", "", "/settings", "",
    ]  # fmt: skip


def test_a_program_that_says_for_whom_it_acts_is_shown_as_both() -> None:
    """The account is what was proved; the link leads to its acts."""
    robot = Actor(account="robot", kind=ActorKind.TOKEN, said="ada", through="3f", address="192.0.2.1")
    row = act_row(RecordedAct(
        seq=1, at_ms=1, account=robot.account, kind=robot.kind.value, said=robot.said, through=robot.through,
        address=robot.address, act="rollout.abort", subject="r", data={"text": "x" * 999, "n": [1, None]},
        previous_sha256="", sha256="",
    ))  # fmt: skip
    assert (row.who.text, row.who.href, row.how) == ("robot for ada", "/acts?person=robot", "token, 3f, 192.0.2.1")
    assert len(row.detail) == 240


def test_ten_thousand_acts_and_tokens_are_a_page_at_a_time(app: ServerApp) -> None:
    """Neither grows with what there is; the chain goes on being verified while the page is open."""
    for index in range(120):
        app.parts.tokens.issue(TokenOrder(name=f"t-{index}", role="viewer"), by=Actor(account="x", kind=ActorKind.USER))
    boss = visitor(app, "boss")
    with app.parts.database.begin() as connection:
        first = app.parts.acts.head()[0] + 1
        rows = [
            {"seq": first + index, "at_ms": index, "account": "boss", "kind": "user", "said": "", "through": "page",
             "address": "", "act": "device.claim", "subject": f"cam-{index}", "data": "{}", "previous_sha256": "",
             "sha256": f"{index:064x}"}
            for index in range(10_000)
        ]  # fmt: skip
        connection.execute(AUDIT_LOG.insert(), rows)
        connection.execute(AUDIT_HEAD.update().values(seq=first + 9_999))
    with closing(boss):
        for path in ("/acts", "/acts?search=cam-77", "/tokens", "/tokens?state=valid"):
            assert len(boss.get(path).content) < 300_000, path
        assert "broken" in boss.get("/acts").text
