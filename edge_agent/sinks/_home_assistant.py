"""Which entities Home Assistant shows for a device's answers: discovery messages by topic. Pure.

A sensor for the class, with the whole record as attributes; a sensor for each number; a binary sensor for whether the
input is inside what the model was trained on. Of a detection a sensor for the number of boxes, with the record as
attributes, and one for the number of each class; of an anomaly a binary sensor, with the record as attributes, and a
sensor for the score; of several labels a binary sensor for each label and a sensor for its probability; of events in a
stream an event entity. A template gives ``None`` where an answer lacks the value: the entity is then unknown. One that
gives nothing leaves the event entity as it is.

Source: home-assistant.io, integrations MQTT (MQTT discovery, single component), MQTT sensor, MQTT binary sensor, MQTT
event.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass

from wire.answers import AnswerRecord
from wire.canonical import canonical_bytes
from wire.codec import Json

ONLINE, OFFLINE = b"online", b"offline"  # Home Assistant's defaults
_SUPPORTED = "{{ 'None' if value_json.supported is none else 'ON' if value_json.supported else 'OFF' }}"

_ANOMALOUS = "{{ 'None' if value_json.anomalous is undefined else 'ON' if value_json.anomalous else 'OFF' }}"
_SCORE = "{{ (value_json.scores | default({})).anomaly | default('None') }}"
_BOXES = "{{ value_json.boxes | count if value_json.boxes is defined else 'None' }}"
_LABELLED = "{{ 'None' if value_json.labels is undefined else 'ON' if NAME in value_json.labels else 'OFF' }}"
_STREAM = "stream_events"
_EVENT = (
    "{% set one = (value_json.events | default([]) | list)[-1:] %}"
    "{{ dict(one[0], event_type=one[0].state) | tojson if one else '' }}"
)
"""Of two events with one input, the end of one and the begin of the next, the begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkTopics:
    """Where it is published. ``prefix``: of discovery; ``topic``: of answers; ``state_topic``: of availability."""

    prefix: str = "homeassistant"
    device: str
    sink: str
    topic: str
    state_topic: str


def discovery(record: AnswerRecord, place: SinkTopics) -> dict[str, bytes]:
    """Return the discovery messages for answers like ``record``, by topic; none for an input without an answer."""
    found: dict[str, bytes] = {}
    if record.error:
        return found

    def add(component: str, name: str, own: dict[str, Json]) -> None:
        object_id = f"{place.sink}_{_plain(name)}"
        document: dict[str, Json] = {
            "name": name,
            "unique_id": f"tinyfleet_{place.device}_{object_id}",
            "state_topic": place.topic,
            "availability_topic": place.state_topic,
            "qos": 1,
            "device": {
                "identifiers": [f"tinyfleet_{place.device}"],
                "name": place.device,
                "manufacturer": "tinyfleet",
                "model": record.task,
                "sw_version": record.release,
            },
            "origin": {"name": "tinyfleet"},
        }
        topic = f"{place.prefix}/{component}/tinyfleet_{place.device}/{object_id}/config"
        found[topic] = canonical_bytes({**document, **own})

    whole: dict[str, Json] = {"json_attributes_topic": place.topic}
    measured: dict[str, Json] = {"state_class": "measurement"}
    if record.anomalous is not None:
        add("binary_sensor", "anomaly", {"value_template": _ANOMALOUS, "device_class": "problem", **whole})
        add("sensor", "anomaly score", {"value_template": _SCORE, **measured})
    elif record.label:
        add("sensor", "label", {"value_template": "{{ value_json.label | default('None') }}", **whole})
    if record.boxes is not None:
        add("sensor", "boxes", {"value_template": _BOXES, **measured, **whole})
    for name in record.values:
        said = json.dumps(name)
        if record.labels is not None:
            add("binary_sensor", name, {"value_template": _LABELLED.replace("NAME", said)})
        # not value_json.values, which is a method of a dictionary
        template = f"{{{{ value_json['values'][{said}] | default('None') }}}}"
        shown = name if record.labels is None else f"{name} probability"
        add("sensor", shown, {"value_template": template, **measured})
    if record.events or record.task == _STREAM:
        add("event", "event", {"value_template": _EVENT, "event_types": ["began", "ended"]})
    if record.supported is not None:
        add("binary_sensor", "supported", {"value_template": _SUPPORTED})
    return found


def _plain(name: str) -> str:
    """Return ``name`` in the characters of an object id, a-z A-Z 0-9 _ -; different names stay different."""
    plain = re.sub(r"[^a-zA-Z0-9_-]", "_", name)
    return plain if plain == name else f"{plain}_{zlib.crc32(name.encode()):08x}"
