"""Inputs by HTTP: served as from any source, with the answer in the reply for who waits."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge_agent import api
from edge_agent.inference.child import STOP, WAKE, open_api
from edge_agent.local_api.api import _Job
from edge_agent.local_api.settings import ApiConfig
from tests.edge_agent.inference.test_streams import device
from tests.edge_agent.inference.tones import tones_bundle, wav, words
from tests.edge_agent.local_api.conftest import Running
from tests.edge_agent.sinks.receiver import until

PUSH = {"kind": "push"}


def test_the_answer_comes_back_to_who_waits(running: Callable[..., Running], pictures: list[bytes]) -> None:
    """It is the answer of ``edge_agent.api``, and the input counts for drift."""
    one = running(PUSH)
    status, body = one.ask("POST", "/v1/inputs?wait=1", pictures[0])
    with api.open_bundle(one.bundle) as model:
        wanted = model.answer(pictures[0])
    assert (status, json.loads(body)["label"]) == (200, wanted.label)
    assert json.loads(body)["confidence"] == pytest.approx(wanted.confidence)
    until(lambda: sum(header["n"] for header, _ in one.said if header["type"] == "beat") == 1)


def test_others_find_it_by_its_id(running: Callable[..., Running], pictures: list[bytes]) -> None:
    """Without ``wait`` the id comes back at once; a bad input's record has the reason."""
    one = running(PUSH)
    names = [json.loads(one.ask("POST", "/v1/inputs", data)[1])["id"] for data in (pictures[0], b"no image")]
    until(lambda: len(one.get("/v1/answers")) == 2)
    found = {answer["id"]: answer.get("error") for answer in one.get("/v1/answers")}
    assert found == {names[0]: None, names[1]: "image_invalid"}


def test_many_senders_get_each_their_own_answer(running: Callable[..., Running], pictures: list[bytes]) -> None:
    """Eight at once, over and over: no answer is mixed up or missing."""
    one = running({"kind": "push", "queue": 1000})
    with api.open_bundle(one.bundle) as model:
        wanted = [model.answer(data).label for data in pictures]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda n: one.ask("POST", "/v1/inputs?wait=1", pictures[n % 8]), range(80)))
    assert [json.loads(body)["label"] for _, body in replies] == [wanted[n % 8] for n in range(80)]
    assert len({json.loads(body)["id"] for _, body in replies}) == 80


def test_a_full_queue_refuses_and_a_late_answer_is_named(
    running: Callable[..., Running], pictures: list[bytes]
) -> None:
    """429 with Retry-After while the loop hangs; who waits too long gets the id."""
    one, gate = running({"kind": "push", "queue": 1}, wait_s=0.5), threading.Event()
    one.api._jobs.append(_Job(work=lambda _: gate.wait(20)))
    one.loop.notices.put(WAKE)
    until(lambda: not one.api._jobs)
    late = one.ask("POST", "/v1/inputs?wait=1", pictures[0])
    full = one.ask("POST", "/v1/inputs", pictures[0])
    gate.set()
    assert (late[0], "push-" in json.loads(late[1])["error"], full[0]) == (504, True, 429)
    until(lambda: one.get("/v1/answers"))
    assert one.ask("POST", "/v1/inputs?wait=1", pictures[1])[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "wanted"),
    [
        ("POST", "/v1/inputs?streem=x", "one of wait, stream, at_ms, got 'streem': did you mean 'stream'?"),
        ("POST", "/v1/inputs?wait=1&STREAM=x", "got 'STREAM'"),
        ("POST", "/v1/inputs?at_ms=1767225620", "milliseconds since 1970 (UTC), got 1767225620"),
        ("POST", "/v1/inputs?stream=a&at_ms=1767225620", "if these are seconds, send 1767225620000"),
        ("GET", "/v1/inputs?name=x", "one of id, got 'name'"),
        ("GET", "/v1/answers?count=3", "one of n, got 'count'"),
        ("POST", "/v1/correct?id=3", "none, got 'id'"),
    ],
)
def test_parameters_that_would_do_nothing_or_are_seconds_are_refused(
    method: str, path: str, wanted: str, running: Callable[..., Running]
) -> None:
    """An input of no stream, or of January 1970, would be a wrong answer with the status 200."""
    one = running(PUSH)
    status, said = one.ask(method, path, *([b"x"] if method == "POST" else []))[:2]
    assert status == 400
    assert wanted in json.loads(said)["error"]


@pytest.mark.parametrize(
    ("source", "path", "body", "status"),
    [
        (None, "/v1/inputs", b"x", 404),
        (PUSH, "/v1/inputs", b"", 400),
        (PUSH, "/v1/inputs?wait=2", b"x", 400),
        (PUSH, "/v1/inputs?at_ms=-1", b"x", 400),
        (PUSH, "/v1/inputs?at_ms=1e12", b"x", 400),
        (PUSH, "/v1/inputs?at_ms=253402300800000", b"x", 400),
        (PUSH, "/v1/inputs?stream=a%0Ab", b"x", 400),
        (PUSH, f"/v1/inputs?stream={'a' * 101}", b"x", 400),
        (PUSH, "/v1/inputs", bytes(4097), 413),
    ],
)
def test_what_is_no_input_is_refused(
    source: dict | None, path: str, body: bytes, status: int, running: Callable[..., Running]
) -> None:
    """Another source, nothing, a wrong word, too much."""
    assert running(source, body_bytes=4096).ask("POST", path, body)[0] == status


def test_a_form_is_refused_with_the_way_to_send_its_file(
    running: Callable[..., Running], pictures: list[bytes]
) -> None:
    """``curl -F``, as other servers take it, would be a picture that can't be decoded."""
    kind = "multipart/form-data; boundary=x"
    status, body = running(PUSH).ask("POST", "/v1/inputs", pictures[0], Content_Type=kind)
    assert (status, "--data-binary" in json.loads(body)["error"]) == (415, True)


def test_a_sender_names_its_stream_and_its_time(running: Callable[..., Running], pictures: list[bytes]) -> None:
    """Inputs of one stream are smoothed together; without a name each stands alone."""
    one = running(PUSH, smoothed=3)

    def pushed(query: str) -> tuple[str, int, int]:
        record = json.loads(one.ask("POST", f"/v1/inputs?wait=1{query}", pictures[0])[1])
        return record.get("stream", ""), record.get("inputs", 1), record["at_ms"]

    found = [pushed(query) for query in ("&stream=a&at_ms=1000", "&stream=b", "", "&stream=a&at_ms=1500", "")]
    assert [(stream, inputs) for stream, inputs, _ in found] == [("a", 1), ("b", 1), ("", 1), ("a", 2), ("", 1)]
    assert (found[0][2], found[3][2]) == (1000, 1500)


def test_who_waits_for_a_recording_gets_all_its_events(tmp_path: Path) -> None:
    """In the reply to the last window, under the id of the whole; the records of each have their own."""
    one = device(tones_bundle(tmp_path / "tones.tfb"), PUSH)
    open_api(ApiConfig(listen="127.0.0.1:0"), one.loop)
    one.loop.answers.watch = one.loop.api.answered
    thread = threading.Thread(target=one.loop.run, daemon=True)
    thread.start()
    asking = Running(one.loop, one.loop.api, thread, [], tmp_path)
    status, body = asking.ask("POST", "/v1/inputs?wait=1", wav(words()))
    record = json.loads(body)
    assert (status, "#" in record["id"]) == (200, False)
    assert [event["label"] for event in record["events"] if event["state"] == "began"] == ["low", "high", "low", "high"]
    assert len([one for one in asking.get("/v1/answers?n=100") if one["id"].startswith(record["id"])]) == 59
    asked = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(wav(words())).decode()]}
    status, body = asking.ask("POST", "/v2/models/tones/infer", json.dumps({"inputs": [asked]}).encode())
    assert "only the middle 0.25 s of" in json.loads(body)["parameters"]["remark"]
    one.loop.notices.put(STOP)
    thread.join(20)
