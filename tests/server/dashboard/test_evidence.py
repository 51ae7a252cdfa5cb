"""The texts for evidence and verdicts."""

import pytest

from server.dashboard.evidence import commissioning_text, point, pools, series, unlike_text, verdict_card
from server.drift.latest import newest_evidence
from server.drift.ledger import StoredVerdict
from server.drift.verdicts import ACTIONS, VerdictKind
from server.store.database import open_database
from server.store.fleet import insert_device
from server.store.monitoring.evidence import replace_slot

ROW = {
    "device": "gate-01",
    "start_ms": 2000,
    "n": 60,
    "phase": "judged",
    "log_value": 4.0,
    "training_log_value": None,
    "log_threshold": 8.0,
    "flagged": False,
    "fault": "",
    "cause": "",
    "streams": [{"stream": "luma_mean", "shape": "down", "share_ratio": 0.5, "words": "darker"}],
}


def verdict(kind: VerdictKind, **changes: object) -> StoredVerdict:
    """Return an open verdict."""
    values = {"devices": ("a",), "attributes": {}, "windows": 1, "release": "digits-2"} | changes
    common = {"first_window_ms": 0, "last_window_ms": 0, "opened_ms": 1, "closed_ms": 0, "detail": "", "model": "m"}
    return StoredVerdict(id=1, key="k", kind=kind, cause="darker", action=ACTIONS[kind], **common, **values)


def test_a_judged_window_counts_by_its_own_evidence() -> None:
    """While commissioning, the distance from training is shown instead."""
    assert point(ROW).shown_ratio == 0.5
    early = point(ROW | {"phase": "commissioning", "log_value": None, "training_log_value": 2.0})
    assert (early.shown_ratio, early.ratio) == (0.25, None)


def test_streams_come_with_their_words() -> None:
    """Anything that is not a list of streams gives an empty list."""
    assert point(ROW).streams[0].words == "darker"
    assert point(ROW | {"streams": None}).streams == ()


def test_the_chart_runs_from_old_to_new_with_gaps() -> None:
    """A window without evidence is a gap, not a zero."""
    lines = series([point(ROW), point(ROW | {"start_ms": 1000, "log_value": None})])
    assert lines["evidence"] == [[1000, None], [2000, 50.0]]


def test_a_device_says_from_what_shift_on_it_would_be_noticed() -> None:
    """The most sensitive stream first; nothing while the device is not judged."""
    figures = {
        "noise": {"psi": 0.1, "least_sd": 1.24},
        "luma_mean": {"psi": 0.2, "least_sd": 0.3},
        "other": {"psi": 0.1},
    }
    said = point(ROW | {"summaries": figures}).least
    assert said == "A lasting shift of this device alone would be noticed: luma_mean from 0.3 sd, noise from 1.2 sd"
    assert not point(ROW | {"summaries": {"noise": {"psi": 0.1}}}).least


@pytest.mark.parametrize(
    ("contexts", "changes", "told"),
    [
        (1, {}, True), (2, {}, False), (0, {}, False), (1, {"flagged": True}, False),
        (1, {"training_log_value": 0.0}, False),
    ],
)  # fmt: skip
def test_a_release_without_places_says_what_it_can_not_tell(contexts: int, changes: dict, *, told: bool) -> None:
    """Its device differs from training, which opens no verdict: the page says so where nothing else does."""
    newest = point(ROW | {"flagged": False, "log_threshold": 14.1, "training_log_value": 20.5, **changes})
    assert ("unlike the training data" in unlike_text(newest, contexts)) is told


def test_the_newest_window_of_each_device_counts(store_url: str) -> None:
    """In whatever order windows were stored; devices that are not enrolled are not shown."""
    database = open_database(store_url)
    stored = {"ref_id": "ab", "summaries": {}}
    with database.begin() as connection:
        for device in ("gate-01", "b"):
            row = {"device": device, "site": "s", "attributes": {}, "password_hash": "", "enrolled_ms": 1}
            insert_device(connection, row)
        for start_ms, device in ((2000, "gate-01"), (500, "b"), (1000, "gate-01"), (9000, "stranger")):
            row = ROW | stored | {"start_ms": start_ms, "device": device}
            replace_slot(connection, start_ms, start_ms + 1, [row], [])
    starts = {name: one["window_start_ms"] for name, one in newest_evidence(database).items()}
    assert starts == {"gate-01": 2000, "b": 500}
    database.close()


@pytest.mark.parametrize("kind", VerdictKind)
def test_every_kind_of_verdict_has_words(kind: VerdictKind) -> None:
    """The text names the problem and the next step."""
    card = verdict_card(verdict(kind), 2)
    assert card.kind.text
    assert card.action


def test_a_verdict_names_some_devices_and_counts_the_rest() -> None:
    """A list of a thousand names would not help."""
    names = tuple(f"d{i}" for i in range(10))
    card = verdict_card(verdict(VerdictKind.COHORT, devices=names, attributes={"camera": "ov5640"}, windows=4), 2)
    assert (len(card.devices.rows), card.devices.more, card.where) == (6, 4, "camera ov5640, model m")
    assert card.since.startswith("4 windows")


def test_a_regression_names_the_release() -> None:
    """The release is the subject there."""
    assert verdict_card(verdict(VerdictKind.RELEASE_REGRESSION), 2).where == "digits-2"


def test_pools_are_shown_of_the_newest_window_with_the_fleet_first(store_url: str) -> None:
    """The whole fleet, then the pools by evidence; of two references the higher one."""
    database = open_database(store_url)
    common = {"members": 3, "log_threshold": 10.0, "alarm": False}
    rows = [("a", "", "", 1.0), ("a", "site", "north", 2.0), ("a", "site", "south", 12.0), ("b", "site", "north", 5.0)]
    for start_ms in (1000, 2000):
        made = [
            {**common, "start_ms": start_ms, "ref_id": ref_id, "attribute": name, "value": value,
             "log_value": log_value, "alarm": log_value > 10}
            for ref_id, name, value, log_value in rows[: 1 + start_ms // 500]
        ]  # fmt: skip
        with database.begin() as connection:
            replace_slot(connection, start_ms, start_ms + 1, [], made)
    found = pools(database)
    assert [(view.name, view.ratio) for view in found.rows] == [
        ("the whole fleet", 0.1), ("site south", 1.2), ("site north", 0.5),
    ]  # fmt: skip
    assert [view.status.tone.value for view in found.rows] == ["good", "bad", "good"]
    assert found.more == 0


@pytest.mark.parametrize(("changes", "said"), [
    ({"phase": "commissioning", "baseline_windows": 41, "wanted_windows": 72},
     "Not judged yet: 41 of 72 windows of its usual are collected, 1 d of windows without an alarm are missing."),
    ({"phase": "commissioning", "baseline_windows": 80, "wanted_windows": 336},
     ("Not judged yet: 80 of 336 windows of its usual are collected, 10 d of windows without an alarm are missing. "
     "Fewer than eight devices are judged only with their whole baseline.")),
    ({"provisional": True, "baseline_windows": 331, "wanted_windows": 336},
     ("Judged provisionally, with 331 of 336 windows of its usual: 5 h of windows without an alarm are missing until "
     "alarms are as rare as promised.")),
    ({"phase": "commissioning", "baseline_windows": 193, "wanted_windows": 72},
     "Not judged yet: it has 193 windows of its usual, but fewer than eight devices have 72."),
    ({"baseline_windows": 336, "wanted_windows": 336}, ""),
    ({}, ""),
])  # fmt: skip
def test_a_device_says_from_when_it_is_judged(changes: dict[str, object], said: str) -> None:
    """Before three days, in a small fleet, provisionally, and for good."""
    assert commissioning_text(point(ROW | changes), (72, 168, 336), 3_600_000) == said


def test_a_provisional_verdict_is_marked() -> None:
    """Its card says that baselines are still collected."""
    assert verdict_card(verdict(VerdictKind.DEVICE_LOCAL, provisional=True), 2).provisional
    assert not verdict_card(verdict(VerdictKind.DEVICE_LOCAL), 2).provisional
