"""The page of one release as a value: gates, slices, sizes, card, where it runs, what is wrong with it, its lineage.

What a bundle does not state is said; nothing is filled in. Everything is bounded, whatever a bundle holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from server.dashboard.services import Services
from server.dashboard.views import Cut, PageLink, Status, Tone, clock_time
from server.errors import ServerError
from server.lineage.graph import LineageGraph, LineageNode
from server.registry.statements import Stated, StatedCertificate, StatedGate, stated
from server.registry.versions import Release, Versions
from server.rollout.regressions import held_text
from server.wording import in_bytes
from wire.errors import WireError

_TARGETS, _GATES, _SLICES, _PLACES, _NODES, _FIGURES = 4, 40, 24, 30, 60, 60
_CUT = 600
_TONES = {"pass": Tone.GOOD, "fail": Tone.BAD}
_SLICE = "slice:"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownGate:
    """One gate: its result, its figures in words, and the numbers of its picture (None: no picture)."""

    title: str
    verdict: Status
    figures: str
    text: str
    value: float | None
    bound: float | None
    limit: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSlice:
    """One slice: how many points worse (above 0) it answers than the baseline, and in words."""

    name: str
    change: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetView:
    """The release for one target class. ``problem``: why its bundle can't be read, "" if it can.

    ``missing``: parts that the bundle lacks. ``figures``: name and value of what was measured.
    """

    target: str
    facts: tuple[tuple[str, str], ...]
    problem: str = ""
    missing: tuple[str, ...] = ()
    verdict: Status | None = None
    baseline: str = ""
    gates: Cut[ShownGate] = field(default_factory=lambda: Cut(()))
    slices: Cut[ShownSlice] = field(default_factory=lambda: Cut(()))
    figures: Cut[tuple[str, str]] = field(default_factory=lambda: Cut(()))
    remarks: tuple[str, ...] = ()
    card: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseView:
    """One release. ``signs``: what speaks against it, in words. ``steps``: the kinds of its lineage, known or not."""

    name: str
    model: str
    published: str
    withdrawn: str
    signs: tuple[str, ...]
    targets: Cut[TargetView]
    now: int
    ever: int
    sites: Cut[tuple[PageLink, int]]
    rollouts: tuple[LineageNode, ...]
    steps: tuple[tuple[str, Status], ...]
    answers: tuple[str, ...]
    nodes: Cut[tuple[LineageNode, str]]
    left_out: Mapping[str, int]


def release_view(services: Services, name: str) -> ReleaseView:
    """Return what is known of a release; it reads bundles, so call it in a thread.

    Raises:
        UnknownReleaseError: If there is none.
    """
    found = [one for one in services.versions.releases() if one.name == name]
    graph = services.origins.of_release(name)
    first, places = found[0], next(one for one in graph.nodes if one.kind == "devices")
    sites = places.facts["sites"]
    rows = sites.items() if isinstance(sites, dict) else ()
    linked = tuple((PageLink.to(site, "/", release=name, site=site), int(str(count))) for site, count in rows)
    return ReleaseView(
        name=name, model=first.model, published=clock_time(first.registered_ms), withdrawn=_withdrawn(first),
        signs=_signs(services, name, found),
        targets=Cut(
            tuple(_target(services.versions, one) for one in found[:_TARGETS]), max(len(found) - _TARGETS, 0)
        ),
        now=int(str(places.facts["now"])), ever=int(str(places.facts["ever"])),
        sites=Cut(linked[:_PLACES], max(len(linked) - _PLACES, 0) + graph.left_out.get("sites", 0)),
        rollouts=tuple(one for one in graph.nodes if one.kind == "rollout"),
        steps=steps(graph), answers=graph.answers[:_NODES], nodes=Cut.of(_with_witness(graph), _NODES),
        left_out=graph.left_out,
    )  # fmt: skip


def _withdrawn(release: Release) -> str:
    if not release.withdrawn_ms:
        return ""
    by, why = release.withdrawn_by, release.withdrawn_why
    return f"withdrawn {clock_time(release.withdrawn_ms)}" + (f" by {by}" if by else "") + (f": {why}" if why else "")


def _signs(services: Services, name: str, found: Sequence[Release]) -> tuple[str, ...]:
    """Return what speaks against the release: regressions that devices show, and labels that show harm."""
    signs = [held] if (held := held_text(services.drift.verdicts, name)) else []
    targets = {one.name for one in found}
    signs += [
        f"labels show that it is wrong on {group.name} in {group.risk.at_least:.1%} or more, allowed are "
        f"{group.allowed:.1%}"
        for audit in services.retraining.audit.audits() if audit.release in targets
        for group in audit.groups if group.harmful
    ]  # fmt: skip
    return tuple(one[:_CUT] for one in signs[:10])


def _target(versions: Versions, release: Release) -> TargetView:
    facts = [
        ("bundle", f"{in_bytes(release.length_bytes)}, SHA-256 {release.sha256}"),
        ("runtime", release.custom.runtime or "not stated"),
        ("hardware", ", ".join(release.custom.hardware) or "any"),
        ("patches", f"from {len(release.custom.deltas)} earlier bundles" if release.custom.deltas else "none"),
    ]
    try:
        known = stated(versions.blobs, release.sha256)
    except (ServerError, WireError) as error:
        return TargetView(target=release.target, facts=tuple(facts), problem=f"[{error.code}] {error}"[:_CUT])
    facts += _measures(known)
    judged = known.certificate
    if judged is None:
        return TargetView(target=release.target, facts=tuple(facts), missing=known.missing, card=known.card)
    return TargetView(
        target=release.target, facts=tuple(facts), missing=known.missing, card=known.card,
        verdict=Status(judged.verdict or "no verdict", _TONES.get(judged.verdict, Tone.WARN)),
        baseline=judged.baseline[:_CUT], gates=Cut.of(tuple(gate_row(one) for one in judged.gates), _GATES),
        slices=Cut.of(slice_rows(judged), _SLICES), remarks=tuple(one[:_CUT] for one in judged.remarks[:10]),
        figures=Cut.of(tuple((name[:80], f"{value:.6g}") for name, value in sorted(judged.figures.items())), _FIGURES),
    )  # fmt: skip


def _measures(known: Stated) -> list[tuple[str, str]]:
    """Return sizes, and what of latency and memory is known: limits alone, because each device measures its own."""
    budgets = known.manifest.budgets
    artifact = known.sizes.get(known.manifest.artifact, 0)
    latency = f"at most {budgets.latency_p95_ms:g} ms (p95)" if budgets.latency_p95_ms else "no limit"
    memory = f"at most {in_bytes(budgets.peak_memory_bytes)}" if budgets.peak_memory_bytes else "no limit"
    others = [f"{name} {in_bytes(size)}" for name, size in known.sizes.items() if name != known.manifest.artifact]
    return [
        ("model file", in_bytes(artifact) or "0 B"), ("beside it", ", ".join(others) or "nothing"),
        ("latency", f"{latency}; what a device needs is on its page"), ("memory", memory),
    ]  # fmt: skip


def gate_row(gate: StatedGate) -> ShownGate:
    """Return the row of a gate."""
    parts = [
        f"{name} {value:.6g}" for name, value in
        (("measured", gate.value), ("bound", gate.bound), ("limit", gate.limit)) if value is not None
    ]  # fmt: skip
    parts += [f"n {gate.n:,}"] if gate.n else []
    return ShownGate(
        title=gate.title[:80], verdict=Status(gate.verdict[:40] or "no verdict", _TONES.get(gate.verdict, Tone.WARN)),
        figures=", ".join(parts), text=gate.text[:_CUT], value=gate.value, bound=gate.bound, limit=gate.limit,
    )  # fmt: skip


def slice_rows(judged: StatedCertificate) -> tuple[ShownSlice, ...]:
    """Return the slices, the one that got worst first: points of accuracy, or the increase of a metric's error."""
    rows = []
    for name, counts in judged.counts.items():
        if name.startswith(_SLICE) and len(counts) >= 3 and counts[2] > 0:  # noqa: PLR2004 - lost, won, of how many
            lost, won, n = counts[:3]
            change = 100 * (lost - won) / n
            text = f"{change:+.2f} points: {lost} lost, {won} won of {n:,}"
            rows.append(ShownSlice(name=name.removeprefix(_SLICE)[:80], change=change, text=text))
    for name, metric in judged.metrics.items():
        if name.startswith(_SLICE):
            text = f"{metric.drop:+.4g}, bounds {metric.lower:.4g} to {metric.upper:.4g}, of {metric.n:,}"
            rows.append(ShownSlice(name=name.removeprefix(_SLICE)[:80], change=metric.drop, text=text))
    return tuple(sorted(rows, key=lambda row: (-row.change, row.name)))


_STEPS = (
    ("data", ("data", "recipe")), ("run", ("run",)), ("gates", ("gates",)), ("release", ("release",)),
    ("rollout", ("rollout",)), ("devices", ("devices",)), ("samples", ("samples",)), ("labels", ("labels",)),
    ("job", ("job",)),
)  # fmt: skip


def steps(graph: LineageGraph) -> tuple[tuple[str, Status], ...]:
    """Return each step of the chain with what is known of it: how many, none, or that it is not known."""
    found = []
    for name, kinds in _STEPS:
        nodes = [one for one in graph.nodes if one.kind in kinds]
        if not nodes:
            status = Status("none", Tone.CALM)
        elif any(not one.known for one in nodes):
            status = Status("not all is known" if any(one.known for one in nodes) else "not known", Tone.WARN)
        else:
            status = Status("known" if len(nodes) == 1 else f"{len(nodes)} known", Tone.GOOD)
        found.append((name, status))
    return tuple(found)


def _with_witness(graph: LineageGraph) -> tuple[tuple[LineageNode, str], ...]:
    """Return the nodes, each with what came of it and where that is known from, in words."""
    names = {one.key: f"{one.kind} {one.id[:16]}".strip() for one in graph.nodes}
    said: dict[str, list[str]] = {}
    for edge in graph.edges:
        said.setdefault(edge.source, []).append(
            f"{edge.words} {names.get(edge.target, edge.target)} (by {edge.known_from})"
        )
    return tuple((one, "; ".join(said.get(one.key, [])[:4])) for one in graph.nodes)
