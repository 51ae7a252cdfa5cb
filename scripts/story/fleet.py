"""The fleet of the demo: a server and six agents, each in its own process, as in the field.

Without mosquitto, ``scripts/story/in_process.py`` runs the same agents and the same server code with the in-memory
broker, in one process.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from scripts.story.console import Console
from scripts.story.plans import DevicePlan, Plan
from scripts.story.processes import Programs, run
from server.client import FleetClient

WINDOW_S = 3.0
BASELINE_WINDOWS = 12
PROBATION_S = 6.0

_AGENT_TOML = """\
[device]
attributes = {{{attributes}}}
[source]
kind = "directory"
path = "inbox"
[monitor]
window_s = {window_s}
infer_s = 3.0
hw_s = 15.0
rows_a_batch = 1
# Raw inputs never leave a device unless both it and the server (below) say how many bytes a day.
[samples]
max_bytes_per_day = 4000000
# What the model answers: all of it into a file on the device, STATE/answers/log.jsonl, and some to the server.
[sinks.log]
kind = "jsonl"
[sinks.server]
kind = "fleet"
every_s = 2.0
max_bytes_per_day = 100000000
[transport]
max_backoff_s = 5.0
ack_timeout_s = 10.0
"""

_SERVER_TOML = """\
# The demo shortens everything: windows of seconds instead of hours, and a baseline of {baseline} of them.
[drift]
window_ms = {window_ms}
baseline_windows = {baseline}
grace_ms = 1500
[retraining]
sample_bytes_per_day = 4000000
samples_per_request = {samples}
request_interval_s = 20.0
min_labelled = {labels}
source_block_s = 0.0 # the demo's devices draw their frames at random
auto_rollout = true
probation_s = {probation_s}
[rollout]
probation_s = {probation_s}
"""


@dataclass(slots=True)
class Fleet:
    """Server and agents as separate processes."""

    root: Path
    programs: Programs
    console: Console

    @property
    def server_dir(self) -> Path:
        """The server's state directory."""
        return self.root / "server"

    @property
    def keys(self) -> Path:
        """The build host's keys."""
        return self.root / "keys"

    def init(self, *, samples: int, labels: int) -> None:
        """Create the server's state and the keys; the root key never leaves the build host."""
        run("fleet-server", "init", str(self.server_dir), quiet=True)
        settings = _SERVER_TOML.format(
            baseline=BASELINE_WINDOWS,
            window_ms=int(WINDOW_S * 1000),
            samples=samples,
            labels=labels,
            probation_s=PROBATION_S,
        )
        (self.server_dir / "server.toml").write_text(settings)
        online = self.server_dir / "online.pub.json"
        run("compressor", "keys", "init", str(self.keys), "--online", str(online), quiet=True)
        root = self.keys / "metadata" / "1.root.json"
        run("fleet-server", "trust", str(self.server_dir), "--root", str(root), quiet=True)

    def start_server(self) -> FleetClient:
        """Start broker, ingest, store, REST and dashboard; return the operator's API."""
        self.programs.start("fleet-server", "fleet-server", "run", str(self.server_dir))
        address = self.console.wait_for("the server", self._address, limit_s=60)
        return FleetClient(address, self.server_dir / "operator.token", proxies=False)

    def _address(self) -> str | None:
        self.programs.check_alive()
        path = self.server_dir / "run" / "address.json"
        if not path.exists():
            return None
        url = str(json.loads(path.read_text())["http_url"])
        try:
            urllib.request.urlopen(url + "/api/health", timeout=2).close()  # noqa: S310 - our own loopback address
        except (urllib.error.URLError, OSError):
            return None
        return url

    def state_dir(self, device: str) -> Path:
        """Return a device's state directory."""
        return self.root / "devices" / device

    def inbox(self, device: str) -> Path:
        """Return the folder to which a device's camera writes its images."""
        return self.state_dir(device) / "inbox"

    def enrol(self, api: FleetClient, plan: Plan) -> None:
        """Claim and enrol all devices of the plan."""
        for device in plan.devices:
            attributes = dict(plan.attributes[device.device])
            body = {"site": device.site, "device": device.device, "attributes": attributes}
            claim = api.request("POST", "/api/claims", body)["claim"]
            state = self.state_dir(device.device)
            command = ("edge-agent", "enrol", "--server", api.url, "--claim-file", "-", "--state", str(state))
            run(*command, quiet=True, given=claim)
            inner = ", ".join(f"{key} = {json.dumps(value)}" for key, value in attributes.items())
            (state / "agent.toml").write_text(_AGENT_TOML.format(attributes=inner, window_s=WINDOW_S))

    def start_agents(self, devices: tuple[DevicePlan, ...]) -> None:
        """Start the agents."""
        for device in devices:
            state = self.state_dir(device.device)
            self.programs.start(
                device.device, "edge-agent", "run", "--state", str(state), "--config", str(state / "agent.toml")
            )

    def check(self) -> None:
        """Check that all programs are running."""
        self.programs.check_alive()

    def stop(self) -> None:
        """Stop all programs."""
        self.programs.stop_all()
