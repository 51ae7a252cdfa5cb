"""Downloads in chunks: a network that loses, doubles, reorders and damages them; and two carriers on one part."""

from __future__ import annotations

import hashlib
import http.server
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from edge_agent.device.disk import RealDisk
from edge_agent.updater.download import FetchSettings, HttpFetcher
from edge_agent.updater.ports import FetchOrder, FetchProgress, Refusal
from edge_agent.updater.transfer import chunk_pull
from edge_agent.updater.transfer.chunk_pull import WINDOW, ChunkLink, ChunkWish
from server.fleet.chunks import pieces
from wire.blob_chunks import CHUNK_BYTES, MAX_CREDIT, Chunk, ChunkRequest, write_chunk
from wire.codec import decode

DATA = random.Random(1).randbytes(20 * CHUNK_BYTES + 77)  # noqa: S311 - seeded bytes
SHA256 = hashlib.sha256(DATA).hexdigest()
Fault = Callable[[list[bytes]], list[bytes]]
NOBODY = FetchSettings(
    base_url="http://127.0.0.1:9", username="dev", password="", stall_s=0.5, attempts=2, retry_min_s=0.01,
    retry_max_s=0.02,
)  # fmt: skip


@dataclass
class Network:
    """The other end of the link, in the thread of whoever asks; ``fault`` changes what comes."""

    fault: Fault = lambda answers: answers
    asked: list[ChunkRequest] = field(default_factory=list)
    code: str = ""
    stop_at: int = len(DATA)
    most: int = 0
    sent_bytes: int = 0
    progress: FetchProgress = field(default_factory=FetchProgress)
    link: ChunkLink = field(init=False)

    def __post_init__(self) -> None:
        """Connect."""
        self.link = ChunkLink(self.put)

    def put(self, wish: ChunkWish) -> None:
        """Answer a request."""
        request = decode(ChunkRequest, wish.payload)
        self.asked.append(request)
        assert request.credit <= MAX_CREDIT
        if self.code:
            self.link.receive(write_chunk(Chunk(sha256=SHA256, code=self.code, text="so")))
            return
        wanted = [piece for piece in pieces(request) if piece.start + piece.length <= self.stop_at]
        answers = [
            write_chunk(Chunk(sha256=SHA256, start=one.start), DATA[one.start : one.start + one.length])
            for one in wanted
        ]
        for answer in self.fault(answers):
            self.sent_bytes += len(answer)
            self.link.receive(answer)
        self.most = max(self.most, self.link._chunks.qsize())

    def starts(self) -> list[int]:
        """Return the first byte of each range asked for."""
        return [one.start for request in self.asked for one in request.ranges]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask again soon."""
    monkeypatch.setattr(chunk_pull, "_AGAIN_S", 0.02)
    monkeypatch.setattr(chunk_pull, "_TURN_S", 0.01)


def fetch(network: Network, folder: Path, *carriers: str, settings: FetchSettings = NOBODY, rate: int = 0) -> object:
    """Fetch the blob."""
    fetcher = HttpFetcher(settings, folder, RealDisk(), chunks=network.link, carriers=carriers or ("mqtt",))
    network.progress = FetchProgress()
    return fetcher.fetch(FetchOrder(SHA256, len(DATA), rate), network.progress)


def changed(seed: int) -> Fault:
    """Return a network that loses, doubles, reorders and damages a third of all chunks, the first ones of each too."""
    chance = random.Random(seed)  # noqa: S311 - seeded faults

    def fault(answers: list[bytes]) -> list[bytes]:
        out = []
        for answer in answers:
            kind = chance.randrange(9)
            damaged = answer[:-5] + bytes([answer[-5] ^ 1]) + answer[-4:]
            out += (
                [[], [answer, answer], [damaged], [b"noise"], [write_chunk(Chunk(sha256="b" * 64), b"x")]][kind]
                if kind < 5
                else [answer]
            )
        chance.shuffle(out)
        return out

    return fault


def test_pulls_a_blob_with_a_window_of_chunks(tmp_path: Path) -> None:
    """Each chunk is asked for once, at most a window ahead."""
    network = Network()
    assert fetch(network, tmp_path) is None
    assert (tmp_path / SHA256).read_bytes() == DATA
    assert network.starts() == list(range(0, len(DATA), CHUNK_BYTES))
    assert 4 <= network.most <= WINDOW
    assert [path.name for path in tmp_path.iterdir()] == [SHA256]


@pytest.mark.parametrize("seed", range(8))
def test_lost_doubled_reordered_and_damaged_chunks_change_nothing(tmp_path: Path, seed: int) -> None:
    """The blob is right, whatever the network does with a third of its chunks."""
    network = Network(fault=changed(seed))
    assert fetch(network, tmp_path, settings=replace(NOBODY, stall_s=5.0)) is None
    assert (tmp_path / SHA256).read_bytes() == DATA
    not_taken = sum(map(len, iter(lambda: network.link.next(0.0), None)))
    assert network.progress.fetched_bytes == network.sent_bytes - not_taken > len(DATA)


def test_reversed_chunks_are_put_in_order(tmp_path: Path) -> None:
    """What comes early waits in memory; nothing is asked for twice."""
    network = Network(fault=lambda answers: answers[::-1])
    assert fetch(network, tmp_path) is None
    assert network.starts() == list(range(0, len(DATA), CHUNK_BYTES))


def test_what_comes_too_late_is_counted_by_the_next_download(tmp_path: Path) -> None:
    """Chunks of a download that was ended came over the network too."""
    network, late = Network(), write_chunk(Chunk(sha256="b" * 64), b"x" * 99)
    network.link.receive(late)
    assert fetch(network, tmp_path) is None
    assert network.progress.fetched_bytes == network.sent_bytes + len(late)


def test_a_refusal_of_the_server_ends_it(tmp_path: Path) -> None:
    """A blob that is not assigned is not asked for again and again."""
    network = Network(code="not_assigned")
    assert fetch(network, tmp_path) == Refusal("not_assigned", "so")
    assert len(network.asked) == 1


def test_silence_ends_it_and_the_part_stays(tmp_path: Path) -> None:
    """The next try asks for the rest alone."""
    refused = fetch(Network(stop_at=9 * CHUNK_BYTES), tmp_path)
    assert isinstance(refused, Refusal)
    assert refused.code == "download_failed"
    assert (tmp_path / f"{SHA256}.part").stat().st_size == 9 * CHUNK_BYTES
    network = Network()
    assert fetch(network, tmp_path) is None
    assert network.starts()[0] == 9 * CHUNK_BYTES


def test_wrong_bytes_are_fetched_once_more_from_the_start(tmp_path: Path) -> None:
    """A part of another blob is found by the digest of the whole."""
    (tmp_path / f"{SHA256}.part").write_bytes(b"?" * 1000)
    network = Network()
    assert fetch(network, tmp_path) is None
    assert network.starts()[:1] == [1000]
    assert (tmp_path / SHA256).read_bytes() == DATA


def test_a_rate_limit_holds_over_the_whole_download(tmp_path: Path) -> None:
    """Pieces are asked for one by one, as the rate allows; ``test_rate_limit`` shows how exact that is."""
    network, started_s = Network(), time.monotonic()
    assert fetch(network, tmp_path, rate=2 * len(DATA)) is None
    assert time.monotonic() - started_s > 0.4
    assert all(len(request.ranges) == 1 for request in network.asked)


class Half(http.server.BaseHTTPRequestHandler):
    """Sends the first half of the blob, then closes; remembers the ranges."""

    asked: list[str] = []  # noqa: RUF012 - one server a test
    whole = False

    def do_GET(self) -> None:
        """Answer from the start that is asked for."""
        wanted = self.headers.get("Range", "")
        Half.asked.append(wanted)
        start = int(wanted[6:-1]) if wanted else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
        self.send_header("Content-Length", str(len(DATA) - start))
        self.end_headers()
        self.wfile.write(DATA[start:] if Half.whole else DATA[start : len(DATA) // 2])

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture
def web() -> Iterator[FetchSettings]:
    """A server that sends the first half alone."""
    Half.asked, Half.whole = [], False
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Half)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield replace(NOBODY, base_url=f"http://127.0.0.1:{server.server_address[1]}")
    server.shutdown()
    server.server_close()


def test_starts_over_http_and_ends_over_mqtt(tmp_path: Path, web: FetchSettings) -> None:
    """The second carrier asks for what the first did not bring, to the byte; the record names both."""
    network, progress = Network(), FetchProgress()
    fetcher = HttpFetcher(web, tmp_path, RealDisk(), chunks=network.link, carriers=("http", "mqtt"))
    assert fetcher.fetch(FetchOrder(SHA256, len(DATA)), progress) is None
    assert (tmp_path / SHA256).read_bytes() == DATA
    assert network.starts()[0] == len(DATA) // 2
    assert "over mqtt, http failed" in progress.how


def test_starts_over_mqtt_and_ends_over_http(tmp_path: Path, web: FetchSettings) -> None:
    """The other way round, on the same part."""
    Half.whole = True
    network = Network(stop_at=5 * CHUNK_BYTES)
    assert fetch(network, tmp_path, "mqtt", "http", settings=web) is None
    assert (tmp_path / SHA256).read_bytes() == DATA
    assert Half.asked == [f"bytes={5 * CHUNK_BYTES}-"]


def test_the_carriers_are_used_in_the_order_given(tmp_path: Path, web: FetchSettings) -> None:
    """A device whose network lets only the broker through never asks over HTTP."""
    assert fetch(Network(), tmp_path, "mqtt", "http", settings=web) is None
    assert Half.asked == []
