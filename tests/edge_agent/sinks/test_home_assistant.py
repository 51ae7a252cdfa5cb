"""Discovery of Home Assistant: topics and keys as in its documentation, and templates that give the values."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from edge_agent.sinks._home_assistant import SinkTopics, discovery, events_of
from wire.answers import AnswerRecord
from wire.codec import encode

PLACE = SinkTopics(device="cam-1", sink="site", topic="tinyfleet/cam-1/answer", state_topic="tinyfleet/cam-1/state")
CLASS = AnswerRecord(id="1", task="classification", release="digits-3", label="7", confidence=0.9, supported=False)
NUMBERS = AnswerRecord(id="2", task="regression", release="power-2", values={"power_w": 4.5, 'x "y" ä': -1.0})


def documents(record: AnswerRecord) -> dict[str, dict[str, object]]:
    """Return the discovery messages by entity."""
    return {topic.split("/")[3]: json.loads(text) for topic, text in discovery(record, PLACE).items()}


def rendered(template: object, record: AnswerRecord) -> str:
    """Return what Home Assistant reads out of a published record; its templates are Jinja."""
    jinja2 = pytest.importorskip("jinja2")
    return str(jinja2.Template(template).render(value_json=json.loads(encode(record))))


def test_a_classifier_is_a_sensor_and_a_binary_sensor() -> None:
    """Topics by value; each message has the device, its availability and an id that no other entity has."""
    topics = sorted(discovery(CLASS, PLACE))
    assert topics == [
        "homeassistant/binary_sensor/tinyfleet_cam-1/site_supported/config",
        "homeassistant/sensor/tinyfleet_cam-1/site_label/config",
    ]
    label = documents(CLASS)["site_label"]
    assert (label["state_topic"], label["json_attributes_topic"]) == (PLACE.topic, PLACE.topic)
    assert (label["availability_topic"], label["unique_id"]) == (PLACE.state_topic, "tinyfleet_cam-1_site_label")
    assert label["origin"] == {"name": "tinyfleet"}
    assert label["device"] == {
        "identifiers": ["tinyfleet_cam-1"],
        "name": "cam-1",
        "manufacturer": "tinyfleet",
        "model": "classification",
        "sw_version": "digits-3",
    }


def test_templates_give_the_values_of_a_record() -> None:
    """Without a value it is ``None``, for which Home Assistant shows the entity as unknown."""
    found = documents(CLASS)
    failed = AnswerRecord(error="image_invalid")
    assert rendered(found["site_label"]["value_template"], CLASS) == "7"
    assert rendered(found["site_label"]["value_template"], failed) == "None"
    supported = found["site_supported"]["value_template"]
    values = [rendered(supported, AnswerRecord(supported=value)) for value in (True, False, None)]
    assert values == ["ON", "OFF", "None"]


def test_each_number_of_a_regression_is_a_sensor() -> None:
    """Also one whose name has other characters than an object id may have; no entity for an unknown support."""
    found = documents(NUMBERS)
    assert len(found) == 2
    assert all(re.fullmatch("[a-zA-Z0-9_-]+", name) for name in found)
    assert {one["name"]: rendered(one["value_template"], NUMBERS) for one in found.values()} == {
        "power_w": "4.5",
        'x "y" ä': "-1.0",
    }
    assert found["site_power_w"]["state_class"] == "measurement"
    assert rendered(found["site_power_w"]["value_template"], CLASS) == "None"


def test_names_that_differ_in_other_characters_are_two_entities() -> None:
    """They would take each other's place otherwise."""
    assert len(documents(AnswerRecord(values={"a b": 1.0, "a_b": 2.0, "a.b": 3.0}))) == 3


def test_an_input_without_an_answer_announces_nothing() -> None:
    """The first input of a device may be a bad one."""
    assert discovery(AnswerRecord(error="image_invalid", supported=True), PLACE) == {}


BOX = {"label": "cat", "score": 0.9, "x0": 0.0, "y0": 0.0, "x1": 1.0, "y1": 1.0}
BOXES = AnswerRecord(id="3", task="detection", boxes=(BOX, BOX), values={"cat": 2.0, "dog": 0.0})
NO_BOX = AnswerRecord(id="4", task="detection", boxes=(), values={"cat": 0.0, "dog": 0.0})
LABELS = AnswerRecord(labels=("cat",), scores={"cat": 0.9}, values={"cat": 0.9, "big dog": 0.1})
ODD = AnswerRecord(label="anomaly", anomalous=True, scores={"anomaly": 0.9, "threshold": 0.5})
QUIET = AnswerRecord(task="stream_events", label="background", confidence=0.9)
BELL = {"label": "bell", "start_ms": 1, "end_ms": 2, "confidence": 0.9}
RINGS = AnswerRecord(task="stream_events", label="bell", events=({**BELL, "state": "began"},))
FAILED = AnswerRecord(error="image_invalid")


def shown(record: AnswerRecord, other: AnswerRecord) -> dict[tuple[str, str], str]:
    """Return what the entities that ``record`` announces show for ``other``, by component and name."""
    found = {topic.split("/")[1]: {} for topic in discovery(record, PLACE)}
    for topic, text in discovery(record, PLACE).items():
        one = json.loads(text)
        if "value_template" in one:
            found[topic.split("/")[1]][one["name"]] = rendered(one["value_template"], other)
    return {(component, name): text for component, named in found.items() for name, text in named.items()}


@pytest.mark.parametrize(
    ("record", "other", "wanted"),
    [
        (BOXES, BOXES, {("sensor", "boxes"): "2", ("sensor", "cat"): "2.0", ("sensor", "dog"): "0.0"}),
        (BOXES, NO_BOX, {("sensor", "boxes"): "0", ("sensor", "cat"): "0.0", ("sensor", "dog"): "0.0"}),
        (NO_BOX, FAILED, {("sensor", "boxes"): "None", ("sensor", "cat"): "None", ("sensor", "dog"): "None"}),
        (
            LABELS,
            LABELS,
            {
                ("binary_sensor", "cat"): "ON",
                ("binary_sensor", "big dog"): "OFF",
                ("sensor", "cat probability"): "0.9",
                ("sensor", "big dog probability"): "0.1",
            },
        ),
        (ODD, ODD, {("binary_sensor", "anomaly"): "ON", ("sensor", "anomaly score"): "0.9"}),
        (ODD, AnswerRecord(anomalous=False, scores={"anomaly": 0.1}), {
            ("binary_sensor", "anomaly"): "OFF", ("sensor", "anomaly score"): "0.1",
        }),
        (ODD, FAILED, {("binary_sensor", "anomaly"): "None", ("sensor", "anomaly score"): "None"}),
        (QUIET, QUIET, {("sensor", "label"): "background"}),
    ],
)  # fmt: skip
def test_each_task_has_entities_of_its_own(
    record: AnswerRecord, other: AnswerRecord, wanted: dict[tuple[str, str], str]
) -> None:
    """By component and name, with what they show; an input without an answer makes them unknown."""
    assert shown(record, other) == wanted


def test_each_event_of_a_stream_is_an_event_of_home_assistant() -> None:
    """Its type is one of those announced, its label and times are attributes; two with one input are two messages."""
    announced = next(one for one in documents(QUIET).values() if one["name"] == "event")
    assert (announced["event_types"], announced["state_topic"]) == (["began", "ended"], "tinyfleet/cam-1/event")
    assert "value_template" not in announced
    two = replace(RINGS, stream="hall", events=({**BELL, "state": "ended"}, *RINGS.events))
    ended, began = (json.loads(text) for text in events_of(two))
    assert ended == {**BELL, "state": "ended", "event_type": "ended", "stream": "hall", "device": "", "release": ""}
    assert (began["event_type"], events_of(QUIET)) == ("began", [])


@pytest.mark.parametrize(
    ("record", "count"),
    [
        (AnswerRecord(boxes=(), values={"boxes": 1.0, "cat": 0.0}), 3),
        (AnswerRecord(label="label", values={"label": 1.0, "boxes": 1.0}), 3),
        (AnswerRecord(labels=(), supported=True, values={"supported": 0.1}), 3),
        (AnswerRecord(anomalous=True, supported=True, values={"anomaly score": 0.1}), 4),
    ],
)
def test_a_class_named_like_another_entity_takes_no_other_place(record: AnswerRecord, count: int) -> None:
    """A class ``boxes``, a label ``supported``: each has a topic and an id of its own."""
    found = discovery(record, PLACE)
    assert len(found) == count
    names = [(topic.split("/")[1], json.loads(text)["unique_id"]) for topic, text in found.items()]
    assert len(set(names)) == count
    assert {"site_boxes", "site_label", "site_supported"} & set(documents(record))


def test_labels_without_any_are_off() -> None:
    """An empty list is an answer."""
    found = shown(LABELS, AnswerRecord(labels=(), scores={}, values={"cat": 0.2, "big dog": 0.1}))
    assert (found["binary_sensor", "cat"], found["binary_sensor", "big dog"]) == ("OFF", "OFF")
