"""Answers and figures over HTTP: the last ones, the stream, the metrics."""

from __future__ import annotations

import http.client
import json
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from edge_agent.local_api import recent
from edge_agent.local_api.recent import KeptInput, Recent
from edge_agent.sinks._accounts import open_accounts
from edge_agent.sinks._delivery import Delivery
from edge_agent.sinks._filters import SinkSettings
from tests.edge_agent.local_api.conftest import Running
from tests.edge_agent.sinks.receiver import Receiver, until
from wire.answers import AnswerRecord


def kept(name: str, size: int = 10, **keys: object) -> KeptInput:
    """Return an input of ``size`` bytes with its answer."""
    record = AnswerRecord(id=name, **keys)
    return KeptInput(record=record, data=bytes(size), artifact_sha256="aa", predicted=0)


def test_the_last_answers_are_those_of_the_source(
    running: Callable[..., Running], drop: Callable, pictures: list[bytes]
) -> None:
    """They are the records that sinks get, oldest first, with the reason of a bad input."""
    one = running()
    drop({"a.png": pictures[0], "b.png": b"no image"})
    until(lambda: len(one.get("/v1/answers")) == 2)
    found = {answer["id"].partition("@")[0]: answer for answer in one.get("/v1/answers?n=100")}
    assert found["a.png"]["label"] in {"a", "b", "c"}
    assert found["b.png"]["error"] == "image_invalid"
    assert len(one.get("/v1/answers?n=1")) == 1


@pytest.mark.parametrize("count", ["0", "101", "-1", "x", "%D9%A3", "1000"])
def test_a_number_of_answers_out_of_range_is_refused(count: str, running: Callable[..., Running]) -> None:
    """From 1 to 100 are kept."""
    one = running()
    assert one.ask("GET", f"/v1/answers?n={count}")[0] == 400


def _events(reply: http.client.HTTPResponse, count: int) -> list[dict]:
    """Return the next ``count`` answers of a stream."""
    found = []
    while len(found) < count:
        line = reply.fp.readline()
        assert line, "the stream ended"
        found += [json.loads(line[6:])] if line.startswith(b"data: ") else []
    return found


def test_a_stream_gives_each_answer_from_now_on(
    running: Callable[..., Running], drop: Callable, pictures: list[bytes]
) -> None:
    """Two clients get the same answers; one that goes is forgotten."""
    one = running()
    connections = [http.client.HTTPConnection(*one.api.address, timeout=20) for _ in range(2)]
    for connection in connections:
        connection.request("GET", "/v1/answers/stream")
    replies = [connection.getresponse() for connection in connections]
    assert replies[0].headers["Content-Type"] == "text/event-stream"
    until(lambda: len(one.api._recent._followers) == 2)
    drop({f"{number}.png": data for number, data in enumerate(pictures)})
    ids = [[event["id"] for event in _events(reply, len(pictures))] for reply in replies]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == len(pictures)
    for reply, connection in zip(replies, connections, strict=True):
        reply.close()
        connection.close()
    drop({"x.png": pictures[0], "y.png": pictures[1]})
    until(lambda: not one.api._recent._followers or drop({"z.png": pictures[0]}))


def test_a_stream_whose_client_went_at_once_frees_its_place(running: Callable[..., Running]) -> None:
    """Reset before or while the head is sent, many times: the next one still gets a stream."""
    one = running(connections=8)

    def come_and_go() -> bool:
        with socket.create_connection(one.api.address, timeout=20) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(b"GET /v1/answers/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return one.api._servers[0].statuses.total() >= 8

    until(come_and_go, 30.0)
    until(lambda: one.api._recent.add(kept("x", 1)) or one.api._streams._value == 4, 30.0)


def test_streams_leave_room_for_other_requests(running: Callable[..., Running]) -> None:
    """Half of the connections may be streams; the next stream is told to come again."""
    one = running(connections=4)
    connections = [http.client.HTTPConnection(*one.api.address, timeout=20) for _ in range(3)]
    replies = []
    for connection in connections:
        connection.request("GET", "/v1/answers/stream")
        replies.append(connection.getresponse())
    assert [reply.status for reply in replies] == [200, 200, 503]
    assert one.ask("GET", "/v2/health/live")[0] == 200
    for open_one in (*replies, *connections):
        open_one.close()


def test_a_slow_follower_loses_the_oldest_and_is_told() -> None:
    """Its queue has a bound, at which nothing is lost yet."""
    one = Recent(100)
    with one.following() as follower:
        for number in range(recent.MAX_FOLLOWED):
            one.add(kept(str(number)))
        assert follower.lost == 0
        one.add(kept("last"))
        records, lost = one.next(follower, 0.0)
        assert (records[0].id, records[-1].id, lost) == ("1", "last", 1)
        assert one.next(follower, 0.0) == ([], 0)
        one.close()
        assert one.next(follower, 5.0) is None


def test_inputs_are_kept_within_their_bytes() -> None:
    """The oldest goes first; one input larger than everything is not kept; the same id is kept once."""
    one = Recent(30)
    for name in "abc":
        one.add(kept(name))
    assert one.input("a") is not None
    one.add(kept("c", 11))
    assert (one.input("a"), one.input("b") is None, len(one.input("c").data)) == (None, False, 11)
    one.add(kept("d", 31))
    assert [one.input(name) for name in "abcd"] == [None] * 4
    one.add(kept("e", 30))
    assert one.input("e") is not None


def test_the_page_shows_the_last_picture(
    running: Callable[..., Running], drop: Callable, pictures: list[bytes]
) -> None:
    """The page loads nothing from elsewhere; the picture is the input's bytes, and one that is gone is not found."""
    one = running(keep_bytes=len(pictures[0]))
    status, page = one.ask("GET", "/")
    assert (status, b"EventSource" in page, b"http:" in page or b"https:" in page) == (200, True, False)
    drop({"a b.png": pictures[0]})
    until(lambda: one.get("/v1/answers"))
    name = quote(one.get("/v1/answers")[0]["id"], safe="")
    assert one.ask("GET", f"/v1/inputs?id={name}") == (200, pictures[0])
    drop({"c.png": pictures[1]})
    until(lambda: len(one.get("/v1/answers")) == 2)
    assert one.ask("GET", f"/v1/inputs?id={name}")[0] == 404


def test_metrics_are_what_prometheus_reads(
    running: Callable[..., Running], drop: Callable, pictures: list[bytes], tmp_path: Path
) -> None:
    """Its own parser finds the counts of inputs, errors, sinks and requests, and the release."""
    parser = pytest.importorskip("prometheus_client.parser", reason="needs prometheus_client: scripts/setup test")
    one = running()
    account = open_accounts(tmp_path, ["log"])["log"]
    one.loop.answers.deliveries = [Delivery("log", Receiver(), SinkSettings(), account, lambda *_: None)]
    drop({"a.png": pictures[0], "b.png": pictures[1], "c.png": b"no image"})
    until(lambda: len(one.get("/v1/answers")) == 3)
    until(lambda: account.open == 0)
    status, text = one.ask("GET", "/metrics")
    families = {family.name: family for family in parser.text_string_to_metric_families(text.decode())}
    samples = [sample for family in families.values() for sample in family.samples]
    found = {(sample.name, *sorted(sample.labels.values(), reverse=True)): sample.value for sample in samples}
    assert status == 200
    assert all(family.documentation for family in families.values())
    assert found["tinyfleet_inferences_total",] == 2
    assert found["tinyfleet_inference_errors_total", "image_invalid"] == 1
    assert found["tinyfleet_sink_answers_total", "sent", "log"] == 3
    assert found["tinyfleet_inference_run_seconds_count",] == 2
    assert 0 < found["tinyfleet_inference_run_seconds", "0.5"] < 1
    assert families["tinyfleet_release_info"].samples[0].labels["release"] == "tiny-1"
    assert found["tinyfleet_api_requests_total", "200"] > 0
