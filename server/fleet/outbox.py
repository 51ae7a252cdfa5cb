"""Publishes all messages from the server to devices."""

from __future__ import annotations

from dataclasses import dataclass

from wire.codec import encode
from wire.topics import Topic
from wire.transport import Transport


@dataclass(frozen=True, slots=True)
class Outbox:
    """Publishes messages without a queue: a caller whose message must arrive keeps it and sends it again."""

    transport: Transport

    def send(self, topic: Topic, message: object, *, retain: bool = False) -> bool:
        """Publish ``message`` (a wire dataclass); return False if the transport can't accept it now."""
        return self.transport.publish(str(topic), encode(message), retain=retain) is not None

    def clear(self, topic: Topic) -> bool:
        """Clear the retained message of ``topic``."""
        return self.transport.publish(str(topic), b"", retain=True) is not None
