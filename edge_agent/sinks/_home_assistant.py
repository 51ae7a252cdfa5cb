"""Which entities Home Assistant shows for a device's answers: discovery messages by topic. Pure.

A sensor for the class, with the whole record as attributes; a sensor for each number; a binary sensor for whether the
input is inside what the model was trained on. Of a detection a sensor for the number of boxes, with the record as
attributes, and one for the number of each class; of an anomaly a binary sensor, with the record as attributes, and a
sensor for the score; of several labels a binary sensor for each label and a sensor for its probability; of events in a
stream an event entity, which has a topic of its own: a message is one event there, and a record may have several. A
template gives ``None`` where an answer lacks the value: the entity is then unknown.

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
_LABEL, _ODD, _ODD_SCORE, _COUNT, _KNOWN = "label", "anomaly", "anomaly score", "boxes", "supported"
_OWN = frozenset({("sensor", _LABEL), ("sensor", _COUNT), ("sensor", _ODD_SCORE)})
_OWN |= {("binary_sensor", _ODD), ("binary_sensor", _KNOWN)}
"""Entities that are no class, value or label of a release: one of these with such a name has another id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkTopics:
    """Where it is published. ``prefix``: of discovery; ``topic``: of answers; ``state_topic``: of availability.

    ``event_topic``: of events in a stream, one a message.
    """

    prefix: str = "homeassistant"
    device: str
    sink: str
    topic: str
    state_topic: str

    @property
    def event_topic(self) -> str:
        """The topic of events, beside that of answers."""
        return f"{self.topic.rpartition('/')[0]}/event"


def discovery(record: AnswerRecord, place: SinkTopics) -> dict[str, bytes]:
    """Return the discovery messages for answers like ``record``, by topic; none for an input without an answer."""
    found: dict[str, bytes] = {}
    if record.error:
        return found

    def add(component: str, name: str, own: dict[str, Json], *, told: bool = False) -> None:
        """Add an entity; ``told``: its name is one that the release tells."""
        object_id = f"{place.sink}_{_plain(name, taken=told and (component, name) in _OWN)}"
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
        add("binary_sensor", _ODD, {"value_template": _ANOMALOUS, "device_class": "problem", **whole})
        add("sensor", _ODD_SCORE, {"value_template": _SCORE, **measured})
    elif record.label:
        add("sensor", _LABEL, {"value_template": "{{ value_json.label | default('None') }}", **whole})
    if record.boxes is not None:
        add("sensor", _COUNT, {"value_template": _BOXES, **measured, **whole})
    for name in record.values:
        said = json.dumps(name)
        if record.labels is not None:
            add("binary_sensor", name, {"value_template": _LABELLED.replace("NAME", said)}, told=True)
        # not value_json.values, which is a method of a dictionary
        template = f"{{{{ value_json['values'][{said}] | default('None') }}}}"
        shown = name if record.labels is None else f"{name} probability"
        add("sensor", shown, {"value_template": template, **measured}, told=True)
    if record.events or record.task == _STREAM:
        add("event", "event", {"state_topic": place.event_topic, "event_types": ["began", "ended"]})
    if record.supported is not None:
        add("binary_sensor", _KNOWN, {"value_template": _SUPPORTED})
    return found


def events_of(record: AnswerRecord) -> list[bytes]:
    """Return the messages of the event entity, one for each event of ``record``, in their order."""
    beside: dict[str, Json] = {"device": record.device, "release": record.release}
    if record.stream:
        beside["stream"] = record.stream
    return [canonical_bytes({**beside, **event, "event_type": event["state"]}) for event in record.events]


def _plain(name: str, *, taken: bool) -> str:
    """Return ``name`` in the characters of an object id, a-z A-Z 0-9 _ -; different names stay different.

    ``taken``: it is another entity's in this way.
    """
    plain = re.sub(r"[^a-zA-Z0-9_-]", "_", name)
    if taken:
        return f"{plain}_{zlib.crc32(f'told {name}'.encode()):08x}"
    return plain if plain == name else f"{plain}_{zlib.crc32(name.encode()):08x}"
