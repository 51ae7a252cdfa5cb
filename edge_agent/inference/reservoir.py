"""Chooses the inputs to upload when the server requests samples, within the granted count and bytes.

A reservoir is filled over one window and emptied at its close. Lane ``audit`` is uniform and records the probability
with which an image of the window was taken; lane ``drift`` prefers images with an uncertain prediction. A request with
a ``ratio`` takes each input by that probability, on all devices alike, so that a device counts by what it sees. Inputs
already seen (by digest) are skipped, and ``drift`` leaves out what ``audit`` takes: one label serves both. Pure:
randomness is seeded by the caller.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from edge_agent.errors import SampleRequestError
from edge_agent.pipe_frames import LANES, MAX_SAMPLE_BYTES, MAX_SAMPLES

MAX_BUDGET_BYTES = 64 * 1024 * 1024
MAX_SEEN = 50_000
_UNSURE = 1.05  # a certain prediction (margin 1) is still one twentieth as likely
_STARTS = ((b"\x89PNG", "image/png"), (b"\xff\xd8", "image/jpeg"), (b"BM", "image/bmp"),
           (b"II*\0", "image/tiff"), (b"MM\0*", "image/tiff"))  # fmt: skip
_RIFF_FORMS = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}  # at bytes 8 to 12, after the length


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
    """A request granted by the server. ``ratio``: the probability of each input, 0: as many of each window as fit."""

    request: str
    count: int
    budget_bytes: int
    lane: str = "audit"
    ratio: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedInput:
    """One input and the model's prediction; ``data`` unchanged."""

    data: bytes
    sha256: str
    at_ms: int
    predicted: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Chosen:
    """A chosen candidate. ``inclusion_ratio`` is 0 in the lane ``drift``, where it is unequal and unknown."""

    request: SampleRequest
    candidate: OfferedInput
    inclusion_ratio: float


def media_type(data: bytes) -> str:
    """Return the media type indicated by the first bytes."""
    if data.startswith(b"RIFF"):
        return _RIFF_FORMS.get(data[8:12], "application/octet-stream")
    return next((kind for start, kind in _STARTS if data.startswith(start)), "application/octet-stream")


def check_request(request: SampleRequest) -> SampleRequest:
    """Return ``request`` if it is valid.

    Raises:
        SampleRequestError: If its lane is unknown or it exceeds a limit.
    """
    if request.lane not in LANES or not 0 < request.count <= MAX_SAMPLES or request.budget_bytes <= 0:
        message = f"Expected 1 to {MAX_SAMPLES} samples of lane {' or '.join(LANES)} within a budget, got {request}"
        raise SampleRequestError(message)
    if not 0 <= request.ratio <= 1 or (request.ratio and request.lane != "audit"):
        message = f"Expected a ratio from 0 to 1, and only in the lane audit, got {request}"
        raise SampleRequestError(message)
    return request


class Reservoir:
    """The samples of one request. Source: Efraimidis, Spirakis, Weighted random sampling with a reservoir, 2006."""

    def __init__(self, request: SampleRequest, seed: str) -> None:
        """Start empty; ``seed`` and the request's name determine the choice.

        Raises:
            SampleRequestError: If the request is invalid.
        """
        self.request = check_request(request)
        self._random = random.Random(f"{seed} {request.request}")  # noqa: S311 - sampling, not secrecy
        self._left, self._left_bytes = request.count, min(request.budget_bytes, MAX_BUDGET_BYTES)
        self._seen: set[bytes] = set()
        self._clear()

    def _clear(self) -> None:
        self._held: list[tuple[float, int, OfferedInput]] = []
        self._held_bytes = 0
        self._capacity = self._left
        self._offered = 0
        self.too_large = 0
        """Inputs of this window that are too large to be sent, and so are never chosen."""

    @property
    def exhausted(self) -> bool:
        """Whether the request's count or bytes are used up."""
        return self._left <= 0 or self._left_bytes <= 0

    def offer(self, data: bytes, *, at_ms: int, predicted: int, confidence: float, margin: float) -> None:
        """Consider one input; keeps a copy only while it is chosen."""
        if len(data) > MAX_SAMPLE_BYTES:
            self.too_large += 1
            return
        digest = hashlib.sha256(data)
        if self.exhausted or len(data) > self._left_bytes or digest.digest()[:8] in self._seen:
            return
        if len(self._seen) >= MAX_SEEN:
            self._seen.clear()
        self._seen.add(digest.digest()[:8])
        weight = 1.0 if self.request.lane == "audit" else max(_UNSURE - margin, 1e-3)
        key = self._random.random() ** (1 / weight)
        if self.request.ratio and key < 1 - self.request.ratio:
            return
        self._offered += 1
        if len(self._held) >= self._capacity and key <= self._held[0][0]:
            return
        candidate = OfferedInput(
            data=data, sha256=digest.hexdigest(), at_ms=at_ms, predicted=predicted, confidence=confidence
        )
        heapq.heappush(self._held, (key, self._offered, candidate))
        self._held_bytes += len(data)
        # drop the smallest keys until count and bytes fit; the byte limit permanently lowers the capacity
        while len(self._held) > self._capacity or self._held_bytes > self._left_bytes:
            _, _, candidate = heapq.heappop(self._held)
            self._held_bytes -= len(candidate.data)
            if self._held_bytes + len(candidate.data) > self._left_bytes:
                self._capacity = max(1, len(self._held))

    def leave_out(self, digests: Collection[str]) -> None:
        """Give up inputs of the ending window that another request has taken: its place is for others."""
        self._held = [item for item in self._held if item[2].sha256 not in digests]
        heapq.heapify(self._held)
        self._held_bytes = sum(len(candidate.data) for _, _, candidate in self._held)

    def close_window(self) -> Iterator[Chosen]:
        """Yield the choice of the ending window, in order of time, and start the next window."""
        ratio = len(self._held) / self._offered if self._offered and self.request.lane == "audit" else 0.0
        ratio *= self.request.ratio or 1.0
        chosen = sorted((candidate for _, _, candidate in self._held), key=lambda candidate: candidate.at_ms)
        self._left -= len(chosen)
        self._left_bytes -= self._held_bytes
        self._clear()
        for candidate in chosen:
            yield Chosen(self.request, candidate, ratio)
