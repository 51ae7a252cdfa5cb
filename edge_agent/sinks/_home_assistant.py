"""Which entities Home Assistant shows for a device's answers: discovery messages by topic. Pure.

A sensor for the class, with the whole record as attributes; a sensor for each number; a binary sensor for whether the
input is inside what the model was trained on. A template gives ``None`` where an answer lacks the value: the entity is
then unknown.

Source: home-assistant.io, integrations MQTT (MQTT discovery, single component), MQTT sensor, MQTT binary sensor.
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

    if record.label:
        template = "{{ value_json.label | default('None') }}"
        add("sensor", "label", {"value_template": template, "json_attributes_topic": place.topic})
    for name in record.values:
        # not value_json.values, which is a method of a dictionary
        template = f"{{{{ value_json['values'][{json.dumps(name)}] | default('None') }}}}"
        add("sensor", name, {"value_template": template, "state_class": "measurement"})
    if record.supported is not None:
        add("binary_sensor", "supported", {"value_template": _SUPPORTED})
    return found


def _plain(name: str) -> str:
    """Return ``name`` in the characters of an object id, a-z A-Z 0-9 _ -; different names stay different."""
    plain = re.sub(r"[^a-zA-Z0-9_-]", "_", name)
    return plain if plain == name else f"{plain}_{zlib.crc32(name.encode()):08x}"
