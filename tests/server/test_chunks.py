"""Chunks of bundles over MQTT: to whom, how many at once, and what a hostile request can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from server.fleet import chunks
from server.rollout.create import RolloutOptions
from wire.blob_chunks import CHUNK_BYTES, MAX_CREDIT, ByteRange, Chunk, ChunkRequest, read_chunk
from wire.canonical import sha256_hex
from wire.codec import encode
from wire.messages import DeviceState, State
from wire.topics import Kind, Topic
from wire.transport import Incoming
from wire.tuf_target import TargetCustom, target_path

if TYPE_CHECKING:
    from conftest import FakeDevice, MemoryFleet

DATA = bytes(range(256)) * 256 * 20 + b"end"
DIGEST = sha256_hex(DATA)


@pytest.fixture
def device(fleet: MemoryFleet) -> FakeDevice:
    """A device to which the bundle is assigned."""
    versions = fleet.app.parts.versions
    versions.blobs.put(DIGEST, [DATA])
    custom, path = TargetCustom(model="m", version=1, target="g"), target_path("m", 1, "g")
    versions.register(path, custom, sha256=DIGEST, length_bytes=len(DATA), now_ms=1)
    made = fleet.enrol("cam-1")
    made.say("state", State(state=DeviceState.READY, at_ms=fleet.clock()))
    fleet.turn()
    fleet.app.parts.rollouts.create(RolloutOptions(release="m-1", canary=["cam-1"], approved=True))
    for _ in range(3):
        fleet.turn()
    return made


def ask(fleet: MemoryFleet, device: FakeDevice, request: ChunkRequest | bytes) -> list[tuple[Chunk, bytes]]:
    """Send a request; return the answers."""
    identity, got = device.identity, []
    to = str(Topic(site=identity.site, device=identity.device, kind=Kind.BLOB, leaf="data"))
    listener = lambda notice: got.append(notice) if isinstance(notice, Incoming) else None  # noqa: E731
    fleet.broker.connect("ear", listener, (to,), None)
    topic = Topic(site=identity.site, device=identity.device, kind=Kind.BLOB, leaf="req")
    payload = request if isinstance(request, bytes) else encode(request)
    fleet.app.parts.chunks.receive(Incoming(str(topic), payload))
    fleet.turn()
    return [read_chunk(notice.payload) for notice in got]


def wanted(*ranges: tuple[int, int], credit: int = MAX_CREDIT, sha256: str = DIGEST) -> ChunkRequest:
    """Return a request."""
    return ChunkRequest(
        sha256=sha256, ranges=tuple(ByteRange(start=start, length=length) for start, length in ranges), credit=credit
    )


def test_sends_the_ranges_in_chunks(fleet: MemoryFleet, device: FakeDevice) -> None:
    """A long range is split, the end of the blob is the end of the last chunk."""
    answers = ask(fleet, device, wanted((100, CHUNK_BYTES + 5), (len(DATA) - 2, 99)))
    assert [(chunk.start, len(data)) for chunk, data in answers] == [
        (100, CHUNK_BYTES), (100 + CHUNK_BYTES, 5), (len(DATA) - 2, 2),
    ]  # fmt: skip
    assert b"".join(data for _, data in answers) == DATA[100 : 105 + CHUNK_BYTES] + DATA[-2:]


@pytest.mark.parametrize(("credit", "sent"), [(-1, 0), (0, 0), (1, 1), (5, 5), (10**6, MAX_CREDIT)])
def test_sends_no_more_than_the_credit(fleet: MemoryFleet, device: FakeDevice, credit: int, sent: int) -> None:
    """And never more than the limit for one request."""
    assert len(ask(fleet, device, wanted((0, len(DATA)), credit=credit))) == sent


@pytest.mark.parametrize(("start", "length"), [(-5, 10), (0, -1), (0, 0), (len(DATA), 5), (2**62, 2**62)])
def test_ranges_outside_of_the_blob_give_nothing(
    fleet: MemoryFleet, device: FakeDevice, start: int, length: int
) -> None:
    """No answer, no error, no loop."""
    assert ask(fleet, device, wanted((start, length))) == []


def test_other_blobs_and_other_devices_are_refused(fleet: MemoryFleet, device: FakeDevice) -> None:
    """A device gets only what is assigned to it, as over HTTP."""
    other = fleet.enrol("cam-2")
    for who, request in (
        (other, wanted((0, 9))),
        (device, wanted((0, 9), sha256="0" * 64)),
        (device, wanted((0, 9), sha256="../x")),
    ):
        ((chunk, data),) = ask(fleet, who, request)
        assert (chunk.code, data) == ("not_assigned", b"")


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'{"ranges": 3}', b"\xff" * 300_000])
def test_requests_that_can_not_be_read_are_dropped(fleet: MemoryFleet, device: FakeDevice, payload: bytes) -> None:
    """The next one is answered."""
    assert ask(fleet, device, payload) == []
    assert len(ask(fleet, device, wanted((0, 9)))) == 1


def test_what_waits_for_the_broker_is_bounded(
    fleet: MemoryFleet, device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the limit a request is dropped; acknowledged chunks make room again, and lost ones after a while."""
    served, now_s = fleet.app.parts.chunks, [0.0]
    served.clock_s = lambda: now_s[0]
    monkeypatch.setattr(chunks, "MAX_WAITING_BYTES", 3 * CHUNK_BYTES)
    monkeypatch.setattr(chunks, "Delivered", type("Nothing", (), {}))  # acknowledgements get lost
    assert len(ask(fleet, device, wanted((0, 9 * CHUNK_BYTES)))) == 3
    assert (served.dropped, len(ask(fleet, device, wanted((0, 9))))) == (1, 0)
    now_s[0] = chunks._LOST_S + 1
    assert len(ask(fleet, device, wanted((0, 9)))) == 1


def test_requests_beyond_the_queue_are_dropped(fleet: MemoryFleet, device: FakeDevice) -> None:
    """A flood costs neither memory nor the transport's thread."""
    served, topic = fleet.app.parts.chunks, f"tf/1/{device.identity.site}/cam-1/blob/req"
    for _ in range(chunks.MAX_REQUESTS + 7):
        assert served.receive(Incoming(topic, b"{}"))
    assert served.dropped == 7
