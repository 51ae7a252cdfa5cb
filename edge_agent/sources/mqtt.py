"""Inputs from a topic of a broker on site: the payload of a message is one input, as a file's content would be.

Each topic is a stream of its own.

Only the newest messages are kept; older ones are dropped and counted. A broker that is away is connected to again
without end (``_stream``). Messages are at most once: the broker keeps none for a device that is away, because the
present matters more than the past. A retained message is an input too.

This is not the connection to the fleet's server, which has credentials and rules of its own (``transports/mqtt.py``).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from edge_agent.device.clock import Clock
from edge_agent.errors import SourceError
from edge_agent.on_site import check_host, read_password, trusted_certificates
from edge_agent.sources import InStream, Surroundings
from edge_agent.sources._stream import Pace, StreamInput, StreamSource
from wire.errors import SettingsError
from wire.settings import Bound

if TYPE_CHECKING:
    import paho.mqtt.client as paho
    from paho.mqtt.reasoncodes import ReasonCode

MAX_INPUT_BYTES = 32 * 1024 * 1024
_LOOK_S = 0.2
_KEEPALIVE_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``[source]`` of ``kind = "mqtt"``: the messages of a topic of a broker on site."""

    host: str = "127.0.0.1"
    port: Annotated[int, Bound(1, 65_535)] = 1883
    topic: str = "tinyfleet/inputs"  # + and # stand for levels, as in "cameras/+/picture"
    username: str = ""
    password_file: Path | None = None  # only its owner may read it (mode 0600)
    tls: bool = False  # with the certificates of the system
    tls_ca: Path | None = None  # TLS with the certificates in this PEM file, in the place of the system's
    backlog: Annotated[int, Bound(1, 10_000)] = 16  # newest messages that wait for the model
    retry_s: Annotated[float, Bound(0.01, 3600)] = 1.0  # pause before the next connection; doubled up to 30 s

    def __post_init__(self) -> None:
        """Reject what no broker accepts."""
        check_host(self.host)
        levels = self.topic.split("/")
        wild = any(("#" in level and level != "#") or ("+" in level and level != "+") for level in levels)
        if not self.topic or wild or "#" in levels[:-1] or not self.topic.isprintable():
            message = (
                f'Expected topic with + and # as whole levels, # as the last, got {self.topic!r}: "a/+/b" or "a/#"'
            )
            raise SettingsError(message)
        if self.password_file is not None and not self.username:
            raise SettingsError("Expected username beside password_file, got none: set it, or leave the file out")


def open_source(settings: Settings, clock: Clock, surroundings: Surroundings) -> StreamSource:
    """Return the source; a broker that is away is waited for.

    Raises:
        SourceError: If the password or the certificates can't be read, or others may read the password.
    """
    _client(settings)  # a wrong file is reported before the first connection
    pace = Pace(backlog=settings.backlog, retry_s=settings.retry_s)
    name = f"{settings.host}:{settings.port}/{settings.topic}"
    return StreamSource(name, partial(_messages, settings), pace, clock, surroundings)


def _client(settings: Settings) -> paho.Client:
    import paho.mqtt.client as paho  # noqa: PLC0415 - the control process checks settings and needs no client
    from paho.mqtt.enums import CallbackAPIVersion  # noqa: PLC0415 - as above

    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    if settings.username:
        client.username_pw_set(settings.username, read_password(settings.password_file, SourceError) or "")
    if settings.tls or settings.tls_ca is not None:
        client.tls_set_context(trusted_certificates(settings.tls_ca, SourceError))
    client.suppress_exceptions = True
    return client


def _messages(settings: Settings, stop: threading.Event) -> Iterator[StreamInput]:
    """Yield the payloads of one connection.

    Raises:
        SourceError: If the broker refuses connection or topic, or the connection ends.
        OSError: If there is none.
    """
    arrived: queue.SimpleQueue[StreamInput | str] = queue.SimpleQueue()  # payloads; text: why the connection has ended

    def on_message(_client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        data = bytes(message.payload[: MAX_INPUT_BYTES + 1])  # a byte more, so that decoding reports "too large"
        arrived.put(StreamInput(data, InStream(name=message.topic)))

    def on_disconnect(_client: paho.Client, _data: object, _flags: object, reason: ReasonCode, _more: object) -> None:
        arrived.put(str(reason))

    def on_subscribe(
        _client: paho.Client, _data: object, _number: int, reasons: Sequence[ReasonCode], _more: object
    ) -> None:
        if reasons[0].is_failure:
            arrived.put(f"the topic refused: {reasons[0]}")

    def on_connect(client: paho.Client, _data: object, _flags: object, reason: ReasonCode, _more: object) -> None:
        if reason.is_failure:
            arrived.put(str(reason))
        else:
            client.subscribe(settings.topic)

    client = _client(settings)
    client.on_message, client.on_disconnect = on_message, on_disconnect
    client.on_subscribe, client.on_connect = on_subscribe, on_connect
    client.connect(settings.host, settings.port, _KEEPALIVE_S)
    client.loop_start()
    try:
        while not stop.is_set():
            try:
                found = arrived.get(timeout=_LOOK_S)
            except queue.Empty:
                continue
            if isinstance(found, str):
                raise SourceError(found)
            yield found
    finally:
        client.disconnect()
        client.loop_stop()
