"""A loop over the tiny model in a thread of this process, with the local interface on a free port."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_agent.device.clock import SystemClock
from edge_agent.inference.child import STOP, CountingSettings, InferenceLoop, open_api
from edge_agent.inference.served_model import load_model
from edge_agent.local_api.api import LocalApi
from edge_agent.local_api.settings import ApiConfig
from edge_agent.sources import Source, Surroundings, load
from tests.edge_agent.inference.conftest import bundle, drop, png, some_images, tiny

__all__ = ["bundle", "drop", "tiny"]


@dataclass
class Running:
    """A loop that runs in a thread; ``said`` are its frames."""

    loop: InferenceLoop
    api: LocalApi
    thread: threading.Thread
    said: list[tuple[dict, bytes]]
    bundle: Path

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """Return status and body of one request; ``Content_Type`` is written for ``Content-Type``."""
        connection = http.client.HTTPConnection(*self.api.address, timeout=20)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, sent)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def get(self, path: str) -> object:
        """Return the document at ``path``."""
        status, body = self.ask("GET", path)
        assert status == 200, body
        return json.loads(body)


@pytest.fixture
def pictures() -> list[bytes]:
    """Eight PNGs."""
    return [png(image) for image in some_images(8)]


@pytest.fixture
def running(bundle: Callable, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start loops on the folder ``inbox``, or another source; ended at the end."""
    started: list[Running] = []

    def start(source: dict | None = None, *, corrects: bool = False, smoothed: int = 0, **keys: object) -> Running:
        (tmp_path / "inbox").mkdir(exist_ok=True)
        said: list[tuple[dict, bytes]] = []
        path = bundle(smoothed=smoothed)
        document = source or {"kind": "directory", "path": str(tmp_path / "inbox"), "settle_s": 0.0}
        opened: Source = load(document, SystemClock(), Surroundings())

        def say(header: Mapping[str, object], data: bytes) -> None:
            said.append((dict(header), data))

        loop = InferenceLoop(load_model(path), opened, say, SystemClock(), CountingSettings(beat_s=0.1))
        config = ApiConfig(**{"listen": "127.0.0.1:0", **keys})
        open_api(config, loop, say if corrects else None)
        thread = threading.Thread(target=loop.run, daemon=True)
        thread.start()
        started.append(Running(loop, loop.api, thread, said, path))
        return started[-1]

    yield start
    for one in started:
        one.loop.notices.put(STOP)
        one.thread.join(20)
        assert not one.thread.is_alive()
