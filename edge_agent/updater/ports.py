"""The external services of an update, as protocols; in memory for tests, child processes and HTTP on a device.

Verifier, fetcher and prober block and run on a worker; its results return through the agent's queue.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Protocol

from edge_agent.device.disk import disk_code
from edge_agent.device.record_file import make_way
from wire.messages import BenchmarkAnswer
from wire.tuf_target import Delta, TargetCustom


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason of a refusal; ``code`` is stable and is reported. Which codes are worth a retry: ``refusals``.

    ``server_ms``: the server's time in the answer, 0 for none.
    """

    code: str
    text: str = ""
    server_ms: int = 0


def disk_refusal(error: OSError, text: str) -> Refusal:
    """Return the refusal for a full or failing disk."""
    code = disk_code(error)
    return Refusal(code, f"{text}: {'free' if code == 'no_space' else 'check'} the disk")


SUPERSEDED = Refusal("superseded", "a newer desired state")
"""The end of a download that a newer assignment cancelled."""


def part_of(bundle: Path) -> Path:
    """Return the path of the part of a download that becomes ``bundle``."""
    return bundle.with_name(f"{bundle.name}.part")


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """The signed metadata of a target."""

    sha256: str
    length_bytes: int
    custom: TargetCustom


@dataclass(frozen=True, slots=True)
class FetchOrder:
    """What to fetch; ``max_bytes_per_s`` of 0: no limit. ``deltas``: the signed patches that make it from others."""

    sha256: str
    length_bytes: int
    max_bytes_per_s: int = 0
    _: KW_ONLY
    deltas: tuple[Delta, ...] = ()


@dataclass(frozen=True, slots=True)
class Proof:
    """A bundle that passed its checks and the probe.

    ``class_shares``: how often its reference predicts each class, ratios that sum to 1; empty if unknown.
    """

    latency_budget_ms: float
    class_shares: tuple[float, ...] = ()


@dataclass(slots=True)
class FetchProgress:
    """Shared by the loop and the fetching worker: the worker counts bytes, the loop may cancel.

    ``done_bytes``: how much of the bundle is here, however it came. ``fetched_bytes``: what the attempt has received
    over the network so far, of the bundle and of patches, also what was thrown away: bodies of HTTP and whole chunks,
    without the headers of the protocols below. ``how``: how the bundle came here, where that is worth a record: by a
    patch, or why not.
    """

    _: KW_ONLY
    done_bytes: int = 0
    fetched_bytes: int = 0
    how: str = ""
    cancelled: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """The measurements of the probe child; ``code`` is empty when ``ok``."""

    ok: bool = False
    code: str = ""
    text: str = ""
    latency_p95_ms: float = 0.0
    peak_memory_bytes: int = 0
    latency_p50_ms: float = 0.0
    latency_p99_ms: float = 0.0
    runs: int = 0

    def figures(self, release: str, *, shared: bool) -> BenchmarkAnswer:
        """Return them as the figures of ``release``; ``shared``: timed beside a model that serves."""
        return BenchmarkAnswer(
            release=release, runs=self.runs, p50_ms=self.latency_p50_ms, p95_ms=self.latency_p95_ms,
            p99_ms=self.latency_p99_ms, peak_memory_bytes=self.peak_memory_bytes, shared=shared,
        )  # fmt: skip


class Verifier(Protocol):
    """Looks a target up in signed metadata."""

    def check(self, target: str) -> TargetInfo | Refusal:
        """Return the signed information about ``target``, or why it can't be trusted."""


class Fetcher(Protocol):
    """Downloads bundles."""

    def fetch(self, order: FetchOrder, progress: FetchProgress) -> Refusal | None:
        """Download the bundle into the blob folder and check its digest; return None, or why it failed."""


class Prober(Protocol):
    """Probes a bundle on this device."""

    def probe(self, bundle: Path) -> ProbeResult:
        """Return the result of a new child process for ``bundle``."""


@dataclass(frozen=True, slots=True)
class Consent:
    """The application agrees to a switch."""


class SwitchHook(Protocol):
    """Asks the application on the device before a switch."""

    def ask(self, release: str, current: str) -> Consent | Refusal:
        """Return whether ``release`` may replace ``current`` now."""


class Worker(Protocol):
    """Runs blocking jobs."""

    def run(self, token: int, job: Callable[[], object]) -> None:
        """Run ``job`` and report its result under ``token``; an exception is a result too."""


@dataclass(frozen=True, slots=True)
class MemoryVerifier:
    """Signed metadata as a mapping, for tests."""

    targets: Mapping[str, TargetInfo | Refusal]

    def check(self, target: str) -> TargetInfo | Refusal:
        """Return the entry of the mapping."""
        return self.targets.get(target, Refusal("unknown_target", f"Expected a signed target, got {target!r}"))


@dataclass(frozen=True, slots=True)
class MemoryFetcher:
    """Bundles as a mapping by digest, for tests."""

    blobs: Mapping[str, bytes | Refusal]
    folder: Path

    def fetch(self, order: FetchOrder, progress: FetchProgress) -> Refusal | None:
        """Write the bundle into the blob folder."""
        found = self.blobs.get(order.sha256, Refusal("http_404", "no such blob"))
        if isinstance(found, Refusal):
            return found
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / order.sha256
        make_way(target)
        part = part_of(target)
        part.write_bytes(found)
        part.replace(target)
        progress.done_bytes = len(found)
        progress.fetched_bytes += len(found)
        return None


@dataclass(frozen=True, slots=True)
class MemoryProber:
    """One answer for every bundle, for tests."""

    result: ProbeResult = field(default_factory=lambda: ProbeResult(ok=True))

    def probe(self, bundle: Path) -> ProbeResult:
        """Return the answer."""
        return self.result if bundle.exists() else ProbeResult(code="bundle_invalid", text=f"{bundle} is missing")


@dataclass(slots=True)
class MemoryHook:
    """Answers in order, the last one again and again, for tests; ``asked`` keeps what was asked about."""

    answers: list[Consent | Refusal]
    asked: list[tuple[str, str]] = field(default_factory=list)

    def ask(self, release: str, current: str) -> Consent | Refusal:
        """Return the next answer."""
        self.asked.append((release, current))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@dataclass(frozen=True, slots=True)
class JobDone:
    """A job has ended; ``result`` is what it returned, or the exception it raised."""

    token: int
    result: object


@dataclass(frozen=True, slots=True)
class ThreadWorker:
    """One thread per job; ``put`` enqueues the result."""

    put: Callable[[JobDone], None]

    def run(self, token: int, job: Callable[[], object]) -> None:
        """Run ``job`` in the background."""
        try:
            threading.Thread(target=self._work, args=(token, job), name=f"job-{token}", daemon=True).start()
        except RuntimeError as error:  # no thread could be started: reported as a temporary failure
            self.put(JobDone(token, OSError(errno.EAGAIN, str(error))))

    def _work(self, token: int, job: Callable[[], object]) -> None:
        self.put(JobDone(token, outcome(job)))


@dataclass(slots=True)
class InlineWorker:
    """Keeps jobs until ``work`` runs them, in the caller's thread: for tests."""

    put: Callable[[JobDone], None]
    _jobs: list[tuple[int, Callable[[], object]]] = field(default_factory=list)

    def run(self, token: int, job: Callable[[], object]) -> None:
        """Keep ``job``."""
        self._jobs.append((token, job))

    def work(self) -> int:
        """Run the kept jobs; return how many."""
        jobs, self._jobs = self._jobs, []
        for token, job in jobs:
            self.put(JobDone(token, outcome(job)))
        return len(jobs)


def outcome(job: Callable[[], object]) -> object:
    """Return the result of ``job``, or the exception that it raises."""
    try:
        return job()
    except Exception as error:  # noqa: BLE001 - a thread's outermost frame; the loop logs it with its stack
        return error
