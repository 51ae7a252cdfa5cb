"""Sources that read a stream: opened for a test, and closed at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from edge_agent import sources
from edge_agent.device.clock import SystemClock
from edge_agent.sources._stream import StreamSource
from tests.edge_agent.sources.prepared import Told


@pytest.fixture
def stream() -> Iterator[Callable[..., StreamSource]]:
    """Open sources; all are closed at the end.

    ``release``: the options of its front end; ``read``: the columns that it reads; ``interval_ms``: of its gates.
    ``told``: gets what a source reports.
    """
    opened: list[StreamSource] = []

    def start(
        kind: str,
        *,
        release: dict[str, float] | None = None,
        read: tuple[str, ...] = (),
        interval_ms: int = 0,
        told: Told | None = None,
        **keys: object,
    ) -> StreamSource:
        kept: Told = told if told is not None else []
        around = sources.Surroundings(
            options=lambda: release or {},
            columns=lambda: read,
            interval_ms=lambda: interval_ms,
            tell=lambda code, text: kept.append((code, text)),
        )
        source = sources.load({"kind": kind, **keys}, SystemClock(), around)
        assert isinstance(source, StreamSource)
        opened.append(source)
        return source

    yield start
    for source in opened:
        source.close()
