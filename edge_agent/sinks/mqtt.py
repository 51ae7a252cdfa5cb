"""A broker of the site, for applications: every answer as JSON on one topic, with Home Assistant discovery on request.

An answer counts as sent when the broker has acknowledged it (PUBACK). What was published and not acknowledged is sent
again by paho after a new connection, and the account waits for that: it isn't published twice. ``TOPIC/answer`` has the
answers, ``TOPIC/state`` is ``online`` or ``offline``, retained, also by the connection's will. With Home Assistant,
``TOPIC/event`` has the events of streams, one a message, before the answer that they are in; that counts as sent with
its events.

This is not the connection to the fleet's server, which has credentials and rules of its own (``transports/mqtt.py``).
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from edge_agent.errors import SinkError
from edge_agent.on_site import check_host, read_password, trusted_certificates
from edge_agent.sinks import SinkSurroundings
from edge_agent.sinks._home_assistant import OFFLINE, ONLINE, SinkTopics, discovery, events_of
from wire.answers import AnswerRecord, encode_answer
from wire.errors import SettingsError
from wire.settings import Bound, OneOf

if TYPE_CHECKING:
    import paho.mqtt.client as paho
    from paho.mqtt.reasoncodes import ReasonCode

_LOG = logging.getLogger(__name__)
_WAIT_S = 5.0  # for a connection
_ACK_S = 10.0  # without any acknowledgement: the answers go back to the queue
_CLOSE_S = 1.0
_KEEPALIVE_S = 30
_BACKOFF_S = (1, 60)
_IN_FLIGHT = 20  # mosquitto's receive maximum
_MOST_PENDING = 2048  # published and not acknowledged
_LONGEST_TOPIC_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``[sinks.NAME]`` of ``kind = "mqtt"``: answers on a topic of a broker for the applications on site."""

    host: str = "127.0.0.1"
    port: Annotated[int, Bound(1, 65_535)] = 1883
    username: str = ""
    password_file: Path | None = None  # only its owner may read it (mode 0600)
    tls: bool = False  # with the certificates of the system
    tls_ca: Path | None = None  # TLS with the certificates in this PEM file, in the place of the system's
    protocol: Annotated[str, OneOf(("5", "3.1.1"))] = "5"  # with 3.1.1 a broker can't say that it refused an answer
    topic: str = ""  # answers are on TOPIC/answer; empty: tinyfleet/DEVICE
    retain_last: bool = False  # the broker keeps the last answer, no error, for those who subscribe later
    home_assistant: bool = False  # publish discovery messages
    home_assistant_prefix: str = "homeassistant"

    def __post_init__(self) -> None:
        """Check the fields together.

        Raises:
            SettingsError: If a topic or the host can't be one, or there is a password without a name.
        """
        check_host(self.host)
        if not self.home_assistant_prefix:
            raise SettingsError("Expected home_assistant_prefix as levels of a topic, got none: leave it out")
        for name, topic in (("topic", self.topic), ("home_assistant_prefix", self.home_assistant_prefix)):
            wrong = set(topic) & set("+#") or topic.startswith(("/", "$")) or topic.endswith("/")
            if wrong or not topic.isprintable() or len(topic.encode()) > _LONGEST_TOPIC_BYTES:
                message = f"Expected {name} as levels of a topic without + # and without / at its ends, got {topic!r}"
                raise SettingsError(message)
        if self.password_file is not None and not self.username:
            raise SettingsError("Expected username beside password_file, got none: set it, or leave the file out")


class SiteBroker:
    """The sink of one broker. ``send`` is called by one thread; the callbacks by paho's."""

    def __init__(self, client: paho.Client, settings: Settings, place: SinkTopics) -> None:
        """Connect in the background and stay connected."""
        self._client, self._settings, self._place = client, settings, place
        self._up = threading.Event()
        self._why = "no answer"
        self._acknowledged = threading.Event()
        self._codes: dict[int, ReasonCode] = {}  # of acknowledgements, by message number
        self._pending: dict[int, tuple[AnswerRecord, list[int]]] = {}  # published answers by identity, with numbers
        self._announced: dict[str, bytes] = {}
        self._release = ""
        client.on_connect, client.on_connect_fail = self._on_connect, self._on_connect_fail
        client.on_disconnect, client.on_publish = self._on_disconnect, self._on_publish
        client.on_socket_open = _without_delay
        client.suppress_exceptions = True
        client.max_inflight_messages_set(_IN_FLIGHT)
        client.reconnect_delay_set(*_BACKOFF_S)
        client.will_set(place.state_topic, OFFLINE, qos=1, retain=True)
        client.connect_async(settings.host, settings.port, _KEEPALIVE_S)
        client.loop_start()

    def send(self, records: Sequence[AnswerRecord]) -> int:
        """Publish the answers and wait for their acknowledgements.

        Raises:
            SinkError: If there is no connection, too many wait for an acknowledgement, or one is missing or a refusal.
        """
        if not self._up.wait(_WAIT_S):
            message = (
                f"Expected a connection to the broker {self._settings.host}:{self._settings.port}, got {self._why}"
            )
            raise SinkError(f"{message}: start it, or correct host, port, username or password_file")
        if self._settings.home_assistant:
            for record in records:
                self._announce(record)
        self._forget({id(record) for record in records})
        self._publish(records)
        numbers = [self._pending[id(record)][1] for record in records]
        delivered = self._wait(numbers, _ACK_S)
        for record in records[:delivered]:
            self._settle(record)
        if delivered == len(records):
            self._forget(set())
            return delivered
        code = self._refusal(numbers[delivered])
        if code is None:  # none has come, or at the last moment: it counts at the next offer
            message = f"Expected an acknowledgement of the broker within {_ACK_S:g} s, got none"
            raise SinkError(f"{message} ({self._why})", delivered=delivered)
        self._settle(records[delivered])
        topics = self._place.topic
        if records[delivered].events and self._settings.home_assistant:
            topics += f" and {self._place.event_topic}"
        message = f"Expected the broker to take an answer on {topics}, got {code} ({code.value})"
        raise SinkError(f"{message}: allow the topic, or correct it", delivered=delivered)

    def _publish(self, records: Sequence[AnswerRecord]) -> None:
        """Publish those of ``records`` that are not published yet.

        Raises:
            SinkError: If too many wait for an acknowledgement.
        """
        for record in records:
            if id(record) in self._pending:
                continue
            if len(self._pending) >= _MOST_PENDING:
                message = f"Expected fewer than {_MOST_PENDING} answers without acknowledgement, got more"
                raise SinkError(f"{message}: see why the broker does not acknowledge")
            self._pending[id(record)] = (record, self._published(record))

    def _settle(self, record: AnswerRecord) -> None:
        """Forget the messages of an answer that is sent or refused."""
        for number in self._pending.pop(id(record))[1]:
            self._codes.pop(number, None)

    def _published(self, record: AnswerRecord) -> list[int]:
        """Publish an answer, and its events before it; return the numbers of the messages."""
        events = events_of(record) if self._settings.home_assistant else []
        retained = self._settings.retain_last and has_answer(record)
        sent = [self._client.publish(self._place.event_topic, text, qos=1) for text in events]
        sent.append(self._client.publish(self._place.topic, encode_answer(record), qos=1, retain=retained))
        return [info.mid for info in sent]

    def _refusal(self, numbers: Sequence[int]) -> ReasonCode | None:
        """Return the code by which the broker refused one of the messages ``numbers``; None if it has not."""
        found = [code for number in numbers if (code := self._codes.get(number)) is not None and code.is_failure]
        return found[0] if found else None

    def _forget(self, offered: set[int]) -> None:
        """Forget what was acknowledged and is not offered again: it was dropped from the queue meanwhile."""
        for key, (_, numbers) in list(self._pending.items()):
            if key not in offered and self._codes.keys() >= set(numbers):
                del self._pending[key]
                for number in numbers:
                    del self._codes[number]
        if not self._pending:
            self._codes.clear()  # of announcements

    def _wait(self, numbers: Sequence[Sequence[int]], limit_s: float) -> int:
        """Wait for the acknowledgements of ``numbers``; return of how many of the first all came and none is a refusal.

        Ends ``limit_s`` after the last one that came.
        """
        delivered, moved_s = 0, time.monotonic()
        while True:
            self._acknowledged.clear()  # before looking: one that comes meanwhile sets it again
            before = delivered
            while delivered < len(numbers) and all(number in self._codes for number in numbers[delivered]):
                if self._refusal(numbers[delivered]) is not None:
                    return delivered
                delivered += 1
            if delivered == len(numbers):
                return delivered
            now_s = time.monotonic()
            moved_s = now_s if delivered > before else moved_s
            if now_s - moved_s >= limit_s:
                return delivered
            self._acknowledged.wait(limit_s - (now_s - moved_s))

    def _announce(self, record: AnswerRecord) -> None:
        """Publish what is new for Home Assistant in ``record``; a new release removes what it does not have."""
        if record.error:
            return
        wanted = discovery(record, self._place)
        if record.release != self._release:
            for topic in self._announced.keys() - wanted.keys():
                self._client.publish(topic, b"", qos=1, retain=True)
            self._announced = {topic: text for topic, text in self._announced.items() if topic in wanted}
            self._release = record.release
        for topic, text in wanted.items():
            if self._announced.get(topic) != text:
                self._client.publish(topic, text, qos=1, retain=True)
                self._announced = {**self._announced, topic: text}

    def _on_connect(
        self, client: paho.Client, _data: object, _flags: object, reason: ReasonCode, _properties: object
    ) -> None:
        if reason.is_failure:
            self._why = f"{reason} ({reason.value})"
            return
        _LOG.info("connected to a broker on site sink=%s host=%s", self._place.sink, self._settings.host)
        for topic, text in self._announced.items():  # a broker without memory has lost them
            client.publish(topic, text, qos=1, retain=True)
        client.publish(self._place.state_topic, ONLINE, qos=1, retain=True)
        self._up.set()

    def _on_connect_fail(self, _client: paho.Client, _data: object) -> None:
        self._why = "no connection"

    def _on_disconnect(
        self, _client: paho.Client, _data: object, _flags: object, reason: ReasonCode, _properties: object
    ) -> None:
        if self._up.is_set():
            self._why = f"{reason} ({reason.value})"
            _LOG.info("disconnected from a broker on site sink=%s reason=%s", self._place.sink, self._why)
        self._up.clear()

    def _on_publish(
        self, _client: paho.Client, _data: object, number: int, reason: ReasonCode, _properties: object
    ) -> None:
        self._codes[number] = reason
        self._acknowledged.set()

    def close(self) -> None:
        """Say that the device is gone and disconnect."""
        if self._up.is_set():
            info = self._client.publish(self._place.state_topic, OFFLINE, qos=1, retain=True)
            self._wait([[info.mid]], _CLOSE_S)
        self._client.disconnect()
        self._client.loop_stop()


def has_answer(record: AnswerRecord) -> bool:
    """Return whether ``record`` says what an input shows; not an error, or an event that a stop cut off."""
    if record.error:
        return False
    lists = (record.boxes, record.labels, record.anomalous)
    return bool(record.label or record.values) or any(item is not None for item in lists)


def _without_delay(_client: paho.Client, _data: object, connection: object) -> None:
    """Disable Nagle's algorithm: an answer would wait up to 40 ms for the acknowledgement of the one before."""
    if isinstance(connection, socket.socket):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def open_sink(settings: Settings, around: SinkSurroundings) -> SiteBroker:
    """Return the sink of the broker of ``settings``; it connects in the background.

    Raises:
        SinkError: If the password or the certificates can't be read, or others may read the password.
    """
    import paho.mqtt.client as paho  # noqa: PLC0415 - the control process checks settings and needs no client
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion  # noqa: PLC0415 - as above

    version = MQTTProtocolVersion.MQTTv5 if settings.protocol == "5" else MQTTProtocolVersion.MQTTv311
    name = f"tinyfleet-{around.device or os.urandom(4).hex()}-{around.name}"
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=version)
    if settings.username:
        client.username_pw_set(settings.username, read_password(settings.password_file, SinkError))
    if settings.tls or settings.tls_ca is not None:
        client.tls_set_context(trusted_certificates(settings.tls_ca, SinkError))
    device = around.device or "device"
    topic = settings.topic or f"tinyfleet/{device}"
    place = SinkTopics(
        prefix=settings.home_assistant_prefix,
        device=device,
        sink=around.name,
        topic=f"{topic}/answer",
        state_topic=f"{topic}/state",
    )
    return SiteBroker(client, settings, place)
