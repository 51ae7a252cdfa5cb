"""The server's connection to the broker, with paho. The only file of the server that speaks MQTT.

Callbacks only call the listener, which only enqueues. An exception there is logged, because it would end paho's
thread while the connection still looks alive.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from wire.transport import Delivered, Incoming, Link, LinkChange, Listener, Notice, Will

_LOG = logging.getLogger(__name__)
_KEEP_ALIVE_S = 20
_QUEUE_MESSAGES = 20_000
_IN_FLIGHT_MESSAGES = 100
_TAKEN_OVER = 142


@dataclass(slots=True, kw_only=True)
class BrokerTransport:
    """The paho implementation of ``wire.transport.Transport``. ``tls_ca`` is a PEM file, "" for none.

    ``is_ours``: the broker is our own child process over loopback; its certificate may carry another name.
    """

    host: str
    port: int
    client_id: str
    user: str
    password: str
    tls_ca: str = ""
    is_ours: bool = True
    _client: paho.Client | None = None
    _listener: Listener = field(default=lambda _: None)
    _subscriptions: tuple[str, ...] = ()
    _received_s: float = 0.0
    _up: threading.Event = field(default_factory=threading.Event)

    def start(self, listener: Listener, *, subscriptions: tuple[str, ...], will: Will | None = None) -> None:
        """Connect in the background and stay connected; subscribe on every connect."""
        self._listener, self._subscriptions = listener, subscriptions
        client = paho.Client(CallbackAPIVersion.VERSION2, self.client_id, protocol=paho.MQTTv5)
        client.username_pw_set(self.user, self.password)
        client.max_queued_messages_set(_QUEUE_MESSAGES)
        client.max_inflight_messages_set(_IN_FLIGHT_MESSAGES)
        client.reconnect_delay_set(1, 5)
        client.suppress_exceptions = True
        if self.tls_ca:
            client.tls_set(self.tls_ca, tls_version=ssl.PROTOCOL_TLS_CLIENT)
            client.tls_insecure_set(self.is_ours)
        if will is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=True)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_message, client.on_publish = self._on_message, self._on_publish
        client.on_subscribe, client.on_socket_open = self._on_subscribe, self._on_socket_open
        self._client = client
        client.connect_async(self.host, self.port, _KEEP_ALIVE_S)
        client.loop_start()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int | None:
        """Queue a QoS 1 message; return its handle, or None when not connected or the queue is full."""
        if self._client is None or not self._up.is_set():
            return None
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        return int(info.mid) if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def idle_s(self) -> float:
        """Return the seconds since the broker last sent a message or a PUBACK (infinite while down).

        paho doesn't report PINGRESP; it closes a connection without one itself, after 1.5 keep-alives.
        """
        return time.monotonic() - self._received_s if self._up.is_set() else float("inf")

    def stop(self) -> None:
        """Disconnect in order and end paho's thread."""
        client, self._client = self._client, None
        self._up.clear()
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _tell(self, notice: Notice) -> None:
        self._received_s = time.monotonic()
        try:
            self._listener(notice)
        except Exception:  # noqa: BLE001 - the outermost frame in paho's thread
            _LOG.exception("A listener failed; the notice is lost. notice=%s", type(notice).__name__)

    def _on_connect(
        self, client: paho.Client, _data: object, _flags: object, code: ReasonCode, _properties: Properties | None
    ) -> None:
        if code.is_failure:
            self._tell(LinkChange(Link.REFUSED, str(code)))
            return
        if self._subscriptions:
            client.subscribe([(pattern, 1) for pattern in self._subscriptions])
        self._up.set()
        self._tell(LinkChange(Link.UP))

    def _on_disconnect(
        self, _client: paho.Client, _data: object, _flags: object, code: ReasonCode, _properties: Properties | None
    ) -> None:
        self._up.clear()
        self._tell(LinkChange(Link.TAKEN_OVER if code.value == _TAKEN_OVER else Link.DOWN, str(code)))

    def _on_subscribe(
        self, _client: paho.Client, _data: object, _mid: int, codes: list[ReasonCode], _properties: Properties | None
    ) -> None:
        for code in codes:
            if code.is_failure:
                self._tell(LinkChange(Link.REFUSED, f"subscription: {code}"))

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = repr(message._topic)  # noqa: SLF001 - a topic that is not UTF-8 has no other form
        self._tell(Incoming(topic, bytes(message.payload), retained=bool(message.retain)))

    def _on_publish(
        self, _client: paho.Client, _data: object, mid: int, _code: ReasonCode, _properties: Properties | None
    ) -> None:
        self._tell(Delivered(mid))

    def _on_socket_open(self, _client: paho.Client, _data: object, opened: object) -> None:
        try:
            if isinstance(opened, socket.socket):
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            _LOG.warning("TCP_NODELAY can't be set. error=%s", error)
