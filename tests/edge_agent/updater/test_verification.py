"""Metadata over HTTP: what drips, what is no web address, what time the server says it is."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError

from edge_agent.updater import verification
from edge_agent.updater.verification import MetadataFetcher

DATE, DATE_MS = "Thu, 01 Jan 2026 00:00:10 GMT", 1_767_225_610_000
PIECES, PAUSE_S = 10, 0.03


class _Dripping(BaseHTTPRequestHandler):
    """Sends a byte at a time; knows no other file than ``/root.json``."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response_only(200 if self.path == "/root.json" else 404)
        self.send_header("Date", DATE)
        self.send_header("Content-Length", str(PIECES))
        self.end_headers()
        for _ in range(PIECES):
            self.wfile.write(b".")
            threading.Event().wait(PAUSE_S)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    """The address of a server that drips."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Dripping)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_file_that_drips_ends_at_its_deadline(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, the file does not: a server could hold an update for ever."""
    monkeypatch.setattr(verification, "FILE_DEADLINE_S", PAUSE_S * 2)
    with pytest.raises(SlowRetrievalError, match=r"root\.json within 0 s"):
        list(MetadataFetcher().fetch(f"{url}/root.json"))


def test_a_slow_file_within_the_deadline_is_taken(url: str) -> None:
    """All of it, and the time that the server gave with it."""
    fetcher = MetadataFetcher()
    assert b"".join(fetcher.fetch(f"{url}/root.json")) == b"." * PIECES
    assert fetcher.server_ms == DATE_MS


def test_an_answer_of_another_kind_still_tells_the_time(url: str) -> None:
    """A device whose clock is wrong learns so from any answer."""
    fetcher = MetadataFetcher()
    with pytest.raises(DownloadHTTPError) as refused:
        fetcher.fetch(f"{url}/none.json")
    assert (refused.value.status_code, fetcher.server_ms) == (404, DATE_MS)


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://127.0.0.1/root.json"])
def test_only_web_addresses_are_fetched(address: str) -> None:
    """Metadata over HTTP is never a file of this device."""
    with pytest.raises(DownloadError, match="Expected an http or https address"):
        MetadataFetcher().fetch(address)


@pytest.mark.parametrize(("text", "ms"), [(None, 0), ("", 0), ("yesterday", 0), (DATE, DATE_MS)])
def test_a_date_that_is_none_is_zero(text: str | None, ms: int) -> None:
    """A server need not say the time, nor say it well."""
    assert verification._date_ms(text) == ms
