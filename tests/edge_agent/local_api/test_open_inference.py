"""KServe v2, judged by NVIDIA's own client, and its refusals."""

from __future__ import annotations

import base64
import json
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edge_agent import api, tasks
from edge_agent.inference.child import WAKE
from edge_agent.inference.preprocess import decode_image, to_tensor
from edge_agent.inference.served_model import load_model
from edge_agent.local_api.api import _Job, _outputs
from edge_agent.local_api.open_inference import InferRequest, metadata, read_request, write_response
from tests.edge_agent.local_api.conftest import Running
from tests.edge_agent.sinks.receiver import until
from tests.edge_agent.task_bundles import bundle_of

triton = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]: scripts/setup test")


@pytest.fixture
def client(running: Callable[..., Running]) -> Iterator[tuple[Running, object]]:
    """A loop and a client of it."""
    one = running()
    found = triton.InferenceServerClient("{}:{}".format(*one.api.address), connection_timeout=20, network_timeout=20)
    yield one, found
    found.close()


def _image(data: bytes, *, binary: bool = True) -> object:
    given = triton.InferInput("image", [1], "BYTES")
    given.set_data_from_numpy(np.array([data], dtype=object), binary_data=binary)
    return given


def _tensor(one: Running, pictures: list[bytes]) -> np.ndarray:
    pre = load_model(one.bundle).manifest.preprocessing
    return np.concatenate([to_tensor(decode_image(data, pre), pre) for data in pictures])


def test_a_client_finds_server_and_model(client: tuple[Running, object]) -> None:
    """Health, metadata and the repository's index are as the protocol says."""
    _, found = client
    assert found.is_server_live()
    assert found.is_server_ready()
    assert found.is_model_ready("tiny")
    assert found.is_model_ready("tiny", "1")
    assert found.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    model = found.get_model_metadata("tiny")
    assert model["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
    assert [output["name"] for output in model["outputs"]] == ["logits", "embedding"]
    assert found.get_model_repository_index()[0]["state"] == "READY"


@pytest.mark.parametrize("binary", [True, False])
def test_the_model_s_own_tensor_gives_its_outputs(
    client: tuple[Running, object], pictures: list[bytes], *, binary: bool
) -> None:
    """A batch through the interface equals ``edge_agent.api`` input by input."""
    one, found = client
    batch = _tensor(one, pictures[:3])
    given = triton.InferInput("input", list(batch.shape), "FP32")
    given.set_data_from_numpy(batch, binary_data=binary)
    result = found.infer("tiny", [given], outputs=[triton.InferRequestedOutput("logits", binary_data=binary)])
    with api.open_bundle(one.bundle) as model:
        wanted = [model.answer(data).outputs for data in pictures[:3]]
    assert result.as_numpy("logits") == pytest.approx(np.array(wanted), abs=1e-5)
    assert result.as_numpy("embedding") is None


def test_an_encoded_image_gives_the_task_s_answer(client: tuple[Running, object], pictures: list[bytes]) -> None:
    """``image`` as BYTES gives the label and confidence of ``edge_agent.api``; the request's id comes back."""
    one, found = client
    result = found.infer("tiny", [_image(pictures[0])], request_id="r-7")
    with api.open_bundle(one.bundle) as model:
        wanted = model.answer(pictures[0])
    assert result.as_numpy("label").tolist() == [wanted.label.encode()]
    assert result.as_numpy("confidence")[0] == pytest.approx(wanted.confidence, abs=1e-6)
    assert result.get_response()["id"] == "r-7"


def test_an_image_in_base64_needs_no_binary_data(running: Callable[..., Running], pictures: list[bytes]) -> None:
    """A shell script can ask with curl."""
    data = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(pictures[0]).decode()]}
    status, body = running().ask("POST", "/v2/models/tiny/infer", json.dumps({"inputs": [data]}).encode())
    assert status == 200
    assert [output["name"] for output in json.loads(body)["outputs"]][:2] == ["label", "confidence"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shape": [17, 1, 8, 8]}, "a batch of at most 16"),
        ({"shape": [1, 1, 8, 7]}, "Expected 56 numbers"),
        ({"shape": [1, 1, 8, 8, 1]}, "Expected input 'input'"),
        ({"shape": []}, "a shape of 1 to 8"),
        ({"shape": [-1, 64]}, "sizes above 0"),
        ({"datatype": "INT8"}, "'input' of FP32"),
        ({"name": "other"}, "'input' of FP32"),
        ({"data": ["a"] * 64}, "data of numbers"),
        ({"data": [0.0] * 63}, "Expected 64 numbers"),
        ({"parameters": {"binary_data_size": 4}}, "binary_data_size of the 0 bytes"),
        ({"parameters": 3}, "parameters as an object"),
        ({"name": "image", "datatype": "BYTES", "shape": [2]}, "one image a request"),
        ({"name": "image", "datatype": "BYTES", "shape": [1], "data": ["*"]}, "in base64"),
        ({"name": "image", "datatype": "BYTES", "shape": [1], "data": ["AAAA"]}, "an intact image"),
    ],
)
def test_a_wrong_input_is_refused_with_what_was_expected(
    change: dict, words: str, running: Callable[..., Running]
) -> None:
    """Name, type, shape and size are checked before anything runs."""
    data = {"name": "input", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": [0.0] * 64} | change
    status, body = running().ask("POST", "/v2/models/tiny/infer", json.dumps({"inputs": [data]}).encode())
    assert (status, words in json.loads(body)["error"]) == (400, True), body


def test_binary_data_that_lies_about_its_length_is_refused(running: Callable[..., Running]) -> None:
    """Lengths inside the body are compared with the body, on both sides of it."""
    one = running()
    head = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 8}}
    text = json.dumps({"inputs": [head]}).encode()
    for tail, given in ((struct.pack("<I", 99) + b"abcd", len(text)), (b"", len(text)), (b"abcdefgh", len(text) + 9)):
        headers = {"Inference_Header_Content_Length": str(given)}
        status, body = one.ask("POST", "/v2/models/tiny/infer", text + tail, **headers)
        assert (status, "Expected" in json.loads(body)["error"]) == (400, True)


def test_another_model_or_version_is_not_found(client: tuple[Running, object]) -> None:
    """The error names what is served."""
    _, found = client
    with pytest.raises(triton.InferenceServerException, match="Expected the model tiny, version 1"):
        found.get_model_metadata("other")
    assert not found.is_model_ready("tiny", "2")


def test_requests_are_no_inputs_of_the_device(client: tuple[Running, object], pictures: list[bytes]) -> None:
    """Drift is counted of the source alone: no window has what a client asked."""
    one, found = client
    for data in pictures:
        found.infer("tiny", [_image(data)])
    assert one.get("/v1/answers") == []
    assert one.loop.model.counter.take().n == 0


def test_requests_beyond_the_queue_are_told_to_come_again(running: Callable[..., Running]) -> None:
    """While the loop hangs, requests wait in a bounded queue and for a bounded time, and it serves others later."""
    one, gate = running(queue=1, wait_s=3.0), threading.Event()
    one.api._jobs.append(_Job(work=lambda _: gate.wait(20)))  # the loop takes it and hangs
    one.loop.notices.put(WAKE)
    until(lambda: not one.api._jobs)
    body = json.dumps({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["AAAA"]}]}).encode()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(one.ask, "POST", "/v2/models/tiny/infer", body)
        until(lambda: one.api._jobs)
        found = [one.ask("POST", "/v2/models/tiny/infer", body), first.result()]
    gate.set()
    assert [status for status, _ in found] == [503, 503]
    assert [json.loads(text)["error"][9:26] for _, text in found] == ["at most 1 request", "the model's turn "]
    assert one.ask("POST", "/v2/models/tiny/infer", body)[0] == 400


def _asked(task: str, folder: Path, pictures: list[bytes], **changes: object) -> dict[str, object]:
    """Return the outputs by name for one encoded picture, as JSON has them."""
    model = load_model(bundle_of(task, folder, **changes))
    text = base64.b64encode(pictures[0]).decode()
    given = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}
    asked = read_request(json.dumps({"inputs": [given]}).encode(), None, model.manifest)
    body, _ = write_response(model.manifest, asked, _outputs(model, asked))
    return {one["name"]: one["data"][0] for one in json.loads(body)["outputs"]}


def test_boxes_and_labels_are_lists_that_may_be_empty(tmp_path: Path, pictures: list[bytes]) -> None:
    """An output that is sometimes absent can't be asked for by name."""
    boxes = json.loads(_asked("detection", tmp_path, pictures)["boxes"])
    assert [(box["label"], box["score"]) for box in boxes] == [("a", 0.9), ("b", 0.6)]
    assert _asked("detection", tmp_path, pictures, number=0.95)["boxes"] == "[]"
    found = _asked("multi_label", tmp_path, pictures)
    assert (json.loads(found["labels"]), found["b"]) == (["a", "c"], pytest.approx(0.8808))
    assert _asked("multi_label", tmp_path, pictures, outputs=[-5.0, -5.0, -5.0])["labels"] == "[]"
    odd = _asked("anomaly", tmp_path, pictures)
    assert (odd["label"], odd["anomalous"], odd["threshold"]) == ("anomaly", True, 0.5)


@pytest.mark.parametrize(
    ("task", "first", "thresholds"),
    [
        ("classification", "logits", {}),
        ("detection", "box_rows", {"a": 0.5, "b": 0.5}),
        ("anomaly", "anomaly", {"anomaly": 0.5}),
    ],
)
def test_a_name_is_one_thing_and_thresholds_stand_with_the_labels(
    task: str, first: str, thresholds: dict[str, float], tmp_path: Path, pictures: list[bytes]
) -> None:
    """``boxes`` are those of an answer; what the model gives for its own tensor has a name of its own."""
    model = load_model(bundle_of(task, tmp_path))
    found = metadata(model.manifest, model.task_name, model.thresholds, {})
    assert (found["outputs"][0]["name"], found["parameters"]["thresholds"]) == (first, thresholds)
    pre = model.manifest.preprocessing
    asked = InferRequest(tensor=to_tensor(decode_image(pictures[0], pre), pre), wanted={})
    assert list(_outputs(model, asked)) == [first]


@pytest.mark.parametrize("task", tasks.names())
def test_the_metadata_names_what_an_encoded_input_gives(task: str, tmp_path: Path, pictures: list[bytes]) -> None:
    """Its own input is not among ``inputs``, of which a client sends all; names and types are those of the reply."""
    model = load_model(bundle_of(task, tmp_path))
    found = metadata(model.manifest, model.task_name, model.thresholds, model.answer_outputs)
    encoded = found["parameters"]["encoded"]
    asked = InferRequest(image=pictures[0], wanted={})
    reply = json.loads(write_response(model.manifest, asked, _outputs(model, asked))[0])["outputs"]
    assert {one["name"]: one["datatype"] for one in encoded["outputs"]} == {
        one["name"]: one["datatype"] for one in reply
    }
    assert encoded["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [1]}]
    assert "image" not in [one["name"] for one in found["inputs"]]


def test_a_number_that_is_none_is_named(client: tuple[Running, object]) -> None:
    """JSON has no NaN: that it is one is the mistake, not the text around it."""
    one, _ = client
    body = b'{"inputs": [{"name": "input", "shape": [1], "datatype": "FP32", "data": [NaN]}]}'
    status, said = one.ask("POST", "/v2/models/tiny/infer", body)
    assert status == 400
    assert "Expected finite numbers, got NaN" in json.loads(said)["error"]
