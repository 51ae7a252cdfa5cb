"""What the device's user says is wrong: its input goes to the control process, in a lane of its own."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable

import pytest

from edge_agent.control.child_inbox import read_sample
from edge_agent.errors import ApiError
from edge_agent.local_api.api import check_label
from edge_agent.pipe_frames import FrameDecoder, encode_frame
from edge_agent.tasks import is_told, names
from tests.edge_agent.local_api.conftest import Running
from tests.edge_agent.sinks.receiver import until
from wire.manifest import Manifest


def correct(one: Running, **document: object) -> tuple[int, str]:
    """Return the status, and the error if there is one."""
    status, body = one.ask("POST", "/v1/correct", json.dumps(document).encode())
    return status, json.loads(body).get("error", "")


def answered(one: Running, data: bytes) -> dict:
    """Return the record of one pushed input."""
    return json.loads(one.ask("POST", "/v1/inputs?wait=1", data)[1])


def test_a_correction_is_a_sample_with_the_user_s_label(running: Callable[..., Running], pictures: list[bytes]) -> None:
    """The control process reads it: lane, label, input, and what the model had said."""
    one = running({"kind": "push"}, corrects=True)
    record = answered(one, pictures[0])
    assert correct(one, id=record["id"], label=" b ") == (202, "")
    header, data = next(item for item in one.said if item[0]["type"] == "sample")
    sample = read_sample(FrameDecoder().feed(encode_frame(header, data))[0])
    assert (sample.lane, sample.label, sample.request) == ("correction", "b", "")
    assert (sample.sha256, data) == (hashlib.sha256(pictures[0]).hexdigest(), pictures[0])
    assert ("abc"[sample.predicted], sample.confidence) == (record["label"], record["confidence"])
    assert sample.artifact_sha256 == one.loop.model.manifest.artifact_sha256


def test_an_unknown_or_too_old_id_is_not_found(running: Callable[..., Running], pictures: list[bytes]) -> None:
    """The last inputs are kept within their bytes; the reason is given."""
    one = running({"kind": "push"}, corrects=True, keep_bytes=len(pictures[0]))
    first = answered(one, pictures[0])["id"]
    answered(one, pictures[1])
    for name in (first, "never"):
        status, words = correct(one, id=name, label="7")
        assert (status, "keep_bytes in [api]" in words) == (404, True)
    until(lambda: not any(header["type"] == "sample" for header, _ in one.said))


@pytest.mark.parametrize(
    "document", [{}, {"id": "x"}, {"id": 3, "label": "a"}, {"id": "x", "label": ""}, {"id": "x", "label": "a\n"}]
)
def test_a_correction_that_is_none_is_refused(document: dict, running: Callable[..., Running]) -> None:
    """Id and label are text; the label is printable."""
    assert correct(running({"kind": "push"}, corrects=True), **document)[0] == 400
    assert correct(running({"kind": "push"}, corrects=True), id="x", label="b" * 101)[0] == 400


def test_a_label_that_the_release_does_not_have_is_refused(
    running: Callable[..., Running], pictures: list[bytes]
) -> None:
    """A typing error would wait for a person; the labels are named, and none of them is an answer too."""
    one = running({"kind": "push"}, corrects=True)
    name = answered(one, pictures[0])["id"]
    status, words = correct(one, id=name, label="a dog")
    assert (status, "a, b, c, or 'none of these', got 'a dog'" in words) == (400, True)
    assert not any(header["type"] == "sample" for header, _ in one.said)
    assert correct(one, id=name, label="none of these")[0] == 202


@pytest.mark.parametrize("name", [name for name in names() if is_told(name)])
@pytest.mark.parametrize("label", ["0", "0|1", "anomaly"])
def test_a_task_that_no_label_corrects_says_so(name: str, label: str) -> None:
    """One class would be half of the truth about boxes, sets of labels, scores or events."""
    with pytest.raises(ApiError, match=f"whose task is '{name}': label such inputs elsewhere") as refused:
        check_label(Manifest(model="m", version=1, task=name, labels=("0", "1")), label)
    assert refused.value.status == 409


@pytest.mark.parametrize(
    ("label", "fits"), [("1 2", True), (" 1.5  -2e3 ", True), ("1", False), ("1 x", False), ("1 nan", False)]
)
def test_a_number_is_corrected_by_a_number(label: str, *, fits: bool) -> None:
    """As many as the model has values."""
    expected = contextlib.nullcontext() if fits else pytest.raises(ApiError, match="a number for each of h, w")
    with expected:
        check_label(Manifest(model="m", version=1, values=("h", "w")), label)


@pytest.mark.parametrize(("label", "sent"), [(12.5, "12.5"), (7, "7")])
def test_a_number_is_taken_as_json_has_it(
    label: float, sent: str, running: Callable[..., Running], pictures: list[bytes]
) -> None:
    """Nobody has to put a number in quotes; what is neither is named."""
    one = running({"kind": "push"}, corrects=True)
    name = answered(one, pictures[0])["id"]
    status, words = correct(one, id=name, label=label)
    assert (status, f"a, b, c, or 'none of these', got '{sent}'" in words) == (400, True)  # read as the text of a label
    for other, kind in ((True, "as true or false"), ([1, 2], "as a list"), (None, "missing")):
        status, words = correct(one, id=name, label=other)
        assert (status, f"got id as text and label {kind}: send" in words) == (400, True)


def test_what_a_server_would_refuse_is_refused_here(running: Callable[..., Running]) -> None:
    """Only PNG and JPEG, and only up to what fits a message."""
    one = running({"kind": "push"}, corrects=True)
    for data in (b"BM no picture", b"\x89PNG" + bytes(180 * 1024)):
        status, words = correct(one, id=answered(one, data)["id"], label="7")
        assert (status, "label such inputs elsewhere" in words) == (415, True)
        assert ("send smaller pictures" in words) == data.startswith(b"\x89PNG")


def test_a_device_whose_inputs_stay_says_so(running: Callable[..., Running], pictures: list[bytes]) -> None:
    """Nothing leaves a device unless its owner allows it."""
    one = running({"kind": "push"})
    status, words = correct(one, id=answered(one, pictures[0])["id"], label="7")
    assert (status, "max_bytes_per_day" in words) == (403, True)
