"""A build host, a server's repository behind real HTTP, and a device: the scene of every attack."""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata

from compressor.release.keys import init_keys
from compressor.release.signing import sign_bundles
from edge_agent.updater.verification import TargetVerdict, run
from server.trust.online_keys import init_online_keys
from server.trust.repository import TrustRepository
from server.trust.roots import install_root
from wire.bundle import build_bundle
from wire.manifest import Manifest, Preprocessing, TensorSpec

TARGET = "meter-1/gateway.tfb"
DAY_MS = 86_400_000


def now_ms() -> int:
    """Return the real time; metadata expiry is judged by it."""
    return int(time.time() * 1000)


def bundle_bytes(version: int = 1, *, verdict: str = "pass", security_floor: int = 0, model: str = "meter") -> bytes:
    """Return a small valid bundle."""
    manifest = Manifest(
        model=model, version=version, target="gateway", security_floor=security_floor,
        inputs=(TensorSpec(name="input", shape=(-1, 1, 8, 8)),), outputs=(TensorSpec(name="logits", shape=(-1, 10)),),
        preprocessing=Preprocessing(width=8, height=8),
    )  # fmt: skip
    gate = json.dumps({"schema": 1, "verdict": verdict, "figures": {"accuracy": 0.97}}).encode()
    return build_bundle(manifest, {"model.onnx": b"model %d" % version, "gate.json": gate})


@dataclass
class Scene:
    """Keys, server state and device state below one folder; ``clock_ms`` is the server's clock."""

    folder: Path
    repository: TrustRepository
    url: str
    clock_ms: list[int] = field(default_factory=list)

    @property
    def keys(self) -> Path:
        """The build host's folder of keys."""
        return self.folder / "keys"

    @property
    def tuf(self) -> Path:
        """Return the metadata that the server publishes."""
        return self.folder / "server" / "tuf"

    @property
    def device(self) -> Path:
        """The device's state directory."""
        return self.folder / "device"

    def release(self, version: int, **options: object) -> None:
        """Sign a release on the build host and publish it on the server."""
        path = self.folder / f"meter-{version}.tfb"
        path.write_bytes(bundle_bytes(version, **options))  # type: ignore[arg-type]
        data = sign_bundles([path], self.keys).read_bytes()
        self.repository.publish_targets(data, lambda _sha256: True)

    def ask(self, target: str = TARGET, at_ms: int | None = None) -> TargetVerdict:
        """Let the device judge a target over HTTP."""
        return run(self.device, target, None, now_ms() if at_ms is None else at_ms)

    def saved(self) -> dict[str, bytes]:
        """Return all published files."""
        return {path.name: path.read_bytes() for path in self.tuf.iterdir()}

    def restore(self, files: dict[str, bytes]) -> None:
        """Replace published files, as an attacker who controls the server could."""
        for name, data in files.items():
            (self.tuf / name).write_bytes(data)

    def read(self, name: str) -> Metadata:  # type: ignore[type-arg]
        """Return published metadata."""
        return Metadata.from_bytes((self.tuf / name).read_bytes())


class Quiet(SimpleHTTPRequestHandler):
    """Files over HTTP, without a log."""

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""


class QuietServer(ThreadingHTTPServer):
    """A server that accepts clients that disconnect, as after too large an answer."""

    def handle_error(self, *_arguments: object) -> None:
        """Log nothing."""


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Path]:
    """Write bundles to files."""

    def write(version: int, **options: object) -> Path:
        path = tmp_path / f"meter-{version}.tfb"
        path.write_bytes(bundle_bytes(version, **options))  # type: ignore[arg-type]
        return path

    return write


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """One server with a root, one enrolled device, release 1 published."""
    state, device = tmp_path / "server", tmp_path / "device"
    online = init_online_keys(state)
    root = init_keys(tmp_path / "keys", online)
    install_root(state, root)
    handler = functools.partial(Quiet, directory=str(state))
    server = QuietServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    device.mkdir(mode=0o700)
    (device / "root.json").write_bytes(root.read_bytes())
    (device / "identity.json").write_text(json.dumps({"site": "north", "device": "cam-1", "http_url": url}))
    clock_ms = [now_ms()]
    made = Scene(tmp_path, TrustRepository(state, lambda: clock_ms[0]), url, clock_ms)
    made.release(1)
    yield made
    server.shutdown()
    server.server_close()
