"""An answer about lineage: a small graph of what was made of what, and sentences that say it. Pure.

Nodes stand in the order of time as far as it is known: data, run, gates, release, rollout, devices, samples, labels,
job, next release. An edge says where it is known from, because the parts come from different witnesses: the signed
bundle, the reports of devices, the server's own rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wire.codec import Json

SIGNED = "the signed bundle"
OWN = "the server's own record"
REPORT = "the device's report"
WORKER = "the worker's report"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAct:
    """What a person or the server did about a node: the code in the log of acts, who, when, and why ("" for none)."""

    at_ms: int
    by: str
    act: str
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageNode:
    """One thing. ``known`` is False for what the server does not know; ``words`` says what is missing then.

    ``link``: its page, "" for none. ``at_ms``: since when it is, 0 if unknown. ``facts``: short values by name.
    """

    kind: str
    id: str
    words: str
    link: str = ""
    at_ms: int = 0
    known: bool = True
    facts: Mapping[str, Json] = field(default_factory=dict)
    acts: tuple[NodeAct, ...] = ()

    @property
    def key(self) -> str:
        """How edges name it."""
        return f"{self.kind}:{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageEdge:
    """``target`` came of ``source`` (keys of nodes): how, and where that is known from."""

    source: str
    target: str
    words: str
    known_from: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageGraph:
    """The answer about ``subject`` (a node's key). ``left_out``: how many of a kind there are beyond those shown."""

    subject: str
    answers: tuple[str, ...]
    nodes: tuple[LineageNode, ...]
    edges: tuple[LineageEdge, ...]
    left_out: Mapping[str, int]


@dataclass(slots=True, kw_only=True)
class Drawing:
    """A graph that is being made: each node and edge once, in the order in which they came."""

    nodes: dict[str, LineageNode] = field(default_factory=dict)
    edges: dict[tuple[str, str], LineageEdge] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    def add(self, node: LineageNode) -> str:
        """Add ``node`` unless it is there; return its key."""
        self.nodes.setdefault(node.key, node)
        return node.key

    def join(self, source: str, target: str, words: str, known_from: str) -> None:
        """Add an edge unless the two are joined."""
        edge = LineageEdge(source=source, target=target, words=words, known_from=known_from)
        self.edges.setdefault((source, target), edge)

    def graph(self, subject: str) -> LineageGraph:
        """Return what was drawn."""
        return LineageGraph(
            subject=subject, answers=tuple(self.answers), nodes=tuple(self.nodes.values()),
            edges=tuple(self.edges.values()), left_out=dict(self.left_out),
        )  # fmt: skip
