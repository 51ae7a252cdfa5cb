"""Both databases answer alike: every query of the store, with made-up rows, on SQLite and on PostgreSQL.

The names of devices sort differently by code points and in English (PostgreSQL's order here), and some rows have no
order but that of the query.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy as sa

from scripts.bench.postgres import clear
from server.app.retention import RULES, Deleted
from server.errors import DatabaseRefusedError, ValueRefusedError
from server.store import (
    certificates,
    commissions,
    events,
    fleet,
    heartbeat,
    places,
    registry,
    retraining,
    revisions,
    rollouts,
    suspects,
)
from server.store.database import Database, open_database
from server.store.labels import answers
from server.store.monitoring import alarms, alerts, checkpoints, evidence, ingest, spans, usage, windows
from server.store.software import runs

DOMAINS: tuple[ModuleType, ...] = (
    alarms, alerts, answers, certificates, checkpoints, commissions, events, evidence, fleet, heartbeat, ingest, places,
    registry, retraining, rollouts, runs, spans, suspects, usage, windows,
)  # fmt: skip
DEVICES = ("cam-10", "cam2", "Cam-3", "cam_4")
LATE_MS = 1_800_000_000_000  # beyond 32 bits
WIDE = 2**62


def made(table: sa.Table, **values: object) -> dict[str, object]:
    """Return a row of ``table`` with ``values``, and something of the right type in each other column but ``id``."""
    by_type: tuple[tuple[type[Any], object], ...] = (
        (sa.JSON, {"b": 1, "a": [None, "ä", 1.5], "B": {}}), (sa.Boolean, False), (sa.BigInteger, WIDE),
        (sa.Integer, 3), (sa.Float, 0.1), (sa.LargeBinary, b"\x00\xff"), (sa.String, "x"),
    )  # fmt: skip
    serial = table.c.id.autoincrement is True if "id" in table.c else False
    row = {
        column.name: next(value for kind, value in by_type if isinstance(column.type, kind))
        for column in table.c
        if not (serial and column.name == "id")
    }
    assert not values.keys() - row.keys()
    return row | values


@dataclass(slots=True)
class Protocol:
    """Calls functions of the store, each in its own transaction, and keeps what they returned."""

    database: Database
    said: list[tuple[str, str]] = field(default_factory=list)
    called: set[Callable[..., object]] = field(default_factory=set)

    def ask(self, function: Callable[..., Any], *args: object, **options: object) -> Any:  # noqa: ANN401 - any result
        """Return the plain form of what ``function`` returns."""
        self.called.add(function)
        with self.database.begin() as connection:
            found = plain(function(connection, *args, **options))
        self.said.append((function.__name__, repr(found)))
        return found

    def rows(self) -> dict[str, list[str]]:
        """Return every row of every table, in one order."""
        tables = sa.MetaData()
        tables.reflect(self.database.engine)
        with self.database.begin() as connection:
            return {
                table.name: sorted(repr(plain(row)) for row in connection.execute(table.select()).mappings())
                for table in tables.sorted_tables
            }


def plain(value: object) -> object:
    """Return ``value`` in types that compare alike, whatever database it came from; their kinds stay."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in sorted(value.items())}
    if isinstance(value, AbstractSet):
        return sorted(map(repr, value))
    if isinstance(value, list | tuple | Iterator):
        return [plain(one) for one in value]
    return bytes(value) if isinstance(value, memoryview) else value


def people(said: Protocol) -> None:
    """Enrolment, claims, commands, certificates, and devices that end."""
    for number, device in enumerate(DEVICES):
        said.ask(fleet.insert_device, made(fleet.DEVICES, device=device, ended="", clock_skew_ms=number, desired="{}"))
        claim = made(fleet.CLAIMS, claim_sha256=device, device=device, used_ms=0, expires_ms=LATE_MS)
        said.ask(fleet.insert_claim, claim)
    for at_ms in (1, 2, LATE_MS):
        said.ask(fleet.use_claim, "cam2", at_ms)
    said.ask(fleet.reopen_claim, "cam2")
    said.ask(fleet.void_claims, "cam2", 5)
    said.ask(fleet.claim_of, "cam2")
    said.ask(fleet.update_device, "nobody", {"state": "ready"})
    said.ask(fleet.update_device, "Cam-3", {"ended": "revoked", "ended_ms": 7, "reported": None})
    said.ask(fleet.hold_devices, DEVICES)
    said.ask(fleet.touch_devices, list(DEVICES[:2]), LATE_MS)
    for query in (fleet.active_devices, fleet.ended_since):
        said.ask(query)
    said.ask(fleet.one_device, "cam2")
    changes = {
        "cam2": {"state": "ready", "last_seen_ms": LATE_MS},
        "cam-10": {"clock_skew_ms": 3},
        "nobody": {"state": "x"},
    }
    said.ask(fleet.update_devices, changes)
    for of_devices in (
        fleet.sites_of, fleet.ended_of, fleet.devices_with_skew, fleet.skews_of, fleet.reports_of,
    ):  # fmt: skip
        said.ask(of_devices, DEVICES)
    said.ask(fleet.desired_texts, ["cam2"])
    for number, issued_ms in enumerate((2, LATE_MS, 5)):
        command = made(fleet.COMMANDS, id=f"c{number}", device="cam2", issued_ms=issued_ms, answered_ms=0)
        said.ask(fleet.insert_command, command)
    for _ in range(2):
        said.ask(fleet.answer_command, "cam2", "c1", {"answered_ms": 9, "ok": True, "data": {"z": 1, "a": 2}})
    said.ask(fleet.one_command, "c1")
    said.ask(fleet.newest_command, "cam2", "x")
    for from_ms in (3, 9, LATE_MS):
        said.ask(fleet.insert_ran, made(fleet.RAN, device="cam2", from_ms=from_ms))
    said.ask(fleet.latest_from_ms, "cam2")
    said.ask(fleet.ran_at, "cam2", 9)
    said.ask(fleet.ran_history, "cam2")
    for device in DEVICES[:2]:
        signed = made(certificates.CERTIFICATES, sha256=device, device=device, revoked_ms=0, expires_ms=LATE_MS)
        said.ask(certificates.insert_certificate, signed)
    said.ask(certificates.revoke_certificates, "cam-10", 4)
    said.ask(certificates.revoked_certificates)
    said.ask(certificates.holder_of, "cam2", 5)
    said.ask(certificates.newest_certificate, "cam2", 5)


def messages(said: Protocol) -> None:
    """Windows, measurements, events, boots, progress and usage, and how they end."""
    rows = [
        made(windows.WINDOWS, device=device, start_ms=start_ms, received_ms=start_ms + 10, len_ms=5, n=7)
        for start_ms in (LATE_MS, 1_000, 2_000) for device in DEVICES
    ]  # fmt: skip
    said.ask(windows.insert_windows, rows)
    key = ("cam2", 1_000, "x", "x", 3)
    (found,) = said.ask(windows.windows_at, {key, ("cam2", 1_000, "x", "y", 3)}).values()
    said.ask(windows.delete_windows, [found["id"]])
    said.ask(windows.insert_windows, [{**found, "id": 0} | {"n": 8}][:0])
    said.ask(windows.windows_since, 2, 5)
    said.ask(windows.arrived_since, 0, 1_500)
    said.ask(windows.arrived_since, 10**6, 0)
    said.ask(windows.windows_between, 1_000, 3_000, "cam2")
    said.ask(windows.windows_between, 1_000, 3_000, None)
    said.ask(windows.images_since, 0)
    said.ask(windows.late_windows, "cam2")
    said.ask(windows.late_windows, "nobody")
    said.ask(windows.latest_cursor)
    said.ask(evidence.window_starts, 0, LATE_MS, 2)
    said.ask(
        ingest.insert_boots, [made(ingest.BOOTS, device="cam2", boot=f"b{n}", place=n, heard_ms=n) for n in (1, 2)]
    )
    said.ask(ingest.insert_boots, [made(ingest.BOOTS, device="cam2", boot="b1", place=9, heard_ms=9)])
    said.ask(lambda connection: sorted(map(repr, map(dict, ingest.boots_of(connection, ["cam2"])))))
    said.called.add(ingest.boots_of)
    for seq in (1, WIDE):
        progress = [
            made(ingest.PROGRESS, device=device, stream="drift", through_seq=seq, at_ms=4) for device in DEVICES
        ]
        said.ask(ingest.put_progress, progress)
    said.ask(lambda connection: sorted(map(repr, map(dict, ingest.progress_of(connection, DEVICES, ["x"])))))
    said.called.add(ingest.progress_of)
    batches = [
        made(ingest.BATCHES, device="cam2", stream="hw", t0_ms=t0, received_ms=5, rows=[{"b": 1.0}]) for t0 in (9, 3, 9)
    ]
    said.ask(ingest.insert_batches, batches)
    said.ask(ingest.latest_batches, "cam2", "hw", 2)
    days = [made(usage.DEVICE_DAYS, device="cam2", day=day, sent_bytes=sent, dropped={"hw": sent}) for day, sent in
            (("2026-11-29", 5), ("2026-11-30", 2), ("2026-11-29", 3))]  # fmt: skip
    for _ in range(2):
        said.ask(usage.put_device_days, days)
    said.ask(usage.device_days, "cam2", 5)
    told = [
        made(events.EVENTS, device=device, at_ms=at_ms, seq=1)
        for at_ms, device in zip((3, 1, 2), ("cam2", None, "cam2"), strict=True)
    ]
    said.ask(events.insert_events, told)
    for device in (None, "cam2"):
        said.ask(events.events_after, 1, 5, device)
        said.ask(events.latest_events, 2, device)
    said.ask(heartbeat.latest_heartbeat_ms)
    for at_ms in (5, LATE_MS):
        said.ask(heartbeat.put_heartbeat, at_ms)
    said.ask(heartbeat.latest_heartbeat_ms)


def judgements(said: Protocol) -> None:
    """Evidence, verdicts, baselines, checkpoints, commissions, places and suspects."""
    for start_ms in (2_000, 1_000, 2_000):
        rows = [
            made(evidence.EVIDENCE, device=device, start_ms=start_ms, log_value=None, streams="[]")
            for device in DEVICES
        ]
        pools = [made(evidence.POOLS, attribute="lens", value=value, start_ms=start_ms) for value in "bAa"]
        said.ask(evidence.replace_slot, start_ms, start_ms + 1, rows, pools)
    said.ask(evidence.latest_evidence_ms)
    said.ask(evidence.evidence_of, None, 7)
    said.ask(evidence.evidence_of, "cam2", 7)
    said.ask(lambda connection: sorted(map(repr, map(dict, evidence.latest_evidence(connection)))))
    said.ask(lambda connection: sorted(map(repr, map(dict, evidence.latest_pools(connection)))))
    said.called |= {evidence.latest_evidence, evidence.latest_pools}
    said.ask(evidence.pool_evidence, 4)
    verdicts = [made(evidence.VERDICTS, key=key, closed_ms=0, dismissed_ms=0, streams=None) for key in "abcd"]
    said.ask(evidence.insert_verdicts, verdicts)
    said.ask(evidence.insert_verdicts, [])
    said.ask(
        evidence.keep_verdicts,
        [{"verdict": 1, "windows": 9, "devices": ["z", "a"]}, {"verdict": 2, "windows": 8, "devices": []}],
    )
    said.ask(evidence.close_verdicts, [3, 4], 50)
    said.ask(evidence.stay_verdicts, [1, 2], LATE_MS)
    said.ask(evidence.join_verdicts, [(2, 1)])
    said.ask(evidence.parts_of_verdicts, [1, 3])
    for verdict in (1, 1, 3):
        said.ask(evidence.dismiss_verdict, verdict, 8, by="a", why="b")
    said.ask(evidence.open_verdicts)
    said.ask(evidence.open_verdicts, "x", "x")
    said.ask(evidence.open_verdicts, "x", "other")
    said.ask(evidence.latest_verdicts, 2)
    said.ask(evidence.one_verdict, 3)
    for provisional in (True, False, True):
        baselines = [
            made(checkpoints.BASELINES, device=d, since_ms=s, provisional=provisional, windows=s)
            for d in DEVICES
            for s in (0, 9)
        ]
        said.ask(checkpoints.add_baselines, baselines)
    said.ask(lambda connection: sorted(map(repr, map(dict, checkpoints.baselines_of(connection, "x", "x")))))
    said.called.add(checkpoints.baselines_of)
    for slot_ms in (1, LATE_MS):
        pools = [made(checkpoints.POOL_MOVEMENTS, value=value, slot_ms=slot_ms) for value in "ba"]
        said.ask(checkpoints.put_pool_movements, pools)
    said.ask(checkpoints.pool_movements_of, "x", "x")
    for slot, block in ((5, 2), (5, 1), (5, 0), (6, 1), (WIDE, 0)):
        said.ask(checkpoints.put_block, slot, block, bytes([block]))
    said.ask(checkpoints.checkpoint_slots)
    said.ask(checkpoints.checkpoint_blocks, 5)
    said.ask(checkpoints.one_block, 5, 1)
    said.ask(checkpoints.one_block, 5, 7)
    said.ask(checkpoints.unfinished_slots)
    said.ask(checkpoints.delete_checkpoints, [5, 6])


def accepted(said: Protocol) -> None:
    """Commissions, changes of model, places and suspects."""
    again = [
        made(commissions.COMMISSIONS, device=device, from_ms=from_ms) for from_ms in (5, 1, 7) for device in DEVICES[:2]
    ]
    said.ask(commissions.insert_commissions, again)
    said.ask(commissions.all_commissions)
    said.ask(commissions.all_commissions, "cam2")
    said.ask(lambda connection: sorted(commissions.moments(connection)))
    said.ask(commissions.newest_moments)
    for model, from_ms in (("a", 1), ("b", 5), ("a", 9)):
        said.ask(
            commissions.insert_model_change,
            made(commissions.MODEL_CHANGES, device="cam2", model=model, from_ms=from_ms),
        )
    said.ask(commissions.newest_model, "cam2")
    said.ask(commissions.newest_model, "nobody")
    said.ask(lambda connection: sorted(commissions.model_changes(connection)))
    said.called |= {commissions.moments, commissions.model_changes}
    for verdict, device in ((1, "cam2"), (9, "cam-10")):
        said.ask(places.insert_place, made(places.PLACES, verdict=verdict, device=device, decided_ms=0))
        for asks in (1, 2):
            said.ask(
                suspects.put_suspect, made(suspects.SUSPECTS, verdict=verdict, device=device, asks=asks, decided_ms=0)
            )
    said.ask(places.update_place, 1, {"decided_ms": 5, "state": "accepted"}, undecided=True)
    said.ask(places.update_place, 1, {"decided_ms": 6}, undecided=True)
    said.ask(places.update_places_of, ["cam2"], {"audited": 4})
    said.ask(places.place_of, 1)
    said.ask(places.all_places)
    said.ask(lambda connection: sorted(places.verdicts_of_places(connection, "open")))
    said.called.add(places.verdicts_of_places)
    said.ask(suspects.all_suspects)


def releases(said: Protocol) -> None:
    """Releases, rollouts and their members."""
    for path, registered_ms in (("m-2/b", 2), ("m-2/A", 2), ("m-1/a", 1), ("m-1/a", LATE_MS)):
        row = made(
            registry.RELEASES, path=path, name=path[:3], sha256=f"{path}%_", registered_ms=registered_ms, withdrawn_ms=0
        )
        said.ask(registry.put_release, row)
    said.ask(registry.withdraw_release, "m-2", 5, why="w", by="b")
    said.ask(registry.withdraw_release, "m-2", 6, why="w", by="b")
    said.ask(registry.all_releases)
    said.ask(registry.releases_of, "m-2/A%_")
    said.ask(registry.released, ["m-2/A%_", "none"])
    for number, created_ms in enumerate((5, LATE_MS, 5)):
        members = [
            made(rollouts.MEMBERS, rollout=f"r{number}", device=device, group=group, before='"a%b"', answered=None)
            for group, device in ((1, "cam2"), (0, "cam-10"))
        ]  # fmt: skip
        row = made(rollouts.ROLLOUTS, id=f"r{number}", release="m-2", created_ms=created_ms, groups=[{"b": 1, "a": 2}])
        said.ask(rollouts.insert_rollout, row, members)
    said.ask(rollouts.insert_members, [made(rollouts.MEMBERS, rollout="r1", device="Cam-3", group=0, answered=WIDE)])
    said.ask(rollouts.update_rollout, "r1", {"phase": "done", "updated_ms": LATE_MS})
    said.ask(rollouts.update_member, "r1", "cam2", {"standing": "committed", "assigned_ms": 4})
    for query in (rollouts.all_rollouts, rollouts.newest_rollout):
        said.ask(query)
    said.ask(rollouts.rollouts_in, ["x", "done"])
    said.ask(rollouts.one_rollout, "r1")
    said.ask(lambda connection: sorted(row["id"] for row in rollouts.rollouts_named(connection, ["r2", "r0", "none"])))
    said.called.add(rollouts.rollouts_named)
    said.ask(rollouts.members_of, ["r0", "r2"])
    for above in (0, 1, 2, 3):  # two came with the first change, the third with the second, cam2 changed at last
        said.ask(rollouts.members_changed, "r1", above)
    for sha256 in ("m-2/A%_", "a%b", "a_b"):
        said.ask(rollouts.was_assigned, "cam2", sha256)
    for verdict in (1, 77):
        said.ask(rollouts.note_paused_for, verdict, 5)
    said.ask(rollouts.paused_for)


def labels(said: Protocol) -> None:
    """Answers of people to the samples of ``learning``, leases and marks."""
    said.called.add(answers.has_answer)
    said.ask(answers.lock_image, "x", "q")
    said.ask(retraining.first_samples, "x", ["p", "q", "none"])
    said.ask(retraining.labelled_images, "x", 4)
    said.ask(retraining.samples_with, [1, 2, 3, 99])
    for unlabelled in (False, True):
        said.ask(retraining.images_after, "x", 1, 4, unlabelled=unlabelled)
    for person, label, first in (("anna", "1", "1"), ("Ben", "2", "2"), ("anna", "3", ""), ("cy", "2", "")):
        said.ask(answers.put_answer, "x", "q", person, label, LATE_MS, first=first, seen=person == "cy")
    for image, model in (("q", "x"), ("p", "x"), ("q", "model")):
        said.ask(answers.put_answer, model, image, "dan", "2", 7, first="2")
    said.ask(answers.take_answer_back, "x", "q", "cy")
    said.ask(answers.take_answer_back, "x", "q", "cy")
    said.ask(answers.answers_of, "x", "q")
    said.ask(answers.unsettled_answers)
    said.ask(answers.unsettled_answers, "x")
    said.ask(answers.twice_answered, "x", 5)
    said.ask(answers.put_mark, "x", "q", "broken", "anna", 5)
    said.ask(answers.put_mark, "x", "q", "unsure", "anna", 6)
    said.ask(answers.put_mark, "x", "p", "unsure", "anna", 6)
    said.ask(answers.put_mark, "x", "p", "", "anna", 7)
    for model in ("x", ""):
        said.ask(answers.marked_samples, model, 5)
    said.ask(answers.models_waiting)
    for person, devices in (("dan", ()), ("eve", ()), ("eve", DEVICES[:2])):
        said.ask(answers.waiting_images, model="x", person=person, devices=devices, since_ms=0, limit=9)
    place = {"model": "x", "sha256": "p", "place": 0}
    said.ask(answers.renew_lease, place, "anna", 1, LATE_MS)
    said.ask(answers.insert_lease, place, "anna", 50)
    said.ask(answers.renew_lease, place, "Ben", 50, LATE_MS)
    said.ask(answers.renew_lease, place, "Ben", 51, LATE_MS)
    said.ask(answers.renew_own_lease, "x", "p", "anna", 60)
    said.ask(answers.renew_own_lease, "x", "p", "Ben", 60)
    said.ask(answers.insert_lease, {**place, "place": 1}, "anna", 50)
    said.ask(answers.leases_now, "x", 55)
    said.ask(answers.end_leases, "anna", "x", "q")
    said.ask(answers.delete_leases_before, 55, 9)
    said.ask(answers.end_leases, "Ben")
    said.ask(answers.adopt_answers, "x", "model")
    said.ask(answers.answers_of, "model", "q")


def learning(said: Protocol) -> None:
    """Samples, labels, claims, audits, jobs and triggers."""
    for number, (device, image, lane) in enumerate(itertools.product(DEVICES[:2], "pqr", ("audit", "correction"))):
        sample = made(
            retraining.SAMPLES, device=device, seq=number, sha256=image, lane=lane, label=None, label_by=None,
            expired_ms=0, claimed="cat" if image == "p" else "", received_ms=number,
            at_ms=number, labelled_ms=0, length_bytes=2**40,
        )  # fmt: skip
        said.ask(retraining.insert_sample, sample)
    said.ask(retraining.has_sample, "cam2", "x", 7)
    said.ask(retraining.has_sample, "cam2", "x", 700)
    said.ask(retraining.correction_of, "cam2", "x", "q", 9)
    said.ask(retraining.set_sample_key, 1, "other", WIDE)
    said.ask(retraining.replace_claims, "cam2", "x", "p", "dog", 5)
    said.ask(retraining.claim_changes, "x", "p")
    said.ask(retraining.count_of_request, "cam2", "x")
    said.ask(retraining.sample_bytes, "cam2", 0)
    said.ask(retraining.sample_bytes, "nobody", 0)
    for was in (None, None, "0"):
        label = {"label": "1" if was else "0", "label_by": "eve", "labelled_ms": LATE_MS}
        said.ask(retraining.label_image, "x", "p", was, label)
    change = {"new_label": "2", "changed_by": "eve", "changed_ms": LATE_MS}
    said.ask(retraining.keep_label, "x", "p", "1", change)
    said.ask(retraining.keep_label, "x", "p", "nothing", change)
    said.ask(retraining.label_changes, "x", "p")
    said.ask(retraining.known_label, "x", "p")
    said.ask(retraining.latest_samples, unlabelled=True, limit=3)
    said.ask(retraining.latest_samples, unlabelled=True, limit=3, after=3)
    said.ask(retraining.latest_samples, unlabelled=False, limit=3, after=9)
    said.ask(retraining.one_sample, 3)
    said.ask(retraining.count_waiting, "audit")
    said.ask(retraining.audit_samples, "x", ["x", "y"])
    for query in (retraining.given_labels, retraining.all_audits):
        said.ask(query)
    said.ask(retraining.artifacts_of_image, "x", "p")
    said.ask(retraining.images_labelled, "x", "x", "1")
    said.ask(retraining.last_labelled, 4)
    said.ask(retraining.labelled_samples, DEVICES, 0, "x")
    said.ask(retraining.newest_labelled, "audit", "x", ["cam2"], 5)
    said.ask(retraining.expire_samples, "audit", 1, 60, answers.has_answer())
    said.ask(retraining.count_samples, expired_since_ms=0)
    labels(said)
    said.ask(retraining.adopt_samples, "x", "model", 70)
    for ratio in (0.1, 1 / 3):
        said.ask(retraining.put_audit, made(retraining.AUDITS, model="model", ratio=ratio))
    said.ask(retraining.all_audits)
    for number, state in enumerate(("queued", "leased", "queued")):
        job = made(
            retraining.JOBS,
            id=f"j{number}",
            state=state,
            worker=f"w{number}",
            created_ms=number,
            lease_until_ms=9,
            look=number,
        )
        said.ask(retraining.insert_job, job)
    said.ask(retraining.one_job, "j1")
    said.ask(retraining.jobs_known, ["j1", "none"])
    said.ask(retraining.images_needed, ["p", "q", "none"])
    said.ask(retraining.looks_at, "x", "x")
    said.ask(retraining.looks_at, "x", "nothing")
    for worker, now_ms in (("w2", 5), ("w1", 5), ("w9", 50)):
        said.ask(retraining.free_job, worker, now_ms)
    for was in ("queued", "leased"):
        said.ask(
            retraining.change_job,
            "j1",
            {"state": was, "worker": "w1"},
            {"state": "done", "certificate": {"b": 1, "a": None}},
        )
    for cause in "ab":
        said.ask(retraining.insert_trigger, made(retraining.TRIGGERS, cause=cause, verdict=4))
    said.ask(retraining.update_trigger, 1, {"phase": "done", "approved": True})
    queries = ((retraining.count_triggers,), (retraining.all_triggers, 5), (retraining.triggers_in, ["done", ""]),
               (retraining.triggers_of, [4, 5]))  # fmt: skip
    for query, *wanted in queries:
        said.ask(query, *wanted)


def spanned(said: Protocol) -> None:
    """Windows that are merged or pinned."""
    rows = [
        made(spans.SPANS, device=device, resolution="day", start_ms=start_ms, len_ms=5, received_ms=start_ms)
        for start_ms in (LATE_MS, 1_000) for device in DEVICES
    ]  # fmt: skip
    said.ask(spans.insert_spans, rows)
    for after, limit in (("cam", 2), ("", 1), ("", 9), ("zzz", 2)):
        said.ask(spans.devices_after, after, limit)
    said.ask(spans.old_windows, DEVICES, 3_000, 5)
    said.ask(spans.old_spans, DEVICES, "day", 3_000, 3)
    said.ask(spans.spans_between, "cam2", 0, LATE_MS + 1, 5)
    said.ask(spans.spans_at, {spans.key_of(rows[0]), spans.key_of(rows[5])})
    said.ask(spans.delete_spans, [spans.key_of(rows[0])])
    said.ask(spans.delete_old_spans, ["cam_4"], "day", 3_000)
    pins = [made(spans.PINS, device=device, verdict=verdict, from_ms=0) for device in DEVICES for verdict in (1, 99)]
    said.ask(spans.insert_pins, pins)
    said.ask(lambda connection: sorted(spans.pins_of(connection, DEVICES).items()))
    said.ask(spans.insert_pinned, [made(spans.PINNED, id=number, start_ms=2_000, device="cam2") for number in (9, 7)])
    said.ask(spans.pinned_between, "cam2", 0, 3_000)
    said.called |= {spans.key_of, spans.pins_of}


def warned(said: Protocol) -> None:
    """Alerts, what is done about them, and what is to be delivered."""
    for number, resolved_ms in enumerate((0, 1_000, LATE_MS, 0), start=1):
        row = made(
            alerts.ALERTS, key=f"k{number}", kind="away", state="resolved" if resolved_ms else "open",
            severity="alarm", resolved_ms=resolved_ms, gone_ms=resolved_ms, revision=0, verdict=number,
        )  # fmt: skip
        said.ask(alerts.insert_alert, row)
    said.ask(alerts.update_alert, 1, 0, {"state": "snoozed", "devices": ["cam2", "ä"]})
    said.ask(alerts.update_alert, 1, 0, {"state": "open"})
    said.ask(alerts.alerts_to_settle, 1_500)
    for query in (alerts.unresolved_keys, alerts.counted_alerts):
        said.ask(query)
    said.ask(alerts.one_alert, 1)
    for kind, search in (("", ""), ("away", "X"), ("server", ""), ("", "x_")):
        said.ask(alerts.alert_page, {"open", "snoozed", "resolved"}, kind=kind, search=search, limit=2)
    for alert, by in ((1, ""), (2, ""), (1, "ada")):
        said.ask(alerts.insert_act, made(alerts.ALERT_ACTS, alert=alert, by=by, at_ms=5))
    said.ask(alerts.acts_of, 1)
    rows = [
        made(alerts.NOTICES, alert=alert, route=route, delivered_ms=0, next_ms=next_ms, attempts=0, error="e")
        for alert, route, next_ms in ((1, "a", 9), (1, "a", 0), (2, "a", 3), (3, "b", LATE_MS), (4, "gone", 0))
    ]
    said.ask(alerts.insert_notices, rows)
    for now_ms in (2, 3, 9):
        said.ask(alerts.next_notice, "a", now_ms, 10**12)
    said.ask(alerts.next_notice, "b", 0, 10)
    said.ask(alerts.update_notice, 1, {"delivered_ms": 5, "answer": "ok"})
    said.ask(alerts.waiting_notices)
    said.ask(alerts.forsaken_notices, {"a", "b"}, 7, "why")
    said.ask(alerts.notices_of, 1)


def alarmed(said: Protocol) -> None:
    """Alarms with what they are derived from, and words in alerts."""
    said.ask(alerts.insert_alert, made(alerts.ALERTS, title="Ärger 100%_", cause="ÄRGER", state="open"))
    for search in ("Ärger", "ärger", "äRGER", "100%_", "0%0", "GER"):
        said.ask(lambda connection, words: alerts.alert_page(connection, {"open"}, search=words, limit=2).rows, search)
    shares = [
        made(alarms.SHARES, start_ms=start_ms, context=context) for start_ms in (2_000, 1_000) for context in (1, 0)
    ]
    for _ in range(2):
        said.ask(alarms.replace_shares, 0, 3_000, shares)
    said.ask(alarms.shares_between, "x", "x", 0, 3_000)
    said.ask(alarms.faulty_slots, "cam2", 0, 3_000)
    paths = [made(alarms.PATHS, verdict=1, device=device, from_ms=0) for device in DEVICES]
    said.ask(alarms.insert_alarm, made(alarms.ALARMS, verdict=1, slot_ms=1_500, log_threshold=1 / 3), paths)
    said.ask(alarms.alarm_of, 1)
    said.ask(alarms.paths_of, 1)


def software(said: Protocol) -> None:
    """Lists of software, and when devices ran them."""
    for device, digest, from_ms in (
        ("cam2", "a", 5), ("cam-10", "a", LATE_MS), ("cam2", "b", 3), ("cam2", "a", 9), ("cam-10", "", 4),
        ("cam_4", "c", 5), ("Cam-3", "d", 5), ("Cam-3", "", LATE_MS),
    ):  # fmt: skip
        said.ask(runs.begin_run, device, digest, from_ms, 7)
    said.ask(runs.missing_lists, 9)
    said.ask(runs.connected_runners, "a", ["ready", "x"], 9)
    one = {"kind": "package", "key": "a-b", "name": "A_b", "version": "1", "sha256": ""}
    values = {"packed": b"\x00\xff", "left_out": 2, "stored_ms": LATE_MS}
    for digest in ("a", "a", "nobody", "d"):
        said.ask(runs.store_list, digest, values, [one, {**one, "name": "Ä"}])
    said.ask(runs.store_list, "c", values, [])
    for digest in ("a", "nobody"):
        said.ask(runs.one_list, digest)
    for at_ms in (4, 5, 6, 9, LATE_MS):
        said.ask(runs.run_at, "cam2", at_ms)
    said.ask(runs.run_at, "cam-10", LATE_MS + 1)


def ending(said: Protocol) -> None:
    """Retention of every table."""
    for name, rules in RULES.items():
        for rule in rules:
            for before_ms, limit in ((0, 9), (1_500, 100), (LATE_MS + 10**6, 100)):
                if isinstance(rule, Deleted):
                    said.said.append((name, ""))
                    said.ask(rule.delete, before_ms, limit)
                    said.called.add(events.delete_events_before)


PARTS = (people, messages, judgements, accepted, releases, learning, spanned, warned, alarmed, software, ending)


@pytest.fixture
def large(postgres: str) -> Iterator[Protocol]:
    """An empty PostgreSQL."""
    clear(postgres)
    said = Protocol(open_database(postgres))
    yield said
    said.database.close()


def test_both_databases_answer_every_query_alike(tmp_path: Path, large: Protocol) -> None:
    """Values, their kinds and the order of rows; then every row of every table."""
    small = Protocol(open_database(f"sqlite:///{tmp_path / 'fleet.db'}"))
    for part in PARTS:
        for said in (small, large):
            part(said)
    differing = [(ours, theirs) for ours, theirs in zip(small.said, large.said, strict=True) if ours != theirs]
    assert differing == []
    assert small.rows() == large.rows()


@pytest.mark.nightly
def test_no_query_of_the_store_is_left_out(tmp_path: Path) -> None:
    """Of the files of ``DOMAINS``; those of lists and of people have tests of their own on both databases."""
    said = Protocol(open_database(f"sqlite:///{tmp_path / 'fleet.db'}"))
    for part in PARTS:
        part(said)
    said.database.close()
    public = {
        function for domain in DOMAINS for name, function in inspect.getmembers(domain, inspect.isfunction)
        if function.__module__ == domain.__name__ and not name.startswith("_")
    }  # fmt: skip
    left_out = sorted(one.__name__ for one in public - said.called)
    assert left_out == [], "call them in the stories of this file, so that both databases answer them"


def test_a_window_that_commits_after_a_later_one_is_not_passed_over(large: Protocol) -> None:
    """Two processes write at once: a reader with a cursor sees neither until both are there, and then both."""
    database = large.database
    before = large.ask(windows.latest_cursor)
    with database.begin() as slow:
        windows.insert_windows(slow, [made(windows.WINDOWS, device="slow", start_ms=5)])
        with database.begin() as fast:
            windows.insert_windows(fast, [made(windows.WINDOWS, device="fast", start_ms=4)])
        with database.begin() as reading:
            assert windows.windows_since(reading, before, 10) == []
            assert windows.arrived_since(reading, before, 0) == (before, None)
            assert windows.latest_cursor(reading) == before
    assert [row["device"] for row in large.ask(windows.windows_since, before, 10)] == ["slow", "fast"]
    assert large.ask(windows.arrived_since, before, 0)[1] == 4


def test_an_event_that_commits_after_a_later_one_is_not_passed_over(large: Protocol) -> None:
    """The same for those who follow the event log; a writer that fails holds nobody back."""
    database = large.database
    with database.engine.connect() as slow, slow.begin() as transaction:
        events.insert_events(slow, [made(events.EVENTS, text="slow")])
        large.ask(events.insert_events, [made(events.EVENTS, text="fast")])
        assert large.ask(events.events_after, 0, 10, None) == []
        transaction.rollback()
    assert [row["text"] for row in large.ask(events.events_after, 0, 10, None)] == ["fast"]


def test_two_processes_never_store_messages_of_one_device_at_once(large: Protocol) -> None:
    """The second waits, however it names the devices; those of other devices go on."""
    database = large.database
    for device in DEVICES:
        large.ask(fleet.insert_device, made(fleet.DEVICES, device=device))
    with database.begin() as first:
        fleet.hold_devices(first, ["cam2", "cam-10"])
        _hold_at_once(database, ["cam_4"])
        with pytest.raises(DatabaseRefusedError, match="lock timeout"):
            _hold_at_once(database, {"cam-10", "Cam-3"})


@pytest.mark.parametrize("values", [{"device": "x" * 64}, {"site": "a\0b"}, {"context": 2**40}])
def test_a_row_that_can_not_be_copied_is_refused_as_the_callers(large: Protocol, values: dict[str, object]) -> None:
    """Too long, or no text or number of the column: nothing of its batch is stored, and the connection goes on."""
    rows = [made(windows.WINDOWS, device="cam2", start_ms=1), made(windows.WINDOWS, start_ms=2, **values)]
    with pytest.raises(ValueRefusedError, match="Expected"):
        large.ask(windows.insert_windows, rows)
    large.ask(windows.insert_windows, rows[:1])
    assert [row["start_ms"] for row in large.ask(windows.windows_since, 0, 10)] == [1]


def test_a_row_that_is_there_is_an_integrity_error_when_copied(large: Protocol) -> None:
    """As for any insert."""
    rows = [made(windows.WINDOWS, device="cam2", start_ms=1)] * 2
    with pytest.raises(sa.exc.IntegrityError):
        large.ask(windows.insert_windows, rows)


def _hold_at_once(database: Database, devices: Collection[str]) -> None:
    with database.begin() as connection:
        connection.exec_driver_sql("SET LOCAL lock_timeout = '20ms'")
        fleet.hold_devices(connection, devices)


def test_a_migrated_database_orders_texts_and_counts_ids_as_a_new_one(
    old_url: str, engine_at: Callable[[str], sa.Engine], tables: sa.MetaData
) -> None:
    """Texts by code points, ids of 64 bits, whatever made the table."""
    engine = engine_at(old_url)
    revisions.upgrade(engine, tables)
    if engine.dialect.name == "sqlite":
        return
    with engine.begin() as connection:
        narrow = connection.execute(revisions._NARROW_IDS).all()
        assert (narrow, connection.execute(revisions._UNORDERED_TEXTS).all()) == ([], [])
        kinds = connection.exec_driver_sql("SELECT DISTINCT data_type FROM pg_sequences").scalars().all()
    assert [str(kind) for kind in kinds] == ["bigint"]
