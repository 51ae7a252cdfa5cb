#!/usr/bin/env python3
"""A network namespace behind a bad network, for devices that are processes of this host.

    scripts/hil/network.py hil-1 --delay-ms 50 --loss 0.02 --rate-bit-s 1000000 --forward 1883 --forward 8080

Makes the namespace and two TUN interfaces, ``hil0`` here and ``hil1`` in it, and passes packets between them with
delay, loss and a rate, each direction for itself: no ``netem`` is needed. ``--forward PORT`` also listens at the
address of this side and passes connections to the same port of loopback, where a server without TLS listens. Prints one
JSON line when it is ready, and removes everything at SIGTERM. Needs root. An inventory names ``netns = "hil-1"`` and
``link = "hil1"`` (docs/how-to/test-on-devices.md). Exit codes: 0 ended, 1 it could not be made, 2 usage.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import random
import signal
import struct
import subprocess
import sys
from dataclasses import dataclass, field

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # Linux, include/uapi/linux/if_tun.h
_PACKET_BYTES = 65_536
_QUEUE_S = 1.0  # a router drops what would wait for longer
HERE, THERE = "hil0", "hil1"


@dataclass(slots=True, kw_only=True)
class Direction:
    """One direction, from the descriptor ``source`` to ``sink``; ``rate_bit_s`` 0: no limit."""

    source: int
    sink: int
    delay_s: float
    loss: float
    rate_bit_s: float
    chance: random.Random
    free_s: float = 0.0
    counts: dict[str, int] = field(default_factory=lambda: {"passed": 0, "lost": 0, "dropped": 0})

    def forward(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read one packet, and write it when it would arrive."""
        with contextlib.suppress(BlockingIOError, OSError):  # the link is down
            packet = os.read(self.source, _PACKET_BYTES)
            now_s = loop.time()
            self.free_s = max(self.free_s, now_s)
            if self.chance.random() < self.loss:
                self.counts["lost"] += 1
            elif self.free_s - now_s > _QUEUE_S:
                self.counts["dropped"] += 1
            else:
                self.free_s += len(packet) * 8 / self.rate_bit_s if self.rate_bit_s else 0.0
                loop.call_at(self.free_s + self.delay_s, self._write, packet)

    def _write(self, packet: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(self.sink, packet)
            self.counts["passed"] += 1


def tun(name: str) -> int:
    """Return the descriptor of a new TUN interface.

    Raises:
        OSError: If it can't be made.
    """
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return descriptor


def ip(*words: str) -> None:
    """Run ``ip``.

    Raises:
        CalledProcessError: If it fails.
    """
    subprocess.run(["ip", *words], check=True, capture_output=True)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on until the end or an error."""
    with contextlib.suppress(OSError):
        while data := await reader.read(_PACKET_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()


async def serve(given: argparse.Namespace) -> None:
    """Pass packets and connections until SIGTERM.

    Raises:
        OSError: If an interface or a port can't be had.
        CalledProcessError: If ``ip`` fails.
    """
    here, there = (f"10.201.{given.subnet}.{host}" for host in (1, 2))
    loop, end = asyncio.get_running_loop(), asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, end.set)
    near, far = tun(HERE), tun(THERE)
    ip("link", "set", THERE, "netns", given.netns)
    ip("addr", "add", f"{here}/30", "dev", HERE)
    ip("link", "set", HERE, "up")
    ip("-n", given.netns, "addr", "add", f"{there}/30", "dev", THERE)
    ip("-n", given.netns, "link", "set", THERE, "up")
    ip("-n", given.netns, "link", "set", "lo", "up")
    directions = [
        Direction(
            source=source, sink=sink, delay_s=given.delay_ms / 1000, loss=given.loss, rate_bit_s=given.rate_bit_s,
            chance=random.Random(given.seed + source),  # noqa: S311 - losses, not secrets
        )
        for source, sink in ((near, far), (far, near))
    ]  # fmt: skip
    for direction in directions:
        loop.add_reader(direction.source, direction.forward, loop)

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("sockname")[1]
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        with contextlib.suppress(asyncio.CancelledError):  # at the end of the program, which asyncio would print
            await asyncio.gather(pump(reader, forth), pump(back, writer))

    servers = [await asyncio.start_server(connect, here, port) for port in given.forward]
    print(json.dumps({"netns": given.netns, "host": here, "device": there, "link": THERE}), flush=True)
    await end.wait()
    for server in servers:
        server.close()
    print(json.dumps({"to_device": directions[0].counts, "from_device": directions[1].counts}), flush=True)


def main() -> int:
    """Make the namespace, serve, remove it; return the exit code."""
    parser = argparse.ArgumentParser(description="A network namespace behind a bad network.")
    parser.add_argument("netns", help="name of the namespace that is made")
    parser.add_argument("--delay-ms", type=float, default=25.0, help="of each direction [25]")
    parser.add_argument("--loss", type=float, default=0.0, help="share of packets, 0 to 1 [0]")
    parser.add_argument("--rate-bit-s", type=float, default=0.0, help="of each direction; 0: no limit [0]")
    parser.add_argument("--forward", type=int, action="append", default=[], help="port of loopback; may be repeated")
    parser.add_argument("--subnet", type=int, default=1, help="third number of 10.201.N.0/30 [1]")
    parser.add_argument("--seed", type=int, default=0, help="of the losses [0]")
    given = parser.parse_args()
    try:
        ip("netns", "add", given.netns)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"network: expected to make the namespace {given.netns}, got: {error}: run it as root", file=sys.stderr)
        return 1
    try:
        asyncio.run(serve(given))
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"network: {error}: is another one of this subnet running?", file=sys.stderr)
        return 1
    finally:
        ip("netns", "delete", given.netns)
    return 0


if __name__ == "__main__":
    sys.exit(main())
