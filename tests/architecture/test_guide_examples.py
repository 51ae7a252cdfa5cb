"""Every Python block of the guide to the Python API and of the README is run, one after another, on real things."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from compressor.release.keys import init_keys
from compressor.release.publish import publish
from server.app.server import ServerApp
from server.app.state_directory import init_state
from server.trust.online_keys import init_online_keys
from server.trust.roots import install_root
from wire.bundle import build_bundle
from wire.manifest import Manifest, Preprocessing, TensorSpec
from wire.memory_broker import MemoryBroker, MemoryTransport
from wire.messages import Sample

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:8080"
RECIPE = """
[model]
name = "tiny"
network = "resnet8"
network_options = {filters = 4, stem_stride = 2}
[data]
dataset = "arrays"
path = "tiny.npz"
width = 8
height = 8
colour = "grey"
[gates]
size_bytes = {max = 1000000}
"""


def _release(folder: Path) -> Path:
    """Write a bundle that passed its gate, for another target than this host."""
    manifest = Manifest(
        model="digits", version=1, target="gateway", inputs=(TensorSpec(name="input", shape=(-1, 1, 8, 8)),),
        outputs=(TensorSpec(name="logits", shape=(-1, 10)),), preprocessing=Preprocessing(width=8, height=8),
    )  # fmt: skip
    gate = b'{"schema": 1, "verdict": "pass", "figures": {}}'
    path = folder / "digits-1-gateway.tfb"
    path.write_bytes(build_bundle(manifest, {"model.onnx": b"model", "gate.json": gate}))
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerApp]:
    """A server over HTTP in ``state``, its keys in ``keys``: a release, a device and an unlabelled sample."""
    state = init_state(tmp_path / "state")
    install_root(state.path, init_keys(tmp_path / "keys", init_online_keys(state.path)))
    app = ServerApp.open(state.path, transport=MemoryTransport(broker=MemoryBroker(), client_id="server"), pages=False)
    try:
        app.connect()
        app.web.start()
        token = state.token("builder")
        publish([_release(tmp_path)], keys=tmp_path / "keys", server_url=app.http_url, token=token)
        enrolment = app.parts.enrolment
        enrolment.enrol(enrolment.claim("north", "cam-1", {}))
        data = b"\x89PNG picture"
        digest, text = hashlib.sha256(data).hexdigest(), base64.b64encode(data).decode()
        app.parts.retraining.samples.accept("cam-1", Sample(boot="b", seq=1, at_ms=1, sha256=digest, data=text), 1)
        yield app
    finally:
        app.stop()


def _blocks(page: str, address: str) -> Iterator[object]:
    """Yield the code of each Python block of ``page``, its lines numbered as in the page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        above = text.count("\n", 0, found.start(1))
        yield compile("\n" * above + found[1].replace(ADDRESS, address), page, "exec")


@pytest.mark.slow
def test_every_block_runs_as_it_stands(
    server: ServerApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the order of the page, in one namespace, as in a notebook; the output is that on the page."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (600, 8, 8), dtype=np.uint8), rng.integers(0, 2, 600)
    np.savez("tiny.npz", x=x, y=y, class_names=np.array(["a", "b"]))
    Path("recipe.toml").write_text(RECIPE, encoding="utf-8")
    names: dict[str, object] = {"__name__": "guide"}
    for page in ("docs/reference/python-api.md", "README.md"):
        for code in _blocks(page, server.http_url):
            exec(code, names)  # type: ignore[arg-type]  # noqa: S102 - our own page
    said = capsys.readouterr().out.splitlines()
    for wanted in ("signature not checked", "unknown_target", "cam-1 north", "True"):
        assert any(wanted in line for line in said), wanted
    assert [sample.label for sample in server.parts.retraining.samples.latest()] == ["7"]
