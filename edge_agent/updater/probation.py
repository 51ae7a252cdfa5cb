"""Judges whether the new release is healthy on this device. Pure: facts in, verdict out; needs no connection.

Outputs are judged for gross breakage only; subtle changes are left to the server, which sees the whole fleet. One
class that takes nearly all predictions is breakage if neither the reference nor the previous release, on this device,
predicts it half of the time: a camera in front of one scene sees one class, and that is no fault.

Faults of the source do not count against a release: errors are judged beyond those of the previous release, and if the
source is away to the end, or has no inputs, a release that was loaded and passed its golden vectors is kept. If the
source has inputs that the previous release served and the new release does not read, that is the release's fault.

The shadow before it, if one is ordered, is judged here, too. Disagreement is no error: the release that serves may be
the one that is wrong. It refuses a release only above the limit that the server ordered, and only at the end, because
inputs that follow each other show the same scene.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from wire.messages import UnreadInputs
from wire.shadow import ShadowCounts, ShadowOrder

ENOUGH_INFERENCES = 20  # with fewer, a ratio means nothing
ENOUGH_BEATS = 5
ENOUGH_OUTPUTS = 60
KEPT_BEATS = 60
KEPT_OUTPUTS = 5000
KEPT_TRIES = 200  # recent inputs only: a camera may have failed an hour ago
GROSS_RATIO = 0.95
USUAL_RATIO = 0.5
INVALID_RATIO = 0.5
PATIENCE_S = 600.0
NO_ROOM = "shadow_no_room"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbationLimits:
    """The limits for a release on probation. ``latency_p95_ms`` of 0: no limit."""

    probation_s: float = 600.0
    max_error_ratio: float = 0.05
    latency_p95_ms: float = 0.0
    latency_slack_ratio: float = 1.5  # other programs run too; the probe used the exact budget
    class_shares: tuple[float, ...] = ()
    usual_shares: tuple[float, ...] = ()
    usual_error_ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class Tries:
    """How many inputs were served, and how many failed."""

    served: float = 0
    errors: float = 0

    def add(self, served: int, errors: int) -> Tries:
        """Return these with more; older ones fade beyond ``KEPT_TRIES``."""
        more = Tries(self.served + max(0, served), self.errors + max(0, errors))
        kept = min(1.0, KEPT_TRIES / max(1, more.served + more.errors))
        return Tries(more.served * kept, more.errors * kept)

    @property
    def error_ratio(self) -> float:
        """The share of errors; 0 while there are too few inputs."""
        total = self.served + self.errors
        return self.errors / total if total >= ENOUGH_INFERENCES else 0.0


@dataclass(frozen=True, slots=True)
class Outputs:
    """How often each class was predicted; ``invalid``: outputs that were not finite numbers."""

    classes: tuple[int, ...] = ()
    invalid: int = 0

    def add(self, classes: tuple[int, ...], n: int) -> Outputs:
        """Return these outputs with those of ``n`` more inferences; older ones fade beyond ``KEPT_OUTPUTS``."""
        if not classes:
            return self  # a manifest without labels: nothing is counted
        mine = self.classes if len(self.classes) == len(classes) else (0,) * len(classes)
        total = tuple(left + max(0, right) for left, right in zip(mine, classes, strict=True))
        if sum(total) > KEPT_OUTPUTS:
            total = tuple(count // 2 for count in total)
        return Outputs(total, self.invalid + max(0, n - sum(classes)))

    @property
    def shares(self) -> tuple[float, ...]:
        """Each class's share; empty while there are too few outputs."""
        total = sum(self.classes)
        return tuple(count / total for count in self.classes) if total >= ENOUGH_OUTPUTS else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The observations since the switch: ``p95_ms`` of the last heartbeats, sums of the others.

    ``fault``: how the child ended last. ``away``: the release was loaded and found no source to open. ``unread``: the
    release does not read inputs that the previous one served. ``left``: files that lie unread now.
    """

    crashes: int = 0
    hangs: int = 0
    fault: str = ""
    beats: int = 0
    inferences: int = 0
    errors: int = 0
    p95_ms: tuple[float, ...] = ()
    alive: bool = False
    away: bool = False
    unread: bool = False
    outputs: Outputs = field(default_factory=Outputs)
    left: UnreadInputs = field(default_factory=UnreadInputs)

    def beat(self, *, n: int, errors: int, p95_ms: float, classes: tuple[int, ...] | None = None) -> Health:
        """Return this health after one heartbeat with its own counts; ``classes`` None: not reported."""
        outputs = self.outputs if classes is None else self.outputs.add(classes, n)
        p95s = (*self.p95_ms, p95_ms)[-KEPT_BEATS:] if n else self.p95_ms
        return replace(
            self, beats=self.beats + 1, inferences=self.inferences + n, errors=self.errors + errors,
            p95_ms=p95s, alive=True, away=False, outputs=outputs,
        )  # fmt: skip

    def beside(self, left: UnreadInputs) -> Health:
        """Return this health with the files that lie unread now."""
        return replace(self, left=left)

    def crashed(self, fault: str = "") -> Health:
        """Return this health after the child ended by itself."""
        return replace(self, crashes=self.crashes + 1, alive=False, fault=fault)

    def hung(self, fault: str = "") -> Health:
        """Return this health after the child missed its heartbeats and was killed."""
        return replace(self, hangs=self.hangs + 1, alive=False, fault=fault)

    def without_source(self) -> Health:
        """Return this health after the child ended because it found no source."""
        return replace(self, away=True, alive=False)

    def left_alone(self) -> Health:
        """Return this health after inputs that only the previous release reads."""
        return replace(self, unread=True)


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """How probation, or the shadow, ends. ``over``: decided; ``code`` empty: the release goes on.

    ``text`` then names what could not be judged, or sums up what was compared.
    """

    over: bool = False
    code: str = ""
    text: str = ""


def judge(health: Health, limits: ProbationLimits, elapsed_s: float) -> PhaseResult:
    """Return whether probation is over, and how it ended."""
    tried = health.inferences + health.errors
    error_ratio = health.errors / tried if tried else 0.0
    p95_ms = sorted(health.p95_ms)[len(health.p95_ms) // 2] if health.p95_ms else 0.0  # the (upper) median
    allowed_ms = limits.latency_p95_ms * limits.latency_slack_ratio
    if health.crashes:
        text = f"the child ended {health.crashes} times in probation"
        return PhaseResult(True, "child_crashed", f"{text}: {health.fault}" if health.fault else text)
    if health.hangs:
        text = f"the child missed its heartbeats {health.hangs} times in probation"
        return PhaseResult(True, "child_hung", f"{text}: {health.fault}" if health.fault else text)
    if health.unread and not tried:
        return PhaseResult(True, "inputs_unread", "Expected inputs to be read as by the release before, got none read")
    allowed_ratio = limits.max_error_ratio + limits.usual_error_ratio
    if tried >= ENOUGH_INFERENCES and error_ratio > allowed_ratio:
        usual = f" ({limits.usual_error_ratio:.2%} under the release before)" if limits.usual_error_ratio else ""
        return PhaseResult(
            True, "error_rate", f"Expected at most {allowed_ratio:.2%} errors{usual}, got {error_ratio:.2%}"
        )
    if allowed_ms and len(health.p95_ms) >= ENOUGH_BEATS and p95_ms > allowed_ms:
        return PhaseResult(
            True, "latency_over_budget", f"Expected p95 of at most {allowed_ms:.1f} ms, got {p95_ms:.1f} ms"
        )
    over = elapsed_s >= limits.probation_s and (health.alive or health.away)
    broken = _broken(health.outputs, limits, tried, over=over)
    text = broken
    if over and not broken and not health.inferences:
        text = f"no inferences in probation: {_why_none(health)}; kept on its golden vectors alone"
    return PhaseResult(over or bool(broken), "output_distribution" if broken else "", text)


def _why_none(health: Health) -> str:
    """Return why a release answered nothing in probation."""
    if health.away:
        return "the source was missing"
    left = [
        f"{count} {'file' if count == 1 else 'files'} {what}"
        for count, what in ((health.left.ignored, "ignored"), (health.left.unreadable, "not to be opened"))
        if count
    ]
    named = f" ({', '.join(health.left.names)})" if left and health.left.names else ""
    gave = f"the source gave {health.errors or 'no'} inputs, none served" if health.errors or not left else ""
    return ", ".join([*left[:-1], *(f"{last}{named}" for last in left[-1:]), *([gave] if gave else [])])


def _broken(outputs: Outputs, limits: ProbationLimits, tried: int, *, over: bool) -> str:
    """Return what is wrong with the outputs; the class histogram is judged only at the end, when it is fullest."""
    if tried >= ENOUGH_INFERENCES and outputs.invalid > INVALID_RATIO * tried:
        return f"Expected numbers, got {outputs.invalid} of {tried} outputs that are none"
    shares = outputs.shares
    if not over or not shares or len(shares) != len(limits.class_shares):
        return ""
    top = max(range(len(shares)), key=shares.__getitem__)
    usual = [known[top] for known in (limits.class_shares, limits.usual_shares) if len(known) == len(shares)]
    if shares[top] <= GROSS_RATIO or max(usual) >= USUAL_RATIO:
        return ""
    return f"Expected class {top} in about {max(usual):.0%} of predictions, as before, got {shares[top]:.0%}"


def longest_s(order: ShadowOrder) -> float:
    """Return after how long a shadow ends even if its challenger was rarely beside a champion."""
    return 2 * order.seconds + PATIENCE_S


def judge_shadow(order: ShadowOrder, counts: ShadowCounts, max_error_ratio: float, *, too_long: bool) -> PhaseResult:
    """Return whether the shadow is over, and how it ended."""
    tried, ratio = counts.n + counts.errors, counts.disagreement_ratio
    if tried >= ENOUGH_INFERENCES and counts.error_ratio > max_error_ratio:
        text = f"Expected the challenger to answer what the champion did, got {counts.errors} errors in {tried} inputs"
        return PhaseResult(True, "shadow_errors", text)
    if counts.seconds < order.seconds and not too_long:
        return PhaseResult()
    if tried < ENOUGH_INFERENCES:
        text = f"Expected at least {ENOUGH_INFERENCES} inputs in the shadow, got {tried}"
        return PhaseResult(True, "shadow_too_few" if order.required else "", text)
    if ratio is not None and ratio > order.max_ratio:
        text = f"Expected at most {order.max_ratio:.2%} of two labels, got {counts.disagreed} of {counts.n} inputs"
        return PhaseResult(True, "shadow_disagreement", text)
    text = f"{counts.n} inputs compared"
    return PhaseResult(True, "", text if ratio is None else f"{text}, {counts.disagreed} with two labels")
