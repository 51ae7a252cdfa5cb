"""Lineage by REST, by the client and by commands."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from server.app.state_directory import RunAddress
from server.cli import main
from server.cli.place import operator_client

from .conftest import Loop


@pytest.fixture
def running(loop: Loop) -> Loop:
    """The server answers over HTTP."""
    loop.fleet.app.web.start()
    url = loop.fleet.app.http_url
    loop.fleet.state.write_address(RunAddress(http_url=url, mqtt_host="127.0.0.1", mqtt_port=9, pid=1))
    return loop


def test_the_client_answers_in_one_call(running: Loop) -> None:
    """Which labels a device's model is made of, who approved it, and which devices learned from a sample."""
    with operator_client(running.fleet.state) as server:
        found = server.lineage(device="cam-1")
        assert any("labelled by carla (5), dan (4)" in one for one in found.answers)
        assert {act.by for node in found.nodes for act in node.acts if act.act == "rollout.approve"} == {"anna"}
        given = list(server.given_samples(running.job))
        assert len(given) == 9
        assert [one.device for one in server.release_runs(sample=given[0].sample)] == ["cam-1"]
        assert server.lineage(job=running.job).subject == f"job:{running.job}"
        assert server.lineage(device="cam-1", at_ms=5).nodes[1].known is False


ODD = (
    ("", 422, "request_invalid"), ("?release=digits-1&job=x", 422, "request_invalid"),
    ("?at=5", 422, "request_invalid"), ("?release=digits-1&at=5", 422, "request_invalid"),
    ("?sample=-1", 422, "request_invalid"), ("?release=%3Cscript%3E", 404, "unknown_release"),
    ("?device=a%00b", 404, "unknown_device"), ("?sample=2147483000", 404, "unknown_sample"),
    ("?job=x", 404, "unknown_job"), ("/devices", 422, "request_invalid"),
    ("/devices?release=digits-1&sample=1", 422, "request_invalid"),
    ("/devices?release=digits-1&cursor=x", 422, "cursor_refused"), ("/samples?job=x", 404, "unknown_job"),
)  # fmt: skip


@pytest.mark.stores
def test_odd_questions_are_refused(loop: Loop) -> None:
    """With the status and code of what is wrong, and never as an empty answer."""
    client, found = loop.fleet.client(), []
    for query, _, _ in ODD:
        answer = client.get(f"/api/lineage{query}")
        found.append((query, answer.status_code, answer.json()["code"]))
    assert tuple(found) == ODD


def test_the_command_prints_the_graph_as_lines_and_the_answers_beside_it(running: Loop) -> None:
    """A table for scripts on standard output, sentences on standard error, the whole as JSON."""

    def run(*words: str) -> tuple[int, str, str]:
        found = CliRunner().invoke(main, ["lineage", words[0], str(running.fleet.state.path), *words[1:]])
        return found.exit_code, found.stdout, found.stderr

    code, table, said = run("release", "digits-2")
    assert (code, table.splitlines()[0]) == (0, "kind\tid\tknown\tat_ms\twords\tfrom\tacts")
    assert "approved by anna" in said
    assert json.loads(run("device", "cam-1", "--at", "2027-01-15T08:00:03.500", "--json")[1])["answers"][0].startswith(
        "cam-1 ran digits-1"
    )
    assert run("devices", "--release", "digits-2", "--now")[1].splitlines()[1].startswith("cam-1\tberlin\tdigits-2\t")
    sample = run("samples", running.job)[1].splitlines()[1].split("\t")[0]
    assert "digits-2 was given it" in run("sample", sample)[2]
    assert run("job", running.job)[1].splitlines()[1].startswith(f"job\t{running.job}\tTrue\t")
    assert run("devices")[0] == 2
    assert "such as 2026-11-28T14:00" in run("device", "cam-1", "--at", "noon")[2]
    assert "error [unknown_release]" in run("release", "digits-77")[2]
