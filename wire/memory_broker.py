"""A broker in this process: for tests, and for a demo on a machine without mosquitto.

Supports retained messages, wildcards, wills, shared subscriptions (``$share/<group>/<filter>``) and take-over of an
identity (the older client reconnects when the newer one is gone). Not supported: authentication, ACLs, persistence,
flow control, the network.
Delivery is synchronous, in the publisher's thread.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field

from wire.transport import Delivered, Incoming, Link, LinkChange, Listener, Notice, Will


def matches(pattern: str, topic: str) -> bool:
    """Return whether an MQTT filter matches a topic. Source: MQTT 5.0, section 4.7."""
    if topic.startswith("$") and pattern[:1] in {"+", "#"}:
        return False
    wanted, levels = pattern.split("/"), topic.split("/")
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(levels) or level not in {"+", levels[index]}:
            return False
    return len(wanted) == len(levels)


@dataclass(slots=True)
class _Connection:
    """One client of the broker."""

    listener: Listener
    subscriptions: tuple[str, ...]
    will: Will | None


@dataclass(slots=True, kw_only=True)
class MemoryBroker:
    """The broker; one per test or demo."""

    _clients: dict[str, _Connection] = field(default_factory=dict)
    _taken_over: dict[str, list[_Connection]] = field(default_factory=dict)
    _retained: dict[str, bytes] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _turn: itertools.count[int] = field(default_factory=itertools.count)

    def connect(self, client_id: str, listener: Listener, subscriptions: tuple[str, ...], will: Will | None) -> None:
        """Connect a client; an older one of the same id is notified of the take-over."""
        with self._lock:
            older = self._clients.pop(client_id, None)
            if older is not None:
                self._taken_over.setdefault(client_id, []).append(older)
            self._clients[client_id] = _Connection(listener, subscriptions, will)
            kept = [
                Incoming(topic, payload, retained=True)
                for topic, payload in self._retained.items()
                if any(matches(pattern, topic) for pattern in subscriptions if not pattern.startswith("$share/"))
            ]
        if older is not None:
            older.listener(LinkChange(Link.TAKEN_OVER, f"another client took the id {client_id}"))
        listener(LinkChange(Link.UP))
        for message in kept:
            listener(message)

    def publish(self, client_id: str, topic: str, payload: bytes, *, retain: bool, handle: int | None) -> bool:
        """Deliver a message to every subscriber; return False if ``client_id`` is not connected."""
        with self._lock:
            sender = self._clients.get(client_id)
        if sender is None:
            return False
        self._deliver(topic, payload, retain=retain)
        if handle is not None:
            sender.listener(Delivered(handle))
        return True

    def disconnect(self, client_id: str, *, lost: bool = False) -> None:
        """Remove a client; with ``lost`` its will is published immediately."""
        with self._lock:
            client = self._clients.pop(client_id, None)
            older = self._taken_over[client_id].pop() if self._taken_over.get(client_id) else None
        if client is not None and lost:
            client.listener(LinkChange(Link.DOWN, "connection lost"))
            if client.will is not None:
                self._deliver(client.will.topic, client.will.payload, retain=True)
        if older is not None:
            self.connect(client_id, older.listener, older.subscriptions, older.will)

    def give_up(self, client_id: str, listener: Listener) -> None:
        """Forget a client that was taken over and has stopped reconnecting."""
        with self._lock:
            waiting = self._taken_over.get(client_id, [])
            self._taken_over[client_id] = [client for client in waiting if client.listener is not listener]

    def _deliver(self, topic: str, payload: bytes, *, retain: bool) -> None:
        with self._lock:
            receivers: list[_Connection] = []
            groups: dict[tuple[str, str], list[_Connection]] = {}  # of shared subscriptions
            for client in self._clients.values():
                for pattern in client.subscriptions:
                    if pattern.startswith("$share/"):
                        _, group, inner = pattern.split("/", 2)
                        if matches(inner, topic):
                            groups.setdefault((group, inner), []).append(client)
                    elif matches(pattern, topic):
                        receivers.append(client)
            turn = next(self._turn)
            receivers += [members[turn % len(members)] for members in groups.values()]
            if retain and payload:
                self._retained[topic] = payload
            elif retain:
                self._retained.pop(topic, None)
        for receiver in receivers:
            receiver.listener(Incoming(topic, payload))


@dataclass(slots=True, kw_only=True)
class MemoryTransport:
    """The in-memory implementation of ``Transport``."""

    broker: MemoryBroker
    client_id: str
    _handles: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _up: bool = False
    _listener: Listener | None = None

    def start(self, listener: Listener, *, subscriptions: tuple[str, ...], will: Will | None = None) -> None:
        """Connect immediately."""
        self._up = True

        def receive(notice: Notice) -> None:
            if isinstance(notice, LinkChange):
                self._up = notice.link is Link.UP
            listener(notice)

        self._listener = receive
        self.broker.connect(self.client_id, receive, subscriptions, will)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int | None:
        """Deliver immediately; None if not connected, or if another client took over the identity."""
        if not self._up:
            return None
        handle = next(self._handles)
        sent = self.broker.publish(self.client_id, topic, payload, retain=retain, handle=handle)
        return handle if sent else None

    def idle_s(self) -> float:
        """Return 0 while connected."""
        return 0.0 if self._up else float("inf")

    def stop(self) -> None:
        """Disconnect without a will; a client that took over the identity stays connected."""
        if self._up:
            self._up = False
            self.broker.disconnect(self.client_id)
        elif self._listener is not None:
            self.broker.give_up(self.client_id, self._listener)
