"""Files that no row names are deleted; all others stay, also those that are about to get their row."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from server.app.orphans import orphan_files
from server.store.registry import RELEASES
from server.store.retraining import JOBS, SAMPLES

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet

DAY_MS = 86_400_000
NOW_MS = 1_000 * DAY_MS
NAMED, EXPIRED, LABELLED, UNKNOWN, FRESH = (letter * 64 for letter in "abcde")


def _file(path: Path, age_days: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    at_s = (NOW_MS - age_days * DAY_MS) / 1000
    os.utime(path, (at_s, at_s))


def _sample(sha256: str, seq: int, expired_ms: int, label: str | None) -> dict[str, object]:
    return {"device": "d", "boot": "", "seq": seq, "sha256": sha256, "media_type": "", "length_bytes": 1, "request": "",
            "lane": "", "inclusion_ratio": 1.0, "predicted": 0, "confidence": 0.0, "artifact_sha256": "", "at_ms": 0,
            "received_ms": 0, "expired_ms": expired_ms, "label": label}  # fmt: skip


def _job(job: str) -> dict[str, object]:
    numbers = dict.fromkeys(("retraining", "labelled", "attempts", "lease_until_ms", "created_ms", "ended_ms"), 0)
    texts = (
        "model",
        "base_release",
        "base_sha256",
        "cause",
        "samples_sha256",
        "state",
        "worker",
        "release",
        "code",
        "text",
    )
    return {"id": job, **numbers, **dict.fromkeys(texts, ""), "certificate": {}}


def test_only_old_files_without_a_row_go(fleet: MemoryFleet, tmp_path: Path) -> None:
    """Of images, jobs and bundles; a folder and a file of another kind are left alone."""
    release = {"path": "p", "name": "m-1", "sha256": NAMED, "length_bytes": 1, "custom": "{}", "registered_ms": 0}
    with fleet.app.parts.database.begin() as connection:
        connection.execute(SAMPLES.insert(), [
            _sample(NAMED, 1, 0, None), _sample(EXPIRED, 2, 5, None), _sample(LABELLED, 3, 5, "cat"),
        ])  # fmt: skip
        connection.execute(JOBS.insert(), _job("known"))
        connection.execute(RELEASES.insert(), release)
    for name, age_days in ((NAMED, 9), (EXPIRED, 9), (LABELLED, 9), (UNKNOWN, 9), (FRESH, 1)):
        _file(tmp_path / "samples" / f"{name}.png", age_days)
    for name, age_days in (("known", 9), ("unknown", 9), ("fresh", 1)):
        _file(tmp_path / "jobs" / f"{name}.zip", age_days)
    for name, age_days in ((NAMED, 900), (UNKNOWN, 91), (FRESH, 89)):
        _file(tmp_path / "blobs" / name, age_days)
    (tmp_path / "samples" / "folder").mkdir()
    folders = {name: tmp_path / name for name in ("samples", "jobs", "blobs")}
    service = orphan_files(fleet.app.parts.database, **folders, retention_days=90.0)
    for _ in range(9):
        service.turn(NOW_MS)
    left = {name: sorted(path.stem[:5] for path in folder.iterdir()) for name, folder in folders.items()}
    assert left == {"samples": ["aaaaa", "ccccc", "eeeee", "folde"], "jobs": ["fresh", "known"],
                    "blobs": ["aaaaa", "eeeee"]}  # fmt: skip


def test_the_folders_are_looked_through_once_a_day(fleet: MemoryFleet, tmp_path: Path) -> None:
    """A folder that is not there yet is no fault; a file that turns old is found a day later."""
    folders = {name: tmp_path / name for name in ("samples", "jobs", "blobs")}
    service = orphan_files(fleet.app.parts.database, **folders, retention_days=90.0)
    service.turn(NOW_MS)
    _file(tmp_path / "samples" / f"{UNKNOWN}.png", 9)
    service.turn(NOW_MS + DAY_MS - 1)
    assert (tmp_path / "samples" / f"{UNKNOWN}.png").exists()
    for _ in range(2):
        service.turn(NOW_MS + DAY_MS)
    assert not (tmp_path / "samples" / f"{UNKNOWN}.png").exists()
