"""The steady audit: whom it asks, for how many, and what a device of a person's choice is asked once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from server.api.retraining import AuditBody
from server.cli.listings import AUDIT_COLUMNS, audit_rows
from server.client import AuditInfo
from server.dashboard.learning import asked_text
from server.errors import AuditOffError, NotAskedError, NotRetrainedError, UnknownDeviceError, UnknownSampleError
from server.retraining.config import AuditConfig, RetrainingConfig
from server.retraining.labelling import NOTHING, LabelForm
from server.retraining.policy import RetrainingPhase, Trigger
from server.retraining.samples import audited_samples
from server.store.commissions import insert_commissions
from server.store.fleet import answer_command, insert_device, update_device
from server.store.monitoring.windows import insert_windows
from tests.server.retraining.conftest import sample
from wire.codec import encode, from_document
from wire.messages import InstalledRelease, Reported, Severity

if TYPE_CHECKING:
    from tests.server.retraining.conftest import Site

HOUR_MS = 3_600_000
NOW_MS = 100 * HOUR_MS


def serve(site: Site, images: dict[str, int], now_ms: int = NOW_MS) -> None:
    """Turn the audit on; let the devices report model-1, and send a day of windows with so many inferences an hour."""
    site.audit.config = replace(site.audit.config, enabled=True)
    for device, n in images.items():
        reported = Reported(current=InstalledRelease(release="model-1"))
        rows: list[dict[str, object]] = [{
            "device": device, "site": "west", "start_ms": now_ms - hour * HOUR_MS, "len_ms": HOUR_MS, "context": 0,
            "artifact": "a", "ref_id": "r", "streams": 1, "classes": 1, "confidence_bins": 1, "n": n, "reports": 1,
            "values": b"", "received_ms": now_ms,
        } for hour in range(1, 25)]  # fmt: skip
        with site.audit.database.begin() as connection:
            update_device(connection, device, {"reported": encode(reported).decode()})
            insert_windows(connection, rows)


def test_a_busy_device_is_asked_for_more_by_the_same_probability(site: Site) -> None:
    """Five a day over both: 5 of 240 and 2,160 inferences; the settings have room for the bytes."""
    serve(site, {"d1": 10, "d2": 90})
    site.audit.turn(NOW_MS)
    site.audit.turn(NOW_MS)
    asked = [command.arguments for command in site.commands()]
    assert [(one["request"], one["lane"], one["ratio"]) for one in asked] == [("audit", "audit", 5 / 2400)] * 2
    assert [one["at_most"] for one in asked] == [10, 26]
    assert site.service.fleet.device("d1").desired.config == {"sample_bytes_per_day": 1024 * 1024}  # type: ignore[union-attr]


def test_it_asks_once_a_day_also_after_a_restart(site: Site) -> None:
    """A day later the next request; the time of the last one is in the database."""
    serve(site, {"d1": 10})
    for hour in range(24):
        restarted = replace(site.audit, _due=type(site.audit._due)(), _next_ms=0)
        restarted.turn(NOW_MS + hour * HOUR_MS)
        restarted.turn(NOW_MS + hour * HOUR_MS + 1)
    assert len(site.commands()) == 1
    serve(site, {"d1": 10}, NOW_MS + 24 * HOUR_MS)
    site.audit.turn(NOW_MS + 24 * HOUR_MS)
    site.audit.turn(NOW_MS + 24 * HOUR_MS)
    assert len(site.commands()) == 2


@pytest.mark.parametrize(
    "config", [AuditConfig(), AuditConfig(enabled=True, models={"model": 0}), AuditConfig(enabled=True)]
)
def test_nobody_is_asked_unless_it_is_on_and_there_is_something_to_draw_from(site: Site, config: AuditConfig) -> None:
    """Off by default, off for this model, or no device has sent a window."""
    serve(site, {"d1": 10} if config != AuditConfig(enabled=True) else {"d1": 0})
    site.audit.config = config
    site.audit.turn(NOW_MS)
    site.audit.turn(NOW_MS)
    assert site.commands() == []


@pytest.fixture(params=[{"front_end": "log_mel"}, {"task": "detection"}], ids=lambda one: next(iter(one)))
def unasked(request: pytest.FixtureRequest, site: Site) -> Site:
    """d1 runs a release of the same model whose inputs are sounds, or whose answers boxes; d2 keeps classes."""
    serve(site, {"d1": 10, "d2": 10})
    site.release(2, model=b"another", **request.param)
    reported = Reported(current=InstalledRelease(release="model-2"))
    with site.audit.database.begin() as connection:
        update_device(connection, "d1", {"reported": encode(reported).decode()})
    return site


def test_a_device_that_can_send_no_samples_is_not_asked(unasked: Site) -> None:
    """Neither by the audit nor once; each place says why, and what to do. Nothing is said of its errors."""
    site = unasked
    site.audit.turn(NOW_MS)
    site.audit.turn(NOW_MS)
    assert [message.topic.split("/")[3] for message in site.heard if "/cmd/" in message.topic] == ["d2"]
    site.audit.retraining = RetrainingConfig(sample_bytes_per_day=1)
    with pytest.raises(NotAskedError, match=r"got d1 with (inputs that the front end|answers of the task)") as refused:
        site.audit.ask_once("d1")
    sounds = "inputs that" in str(refused.value)
    assert refused.value.code == ("no_pictures" if sounds else "not_asked")  # a device of boxes does send pictures
    classes, other = site.audit.audits()
    assert (classes.not_asked, "run the recipe" in other.not_asked) == ("", True)
    assert (len(classes.groups), other.groups, other.samples_per_day) == (1, (), 0)
    assert asked_text(other) == f"model-2: not audited: {other.not_asked}"


@pytest.mark.parametrize("phase", [RetrainingPhase.SUSPECTED, RetrainingPhase.COLLECTING, RetrainingPhase.HARMFUL])
def test_a_retraining_that_no_worker_can_carry_out_waits_and_says_so(unasked: Site, phase: RetrainingPhase) -> None:
    """It asks for nothing, offers nothing to approve, and an approval is refused with what to do instead."""
    site = unasked
    found = site.service.triggers.add(Trigger(
        id=0, model="model", cause="c", words="w", verdict=0, devices=("d1",), since_ms=0, release="model-2",
        phase=phase,
    ))  # fmt: skip
    for now_ms in (NOW_MS, NOW_MS + 1):
        site.service.turn(now_ms)
        with pytest.raises(NotRetrainedError, match=r"of model-2 with .*; label its inputs elsewhere"):
            site.service.approve(found.id)
    (trigger,) = site.service.triggers.all()
    assert trigger.text.startswith("not retrained by the server: ")
    assert (trigger.phase, trigger.approvable, site.commands()) == (RetrainingPhase.SUSPECTED, False, [])


def test_a_setting_for_a_model_that_is_none_is_named(site: Site) -> None:
    """With the nearest name; a known model is none of them."""
    site.audit.config = AuditConfig(enabled=True, models={"modle": 3, "model": 5, "zebra": 0})
    first, second = site.audit.idle_settings()
    assert first == "[audit] models names 'modle', which no release is of: did you mean 'model'?"
    assert second.endswith("'zebra', which no release is of: correct it, or publish a release of it")


def test_a_setting_for_a_model_that_is_never_asked_is_named_with_why_and_what_to_do(unasked: Site) -> None:
    """As long as no release of it is asked; 0 asks for nothing, and one whose bundle is missing may be asked later."""
    site = unasked
    site.audit.config = AuditConfig(enabled=True, models={"model": 3000})
    assert site.audit.idle_settings() == ()  # model-1 has classes
    site.release(1, model=b"sounds", name="bees", front_end="log_mel")
    site.audit.config = AuditConfig(enabled=True, models={"bees": 3000, "model": 0})
    (said,) = site.audit.idle_settings()
    assert said.startswith("[audit] models wants 3000 samples a day of 'bees' and gets none: bees-1 is a release with ")
    assert "label its inputs elsewhere" in said
    assert said.endswith("; take bees out of models")
    site.audit.config = AuditConfig(enabled=True, models={"bees": 0})
    assert site.audit.idle_settings() == ()


def label(site: Site, wrong: list[bool], *, device: str = "d1", request: str = "audit", start: int = 0) -> None:
    """Let labelled uniform samples arrive, one scene each, of the model's class 0."""
    for number, was_wrong in enumerate(wrong, start):
        site.service.samples.accept(device, replace(sample(number), request=request), 50)
        (known,) = site.service.samples.latest(limit=1)
        site.service.samples.label(known.id, NOTHING if was_wrong else "0", "a person", 60)


def harmed(site: Site) -> list[tuple[str, int, bool]]:
    """Return name, labelled scenes and harm of each group of the only release."""
    (audit,) = site.audit.audits()
    return [(group.name, group.risk.scenes, group.harmful) for group in audit.groups]


def test_harm_that_labels_show_opens_a_retraining(site: Site) -> None:
    """Without any alarm, of all devices of the release; a second look opens no second one, nor does a withdrawn one."""
    serve(site, {"d1": 10, "d2": 10})
    label(site, [False] * 15 + [True] * 25)
    site.service.turn(NOW_MS)
    site.service.turn(NOW_MS + HOUR_MS)
    (trigger,) = site.service.triggers.all()
    assert (trigger.phase, trigger.devices, trigger.release) == (RetrainingPhase.HARMFUL, ("d1", "d2"), "model-1")
    (told,) = site.audit.harmed()  # one release, however many of its devices and cohorts are named
    assert told.startswith("model-1 on all devices (at least ")
    assert ", device d1 (at least " in told
    (event,) = [one for one in site.service.events.after(0, 100) if one.code == "harmful"]
    assert event.severity is Severity.WARNING
    site.service.withdraw(trigger.id, NOW_MS)
    site.service.turn(NOW_MS + 48 * HOUR_MS)
    assert len(site.service.triggers.all()) == 1


@pytest.mark.usefixtures("without_labels")
def test_errors_of_a_release_that_was_made_without_labels_are_shown_and_no_harm(site: Site) -> None:
    """What is ordinary for it nobody knows: no share of errors is more than allowed."""
    serve(site, {"d1": 10, "d2": 10})
    label(site, [False] * 15 + [True] * 25)
    site.service.turn(NOW_MS)
    assert (site.service.triggers.all(), site.audit.harmed()) == ((), ())
    (found,) = site.audit.audits()
    assert [(group.risk.scenes, group.allowed, group.harmful) for group in found.groups] == [(40, 1.0, False)] * 2


def test_the_latest_audits_are_those_of_the_last_look(site: Site) -> None:
    """A page asks for them often, and does not count samples each time; the first who asks looks."""
    assert site.audit.latest() == ()
    serve(site, {"d1": 10, "d2": 10})
    label(site, [False] * 15 + [True] * 25)
    assert site.audit.latest() == ()
    site.service.turn(NOW_MS)
    assert site.audit.latest() == site.audit.audits() != ()


def test_a_client_and_the_command_line_get_the_same(site: Site) -> None:
    """The answer of the server, as a client reads it, and a row of it for each group."""
    serve(site, {"d1": 10, "d2": 10})
    label(site, [False] * 15 + [True] * 25)
    (found,) = site.audit.audits()
    told = from_document(AuditInfo, AuditBody.of(found).model_dump(mode="json"))
    assert (told.release, told.groups[0].risk.scenes, told.groups[0].harmful) == ("model-1", 40, True)
    assert told.groups[0].risk.at_least == found.groups[0].risk.at_least
    rows = audit_rows([told])
    assert [(row["devices"], row["wrong"], row["harmful"]) for row in rows] == [
        ("all", 25.0, True), ("device d1", 25.0, True)
    ]  # fmt: skip
    assert set(rows[0]) == set(AUDIT_COLUMNS)


def test_few_errors_are_no_harm(site: Site) -> None:
    """One wrong of forty, with 5 % at the source and 2 points of margin."""
    serve(site, {"d1": 10, "d2": 10})
    label(site, [True] + [False] * 39)
    site.service.turn(NOW_MS)
    assert site.service.triggers.all() == ()
    assert harmed(site) == [("all devices", 40, False), ("device d1", 40, False)]


def test_what_one_device_was_asked_counts_for_that_device_only(site: Site) -> None:
    """Thirty labels asked once show the harm of one device, and nothing of the fleet; a device opens no retraining."""
    serve(site, {"d1": 10, "d2": 10})
    label(site, [True] * 30, request="once-1-30")
    label(site, [False] * 10, device="d2", start=100)
    site.service.turn(NOW_MS)
    assert harmed(site) == [("all devices", 10, False), ("device d1", 30, True)]
    assert site.service.triggers.all() == ()


@pytest.mark.parametrize(("wrong", "others", "shown"), [(2, 0, False), (4, 0, True), (4, 300, False), (5, 300, True)])
def test_a_device_is_shown_by_few_labels_if_they_are_enough(
    site: Site, wrong: int, others: int, *, shown: bool
) -> None:
    """The bound holds at any number; the risk is shared among all devices of the fleet, whether labelled or not."""
    serve(site, {"d1": 10, "d2": 10})
    with site.audit.database.begin() as connection:
        for number in range(others):
            insert_device(
                connection,
                {"device": f"e{number}", "site": "east", "attributes": {}, "password_hash": "", "enrolled_ms": 1},
            )
    label(site, [True] * wrong, request="once-1-30")
    assert [one for one in harmed(site) if one[0] == "device d1"] == ([("device d1", wrong, True)] if shown else [])


def test_a_device_that_is_commissioned_again_has_a_line_of_its_own_from_then_on(site: Site) -> None:
    """Of a lens that was replaced the labels end no alarm by themselves; the release keeps them, and so do others."""
    serve(site, {"d1": 10, "d2": 10})
    label(site, [True] * 15 + [False] * 25)
    assert harmed(site) == [("all devices", 40, True), ("device d1", 40, True)]
    row: dict[str, object] = {
        "device": "d1", "attribute": "", "value": "", "decided_ms": NOW_MS, "decided_by": "ada", "why": "new lens",
    }  # fmt: skip
    last_ms = max(one.at_ms for one in site.service.samples.latest(limit=100))
    with site.audit.database.begin() as connection:
        insert_commissions(connection, [{**row, "from_ms": last_ms}])
    assert harmed(site) == [("all devices", 40, True)]
    with site.audit.database.begin() as connection:
        insert_commissions(connection, [{**row, "device": "d2", "from_ms": last_ms + 1}])
    label(site, [True] * 10, request="once-1-30", start=200)
    assert [one for one in harmed(site) if one[0] == "device d1"] == [("device d1", 11, True)]


def test_predictions_of_an_unknown_artifact_are_left_out(site: Site) -> None:
    """Nobody knows what its classes were, so its answers are neither right nor wrong."""
    form = {"0" * 64: LabelForm(), "1" * 64: LabelForm(classes=("a", "b"))}
    site.service.samples.accept("d1", sample(1), 50)
    stored = replace(site.service.samples.latest()[0], label="b", predicted=1)
    found = [replace(stored, artifact_sha256=artifact) for artifact in form]
    assert [one.wrong for one in audited_samples(found, lambda artifact, _: form[artifact], 0.0)] == [False]
    found = [replace(one, label=NOTHING) for one in found]
    assert [one.wrong for one in audited_samples(found, lambda artifact, _: form[artifact], 0.0)] == [True]


def test_a_label_of_nothing_trains_nothing(site: Site) -> None:
    """It counts as wrong in the audit, and is neither counted nor packed for a worker."""
    site.alarm(3)
    for _ in range(3):
        site.service.turn(NOW_MS)
    label(site, [True] * 30, request="r")
    site.upload(20, wrong=0, start=100)
    site.service.turn(NOW_MS)
    site.service.turn(NOW_MS)
    job = site.service.jobs.lease("w", NOW_MS)
    assert job is not None
    assert job.labelled == 20


def test_a_queue_that_nobody_labels_ends(site: Site) -> None:
    """Beyond the limit of each lane the oldest images go, with their files; labelled ones stay."""
    samples = site.service.samples
    label(site, [False])
    for lane in ("audit", "drift"):
        for number in range(5):
            samples.accept("d1", sample(number + (10 if lane == "audit" else 20), lane=lane), 50)
    small = replace(samples, config=replace(samples.config, max_waiting=3))
    assert (small.expire(70), small.expire(80)) == (4, 0)
    assert [one.id for one in samples.latest(unlabelled=True)] == [4, 5, 6, 9, 10, 11]
    assert (samples.expired(60), samples.expired(70), len(list(samples.folder.iterdir()))) == (4, 0, 7)
    with pytest.raises(UnknownSampleError):
        samples.label(2, "0", "a person", 90)


def test_one_device_is_asked_once(site: Site) -> None:
    """Thirty, spread over a day where its rate is known, else from the next window."""
    site.audit.fleet.clock = lambda: NOW_MS
    serve(site, {"d1": 10})
    first, second = site.audit.ask_once("d1"), site.audit.ask_once("d2", 12)
    asked = {str(command.arguments["request"]): command.arguments for command in site.commands()}
    assert (asked[first]["at_most"], asked[first]["ratio"]) == (30, pytest.approx(1.3 * 30 / 240))
    assert (asked[second]["count"], "ratio" in asked[second]) == (12, False)
    assert site.service.fleet.device("d1").desired.config == {"sample_bytes_per_day": 2 * 1024 * 1024}  # type: ignore[union-attr]


def test_a_missing_bundle_stops_neither_the_audit_nor_retraining(site: Site) -> None:
    """The release is left out of the answers, nobody is asked for it, and triggers go on."""
    serve(site, {"d1": 10})
    for release in site.service.versions.releases():
        site.service.versions.blobs.path(release.sha256).unlink()
    site.audit.turn(NOW_MS)
    site.service.turn(NOW_MS)
    assert (site.audit.audits(), site.commands()) == ((), [])


def test_an_older_agent_is_asked_by_a_count_the_second_time(site: Site) -> None:
    """It refuses a ratio as unreadable; the next request is one that it knows."""
    site.audit.fleet.clock = lambda: NOW_MS
    serve(site, {"d1": 10})
    site.audit.ask_once("d1")
    with site.audit.database.begin() as connection:
        answer_command(
            connection, "d1", site.commands()[0].id, {"ok": False, "code": "arguments_invalid", "answered_ms": 1}
        )
    site.audit.ask_once("d1")
    assert ["ratio" in command.arguments for command in site.commands()] == [True, False]


def test_a_device_is_not_asked_where_nobody_allowed_it(site: Site) -> None:
    """The error names both settings; an unknown device has its own."""
    site.audit.config, site.audit.retraining = AuditConfig(), RetrainingConfig()
    with pytest.raises(AuditOffError, match=r"\[audit\] enabled = true"):
        site.audit.ask_once("d1")
    with pytest.raises(UnknownDeviceError):
        site.audit.ask_once("nobody")
