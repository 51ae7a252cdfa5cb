"""The local interface in a real child process, and what agent.toml passes to it."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from edge_agent.config import read_config
from edge_agent.control.assembly import child_arguments
from edge_agent.in_flight import InFlight
from tests.edge_agent.conftest import free_port
from tests.edge_agent.inference.conftest import child

__all__ = ["child"]


def test_a_child_serves_it_and_closes_it_at_its_end(bundle: Callable, child: Callable) -> None:
    """The address answers once the child is ready, and nobody listens after its end."""
    port = free_port()
    running = child(bundle(), api={"listen": f"127.0.0.1:{port}"})
    running.until("ready")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/tiny", timeout=20) as reply:
        assert json.loads(reply.read())["versions"] == ["1"]
    assert running.end() == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_child_without_a_free_port_reports_it_and_serves_on(
    bundle: Callable, child: Callable, drop: Callable, pictures: list[bytes]
) -> None:
    """An application's mistake must not end the watch over the model."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        drop({"a.png": pictures[0]})
        running = child(bundle(), api={"listen": f"127.0.0.1:{other.getsockname()[1]}"})
        assert running.until("fault").header["code"] == "api_failed"
        running.until("beat", lambda frame: frame.header["n"] == 1)


def test_a_request_that_ended_a_child_is_no_fault_of_the_release(
    bundle: Callable, child: Callable, drop: Callable, tmp_path: Path, pictures: list[bytes]
) -> None:
    """It is marked as in flight, so the next child names it, and serves on."""
    (tmp_path / "state").mkdir()
    InFlight(tmp_path / "state").begin("a request of the local interface")
    drop({"a.png": pictures[0]})
    running = child(bundle(), api={"listen": f"127.0.0.1:{free_port()}"})
    fault = running.until("fault").header
    assert (fault["code"], fault["text"][:32]) == ("input_crashed", "a request of the local interface")
    running.until("beat", lambda frame: frame.header["n"] == 1)


def test_the_table_reaches_the_child_and_corrections_only_with_a_budget(tmp_path: Path) -> None:
    """Off by default; paths are those beside agent.toml."""
    path = tmp_path / "agent.toml"
    path.write_text("")
    assert "--api" not in child_arguments(read_config(path))
    path.write_text('[api]\nunix = "api.sock"\nkeep_bytes = 0\n')
    arguments = child_arguments(read_config(path))
    document = json.loads(arguments[arguments.index("--api") + 1])
    assert (document, "--corrections" in arguments) == ({"keep_bytes": 0, "unix": f"{tmp_path}/api.sock"}, False)
    path.write_text('[api]\nlisten = "127.0.0.1:8500"\n[samples]\nmax_bytes_per_day = 1\n')
    assert "--corrections" in child_arguments(read_config(path))
