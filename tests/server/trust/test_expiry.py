"""Metadata near its expiry is reported in time, once a day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Targets

from compressor.release.keys import init_keys
from server.registry.events import EventLog, LoggedEvent
from server.store.database import open_database
from server.trust.expiry import ExpiryWatch
from server.trust.online_keys import init_online_keys
from server.trust.repository import TrustRepository
from server.trust.roots import install_root

DAY_MS = 86_400_000
START_MS = int(datetime.now(UTC).timestamp() * 1000)


@pytest.fixture
def watch(tmp_path: Path) -> ExpiryWatch:
    """A repository whose targets expire in 40 days, its root in a year."""
    root = init_keys(tmp_path / "keys", init_online_keys(tmp_path / "state"))
    install_root(tmp_path / "state", root)
    trust = TrustRepository(tmp_path / "state", lambda: START_MS)
    metadata = Metadata(Targets(version=1, expires=datetime.now(UTC) + timedelta(days=40)))
    metadata.sign(CryptoSigner(load_pem_private_key((tmp_path / "keys/targets.key").read_bytes(), None)))
    trust.publish_targets(metadata.to_bytes(), lambda _: True)
    return ExpiryWatch(trust=trust, events=EventLog(open_database(f"sqlite:///{tmp_path / 'fleet.db'}")))


def _said(watch: ExpiryWatch, days: float) -> list[LoggedEvent]:
    before = len(watch.events.after(0, 1000))
    watch.turn(START_MS + round(days * DAY_MS))
    return list(watch.events.after(0, 1000))[before:]


def test_fresh_metadata_is_no_news(watch: ExpiryWatch) -> None:
    """Neither the year of the root nor the week of the timestamp is a warning."""
    assert _said(watch, 0) == []
    assert _said(watch, 3) == []


def test_targets_near_their_end_are_said_once_a_day_with_what_to_do(watch: ExpiryWatch) -> None:
    """A month is enough to publish again."""
    watch.trust.turn(START_MS + 11 * DAY_MS)
    (event,) = _said(watch, 11)
    assert (event.code, event.severity.value, event.data["role"]) == ("metadata_expires", "warning", "targets")
    assert "compressor publish" in event.text
    assert _said(watch, 11.5) == []
    watch.trust.turn(START_MS + 12 * DAY_MS)
    assert [one.code for one in _said(watch, 12.1)] == ["metadata_expires"]


def test_expired_metadata_is_an_error(watch: ExpiryWatch) -> None:
    """With an expired timestamp devices get no updates."""
    found = {one.data["role"]: one for one in _said(watch, 8)}
    assert set(found) == {"timestamp"}
    assert (found["timestamp"].code, found["timestamp"].severity.value) == ("metadata_expired", "error")


def test_a_server_without_metadata_has_nothing_to_say(tmp_path: Path) -> None:
    """Before the first root and the first release there is nothing that expires."""
    init_online_keys(tmp_path)
    events = EventLog(open_database(f"sqlite:///{tmp_path / 'fleet.db'}"))
    ExpiryWatch(trust=TrustRepository(tmp_path, lambda: START_MS), events=events).turn(START_MS)
    assert events.after(0) == ()
