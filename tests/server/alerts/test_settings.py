"""Settings of alerts: what does not fit together is named when the server starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config import ServerConfig, read_config
from server.errors import ConfigError

HOOK = 'name = "pager"\nurl = "https://example.org/hook"\nsecret_file = "hook.secret"\n'
MAIL = (
    'name = "ops"\nto = "email"\nhost = "mail.example.org"\nsender = "a@example.org"\nrecipients = ["b@example.org"]\n'
)


def read(tmp_path: Path, *routes: str, head: str = "") -> ServerConfig:
    """Return the settings with these routes."""
    text = "".join(f"[[alerts.route]]\n{route}" for route in routes)
    (tmp_path / "server.toml").write_text(f"[alerts]\n{head}{text}")
    return read_config(tmp_path / "server.toml")


def test_routes_are_read_with_their_defaults_and_files_beside_the_settings(tmp_path: Path) -> None:
    """A relative path starts at the folder of server.toml."""
    pager, ops = read(tmp_path, HOOK + 'sites = ["north-*"]\n', MAIL, head="site_devices = 5\n").alerts.route
    assert (pager.to, pager.severity, pager.sites) == ("webhook", "attention", ("north-*",))
    assert pager.secret_file == str(tmp_path.resolve() / "hook.secret")
    assert (ops.security, ops.recipients) == ("starttls", ("b@example.org",))


@pytest.mark.parametrize(
    ("route", "words"),
    [
        (HOOK + "sverity = 'alarm'\n", "did you mean 'severity'"),
        (HOOK + "severity = 'loud'\n", "severity to be attention or alarm, got 'loud'"),
        (HOOK + "kinds = ['verdicts']\n", "did you mean 'verdict'"),
        (HOOK + "host = 'x'\n", "of a route to webhook the keys ca, secret_file, url, url_file, got host"),
        (HOOK.replace('"pager"', '"a b"'), "a name of a-z, 0-9, _ and -, got 'a b'"),
        (HOOK.replace('secret_file = "hook.secret"\n', ""), "Expected secret_file, got none: openssl rand"),
        (HOOK.replace("https://", "ftp://"), "http://HOST/PATH or https://HOST/PATH"),
        (HOOK.replace("https://", "https://u:p4ss@"), "without a user and password, got one with: use url_file"),
        (HOOK + "url_file = 'x'\n", "got both or neither"),
        (MAIL.replace("b@example.org", "b"), "an address such as ops@example.org, got 'b'"),
        (MAIL + "user = 'me'\n", "both of user and password_file, or none, got one"),
        (MAIL + "security = 'none'\n", "to this machine only"),
        ('name = "chat"\nto = "apprise"\n', "Expected url_file of a route to apprise, got none"),
        (HOOK + "timeout_s = 61\n", "timeout_s above 0 and at most 60, got 61"),
    ],
)  # fmt: skip
def test_a_wrong_route_is_named_with_its_place(tmp_path: Path, route: str, words: str) -> None:
    """The second of two, so the place counts; no secret is in the message."""
    with pytest.raises(ConfigError, match="route 2") as refused:
        read(tmp_path, HOOK.replace("pager", "first"), route)
    assert words in str(refused.value)
    assert "p4ss" not in str(refused.value)


def test_two_routes_have_two_names(tmp_path: Path) -> None:
    """Commands and the log name a route."""
    with pytest.raises(ConfigError, match="a name of its own for each route, got 'pager' twice"):
        read(tmp_path, HOOK, HOOK)
