"""A real fleet on loopback: ``fleet-server run``, ``edge-agent run``, real keys, real bundles; nothing is simulated.

Every program has a session of its own, writes to a file and is ended by its process id.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import re
import shutil
import signal
import socket
import socketserver
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from compressor.devices.bench import ServerBench
from compressor.release.keys import init_keys
from compressor.release.publish import publish
from server.app.state_directory import init_state
from server.trust.authority import init_authority
from server.trust.online_keys import init_online_keys
from server.trust.roots import install_root
from wire.bundle import build_bundle
from wire.reference import write_reference

pytest.importorskip("onnx")
BIN = Path(sys.executable).parent
LIMIT_S = 60.0
PAUSE_S = 0.02
TERMINAL = {"committed", "refused", "rolled_back"}

SERVER_TOML = """\
turn_interval_s = 0.1
[drift]
window_ms = 1000
"""
AGENT_TOML = """\
[source]
kind = "directory"
path = "inbox"
[monitor]
window_s = 1.0
infer_s = 1.0
hw_s = 5.0
rows_a_batch = 1
[transport]
min_backoff_s = 0.1
max_backoff_s = 0.5
ack_timeout_s = 3.0
[child]
beat_s = 0.1
healthy_s = 0.3
restart_min_s = 0.1
[spool]
commit_s = 0.1
[update]
reserve_bytes = 0
retry_min_s = 0.1
retry_max_s = 0.5
{update}
"""


def tiny_models() -> ModuleType:
    """Return the module that makes small real models; imported late, because it needs onnx."""
    return importlib.import_module("tests.edge_agent.inference.conftest")


def wait_until(holds: Callable[[], object], what: str, pause_s: float = PAUSE_S) -> object:
    """Return the first true result of ``holds``; fail with ``what`` after the limit."""
    deadline_s = time.monotonic() + LIMIT_S
    while not (answer := holds()):
        if time.monotonic() > deadline_s:
            pytest.fail(f"Expected {what} in {LIMIT_S:.0f} s")
        time.sleep(pause_s)
    return answer


@dataclass
class Program:
    """A program in its own session; its output goes to ``log``, its connections to ``trace`` where that is set.

    With ``netns`` it runs in that network namespace.
    """

    command: list[str]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    trace: Path | None = None
    netns: str = ""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        watch = ["strace", "-D", "-f", "--seccomp-bpf", "-e", "trace=connect", "-o", str(self.trace)]
        inside = ["ip", "netns", "exec", self.netns]  # which becomes the program
        command = [*(inside if self.netns else ()), *(watch if self.trace else ())]
        command += [str(BIN / self.command[0]), *self.command[1:]]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, **self.environment},
            )  # fmt: skip

    def kill(self) -> None:
        """Kill -9 this one process; its children notice by themselves."""
        self.process.kill()
        self.process.wait(10)

    def ended(self) -> int:
        """Return the exit code of a program that should end by itself."""
        wait_until(lambda: self.process.poll() is not None, f"the end of {self.command[0]}\n{self.tail()}")
        return self.process.returncode

    def stop(self) -> None:
        """End it in order, by force after a while; its session too."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def tail(self) -> str:
        """Return the end of its output."""
        return self.log.read_text(errors="replace")[-2000:]


@dataclass
class Device:
    """One enrolled device and its agent."""

    fleet: Fleet
    name: str
    state: Path
    program: Program
    inbox: Path = Path()

    def __post_init__(self) -> None:
        """See images in the source's default folder."""
        self.inbox = self.state / "inbox"

    def document(self) -> dict:
        """Return the server's document of the device."""
        return self.fleet.get(f"/api/devices/{self.name}")

    def update(self) -> dict:
        """Return ``reported.update`` as the operator sees it."""
        return (self.document()["reported"] or {}).get("update", {})

    def status(self) -> dict:
        """Return the last content of ``status.json``."""
        try:
            return json.loads((self.state / "status.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return {}

    def reaches(self, phase: str, release: str) -> dict:
        """Wait until the operator sees ``phase`` for ``release``; another end fails at once."""

        def there() -> dict | None:
            update = self.update()
            about = update.get("release") == release
            if about and update["phase"] in TERMINAL - {phase}:
                pytest.fail(f"Expected {phase} of {release}, got {update}\n{self.program.tail()}")
            return update if about and update["phase"] == phase else None

        return wait_until(there, f"{self.name} {phase} {release}")

    def recorded(self, phase: str) -> bool:
        """Return whether the agent has persisted ``phase``."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return json.loads((self.state / "update.json").read_bytes())["phase"] == phase
        return False

    def current(self) -> str:
        """Return the release that the current slot points at, from the disk."""
        name = (self.state / "slots" / "current").read_text()
        return json.loads((self.state / "slots" / f"{name}.json").read_bytes())["release"]

    def boots(self) -> int:
        """Return how often the slot on probation was started without becoming healthy."""
        with contextlib.suppress(FileNotFoundError):
            return max(json.loads((self.state / "slots" / "boots.json").read_bytes()).values())
        return 0

    def codes(self) -> list[str]:
        """Return the codes of the update events that the operator sees, oldest first."""
        return [event["code"] for event in self.fleet.events(device=self.name) if event["kind"] == "update"]

    def held_bytes(self) -> int:
        """Return the length of the bundle's part, 0 if there is none."""
        return max((path.stat().st_size for path in (self.state / "blobs").rglob("*.part")), default=0)

    def children(self) -> list[int]:
        """Return the processes that the agent has started, all threads'."""
        found: list[int] = []
        for path in Path(f"/proc/{self.program.process.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # the thread has just ended
                found += map(int, path.read_text().split())
        return found

    def redirect(self, **addresses: object) -> None:
        """Change addresses in its identity, as a person does: what is sealed and doesn't fit is damaged."""
        path = self.state / "identity.json"
        identity = json.loads(path.read_bytes()) | addresses
        del identity["digest"]
        path.write_text(json.dumps(identity))

    def see(self, images: list[bytes], prefix: str = "") -> None:
        """Put images before the camera: written aside, then renamed."""
        self.inbox.mkdir(exist_ok=True)
        for number, data in enumerate(images):
            (self.inbox / f".{prefix}{number:04}").write_bytes(data)
            (self.inbox / f".{prefix}{number:04}").rename(self.inbox / f"{prefix}{number:04}.png")

    def unseen(self) -> int:
        """Return how many images wait."""
        return len(list(self.inbox.glob("[!.]*")))


@dataclass
class Fleet:
    """Server, keys, and the devices."""

    root: Path
    server: Program
    home: Path | None = None
    ca: Path | None = None
    client: httpx.Client | None = None
    devices: list[Device] = field(default_factory=list)

    @property
    def state(self) -> Path:
        """The server's state directory."""
        return self.root / "server"

    @property
    def keys(self) -> Path:
        """The build host's keys."""
        return self.root / "keys"

    @property
    def builder_token(self) -> str:
        """The build host's token."""
        return (self.state / "builder.token").read_text().strip()

    @property
    def mqtt_port(self) -> int:
        """The broker's port, as long as the server runs."""
        return json.loads((self.state / "run" / "address.json").read_bytes())["mqtt_port"]

    def kill_broker(self) -> None:
        """Kill -9 the server's mosquitto."""
        os.kill(int((self.state / "broker" / "mosquitto.pid").read_text()), signal.SIGKILL)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        address = self.state / "run" / "address.json"
        self.server.start()
        pid = self.server.process.pid

        def answers() -> bool:
            if self.server.process.poll() is not None:
                pytest.fail(self.server.tail())
            return address.exists() and json.loads(address.read_bytes())["pid"] == pid

        wait_until(answers, "the server")
        if self.client is not None:
            self.client.close()
        token = (self.state / "operator.token").read_text().strip()
        self.client = httpx.Client(
            base_url=json.loads(address.read_bytes())["http_url"], headers={"Authorization": f"Bearer {token}"},
            trust_env=False, timeout=20, verify=ssl.create_default_context(cafile=self.ca) if self.ca else True,
        )  # fmt: skip

    def get(self, path: str, **query: object) -> dict:
        """Return the answer to a GET."""
        answer = self.client.get(path, params=query)
        assert answer.is_success, answer.text
        return answer.json()

    def post(self, path: str, body: dict) -> dict:
        """Return the answer to a POST."""
        answer = self.client.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def events(self, **of: object) -> list[dict]:
        """Return the events, oldest first, ``of`` a device or all."""
        return self.get("/api/events", after=0, limit=1000, **of)["events"]

    def claim(self, name: str) -> str:
        """Return a new claim for a device."""
        return self.post("/api/claims", {"site": "site", "device": name, "attributes": {}})["claim"]

    def bench(self, wait_s: float = 40.0) -> ServerBench:
        """Return the build host's way to the fleet's devices."""
        url = str(self.client.base_url)
        return ServerBench(url=url, token=self.builder_token, keys=self.keys, ca=self.ca, wait_s=wait_s, poll_s=0.05)

    def rows(self, query: str) -> list[tuple]:
        """Return rows of the server's own store, read only."""
        with contextlib.closing(sqlite3.connect(f"file:{self.state / 'fleet.db'}?mode=ro", uri=True)) as database:
            return database.execute(query).fetchall()

    def counted(self) -> int:
        """Return the number of inferences in all stored windows."""
        return self.rows("select coalesce(sum(n), 0) from windows")[0][0]

    def inferences(self) -> int:
        """Return the number of inferences in all stored rows of ``tele/infer``."""
        batches = self.rows("select rows from batches where stream = 'infer'")
        return sum(row["n"] for (text,) in batches for row in json.loads(text))

    def add(self, name: str, update: str = "", *, http_port: int = 0) -> Device:
        """Claim, enrol and start a device; ``update`` is added to its table of that name.

        With ``http_port`` it reaches HTTP through a relay there.
        """
        device = self.enrol(name, self.root / name, update)
        if http_port:
            device.redirect(http_url=f"http://127.0.0.1:{http_port}")
        device.program.start()
        wait_until(lambda: device.status().get("connected"), f"{name} connected")
        return device

    def enrol(self, name: str, state: Path, update: str = "") -> Device:
        """Claim and enrol a device without starting it."""
        claim = self.claim(name)
        url = str(self.client.base_url)
        command = [str(BIN / "edge-agent"), "enrol", "--server", url, "--claim-file", "-", "--state", str(state)]
        command += ["--ca", str(self.ca)] if self.ca else []
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, input=claim.encode())
        (state / "agent.toml").write_text(AGENT_TOML.format(update=update))
        self.devices.append(Device(self, name, state, self.agent(name, state)))
        return self.devices[-1]

    def agent(self, name: str, state: Path) -> Program:
        """Return the program of an agent on ``state``."""
        command = ["edge-agent", "run", "--state", str(state), "--config", str(state / "agent.toml")]
        program = Program(command, self.root / f"{name}.log", {"OMP_NUM_THREADS": "1"})
        return self.watched(program) if self.home else program

    def watched(self, program: Program) -> Program:
        """Return ``program`` with its own home, and with every connection recorded."""
        program.environment = {**program.environment, "HOME": str(self.home), "XDG_CACHE_HOME": ""}
        program.trace = program.log.with_suffix(".trace")
        return program

    def build(self, version: int, *, pad_bytes: int = 0, floor: int = 0, artifact: bytes = b"", **files: bytes) -> Path:
        """Return a bundle of a tiny model that passed; ``pad_bytes`` of card make it larger."""
        models = tiny_models()
        artifact = artifact or models.tiny_onnx(version)
        manifest = replace(models.MANIFEST, version=version, security_floor=floor)
        entries = {
            "model.onnx": artifact,
            "reference.bin": write_reference(models.reference_for(artifact)),
            "golden.npz": models.golden_npz(manifest, artifact),
            "gate.json": b'{"schema": 1, "verdict": "pass", "gates": [], "figures": {}}',
            "card.md": b"#" * pad_bytes,
        } | {name.replace("_", "."): data for name, data in files.items()}
        path = self.root / f"tiny-{version}.tfb"
        path.write_bytes(build_bundle(manifest, entries))
        return path

    def release(self, version: int, **options: object) -> str:
        """Build, sign and publish a release; return its name."""
        path = self.build(version, **options)
        publish([path], keys=self.keys, server_url=str(self.client.base_url), token=self.builder_token, ca=self.ca)
        return f"tiny-{version}"

    def roll_out(self, release: str, probation_s: float = 0.5, canary: list[str] | None = None) -> str:
        """Roll a release out, to every device at once unless ``canary`` names the first; return the rollout's id."""
        self.settled()
        names = canary or [device.name for device in self.devices]
        body = {"release": release, "canary": names, "probation_s": probation_s, "approved": True}
        return self.post("/api/rollouts", body)["id"]

    def settled(self) -> None:
        """Wait until no rollout is running."""
        wait_until(lambda: "running" not in {item["phase"] for item in self.get("/api/rollouts")["rollouts"]}, "rest")

    def stop(self) -> None:
        """End every program."""
        for device in self.devices:
            device.program.stop()
        self.server.stop()
        if self.client is not None:
            self.client.close()


class Relay(socketserver.ThreadingTCPServer):
    """Passes bytes between a device and the server's HTTP port, and records the device's requests."""

    daemon_threads, allow_reuse_address, passes = True, True, True

    def __init__(self, server_port: int) -> None:
        """Listen on a free port."""
        self.server_port, self.asked, self.connections = server_port, b"", []
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server_address[1]

    def finish_request(self, request: socket.socket, _address: object) -> None:
        """Relay one connection until one side closes; end it at once while nothing ``passes``."""
        if not self.passes:
            return
        request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)  # what is cut must not be under way already
        self.connections.append(request)
        with socket.create_connection(("127.0.0.1", self.server_port)) as upstream:
            threading.Thread(target=self.pump, args=(upstream, request), daemon=True).start()
            self.pump(request, upstream)

    def refuse(self) -> None:
        """End every connection, and each new one until something ``passes`` again."""
        self.passes = False
        self.cut()

    def pump(self, source: socket.socket, sink: socket.socket) -> None:
        """Pass bytes on in one direction."""
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if sink.getpeername()[1] == self.server_port:
                    self.asked += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def handle_error(self, *_arguments: object) -> None:
        """Log nothing: the device was killed."""

    def cut(self) -> None:
        """End every connection."""
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def ranges(self) -> list[int]:
        """Return the first byte of each request for a bundle."""
        heads = [head for head in self.asked.split(b"\r\n\r\n") if head.startswith(b"GET /blobs/")]
        found = [re.search(rb"Range: bytes=(\d+)-", head) for head in heads]
        return [int(match[1]) if match else 0 for match in found]


Wait = Callable[..., object]


@pytest.fixture
def wait() -> Wait:
    """Wait until a condition is true."""
    return wait_until


@pytest.fixture
def images() -> list[bytes]:
    """Forty images."""
    models = tiny_models()
    return [models.png(image) for image in models.some_images(40)]


@pytest.fixture
def large_image() -> bytes:
    """An image of 16 megapixels, which takes a while to decode."""
    models = tiny_models()
    return models.png(models.some_images(1)[0].repeat(500, axis=0).repeat(500, axis=1))


@pytest.fixture
def relays(fleet: Fleet) -> Iterator[Callable[[int], Relay]]:
    """Make a relay before a port of the server, as often as it is called."""
    del fleet  # it ends after the relays
    made: list[Relay] = []

    def make(port: int) -> Relay:
        made.append(Relay(port))
        return made[-1]

    yield make
    for one in made:
        one.shutdown()
        one.server_close()


@pytest.fixture
def relay(fleet: Fleet, relays: Callable[[int], Relay]) -> Relay:
    """A relay before the server's HTTP port."""
    return relays(fleet.client.base_url.port)


@dataclass(frozen=True)
class BadLine:
    """The namespace ``netns`` behind a bad network, in which the fleet's ports are those of ``host``."""

    netns: str
    host: str
    link: str

    def received_bytes(self) -> int:
        """Return the bytes of all packets that arrived in the namespace."""
        inside = ["ip", "-j", "-s", "-n", self.netns, "link", "show", self.link]
        found = json.loads(subprocess.run(inside, check=True, capture_output=True).stdout)
        return found[0]["stats64"]["rx"]["bytes"]


@pytest.fixture
def bad_line() -> Iterator[Callable[..., BadLine]]:
    """Make the namespace: ``bad_line(ports, "--delay-ms", "50", …)``; each direction must have lost packets in the end.

    It has names of its own on this machine, so tests that run at once wait for each other.
    """
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
        pytest.skip("a network namespace with a TUN interface needs root and /dev/net/tun")
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(Path("/run/tinyfleet-test-line.lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = []

        def make(ports: list[int], *settings: str) -> BadLine:
            script = Path(__file__).parents[2] / "scripts" / "hil" / "network.py"
            command = [sys.executable, str(script), f"hil-{os.getpid()}", *settings]
            command += [f"--forward={port}" for port in ports]
            made.append(stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)))
            found = json.loads(made[0].stdout.readline())
            return BadLine(found["netns"], found["host"], found["link"])

        yield make
        for process in made:
            process.terminate()
            counts = json.loads(process.stdout.readline())
            assert min(counts[way]["lost"] for way in counts) > 0, counts
            assert min(counts[way]["passed"] for way in counts) > 100, counts


@pytest.fixture
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    """A running server with keys and trust, no devices yet.

    With the parameter ``watched`` under strace, with ``certified`` with a private authority, plus its settings.
    """
    if not shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/sbin"):
        pytest.skip("mosquitto is not installed")
    kind, _, settings = getattr(request, "param", "").partition(" ")
    state = init_state(tmp_path / "server", certificates=kind == "certified")
    state.config.write_text(SERVER_TOML + (state.config.read_text() + settings if kind == "certified" else ""))
    install_root(state.path, init_keys(tmp_path / "keys", init_online_keys(state.path)))
    made = Fleet(tmp_path, Program(["fleet-server", "run", str(state.path)], tmp_path / "server.log"))
    if kind == "certified":
        init_authority(state.authority, ["127.0.0.1"], round(time.time() * 1000))
        made.ca = state.authority / "ca.pem"
    if kind == "watched":
        made.home = tmp_path / "home"
        made.home.mkdir()
        made.watched(made.server)
    try:
        made.start()
        yield made
    finally:
        made.stop()
    assert "Traceback" not in made.server.tail(), made.server.tail()
