"""Downloads from a real HTTP server that misbehaves, and a real process that is killed."""

import base64
import hashlib
import http.server
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_agent.device.disk import RealDisk
from edge_agent.updater.download import FetchSettings, HttpFetcher, _Transfer
from edge_agent.updater.ports import FetchOrder, FetchProgress, Refusal

DATA = bytes(range(256)) * 2048  # 512 KiB
SHA256 = hashlib.sha256(DATA).hexdigest()
LIMIT_S = 20.0


@dataclass
class Source:
    """The server's answers to the next requests, and the requests that it received."""

    data: bytes = DATA
    answers: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    passwords: list[str] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    port: int = 0


def handler(source: Source) -> type[http.server.BaseHTTPRequestHandler]:
    """Return the request handler of a source."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            source.ranges.append(wanted)
            source.passwords.append(base64.b64decode(self.headers["Authorization"].split()[1]).decode())
            answer = source.answers.pop(0) if source.answers else ""
            if answer.isdigit():
                self.send_error(int(answer))
                return
            start = int(wanted[6:-1]) if wanted and answer != "no_range" else 0
            body = source.data[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(source.data) - 1}/{len(source.data)}")
            if answer != "no_length":
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self._send(body, answer)

        def _send(self, body: bytes, answer: str) -> None:
            half = len(body) // 2
            self.wfile.write(body[:half])
            self.wfile.flush()
            if answer == "cut":
                return
            if answer == "stall":
                source.stalled.set()
                source.release.wait(LIMIT_S)
                return
            self.wfile.write(body[half:])

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    return Handler


@pytest.fixture
def source() -> Iterator[Source]:
    """A server of one blob on a free port."""
    made = Source()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(made))
    made.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    made.release.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def fetch(source: Source, tmp_path: Path) -> Callable[..., Refusal | None]:
    """Fetch the blob into a folder, impatiently."""
    settings = FetchSettings(
        base_url=f"http://127.0.0.1:{source.port}",
        username="dev",
        password="secret",
        stall_s=0.5,
        attempts=3,
        retry_min_s=0.01,
        retry_max_s=0.02,
    )

    def run(
        length: int = len(DATA), sha256: str = SHA256, rate: int = 0, progress: FetchProgress | None = None
    ) -> object:
        fetcher = HttpFetcher(settings, tmp_path, RealDisk())
        return fetcher.fetch(FetchOrder(sha256, length, rate), progress or FetchProgress())

    return run


def test_fetches_with_the_device_password(fetch: Callable, source: Source, tmp_path: Path) -> None:
    """The complete blob is stored under its digest, without a partial file."""
    assert fetch() is None
    assert (tmp_path / SHA256).read_bytes() == DATA
    assert [path.name for path in tmp_path.iterdir()] == [SHA256]
    assert source.passwords == ["dev:secret"]


@pytest.mark.parametrize("answer", ["cut", "stall", "no_length"])
def test_goes_on_where_the_connection_ended(fetch: Callable, source: Source, tmp_path: Path, answer: str) -> None:
    """Cut, stalled, or of unknown length: only the missing part is requested again."""
    source.answers = [answer]
    assert fetch() is None
    assert (tmp_path / SHA256).read_bytes() == DATA
    assert all(text in {"", f"bytes={len(DATA) // 2}-"} for text in source.ranges)


@pytest.mark.parametrize("status", ["400", "401", "403", "404", "410"])
def test_4xx_is_final(fetch: Callable, source: Source, status: str) -> None:
    """The server decides: no second try."""
    source.answers = [status]
    assert fetch().code == f"http_{status}"
    assert len(source.ranges) == 1


def test_5xx_is_tried_again(fetch: Callable, source: Source) -> None:
    """A server in trouble gets more tries."""
    source.answers = ["500", "503"]
    assert fetch() is None


def test_gives_up_after_the_attempts(fetch: Callable, source: Source) -> None:
    """Without any progress the download ends as failed."""
    source.answers = ["503"] * 9
    assert fetch().code == "download_failed"
    assert len(source.ranges) == 3


def test_refuses_one_changed_byte(fetch: Callable, source: Source, tmp_path: Path) -> None:
    """The digest decides; nothing is left behind."""
    source.data = DATA[:-1] + b"?"
    assert fetch().code == "digest_mismatch"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answer", ["", "no_length"])
def test_refuses_more_than_the_signed_length(fetch: Callable, source: Source, tmp_path: Path, answer: str) -> None:
    """Never more than the signed length is read, whatever the server sends."""
    source.data, source.answers = DATA + b"more", [answer]
    assert fetch().code == "too_large"
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= len(DATA)


def test_starts_again_when_the_part_was_wrong(fetch: Callable, source: Source, tmp_path: Path) -> None:
    """A damaged part costs a second download, not the update."""
    (tmp_path / f"{SHA256}.part").write_bytes(b"?" * 1000)
    assert fetch() is None
    assert source.ranges == ["bytes=1000-", ""]


def test_takes_a_whole_answer_for_a_range(fetch: Callable, source: Source, tmp_path: Path) -> None:
    """A server without ranges sends everything; that is right too."""
    (tmp_path / f"{SHA256}.part").write_bytes(DATA[:1000])
    source.answers = ["no_range"]
    assert fetch() is None
    assert (tmp_path / SHA256).read_bytes() == DATA


@pytest.mark.parametrize(
    ("part", "answers", "fetched_bytes"),
    [
        (b"", [], len(DATA)),
        (DATA[:1000], [], len(DATA) - 1000),
        (DATA, [], 0),
        (DATA[:1000], ["no_range"], len(DATA)),
        (DATA[:1000], ["416"], len(DATA)),
        (b"", ["cut", "503"], len(DATA)),
        (b"?" * 1000, [], 2 * len(DATA) - 1000),
    ],
)
def test_counts_what_came_and_not_what_was_here(
    fetch: Callable, source: Source, tmp_path: Path, part: bytes, answers: list[str], fetched_bytes: int
) -> None:
    """Resumed, a server without ranges, one that sends it again, broken off, a part of something else."""
    (tmp_path / f"{SHA256}.part").write_bytes(part)
    source.answers, progress = answers, FetchProgress()
    assert fetch(progress=progress) is None
    assert (progress.fetched_bytes, progress.done_bytes) == (fetched_bytes, len(DATA))


@pytest.mark.parametrize(("data", "fetched_bytes"), [(DATA[:-1] + b"?", len(DATA)), (DATA + b"more", 0)])
def test_counts_what_was_refused_too(fetch: Callable, source: Source, data: bytes, fetched_bytes: int) -> None:
    """Bytes that were thrown away came over the network; an answer that is too long is not read."""
    source.data, progress = data, FetchProgress()
    assert isinstance(fetch(progress=progress), Refusal)
    assert progress.fetched_bytes == fetched_bytes


def test_a_full_disk_is_told_as_such(fetch: Callable, tmp_path: Path) -> None:
    """ENOSPC from the kernel becomes no_space, at once."""
    (tmp_path / f"{SHA256}.part").symlink_to("/dev/full")
    assert fetch().code == "no_space"


def test_keeps_to_the_rate(fetch: Callable) -> None:
    """512 KiB at 1 MiB a second take about half a second."""
    started_s = time.monotonic()
    assert fetch(rate=1 << 20) is None
    assert time.monotonic() - started_s > 0.3


def test_ends_when_cancelled(fetch: Callable, source: Source) -> None:
    """A newer desired state ends a download that waits."""
    source.answers = ["503"] * 9
    progress = FetchProgress()
    progress.cancelled.set()
    assert fetch(progress=progress).code == "superseded"


def test_goes_on_after_kill_9(fetch: Callable, source: Source, tmp_path: Path) -> None:
    """A real process is killed in the middle; the next one asks only for the rest."""
    source.answers = ["stall"]
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from edge_agent.device.disk import RealDisk
        from edge_agent.updater.download import FetchSettings, HttpFetcher, _Transfer
        from edge_agent.updater.ports import FetchOrder, FetchProgress
        url, folder, sha256, length = sys.argv[1:]
        settings = FetchSettings(base_url=url, username="dev", password="secret")
        HttpFetcher(settings, Path(folder), RealDisk()).fetch(FetchOrder(sha256, int(length)), FetchProgress())
    """)
    url = f"http://127.0.0.1:{source.port}"
    process = subprocess.Popen([sys.executable, "-c", program, url, str(tmp_path), SHA256, str(len(DATA))])
    part, deadline = tmp_path / f"{SHA256}.part", time.monotonic() + LIMIT_S
    while not (part.exists() and part.stat().st_size == len(DATA) // 2):
        assert time.monotonic() < deadline
    process.kill()
    process.wait()
    assert fetch() is None
    assert source.ranges == ["", f"bytes={len(DATA) // 2}-"]


class Waits(threading.Event):
    """Keeps how long somebody would wait."""

    def __init__(self) -> None:
        """Keep none yet."""
        super().__init__()
        self.waits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for nothing."""
        self.waits.append(timeout)
        return False


class Always(random.Random):
    """Draws the upper end of every range."""

    def uniform(self, a: float, b: float) -> float:
        """Return ``b``."""
        return max(a, b)


def test_waits_twice_as_long_after_each_failure_up_to_a_minute(tmp_path: Path) -> None:
    """A server that is down is not asked more often by many devices."""
    settings = FetchSettings(base_url="http://127.0.0.1:9", username="dev", password="")
    transfer = _Transfer(settings, FetchOrder(SHA256, 9, 0), FetchProgress(cancelled=Waits()), tmp_path / "part")
    transfer._chance = Always()
    for failures in (*range(9), 2000):
        transfer._pause(failures)
    assert transfer.progress.cancelled.waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0]
