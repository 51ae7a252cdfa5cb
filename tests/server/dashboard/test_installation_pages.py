"""Settings and about: every table, no secret, what differs from its default, and the promise of the budget."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path

from server.alerts.config import AlertRoute, AlertsConfig
from server.config import ServerConfig, StoreConfig
from server.dashboard.pages.installation.about import LICENCE, promise_text
from server.dashboard.pages.installation.settings import SET, setting_tables, shown_value
from server.drift.config import DriftConfig

ROOT = Path(__file__).parents[3]


def shown(config: ServerConfig) -> str:
    """Return all that the page shows of the values."""
    return "\n".join(
        f"{table.name} {line.key} {line.value} {line.default}"
        for table in setting_tables(config)
        for line in table.lines
    )


def test_every_table_of_the_configuration_is_there() -> None:
    """With each of its keys, and what they mean: a new one is shown without a change here."""
    config = ServerConfig()
    tables = {table.name: [line.key for line in table.lines] for table in setting_tables(config)}
    for one in fields(config):
        section = getattr(config, one.name)
        if is_dataclass(section):
            assert set(tables[one.name]) == {key.name for key in fields(section)}, one.name
    assert "turn_interval_s" in tables[""]
    assert all(table.text for table in setting_tables(config))


def test_no_secret_is_shown() -> None:
    """Neither of the store, nor of a route to people, whichever way it has one."""
    routes = (
        AlertRoute(name="chat", url="https://hooks.example/services/T0/S3CRET?token=S3CRET", secret_file="/S3CRET"),
        AlertRoute(name="signed", url_file="/run/S3CRET", secret_file="/run/S3CRET"),
        AlertRoute(name="mail", to="email", host="mail.example", user="S3CRET", password_file="/S3CRET",
                   sender="S3CRET@example.com", recipients=("S3CRET@example.com",)),
    )  # fmt: skip
    config = replace(
        ServerConfig(), store=StoreConfig(url="postgresql://S3CRET:S3CRET@db.example/fleet?password=S3CRET"),
        alerts=AlertsConfig(route=routes),
    )  # fmt: skip
    text = shown(config)
    assert "S3CRET" not in text
    for known in ("db.example/fleet", "https://hooks.example/…", "mail.example", "route[2].name mail", SET):
        assert known in text


def test_odd_addresses_are_hidden_whole() -> None:
    """What can't be read may be a secret."""
    for url in ("S3CRET", "http://[S3CRET", "://S3CRET", "sqlite", "x" * 5_000):
        assert "S3CRET" not in shown_value("url", url)
        assert len(shown_value("url", url)) < 200


def test_what_differs_from_its_default_is_marked() -> None:
    """And only that."""
    config = replace(ServerConfig(), drift=DriftConfig(budget_per_day=0.1))
    changed = [(table.name, line.key, line.value, line.default) for table in setting_tables(config)
               for line in table.lines if line.changed]  # fmt: skip
    assert changed == [("drift", "budget_per_day", "0.1", "0.05")]


def test_the_promise_has_this_servers_budget() -> None:
    """In the words of the documentation, whose figures a change there would change here."""
    assert promise_text(DriftConfig()).startswith(
        "At most 0.05 false alerts a day over the whole fleet (one in 20 days)"
    )
    assert "one in 10 days" in promise_text(DriftConfig(budget_per_day=0.1))
    documented = (ROOT / "docs/explanation/drift.md").read_text(encoding="utf-8")
    for figure in ("3.5 times what this fleet moved", "0.03 standard deviations a day", "6 hours"):
        assert figure in promise_text(DriftConfig())
        assert figure in " ".join(documented.replace("\n> ", " ").split()), figure


def test_the_licence_is_that_of_the_package() -> None:
    """One word in two places."""
    assert f'license = "{LICENCE}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
