"""The pages in Debian's Chromium, against a real server; no request leaves this host (see ``visitor``)."""

from typing import Protocol

import pytest
from playwright.sync_api import Page, expect

from server.alerts.model import AlertCause, AlertKind, AlertSeverity
from server.app.server import ServerApp
from server.retraining.samples import SampleStore
from server.rollout.model import OPEN_PHASES
from wire.codec import decode, encode, to_document
from wire.memory_broker import MemoryBroker, MemoryTransport
from wire.messages import Command, LogsAnswer, Response, Severity
from wire.transport import Incoming

pytestmark = pytest.mark.browser


class World(Protocol):
    """The values of the fixture ``world``."""

    app: ServerApp
    token: str
    broker: MemoryBroker


def test_refuses_a_wrong_token(visitor: Page) -> None:
    """The person stays on the login page and reads why."""
    visitor.goto("/")
    expect(visitor).to_have_url("/login")
    visitor.get_by_label("Name").fill("operator")
    visitor.get_by_label("Password or token").fill("wrong")
    visitor.get_by_role("button", name="Log in").click()
    expect(visitor.get_by_role("alert")).to_contain_text("That name and password do not belong together.")
    visitor.goto("/rollouts")
    expect(visitor).to_have_url("/login")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/alerts",
        "/drift",
        "/device/meter-07",
        "/rollouts",
        "/events",
        "/samples",
        "/samples/1",
        "/samples/1/image",
    ],
)
def test_shows_nothing_to_who_is_not_logged_in(visitor: Page, path: str) -> None:
    """Every page leads to the login."""
    visitor.goto(path)
    expect(visitor).to_have_url("/login")


def test_logging_out_ends_the_session(operator: Page) -> None:
    """The cookie is worth nothing afterwards."""
    cookies = operator.context.cookies()
    operator.get_by_role("button", name="Log out").click()
    expect(operator).to_have_url("/login")
    operator.context.add_cookies(cookies)
    operator.goto("/")
    expect(operator).to_have_url("/login")


def test_a_page_left_open_after_logging_out_leaves_too(operator: Page, world: World) -> None:
    """Another tab is sent nothing newer and shows the login, without anybody touching it."""
    operator.goto("/events")
    assert operator.context.request.post("/logout").ok
    world.app.parts.events.add(world.app.clock(), "server", "secret_news", Severity.INFO, "not for you")
    expect(operator).to_have_url("/login")
    assert "not for you" not in operator.content()


def test_the_cookie_is_not_the_token_and_no_script_can_read_it(operator: Page, world: World) -> None:
    """The cookie in the browser gives no access elsewhere."""
    (cookie,) = [one for one in operator.context.cookies() if one["name"] == "tinyfleet_session"]
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    assert world.token not in cookie["value"]
    assert world.token not in operator.content()


def test_overview_shows_every_device_and_says_what_is_the_matter(operator: Page) -> None:
    """States, evidence and verdict are in words."""
    for device in ("gate-01", "gate-02", "meter-07", "meter-08", "press-03"):
        expect(operator.get_by_role("cell", name=device)).to_be_visible()
    expect(operator.get_by_role("row", name="meter-08")).to_contain_text("refused: digest mismatch")
    expect(operator.get_by_role("row", name="meter-07")).to_contain_text("drift,")
    expect(operator.get_by_role("row", name="press-03")).to_contain_text("lost")
    verdict = operator.locator("section", has_text="A cohort sees something new")
    expect(verdict).to_contain_text("camera ov5640")
    expect(verdict).to_contain_text("darker, blurrier, less confident")
    expect(verdict).to_contain_text("collect samples of the cohort")
    status = operator.locator("section", has_text="a person must act")
    for text in ("1 device is lost: press-03", "1 verdict is open", "1 rollout is paused: digits-3"):
        expect(status).to_contain_text(text)
    together = operator.locator("section", has_text="Devices taken together")
    for text in ("the whole fleet", "site harbour", "camera ov5640", "82 %"):
        expect(together).to_contain_text(text)


def test_device_shows_evidence_over_time_and_what_holds_it(operator: Page) -> None:
    """The chart is drawn and the streams are in words."""
    operator.get_by_role("link", name="meter-07").first.click()
    operator.wait_for_url("**/device/meter-07")
    expect(operator.locator(".tf-chart canvas")).to_be_visible()
    drawn = "() => document.querySelector('.tf-chart canvas').toDataURL().length > 8000"
    operator.wait_for_function(drawn)
    expect(operator.locator("section", has_text="What holds the evidence")).to_contain_text("luma_mean")
    expect(operator.get_by_role("main")).to_contain_text("digits-1")


def test_a_device_shows_its_windows_beside_what_was_usual(operator: Page) -> None:
    """The newest first; others by a button, beside the training data too; hostile names are text."""
    operator.goto("/device/meter-07")
    card = operator.locator("section", has=operator.get_by_role("heading", name="One window beside its reference"))
    expect(card).to_contain_text("1 of 5 streams differ: luma_mean (darker, by 1.")
    expect(card).to_contain_text("Reference: its own usual, of 20 windows (complete), 1,280 samples.")
    expect(card.get_by_role("img", name="luma_mean: darker")).to_be_visible()
    expect(card.get_by_text("a<b>&'long'_name").first).to_be_visible()
    when = card.get_by_text("Window from").inner_text()
    card.get_by_role("button", name="Earlier").click()
    expect(card.get_by_text(when)).to_have_count(0)
    card.get_by_role("button", name="Beside the release's training data").click()
    expect(card).to_contain_text("Reference: the release's training data, 1,600 samples.")
    card.get_by_role("button", name="Newest").click()
    expect(card.get_by_text(when.split(". Reference")[0])).to_have_count(1)


def test_a_device_shows_its_figures_and_says_what_it_does_not_report(operator: Page) -> None:
    """A machine without a thermal zone has no temperature, and no line at 0."""
    operator.goto("/device/meter-07")
    over_time = operator.locator("section", has=operator.get_by_role("heading", name="Over time"))
    expect(over_time.get_by_role("img", name="Latency of the model, ms: median")).to_be_visible()
    absent = over_time.locator("figure", has_text="Temperature")
    expect(absent).to_contain_text("The device does not report it.")
    expect(absent.get_by_role("img")).to_have_count(0)
    operator.goto("/device/gate-01")
    expect(operator.get_by_text("No window has arrived yet, or they are merged")).to_be_visible()
    expect(operator.get_by_text("No measurements arrived in this time: none ever has.")).to_be_visible()


def test_the_map_leads_from_a_cell_to_the_devices_behind_it(operator: Page) -> None:
    """By site, then the devices of a site by a stream, then one device; windows before are a link away."""
    operator.goto("/drift")
    expect(operator.get_by_role("table")).to_contain_text("82 %")
    expect(operator.get_by_text("the budget of alarms holds for verdicts alone")).to_be_visible()
    operator.get_by_role("link", name="82 % darker; 2 of 2 devices name it").click()
    operator.wait_for_url("**/drift?by=device&having=site%3Dtechem&stream=luma_mean&at=*")
    rows = operator.locator(".tf-heat tbody tr")
    expect(rows).to_have_count(2)
    expect(operator.get_by_text("A cohort sees something new")).to_be_visible()
    operator.get_by_role("link", name="A day earlier").click()
    expect(rows.first).not_to_contain_text("flagged")
    operator.get_by_role("rowheader", name="meter-07").get_by_role("link").click()
    operator.wait_for_url("**/device/meter-07")
    for wrong, said in (
        ("at=noon", "Expected a UTC time"),
        ("having=x", "Expected ATTRIBUTE=VALUE"),
        ("release=no-1", "Expected a release of the registry"),
        ("x=1", "Expected by, having"),
    ):
        operator.goto(f"/drift?{wrong}")
        expect(operator.get_by_text(said)).to_be_visible()


def test_a_device_is_commissioned_again_with_a_reason(operator: Page, world: World) -> None:
    """Without one it is refused in words; with one the page says from when on, by whom and why."""
    operator.goto("/device/gate-02")
    card = operator.locator("section", has=operator.get_by_role("heading", name="Commission again"))
    card.get_by_role("button", name="Commission again").click()
    dialog = operator.get_by_role("dialog")
    dialog.get_by_role("button", name="Commission again").click()
    expect(operator.get_by_role("alert")).to_contain_text("Expected a reason and a name, got no reason")
    card.get_by_role("button", name="Commission again").click()
    dialog.get_by_label("Why").fill("lens replaced")
    dialog.get_by_label("Your name").fill("Ada")
    dialog.get_by_role("button", name="Commission again").click()
    expect(operator.get_by_role("main")).to_contain_text("by Ada: lens replaced")
    (one,) = world.app.parts.drift.commissions.all()
    assert (one.device, one.why) == ("gate-02", "lens replaced")


def test_an_unknown_device_is_a_page_that_says_so(operator: Page) -> None:
    """A wrong address gives a normal page with an explanation."""
    operator.goto("/device/nobody")
    expect(operator.get_by_role("main")).to_contain_text("No such device")


def test_the_pause_button_pauses_after_a_question(operator: Page, world: World) -> None:
    """Cancel does nothing; pause pauses, and the page follows by itself."""
    operator.goto("/rollouts")
    card = operator.locator("section", has_text="digits-2")
    card.get_by_role("button", name="Pause").click()
    expect(operator.get_by_role("dialog")).to_contain_text("1 device not affected: gate-02")
    operator.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert world.app.parts.rollouts.get("r2").phase == "running"
    card.get_by_role("button", name="Pause").click()
    operator.get_by_role("dialog").get_by_role("button", name="Pause").click()
    expect(card).to_contain_text("paused")
    assert world.app.parts.rollouts.get("r2").phase == "paused"
    expect(card.get_by_role("button", name="Resume")).to_be_visible()


def test_a_rollout_is_for_the_devices_that_are_filled_in(operator: Page, world: World) -> None:
    """The fields are folded away at first; what is filled in reaches the server, which names what is wrong."""
    operator.goto("/rollouts")
    known = len(world.app.parts.rollouts.list())
    operator.get_by_text("Only some devices").click()
    operator.get_by_label("Sites").click()
    operator.get_by_role("option", name="techem").click()
    operator.keyboard.press("Escape")
    operator.get_by_label("Devices", exact=True).fill("ghost")
    operator.get_by_role("button", name="Make rollout").click()
    expect(operator.get_by_role("alert")).to_contain_text("got 'ghost': it is no registered device")
    assert len(world.app.parts.rollouts.list()) == known


def test_a_rollout_has_the_conditions_that_are_filled_in(operator: Page, world: World) -> None:
    """Folded away at first; half a window is refused with what is missing, a whole one is stored."""
    rollouts = world.app.parts.rollouts
    operator.goto("/rollouts")
    known = {one.id for one in rollouts.list()}
    operator.get_by_text("When, how fast, what is compared before").click()
    operator.get_by_label("Switch from").fill("22:00")
    operator.get_by_label("At most, kB/s").fill("20")
    operator.get_by_label("Pause above, % failed").fill("5")
    operator.get_by_role("button", name="Make rollout").click()
    expect(operator.get_by_role("alert")).to_contain_text("Expected end of the maintenance window")
    assert {one.id for one in rollouts.list()} == known


def test_the_overview_says_whether_updates_are_safe(operator: Page) -> None:
    """Each rollout that is not over, with its groups."""
    safe = operator.locator("section", has=operator.get_by_role("heading", name="Is the update safe?"))
    expect(safe.get_by_role("link", name="digits-3")).to_have_attribute("href", "/rollouts/r3")
    expect(safe).to_contain_text("1 failed or stuck, 0 committed")
    expect(safe).to_contain_text("rest: 0 of 3 committed")
    expect(safe.get_by_role("link", name="digits-1")).to_have_count(0)


def test_resume_says_whom_it_tells_and_a_skip_wants_a_name(operator: Page, world: World) -> None:
    """The person selects one of the remaining actions; only a named person skips the failed canary."""
    operator.goto("/rollouts")
    card = operator.locator("section", has_text="digits-3")
    card.get_by_role("button", name="Resume").click()
    dialog = operator.get_by_role("dialog")
    expect(dialog).to_contain_text("try again where it failed: 1 device assigned now: meter-08")
    dialog.get_by_role("button", name="Resume").click()  # without a name
    assert world.app.parts.rollouts.get("r3").phase == "paused"
    dialog.get_by_role("button", name="Cancel").click()
    card.get_by_role("button", name="Skip group").click()
    expect(dialog).to_contain_text("1 device assigned on connecting: press-03; opens rest")
    dialog.get_by_role("button", name="Skip group").click()
    assert world.app.parts.rollouts.get("r3").phase == "paused"
    dialog.get_by_label("Your name").fill("ada")
    dialog.get_by_role("button", name="Skip group").click()
    expect(card).to_contain_text("skipped by ada")
    assert world.app.parts.rollouts.get("r3").groups[0].skipped_by == "ada"
    world.app.parts.rollouts.ledger.change("r3", {"phase": "aborted"}, 1)


def test_a_label_is_stored_and_the_image_leaves_the_desk(operator: Page, world: World) -> None:
    """The chosen label is stored with the name of the person."""
    operator.goto("/samples")
    cards = operator.locator("article")
    expect(cards).to_have_count(8)
    loaded = "() => [...document.querySelectorAll('article img')].every(one => one.naturalWidth === 8)"
    operator.wait_for_function(loaded)
    operator.get_by_role("button", name="Label sample 3 as 2").click()
    expect(operator.get_by_role("alert")).to_contain_text("Expected the name of the person who labels")
    operator.get_by_label("Your name").fill("Cleo")
    operator.get_by_role("button", name="Label sample 3 as 2").click()
    expect(cards).to_have_count(7)
    stored = world.app.parts.retraining.samples.sample(3)
    assert (stored.label, stored.label_by) == ("2", "Cleo")
    operator.get_by_role("link", name="Sample 3", exact=True).click()
    operator.wait_for_url("**/samples/3")
    expect(operator.get_by_role("main")).to_contain_text("2, by Cleo")
    operator.get_by_role("button", name="Save label").click()
    expect(operator.get_by_role("alert")).to_contain_text("got nothing")
    operator.get_by_label("What does it show?").fill("3")
    operator.get_by_role("button", name="Save label").click()
    dialog = operator.get_by_role("dialog")
    expect(dialog).to_contain_text("Change '2' to '3'?")
    dialog.get_by_label("Your name").fill("Ada")
    dialog.get_by_role("button", name="Change label").click()
    expect(operator.get_by_role("main")).to_contain_text("3, by Ada")
    expect(operator.get_by_role("main")).to_contain_text("before: 2, by Cleo")


def test_a_person_may_let_a_retraining_begin(operator: Page, world: World) -> None:
    """The button asks first, on the card of the verdict too, which says what is under way; then it is approved."""
    operator.goto("/retraining")
    operator.get_by_role("button", name="Train anyway").click()
    operator.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    operator.goto("/")
    verdict = operator.locator("section", has_text="A cohort sees something new")
    expect(verdict).to_contain_text("Under way:")
    expect(verdict.get_by_role("link", name="Label samples")).to_have_attribute("href", "/label")
    verdict.get_by_role("button", name="Train anyway").click()
    operator.get_by_role("dialog").get_by_role("button", name="Train anyway").click()
    expect(verdict.get_by_role("button", name="Train anyway")).to_have_count(0)
    act = next(one for one in world.app.parts.acts.latest(9) if one.act == "retraining.approve")
    assert (act.account, act.through) == ("operator", "page")
    (trigger,) = [one for one in world.app.parts.retraining.triggers.all() if one.id == 1]
    assert trigger.approved or trigger.phase != "collecting"


def test_labels_carry_the_name_that_this_browser_remembers(
    operator: Page, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after the page is opened again; who labels what another person has labelled meanwhile is told."""
    operator.goto("/samples")
    operator.get_by_label("Your name").fill("Ben Ürün")
    operator.get_by_label("Your name").blur()
    operator.goto("/samples")
    expect(operator.get_by_label("Your name")).to_have_value("Ben Ürün")
    operator.get_by_role("button", name="Label sample 4 as 2").click()
    expect(operator.get_by_role("main")).to_contain_text("2, by Ben Ürün")
    samples = world.app.parts.retraining.samples
    assert samples.sample(4).label_by == "Ben Ürün"
    real = SampleStore.label

    def label_as_second(self: SampleStore, sample: int, label: str, by: str, now_ms: int) -> object:
        real(self, sample, "1", "Cy", now_ms)
        return real(self, sample, label, by, now_ms)

    monkeypatch.setattr(SampleStore, "label", label_as_second)
    operator.goto("/samples")  # nothing has moved on a page that was just opened
    operator.get_by_role("button", name="Label sample 5 as 2").click()
    expect(operator.get_by_role("alert")).to_contain_text("Cy has labelled '1'")
    for address in ("999", "abc", "-1", "9" * 40):
        operator.goto(f"/samples/{address}")
        expect(operator.get_by_role("main")).to_contain_text("No such sample")


def test_a_new_event_appears_by_itself(operator: Page, world: World) -> None:
    """Without a reload; foreign text stays text."""
    operator.goto("/events")
    expect(operator.get_by_role("row", name="update: digest mismatch")).to_be_visible()
    text = "<img src=x onerror=alert(1)> fresh"
    world.app.parts.events.add(1_900_000_000_000, "alarm", "test", Severity.ERROR, text, device="gate-01")
    expect(operator.get_by_role("row", name="alarm: test")).to_contain_text(text)


def test_every_page_is_in_the_menu_of_a_phone(operator: Page) -> None:
    """On the screen, without scrolling sideways."""
    operator.set_viewport_size({"width": 360, "height": 640})
    for name in ("Overview", "Rollouts", "Events", "Samples", "Retraining", "Log out"):
        link = operator.get_by_role("banner").get_by_text(name, exact=True)
        box = link.bounding_box()
        assert box is not None
        assert 0 <= box["x"] <= box["x"] + box["width"] <= 360, (name, box)


def test_dark_is_remembered(operator: Page) -> None:
    """The choice of a person holds on the next page."""
    operator.get_by_role("button", name="Light or dark").click()
    operator.goto("/rollouts")  # at once: the browser keeps it, without a turn to the server
    expect(operator.locator("body.body--dark")).to_have_count(1)


def test_a_rollout_shows_what_its_devices_fetched_and_compared_so_far(operator: Page) -> None:
    """While they are under way: bytes that came over the network, and the shadow's counts with what they mean."""
    operator.goto("/rollouts")
    card = operator.locator("section", has_text="digits-2").filter(has_text="in the shadow of")
    expect(card).to_contain_text("78 kB fetched")
    expect(card).to_contain_text("1 device: 900 inputs compared in 60 s, 9 (1.0 %) with two labels")
    expect(card).to_contain_text("which of them is right is not known; a device refuses it above 2 %.")


def test_a_device_is_asked_for_its_log_and_its_speed(operator: Page, world: World) -> None:
    """The buttons send the commands; the answers are shown as text, a refusal with its reason."""
    line = "<img src=x onerror=alert(1)> started"
    device = MemoryTransport(broker=world.broker, client_id="gate-02")

    def answer(notice: object) -> None:
        if isinstance(notice, Incoming):
            command = decode(Command, notice.payload)
            logs = Response(id=command.id, ok=True, data=to_document(LogsAnswer((line, "second line"))))
            busy = Response(id=command.id, code="busy_updating", text="an update is under way")
            device.publish("tf/1/harbour/gate-02/res", encode(logs if command.verb == "logs" else busy))

    device.start(answer, subscriptions=("tf/1/harbour/gate-02/cmd/logs", "tf/1/harbour/gate-02/cmd/benchmark"))
    operator.goto("/device/gate-02")
    section = operator.locator("section", has_text="Ask this device")
    section.get_by_role("button", name="Read its log").click()
    expect(section).to_contain_text(line)
    expect(section).to_contain_text("answered just now")
    section.get_by_role("button", name="Time its release").click()
    expect(section).to_contain_text("refused: busy updating")
    expect(section).to_contain_text("an update is under way")


def test_a_rollout_is_made_and_approved_without_a_command_line(operator: Page, world: World) -> None:
    """Two clicks create it, two start it; if another one is open for the same devices the page gives the reason."""
    operator.goto("/rollouts")
    operator.get_by_role("combobox", name="Release").click()
    operator.get_by_role("option", name="digits-2").click()
    operator.get_by_label("Devices that go first").fill("2")
    operator.get_by_role("button", name="Make rollout").click()
    expect(operator.get_by_role("alert")).to_contain_text("Expected devices without an open rollout")
    for one in world.app.parts.rollouts.list():
        if one.phase in OPEN_PHASES:
            world.app.parts.rollouts.ledger.change(one.id, {"phase": "aborted"}, 1)
    operator.get_by_role("button", name="Make rollout").click()
    card = operator.locator("section", has_text="waits for approval")
    card.get_by_role("button", name="Approve").click()
    operator.get_by_role("dialog").get_by_role("button", name="Approve").click()
    expect(card).not_to_be_visible()
    made = world.app.parts.rollouts.list()[0]
    assert (made.phase, len(made.group_members(0))) == ("running", 2)


def test_a_release_is_withdrawn_after_a_question_with_the_reason(operator: Page, world: World) -> None:
    """The page then shows it as withdrawn, with the reason, and has no button for it any more."""
    operator.goto("/rollouts")
    card = operator.locator(".tf-card", has_text="published").filter(has_text="digits-1")
    card.get_by_role("button", name="Withdraw").click()
    dialog = operator.get_by_role("dialog")
    dialog.get_by_label("Why").fill("wrong labels")
    dialog.get_by_role("button", name="Withdraw").click()
    expect(card).to_contain_text("wrong labels")
    expect(card.get_by_role("button", name="Withdraw")).to_have_count(0)
    assert world.app.parts.versions.release("digits-1").withdrawn_why == "wrong labels"


def test_a_device_is_revoked_on_its_page(operator: Page, world: World) -> None:
    """Cancel does nothing; otherwise it moves to the list of devices that have left, with a page of its own."""
    operator.goto("/device/gate-01")
    for button in ("Cancel", "Revoke"):
        operator.get_by_role("button", name="Revoke this device").click()
        operator.get_by_role("dialog").get_by_role("button", name=button).click()
    expect(operator.get_by_role("main")).to_contain_text("revoked")
    expect(operator.get_by_role("button", name="Remove this device")).to_be_visible()
    assert world.app.parts.fleet.device("gate-01").ended == "revoked"
    operator.goto("/")
    expect(operator.get_by_role("cell", name="gate-01")).to_have_count(0)
    expect(operator.get_by_role("main")).to_contain_text("Revoked and removed")


def test_an_alert_is_acknowledged_and_resolved_with_names(operator: Page, world: World) -> None:
    """The menu counts the alerts; what a person did stands in the history of the one that was opened."""
    alerts = world.app.parts.alerts
    cause = AlertCause(
        key="server:trial", kind=AlertKind.SERVER, severity=AlertSeverity.ALARM, title="The trial is unwell",
        cause="a test says so", action="nothing", flickers=True,
    )  # fmt: skip
    others = [
        AlertCause(key=one.key, subject=one.subject, kind=one.kind, severity=one.severity, title=one.title,
                   cause=one.cause, action=one.action, devices=one.devices, flickers=True)
        for one in alerts.list()
    ]  # fmt: skip
    alerts.settle([*others, cause], world.app.clock())
    (number,) = [one.id for one in alerts.list() if one.key == "server:trial"]
    operator.goto(f"/alerts?id={number}")
    expect(operator.get_by_role("link", name=f"Alerts ({len(others) + 1})")).to_be_visible()
    card = operator.locator("section", has_text="The trial is unwell").first
    card.get_by_role("button", name="Take").click()
    dialog = operator.get_by_role("dialog")
    dialog.get_by_label("Your name").fill("Ada")
    dialog.get_by_role("button", name="Take").click()
    expect(card).to_contain_text("acknowledged, Ada looks after it")
    card.get_by_role("button", name="Resolve").click()
    dialog.get_by_label("Why").fill("it was a trial")
    dialog.get_by_label("Your name").fill("Ada")
    dialog.get_by_role("button", name="Resolve").click()
    expect(card).to_contain_text("resolved by Ada: it was a trial")
    assert alerts.get(number).resolved_by == "Ada"


def test_a_person_issues_a_token_and_changes_the_password(visitor: Page, world: World) -> None:
    """The token is shown once and acts under the person's name; another password ends the session."""
    users, password = world.app.parts.users, "a long enough password"
    users.add("grace", "labeller", password, by="test")
    said: list[str] = []
    visitor.on("console", lambda message: said.append(message.text))

    def log_in(secret: str) -> None:
        visitor.goto("/login")
        visitor.get_by_label("Name").fill("grace")
        visitor.get_by_label("Password or token").fill(secret)
        visitor.get_by_role("button", name="Log in").click()

    log_in(password)
    for path in ("/rollouts", "/device/meter-07", "/samples", "/alerts", "/account"):
        visitor.goto(path)
    visitor.get_by_label("Name of the token").fill("notebook")
    visitor.get_by_role("button", name="Issue token").click()
    secret = visitor.get_by_text("tft_").inner_text()
    me = visitor.context.request.get("/api/me", headers={"Authorization": f"Bearer {secret}"}).json()
    assert (me["account"], me["role"]) == ("grace", "labeller")
    visitor.get_by_role("button", name="Done").click()
    for label, value in (
        ("Password of now", password),
        ("New password", f"{password} 2"),
        ("Once more", f"{password} 2"),
    ):
        visitor.get_by_label(label).fill(value)
    visitor.get_by_role("button", name="Change password").click()
    expect(visitor).to_have_url("/login")
    log_in(f"{password} 2")
    visitor.wait_for_url("**/")
    assert [text for text in said if "Content Security Policy" in text] == []


def test_the_search_is_used_by_keyboard_alone(operator: Page) -> None:
    """A slash leads to the field, what is found comes while one types, arrows choose and Enter goes there."""
    operator.goto("/events")
    field = operator.get_by_label("Search everything")
    operator.get_by_role("heading", name="Events").click()
    operator.keyboard.press("/")
    expect(field).to_be_focused()
    operator.keyboard.type("meter")
    options = operator.get_by_role("listbox", name="Found").get_by_role("option")
    expect(options.first).to_contain_text("meter-07")
    operator.keyboard.press("ArrowDown")
    operator.keyboard.press("ArrowDown")
    expect(options.nth(1)).to_have_attribute("aria-selected", "true")
    expect(field).to_have_attribute("aria-activedescendant", "tf-found-1")
    operator.keyboard.press("Enter")
    expect(operator).to_have_url("/device/meter-08")


def test_enter_without_a_choice_shows_all_that_is_found(operator: Page) -> None:
    """Also without a script: the field is a form. Escape closes what was found."""
    field = operator.get_by_label("Search everything")
    field.fill("digits-2")
    found = operator.locator(".tf-hit")
    expect(found.first).to_be_visible()
    operator.keyboard.press("Escape")
    expect(found).to_have_count(0)
    operator.keyboard.press("Enter")
    expect(operator).to_have_url("/search?text=digits-2")
    rollouts = operator.locator("section", has=operator.get_by_role("heading", name="Rollouts"))
    expect(rollouts.locator('a[href="/rollouts/r2"]')).to_be_visible()
    operator.goto("/search?text=%3Cimg+src%3Dx%3E")
    expect(operator.get_by_role("main")).to_contain_text("Nothing found")


def test_a_slash_in_a_field_is_a_slash(operator: Page) -> None:
    """Somebody who types a reason is not led away."""
    operator.goto("/events")
    field = operator.get_by_label("Search the text")
    field.focus()
    operator.keyboard.type("a/b")
    expect(field).to_have_value("a/b")


def test_suggestions_end_with_the_session(operator: Page) -> None:
    """A field of a page left open asks in vain."""
    assert operator.context.request.get("/search/suggest?text=meter").json()["found"]
    operator.context.request.post("/logout")
    answer = operator.context.request.get("/search/suggest?text=meter")
    assert (answer.status, answer.json()) == (401, {"found": []})
