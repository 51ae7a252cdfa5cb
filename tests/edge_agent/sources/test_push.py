"""The source that the local interface fills: bounded, and nothing is lost silently."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.config import read_config
from edge_agent.errors import AgentConfigError
from edge_agent.sources.push import PushSource, Settings


def test_what_does_not_fit_is_refused_and_order_is_kept() -> None:
    """Both bounds, number and bytes, from both sides; room comes back as inputs are taken."""
    source = PushSource(Settings(queue=3, queue_bytes=10))
    assert [source.offer(name, bytes(4)) for name in "ab"] == [True, True]
    assert source.offer("c", bytes(3)) is False
    assert source.offer("c", bytes(2)) is True
    assert source.offer("d", b"") is False
    assert [source.take().id for _ in range(3)] == ["a", "b", "c"]
    assert source.take() is None
    assert source.offer("e", bytes(99)) is True  # alone it is served, or refused by the size of an input


def test_ids_are_unique_over_restarts() -> None:
    """A receiver removes duplicates by them."""
    ids = [source.new_id() for source in (PushSource(Settings()), PushSource(Settings())) for _ in range(3)]
    assert len(set(ids)) == 6


def test_a_push_source_needs_the_local_interface(tmp_path: Path) -> None:
    """Otherwise nothing could ever come."""
    path = tmp_path / "agent.toml"
    path.write_text('[source]\nkind = "push"\n')
    with pytest.raises(AgentConfigError, match=r"\[api\] listen or unix"):
        read_config(path)
    path.write_text('[source]\nkind = "push"\n[api]\nlisten = "127.0.0.1:8500"\n')
    assert read_config(path).source.kind == "push"
