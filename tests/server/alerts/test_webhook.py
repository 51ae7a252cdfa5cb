"""A webhook: signed, fresh, never redirected, never waiting for ever."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from server.alerts.config import AlertRoute
from server.alerts.delivery import trial
from server.alerts.receivers.message import NoticeMessage
from server.alerts.receivers.webhook import Webhook
from server.errors import ConfigError, DeliveryError

from .conftest import SECRET, HttpSink

MESSAGE = NoticeMessage(key="ab" * 16, alert=7, event="opened", body='{"title":"gerät"}'.encode(), sent_s=1_800_000_000)


def hook(sink: HttpSink, secret: Path, **keys: object) -> Webhook:
    """Return a route to ``sink``."""
    values = {"name": "pager", "url": sink.url, "secret_file": str(secret), "timeout_s": 0.3, **keys}
    return Webhook(AlertRoute(**values))  # type: ignore[arg-type]


def test_a_receiver_can_tell_that_a_notice_is_ours_and_fresh(sink: HttpSink, secret: Path) -> None:
    """As the guide shows it: HMAC-SHA256 over time and body, computed here by other code."""
    sink.behave = lambda _, __: 200
    assert hook(sink, secret).send(MESSAGE) == "200 noted"
    heard = sink.heard[0]
    signed = heard.headers["tinyfleet-timestamp"].encode() + b"." + heard.body
    expected = hmac.digest(SECRET.encode(), signed, hashlib.sha256).hex()
    assert heard.headers["tinyfleet-signature"] == f"v1={expected}"
    assert (heard.body, heard.headers["idempotency-key"]) == (MESSAGE.body, MESSAGE.key)
    assert (heard.headers["tinyfleet-timestamp"], heard.headers["content-type"]) == ("1800000000", "application/json")


@pytest.mark.parametrize("status", [302, 307, 400, 404, 410, 429, 500, 503])
def test_only_a_status_of_success_accepts(sink: HttpSink, secret: Path, status: int) -> None:
    """All others are failures, which are tried again."""
    sink.behave = lambda _, __: status
    with pytest.raises(DeliveryError, match=f"Expected a status of 200 to 299, got {status}"):
        hook(sink, secret).send(MESSAGE)


def test_a_redirect_is_not_followed(sink: HttpSink, secret: Path) -> None:
    """The fleet's names would go to an address that nobody configured."""

    def elsewhere(handler: BaseHTTPRequestHandler, _: int) -> None:
        handler.send_response(307)
        handler.send_header("location", sink.url + "-elsewhere")
        handler.send_header("content-length", "0")
        handler.end_headers()

    sink.behave = elsewhere  # type: ignore[assignment]  # None: it answered
    with pytest.raises(DeliveryError, match="redirects are not followed"):
        hook(sink, secret).send(MESSAGE)
    assert [one.path for one in sink.heard] == ["/hook"]


def test_a_receiver_that_hangs_is_left_after_the_timeout(sink: HttpSink, secret: Path) -> None:
    """It took the request and says nothing."""
    leave = threading.Event()
    sink.behave = lambda _, __: leave.wait(30) and None
    with pytest.raises(DeliveryError, match=r"127.0.0.1 to answer within 0.3 s, got ReadTimeout"):
        hook(sink, secret).send(MESSAGE)
    leave.set()


def test_a_receiver_that_trickles_its_answer_is_cut_off(sink: HttpSink, secret: Path) -> None:
    """Each byte is in time, all together are not: a header that never ends must not hold the route for ever."""
    leave = threading.Event()

    def trickle(handler: BaseHTTPRequestHandler, _: int) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
        while not leave.wait(0.1):
            try:
                handler.wfile.write(b"y")
            except OSError:
                return

    sink.behave = trickle  # type: ignore[assignment]  # None: it answered
    with pytest.raises(DeliveryError, match=r"127.0.0.1 to answer"):
        hook(sink, secret).send(MESSAGE)
    leave.set()


def test_nobody_there_is_a_failure_without_the_path_of_the_url(sink: HttpSink, secret: Path) -> None:
    """The path of a webhook is often a secret; it is in no message."""
    with pytest.raises(DeliveryError, match="ConnectError") as refused:
        hook(sink, secret, url="http://127.0.0.1:1/s3cret-path").send(MESSAGE)
    assert "s3cret" not in str(refused.value)


def test_a_url_that_is_a_secret_lies_in_a_file(sink: HttpSink, secret: Path, tmp_path: Path) -> None:
    """It is read each time, so it can be replaced."""
    file = tmp_path / "hook.url"
    file.write_text(sink.url)
    file.chmod(0o600)
    hook(sink, secret, url="", url_file=str(file)).send(MESSAGE)
    assert len(sink.heard) == 1
    file.write_text("ftp://nowhere/s3cret")
    with pytest.raises(ConfigError, match=r"hook.url: Expected http://HOST/PATH") as refused:
        hook(sink, secret, url="", url_file=str(file)).check()
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        (SECRET, 0o640, "readable by its owner alone, got mode 640: chmod 600"),
        ("short", 0o600, "of at least 16 characters"),
        (f"{SECRET}\n{SECRET}", 0o600, "one line with a secret"),
        (None, 0o600, "a file with a secret at"),
    ],
)
def test_a_secret_that_others_can_read_or_guess_is_refused(
    sink: HttpSink, secret: Path, text: str | None, mode: int, words: str
) -> None:
    """Before anything is sent; the message has nothing of it."""
    if text is None:
        secret.unlink()
    else:
        secret.write_text(text)
        secret.chmod(mode)
    with pytest.raises(ConfigError, match=words) as refused:
        hook(sink, secret).send(MESSAGE)
    assert not sink.heard
    assert SECRET not in str(refused.value)


def test_a_trial_says_what_it_is(sink: HttpSink, secret: Path) -> None:
    """A receiver can tell it from an alert."""
    sink.behave = lambda _, __: 200
    assert trial(hook(sink, secret).route, 1_800_000_000_000, "https://fleet.example.org") == "200 noted"
    found = json.loads(sink.heard[0].body)
    assert (found["event"], found["alert"]["title"]) == ("test", "A trial of the route pager")
