"""The fleet without mosquitto: the same server and agents in this process, with the in-memory broker.

Not covered: the network between devices and broker, the broker's authentication, ACLs and persistence, and separate
processes for server and agents. Inference, probe and verification still run as processes; HTTP, TUF, spool, updates,
gates and pages are the real ones.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

from edge_agent.config import read_config
from edge_agent.control.agent import run as run_agent
from edge_agent.control.assembly import build_agent
from edge_agent.device import hardware
from edge_agent.device.identity import read_identity
from edge_agent.sources import placed
from scripts.story.console import StoryError
from scripts.story.fleet import Fleet
from scripts.story.plans import DevicePlan
from server.app.server import ServerApp
from server.client import FleetClient
from wire.memory_broker import MemoryBroker, MemoryTransport

LEFT_OUT = (
    "mosquitto can't be had here: server and agents run in this process on an in-memory broker; "
    "left out are the network, the broker's authentication, ACLs and persistence"
)
_JOIN_S = 20.0


@dataclass(slots=True)
class InProcessFleet(Fleet):
    """Server and agents as threads of the demo."""

    _broker: MemoryBroker = field(default_factory=MemoryBroker)
    _server: ServerApp | None = None
    _agents: dict[str, threading.Thread] = field(default_factory=dict)
    _stopping: threading.Event = field(default_factory=threading.Event)

    def start_server(self) -> FleetClient:
        """Start the server on the in-memory broker; return the operator's API."""
        self._server = ServerApp.open(
            self.server_dir, transport=MemoryTransport(broker=self._broker, client_id="server")
        )
        self._server.start()
        return FleetClient(self._server.http_url, self.server_dir / "operator.token", proxies=False)

    def start_agents(self, devices: tuple[DevicePlan, ...]) -> None:
        """Start the agents."""
        for device in devices:
            thread = threading.Thread(target=self._run_agent, args=(device.device,), name=device.device, daemon=True)
            thread.start()
            self._agents[device.device] = thread

    def _run_agent(self, device: str) -> None:
        state = self.state_dir(device)
        transport = MemoryTransport(broker=self._broker, client_id=device)
        config = read_config(state / "agent.toml")
        config = replace(config, source=placed(config.source, state))
        agent = build_agent(read_identity(state), config, state, runtimes=hardware.runtimes(), transport=transport)
        run_agent(agent, self._stopping.is_set)

    def check(self) -> None:
        """Check that all agents are running.

        Raises:
            StoryError: If one has ended; the message names it.
        """
        for device, thread in self._agents.items():
            if not thread.is_alive() and not self._stopping.is_set():
                message = f"Expected the agent of {device} to run, it has ended"
                raise StoryError(message)

    def stop(self) -> None:
        """Stop the agents, then the server."""
        self._stopping.set()
        for thread in self._agents.values():
            thread.join(_JOIN_S)
        if self._server is not None:
            self._server.stop()
