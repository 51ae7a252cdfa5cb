"""The scene of the matrix: keys, signed metadata and bundles behind a real HTTP server, and an enrolled device.

Everything is what the project's own programs write; only the bundles' models are a few bytes, because no inference
runs here. The server is a process of its own, so that the one that is traced has a single thread.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from compressor.release.keys import TARGETS_DAYS, init_keys, read_root
from compressor.release.signing import add_targets, read_signable, read_targets, sign_targets
from server.trust.online_keys import init_online_keys
from server.trust.repository import TrustRepository
from server.trust.roots import install_root
from wire.bundle import build_bundle
from wire.canonical import sha256_hex
from wire.manifest import Manifest, Preprocessing, TensorSpec
from wire.messages import Desired
from wire.tuf_target import target_path

SITE, DEVICE = "site", "dev"
_GATE = b'{"schema": 1, "verdict": "pass", "gates": [], "figures": {}}'
_PAD_BYTES = 24 * 1024  # more than one write, and less than one segment of loopback: the same writes each time
_RANGE = re.compile(r"bytes=(\d+)-")


@dataclass(frozen=True, slots=True)
class Release:
    """A published release; ``artifact`` is the digest that its child names in heartbeats."""

    desired: Desired
    artifact: str


@dataclass(slots=True)
class Scene:
    """What the server holds below ``folder``, and its process."""

    folder: Path
    releases: tuple[Release, ...]
    url: str = ""
    pid: int = 0

    def serve(self) -> None:
        """Start the server."""
        server = HTTPServer(("127.0.0.1", 0), _handler(self.folder))
        self.url = f"http://127.0.0.1:{server.server_port}"
        self.pid = os.fork()
        if not self.pid:
            server.serve_forever()
        server.server_close()

    def stop(self) -> None:
        """End the server."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def enrol(self, state: Path) -> None:
        """Write what a device has after its enrolment."""
        state.mkdir(mode=0o700)
        for name in ("root.json", "root.copy.json"):
            (state / name).write_bytes((self.folder / "tuf" / "1.root.json").read_bytes())
        (state / "identity.json").write_text(json.dumps({"site": SITE, "device": DEVICE, "http_url": self.url}))


def make_scene(folder: Path) -> Scene:
    """Return a scene with four signed releases below ``folder``; its server does not run yet.

    The last one may be made by a patch from the second.
    """
    online = init_online_keys(folder)
    install_root(folder, init_keys(folder / "offline", online))
    (folder / "blobs").mkdir(exist_ok=True)
    bundles, releases = [], []
    for version in (1, 2, 3, 4):
        manifest = Manifest(
            model="m", version=version, target="t", security_floor=version,
            inputs=(TensorSpec(name="input", shape=(-1, 1, 8, 8)),), outputs=(TensorSpec(name="y", shape=(-1, 2)),),
            preprocessing=Preprocessing(width=8, height=8),
        )  # fmt: skip
        artifact = b"model %d" % version
        pad = b"".join(b"%032x" % (version << 64 | line) for line in range(_PAD_BYTES // 32))
        data = build_bundle(manifest, {"model.onnx": artifact, "gate.json": _GATE, "card.md": pad})
        bundles.append(folder / f"m-{version}.tfb")
        bundles[-1].write_bytes(data)
        (folder / "blobs" / sha256_hex(data)).write_bytes(data)
        wish = Desired(
            gen=version, release=f"m-{version}", target=target_path("m", version, "t"), sha256=sha256_hex(data),
            length_bytes=len(data), probation_s=4.0, attempt=version,
        )  # fmt: skip
        releases.append(Release(wish, sha256_hex(artifact)))
    signables = [read_signable(path, [bundles[1]] if path is bundles[3] else []) for path in bundles]
    for patch in signables[3].patches:
        (folder / "blobs" / sha256_hex(patch)).write_bytes(patch)
    root = read_root(folder / "offline")
    targets = read_targets(folder / "offline", root)
    add_targets(targets, signables)
    signed = sign_targets(targets, targets.version + 1, folder / "offline", root, TARGETS_DAYS)
    TrustRepository(folder, lambda: time.time_ns() // 1_000_000).publish_targets(signed, lambda _sha256: True)
    return Scene(folder, tuple(releases))


def _handler(folder: Path) -> type[BaseHTTPRequestHandler]:
    class Files(BaseHTTPRequestHandler):
        """``/tuf/NAME`` and ``/blobs/SHA256``, with ranges; head and body are one segment."""

        wbufsize = 128 * 1024

        def do_GET(self) -> None:
            """Answer."""
            path = folder / urlsplit(self.path).path.lstrip("/")
            if not path.is_file():
                self.send_error(404)
                return
            data, found = path.read_bytes(), _RANGE.match(self.headers.get("Range", ""))
            start = int(found[1]) if found else 0
            self.send_response(206 if found else 200)
            self.send_header("Content-Length", str(len(data) - start))
            if found:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            self.wfile.write(data[start:])

        def log_message(self, *_arguments: object) -> None:
            """Log nothing."""

    return Files
