"""Chunks of bundles for devices over MQTT: the second carrier, for networks that let only the broker through.

Stateless: a request names a blob and ranges; what is not sent is asked for again. A device gets chunks only of blobs
that are assigned to it, as over HTTP. Memory is bounded: at most ``MAX_WAITING_BYTES`` are with the broker's client and
not acknowledged; a request beyond that is dropped, as are requests beyond ``MAX_REQUESTS`` waiting ones.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from server.errors import NotAssignedError, UnknownBlobError
from server.fleet.assignments import Assignments
from server.registry.blobs import Blobs
from wire.blob_chunks import CHUNK_BYTES, MAX_CREDIT, ByteRange, Chunk, ChunkRequest, write_chunk
from wire.codec import decode
from wire.errors import WireError
from wire.topics import CHUNK_DATA, CHUNK_REQUEST, Kind, Topic, parse_topic
from wire.transport import Delivered, Incoming, Notice, Transport

MAX_REQUESTS = 1000
MAX_WAITING_BYTES = 32 * 1024 * 1024
_LOST_S = 30.0  # a chunk whose acknowledgement never came no longer counts as waiting
_TRUSTED_S = 5.0  # an assignment is read from the database again after this long
_MAX_TRUSTED = 4096
_LEAF = f"/{Kind.BLOB}/{CHUNK_REQUEST}"
_LOG = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class ChunkServer:
    """Answers requests for chunks. ``receive`` may be called from any thread, ``turn`` from one."""

    blobs: Blobs
    assignments: Assignments
    transport: Transport
    clock_s: Callable[[], float] = time.monotonic
    dropped: int = 0
    _inbox: queue.Queue[Incoming] = field(default_factory=lambda: queue.Queue(MAX_REQUESTS))
    _delivered: deque[int] = field(default_factory=lambda: deque(maxlen=MAX_REQUESTS * MAX_CREDIT))
    _waiting: OrderedDict[int, tuple[float, int]] = field(default_factory=OrderedDict)
    _trusted: dict[tuple[str, str], float] = field(default_factory=dict)

    def receive(self, notice: Notice) -> bool:
        """Take a notice of the transport; return whether it was a request for chunks. Never blocks."""
        if isinstance(notice, Delivered):
            self._delivered.append(notice.handle)
            return False
        if not isinstance(notice, Incoming) or not notice.topic.endswith(_LEAF):
            return False
        try:
            self._inbox.put_nowait(notice)
        except queue.Full:
            self.dropped += 1
        return True

    def turn(self, limit_s: float = 0.0) -> bool:
        """Answer the next request, waiting for one up to ``limit_s``; return whether there was one."""
        try:
            notice = self._inbox.get(timeout=limit_s) if limit_s else self._inbox.get_nowait()
        except queue.Empty:
            return False
        try:
            topic, request = parse_topic(notice.topic), decode(ChunkRequest, notice.payload)
        except WireError as error:
            _LOG.info("A request for chunks can't be read. topic=%s error=%s", notice.topic[:200], error)
            return True
        self._answer(Topic(site=topic.site, device=topic.device, kind=Kind.BLOB, leaf=CHUNK_DATA), request)
        return True

    def _answer(self, to: Topic, request: ChunkRequest) -> None:
        try:
            self._check(to.device, request.sha256)
            path = self.blobs.path(request.sha256)
        except (NotAssignedError, UnknownBlobError) as error:
            chunk = Chunk(sha256=request.sha256, code=error.code, text=str(error)[:300])
            self.transport.publish(str(to), write_chunk(chunk))
            return
        with path.open("rb") as file:
            length_bytes = path.stat().st_size
            for piece in pieces(request):
                if piece.start >= length_bytes:
                    continue
                file.seek(piece.start)
                data = file.read(piece.length)
                if not self._room(len(data)):
                    self.dropped += 1
                    return
                handle = self.transport.publish(
                    str(to), write_chunk(Chunk(sha256=request.sha256, start=piece.start), data)
                )
                if handle is None:
                    return
                self._waiting[handle] = (self.clock_s(), len(data))

    def _room(self, length_bytes: int) -> bool:
        while self._delivered:
            self._waiting.pop(self._delivered.popleft(), None)
        while self._waiting and next(iter(self._waiting.values()))[0] < self.clock_s() - _LOST_S:
            self._waiting.popitem(last=False)
        return sum(size for _, size in self._waiting.values()) + length_bytes <= MAX_WAITING_BYTES

    def _check(self, device: str, sha256: str) -> None:
        now_s = self.clock_s()
        if self._trusted.get((device, sha256), float("-inf")) > now_s - _TRUSTED_S:
            return
        self.assignments.check(device, sha256)
        if len(self._trusted) >= _MAX_TRUSTED:
            self._trusted.clear()
        self._trusted[device, sha256] = now_s


def pieces(request: ChunkRequest) -> Iterator[ByteRange]:
    """Yield the ranges of a request, split into chunks, up to its credit and ``MAX_CREDIT``."""
    left = min(request.credit, MAX_CREDIT)
    for wanted in request.ranges:
        start, end = wanted.start, wanted.start + wanted.length
        while left > 0 <= start < end:
            yield ByteRange(start=start, length=min(CHUNK_BYTES, end - start))
            start, left = start + CHUNK_BYTES, left - 1
