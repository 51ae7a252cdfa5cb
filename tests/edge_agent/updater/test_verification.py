"""Metadata over HTTP: slow answers, invalid addresses, and the server's time."""

import errno
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    RepositoryError,
    SlowRetrievalError,
)
from tuf.api.metadata import TargetFile

from edge_agent.updater import verification
from edge_agent.updater.verification import DirectoryFetcher, MetadataFetcher
from wire.tuf_target import MAX_TARGET_BYTES, TargetCustom

DATE, DATE_MS = "Thu, 01 Jan 2026 00:00:10 GMT", 1_767_225_610_000
PIECES, PAUSE_S = 10, 0.03


class _Dripping(BaseHTTPRequestHandler):
    """Sends one byte at a time; has ``/root.json``, half of ``/half.json`` and a ``/chunk.json`` without a size."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response_only(200 if self.path in {"/root.json", "/half.json", "/chunk.json"} else 404)
        self.send_header("Date", DATE)
        if self.path == "/chunk.json":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(PIECES * 2 if self.path == "/half.json" else PIECES))
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
    """Each byte arrives in time, the file does not: otherwise a server could delay an update for ever."""
    monkeypatch.setattr(verification, "FILE_DEADLINE_S", PAUSE_S * 2)
    with pytest.raises(SlowRetrievalError, match=r"root\.json within 0 s"):
        list(MetadataFetcher().fetch(f"{url}/root.json"))


def test_a_slow_file_within_the_deadline_is_taken(url: str) -> None:
    """The complete file, and the server's time with it."""
    fetcher = MetadataFetcher()
    assert b"".join(fetcher.fetch(f"{url}/root.json")) == b"." * PIECES
    assert fetcher.server_ms == DATE_MS


@pytest.mark.parametrize(("name", "why"), [("half", "got 10 bytes fewer"), ("chunk", "got: IncompleteRead")])
def test_a_file_that_ends_too_early_is_no_file(url: str, name: str, why: str) -> None:
    """A connection that ends is tried again; half of the metadata would be refused for good, as wrongly signed."""
    with pytest.raises(DownloadError, match=rf"Expected all of .*/{name}\.json, {why}"):
        list(MetadataFetcher().fetch(f"{url}/{name}.json"))


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/root.json", "https://127.0.0.1:9/root.json"])
def test_a_server_that_is_not_there_is_named(address: str) -> None:
    """With the address."""
    with pytest.raises(DownloadError, match=f"Expected an answer from {re.escape(address)}"):
        MetadataFetcher().fetch(address)


def test_a_device_that_never_enrolled_knows_no_server(tmp_path: Path) -> None:
    """It is tried again, and the text names the next step."""
    verdict = verification.run(tmp_path, "meter-1/gateway.tfb", None, 0)
    assert (verdict.ok, verdict.code) == (False, "metadata_unreachable")
    assert "run edge-agent enrol" in verdict.text


def test_a_file_of_a_folder_that_is_missing_is_missing_as_over_http(tmp_path: Path) -> None:
    """python-tuf requests the next root until it gets this code."""
    (tmp_path / "root.json").write_bytes(b"x" * 200_000)
    fetcher = DirectoryFetcher(tmp_path)
    assert b"".join(fetcher.fetch("file:///anywhere/root.json")) == b"x" * 200_000
    with pytest.raises(DownloadHTTPError) as refused:
        fetcher.fetch("file:///anywhere/2.root.json")
    assert refused.value.status_code == 404


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DownloadLengthMismatchError("x"), "too_large"), (ExpiredMetadataError("x"), "metadata_expired"),
        (BadVersionNumberError("x"), "metadata_rollback"), (RepositoryError("x"), "signature_invalid"),
        (OSError(errno.ENOSPC, "x"), "no_space"), (OSError(errno.EDQUOT, "x"), "no_space"),
        (OSError(errno.EIO, "x"), "disk_failed"), (DownloadError("x"), "metadata_unreachable"),
    ],
)  # fmt: skip
def test_each_kind_of_failure_has_its_code(error: Exception, code: str) -> None:
    """The code decides whether the update is tried again."""
    assert verification._code(error) == code


@pytest.mark.parametrize(
    ("length", "hashes", "custom", "code"),
    [
        (MAX_TARGET_BYTES, {"sha256": "e" * 64}, {"model": "m"}, ""),
        (MAX_TARGET_BYTES + 1, {"sha256": "e" * 64}, {"model": "m"}, "too_large"),
        (9, {"sha512": "e" * 128}, {"model": "m"}, "unknown_target"),
        (9, {"sha256": "e" * 64}, {"model": 3}, "bundle_invalid"),
        (9, {"sha256": "e" * 64}, None, ""),
    ],
)
def test_a_signed_target_is_judged_by_what_it_says(
    length: int, hashes: dict[str, str], custom: dict[str, object] | None, code: str
) -> None:
    """Both sides of the length; a good one passes its digest, length and custom data on."""
    fields = {} if custom is None else {"custom": custom}
    verdict = verification._judge(TargetFile(length, hashes, "m-1/t.tfb", fields), "m-1/t.tfb")
    assert (verdict.ok, verdict.code) == (not code, code)
    if not code:
        expected = TargetCustom(model="m") if custom else TargetCustom()
        assert (verdict.sha256, verdict.length_bytes, verdict.custom) == ("e" * 64, length, expected)


def test_the_program_ends_with_one_when_it_refuses(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """One line has the reason."""
    assert verification.main(["--state", str(tmp_path), "--target", "t", "--metadata-dir", str(tmp_path)]) == 1
    (line,) = capsysbinary.readouterr().out.splitlines()
    assert json.loads(line)["code"] == "root_lost"


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
    """A server need not send the time, and it may be invalid."""
    assert verification._date_ms(text) == ms
