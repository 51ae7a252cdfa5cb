"""MQTT 5 with paho, by these rules.

1. Callbacks only enqueue and never raise: an exception in one kills paho's thread while ``is_connected``
   stays true.
2. At most ``inflight_messages`` unacknowledged messages are given to paho, because its own queue is unbounded.
3. Subscriptions are made in ``on_connect``, and every reason code is read. A refused one ends the connection, which
   is retried with back-off: otherwise the device would stay connected without receiving anything.
4. Liveness is the age of the last packet from the broker (PINGRESP and PUBACK included).
5. A session taken over is reported and never final: somebody who copied an identity must not stop the real device.
   MQTT 5 signals it with reason 142; mosquitto before 2.0.15 just closes (its issue 2607), so a connection closed
   without a reason ``TAKE_OVER_CLOSES`` times in a row, each within ``STABLE_S`` of connecting, counts as taken over.
6. Full-jitter back-off between connections. Source: Brooker, Exponential Backoff And Jitter, AWS 2015. After a
   take-over it is drawn from the upper half and also grows if the connection had been stable, so that two agents
   with one identity alternate more and more slowly.

A PUBACK does not mean durable; callers that need that wait for the server's own acknowledgement.
"""

from __future__ import annotations

import contextlib
import logging
import random
import re
import socket
import sys
import time
from dataclasses import dataclass, field

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_agent.config import TransportConfig
from edge_agent.device.tls import OwnCertificate, client_context
from edge_agent.telemetry.byte_meter import ByteMeter
from wire.topics import subscription_qos
from wire.transport import Delivered, Incoming, Link, LinkChange, Listener, Notice, Will

_LOG = logging.getLogger(__name__)
_FAILURE = 128  # MQTT 5.0, 2.4: reason codes from 0x80 on are failures
_TAKEN_OVER = 142
_CERTIFICATE_ALERT = re.compile(r"ALERT_((?:CERTIFICATE|BAD_CERTIFICATE|UNKNOWN_CA)\w*)", re.IGNORECASE)
"""Source: RFC 8446, 6.2, as OpenSSL names the alerts (SSLV3_ALERT_CERTIFICATE_REVOKED, TLSV1_ALERT_UNKNOWN_CA)."""
_WRONG_TIME = frozenset({9, 10})
"""A certificate is not valid yet, or any more. Source: OpenSSL, X509_STORE_CTX_get_error(3)."""
_DRAIN_S = 2.0
TAKE_OVER_CLOSES = 5
STABLE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttSettings:
    """The broker's address, the credentials, and limits. ``password`` never appears in a log.

    ``tls_ca``: certificates in PEM text, "" for no TLS. ``own``: the device's certificate, instead of a password; its
    file is read again for each connection. ``pace``: ``[transport]`` of ``agent.toml``. ``meter`` counts the bytes of
    the connection.
    """

    host: str
    port: int
    client_id: str
    username: str
    password: str
    tls_ca: str = ""
    own: OwnCertificate | None = None
    pace: TransportConfig = field(default_factory=TransportConfig)
    meter: ByteMeter = field(default_factory=ByteMeter)

    def __repr__(self) -> str:
        """Leave the password out."""
        return f"MqttSettings({self.username}@{self.host}:{self.port})"


class MqttTransport:
    """The paho implementation of ``Transport``."""

    def __init__(self, settings: MqttSettings, *, chance: random.Random | None = None) -> None:
        """Prepare; nothing connects before ``start``. ``chance`` draws the jitter."""
        self._settings = settings
        self._chance = chance or random.Random()  # noqa: S311 - jitter is no secret
        self._listener: Listener = _ignore
        self._subscriptions: tuple[str, ...] = ()
        self._up = False
        self._failures = 0
        self._closes = 0
        self._taken_over = False
        self._up_s = float("-inf")
        self._handed = 0  # written by the caller's thread only
        self._answered = 0  # written by paho's thread only: so no lock, which would deadlock with paho's own
        self._heard_s = float("-inf")
        self._watched = -1
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=settings.client_id, protocol=paho.MQTTv5)
        if settings.own is None:
            client.username_pw_set(settings.username, settings.password)
        self._context = client_context(settings.tls_ca, settings.own) if settings.tls_ca else None
        if self._context is not None:
            client.tls_set_context(self._context)
        client.suppress_exceptions = True
        client.max_inflight_messages_set(settings.pace.inflight_messages)
        client.on_pre_connect = self._on_pre_connect
        client.on_connect, client.on_connect_fail = self._on_connect, self._on_connect_fail
        client.on_disconnect, client.on_subscribe = self._on_disconnect, self._on_subscribe
        client.on_message, client.on_publish = self._on_message, self._on_publish
        client.on_socket_open, client.on_socket_close = self._on_socket_open, self._on_socket_close
        client.on_log = self._on_log
        self._client = client

    def start(self, listener: Listener, *, subscriptions: tuple[str, ...], will: Will | None = None) -> None:
        """Connect in the background and stay connected; subscribe on every connect."""
        self._listener, self._subscriptions = listener, subscriptions
        if will is not None:
            properties = _properties(PacketTypes.WILLMESSAGE)
            properties.WillDelayInterval = will.delay_s
            self._client.will_set(will.topic, will.payload, qos=1, retain=True, properties=properties)
        self._back_off()
        properties = _properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = self._settings.pace.session_expiry_s
        self._client.connect_async(
            self._settings.host,
            self._settings.port,
            self._settings.pace.keepalive_s,
            clean_start=False,
            properties=properties,
        )
        self._client.loop_start()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int | None:
        """Queue a QoS 1 message; return its handle, or None if the transport can't accept it now."""
        if not self._up or self._handed - self._answered >= self._settings.pace.inflight_messages:
            return None
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        if info.rc not in {MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN}:
            return None
        self._handed += 1
        return int(info.mid)

    def idle_s(self) -> float:
        """Return the seconds since the last packet from the broker (infinite while down)."""
        return time.monotonic() - self._heard_s if self._up else float("inf")

    def stop(self) -> None:
        """Wait briefly for queued messages, disconnect in order (without the will), end paho's thread."""
        deadline_s = time.monotonic() + _DRAIN_S
        while self._up and self._handed > self._answered and time.monotonic() < deadline_s:
            time.sleep(0.01)
        self._client.disconnect()
        self._client.loop_stop()
        self._up = False

    def _notify(self, notice: Notice) -> None:
        try:
            self._listener(notice)
        except Exception:  # noqa: BLE001 - outermost frame of a callback: a listener's fault must not end paho's thread
            _LOG.exception("listener failed")

    def _back_off(self) -> None:
        ceiling_s = min(
            self._settings.pace.max_backoff_s, self._settings.pace.min_backoff_s * 2 ** min(self._failures, 30)
        )
        delay_s = self._chance.uniform(ceiling_s / 2 if self._taken_over else 0.0, ceiling_s)
        self._client.reconnect_delay_set(delay_s, delay_s)  # type: ignore[arg-type]  # paho only adds and compares them

    def _on_pre_connect(self, _client: paho.Client, _data: object) -> None:
        if self._settings.own is not None and self._context is not None:
            try:
                self._settings.own.show(self._context)
            except OSError as error:
                _LOG.error("own certificate not read, the last one is shown error=%s", error)

    def _on_connect(
        self, client: paho.Client, _data: object, _flags: object, reason: ReasonCode, _properties: object
    ) -> None:
        if reason.is_failure:
            self._notify(LinkChange(Link.REFUSED, f"{reason} ({reason.value})"))
            return
        self._heard_s = self._up_s = time.monotonic()
        self._up = True
        if self._subscriptions:
            client.subscribe([(topic, SubscribeOptions(qos=subscription_qos(topic))) for topic in self._subscriptions])
        self._notify(LinkChange(Link.UP))

    def _on_connect_fail(self, _client: paho.Client, _data: object) -> None:
        self._failures, self._closes, self._taken_over = self._failures + 1, 0, False
        self._back_off()
        error = sys.exception()  # paho calls this while it handles the error, and passes it to nobody
        text = str(getattr(error, "verify_message", "") or getattr(error, "strerror", "") or error)
        if getattr(error, "verify_code", 0) in _WRONG_TIME:
            text += ": set the clock of this device, or renew the certificate of the broker"
        self._notify(LinkChange(Link.UNREACHABLE, f"{self._settings.host}:{self._settings.port}: {text}"))

    def _on_disconnect(
        self, _client: paho.Client, _data: object, flags: object, reason: ReasonCode, _properties: object
    ) -> None:
        stable = self._up and time.monotonic() - self._up_s >= STABLE_S
        silent = reason.value == _FAILURE and not getattr(flags, "is_disconnect_packet_from_server", False)
        self._closes = self._closes + 1 if silent and self._up and not stable else 0
        self._taken_over = reason.value == _TAKEN_OVER or self._closes >= TAKE_OVER_CLOSES
        self._failures = 1 if stable and not self._taken_over else self._failures + 1
        self._up = False
        self._back_off()
        self._notify(LinkChange(Link.TAKEN_OVER if self._taken_over else Link.DOWN, f"{reason} ({reason.value})"))

    def _on_subscribe(
        self, client: paho.Client, _data: object, _mid: int, reasons: list[ReasonCode], _properties: object
    ) -> None:
        refused = [reason for reason in reasons if reason.value >= _FAILURE]
        for reason in refused:
            self._notify(LinkChange(Link.REFUSED, f"subscription: {reason} ({reason.value})"))
        connection = client.socket()
        if refused and isinstance(connection, socket.socket):  # a broker may be reloading its access rules: try again
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return
        self._notify(Incoming(topic, bytes(message.payload), bool(message.retain)))

    def _on_publish(
        self, _client: paho.Client, _data: object, mid: int, reason: ReasonCode, _properties: object
    ) -> None:
        self._answered += 1
        if reason.value >= _FAILURE:
            _LOG.warning("message refused by the broker mid=%s reason=%s", mid, reason)
            return
        self._notify(Delivered(mid))

    def _on_socket_open(self, _client: paho.Client, _data: object, connection: object) -> None:
        if isinstance(connection, socket.socket):  # without Nagle's algorithm, which makes each chunk wait for 40 ms
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._watched = self._settings.meter.watch(connection)

    def _on_socket_close(self, _client: paho.Client, _data: object, _connection: object) -> None:
        self._settings.meter.settle(self._watched)

    def _on_log(self, _client: paho.Client, _data: object, _level: int, text: str) -> None:
        if text.startswith("Received "):  # the only public sign of a PINGRESP
            self._heard_s = time.monotonic()
        alert = _CERTIFICATE_ALERT.search(text)
        if alert is not None:  # with TLS 1.3 it comes after the handshake, and only in paho's log
            self._notify(LinkChange(Link.REFUSED, f"{alert[1].replace('_', ' ').lower()} (tls)"))


def _ignore(_notice: Notice) -> None:
    """The listener before ``start``: does nothing."""


def _properties(packet: int) -> Properties:
    return Properties(packet)  # type: ignore[no-untyped-call]  # paho leaves it untyped
