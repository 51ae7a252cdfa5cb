"""Changed settings of policy are acts: recorded once, with what they were and are."""

from __future__ import annotations

from dataclasses import replace

from server.access.policy_changes import note_policy, policy_of
from server.config import RetrainingConfig, ServerConfig, StoreConfig

from .conftest import House


def test_a_changed_setting_is_recorded_once(house: House) -> None:
    """The first start records all of them; a start with the same ones records nothing."""
    config = ServerConfig()
    assert [note_policy(house.log, config, 1) for _ in range(2)] == [True, False]
    stricter = replace(config, rollout=replace(config.rollout, approvers=2))
    assert [note_policy(house.log, stricter, 2) for _ in range(2)] == [True, False]
    first, second = house.log.after(0, 9)
    assert (first.data["changed"], second.data["changed"]) == ({}, {"rollout.approvers": [0, 2]})
    assert (second.account, second.kind, second.subject) == ("server", "server", "server.toml")
    assert note_policy(house.log, config, 3), "and back"


def test_what_is_no_policy_and_may_be_secret_is_left_out(house: House) -> None:
    """The database's URL may have a password; a changed port is no policy."""
    config = ServerConfig(store=StoreConfig(url="postgresql://u:geheim@h/d"), retraining=RetrainingConfig())
    note_policy(house.log, config, 1)
    assert "geheim" not in "".join(house.log.export())
    assert {name.partition(".")[0] for name in policy_of(config)}.isdisjoint({"http", "broker", "store", "tls"})
