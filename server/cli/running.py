"""A REST client of the server that runs on a state directory, with its operator's token.

A person's commands take this way, so that the one process that runs rollouts also decides what is allowed.
"""

from __future__ import annotations

from pathlib import Path

from server.app.state_directory import StateDirectory
from server.client import FleetClient
from server.config import read_config
from server.errors import NotRunningError


def operator_client(state: StateDirectory, token: Path | None = None) -> FleetClient:
    """Return a client of the server that ran on ``state`` last, with the operator's token, or that of another file.

    Raises:
        NotRunningError: If none has ever run.
        ClientFileError: If its token or its certificates can't be read.
        ConfigError: If its settings can't be read.
    """
    address = state.read_address()
    if address is None:
        message = f"Expected a running server on {state.path}, got none: fleet-server run {state.path}"
        raise NotRunningError(message)
    tls = read_config(state.config).tls
    return FleetClient(
        address.http_url, token or state.path / "operator.token", ca=tls.ca if tls.enabled else None, proxies=False
    )
