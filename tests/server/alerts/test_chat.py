"""A message by apprise, against a real receiver; without the package the error says how to get it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from server.alerts.config import AlertRoute
from server.alerts.delivery import trial
from server.alerts.receivers.chat import Chat
from server.errors import ConfigError, DeliveryError

from .conftest import HttpSink


def chat(tmp_path: Path, url: str) -> AlertRoute:
    """Return a route to ``url``."""
    file = tmp_path / "chat.url"
    file.write_text(url)
    file.chmod(0o600)
    return AlertRoute(name="chat", to="apprise", url_file=str(file))


def test_a_message_arrives_and_a_refusal_is_a_failure(sink: HttpSink, tmp_path: Path) -> None:
    """By apprise's own JSON service, whose answer decides."""
    pytest.importorskip("apprise")
    route = chat(tmp_path, sink.url.replace("http://", "json://"))
    sink.behave = lambda _, count: 200 if count == 1 else 500
    assert trial(route, 1_800_000_000_000, "") == "accepted"
    found = json.loads(sink.heard[0].body)
    assert found["title"] == "[tinyfleet attention] trial: A trial of the route chat"
    assert "nothing is wrong" in found["message"]
    with pytest.raises(DeliveryError, match="a refusal"):
        trial(route, 1_800_000_000_000, "")


def test_a_url_that_apprise_does_not_know_is_refused_without_being_shown(tmp_path: Path) -> None:
    """It holds a token."""
    pytest.importorskip("apprise")
    with pytest.raises(ConfigError, match="a URL that apprise knows") as refused:
        Chat(chat(tmp_path, "nosuch://t0ken")).check()
    assert "t0ken" not in str(refused.value)


def test_without_the_package_the_error_has_the_line_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the server starts, not when the first alert is lost."""
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ConfigError, match=r"pip install 'tinyfleet\[alerts\]'"):
        Chat(chat(tmp_path, "json://localhost")).check()
