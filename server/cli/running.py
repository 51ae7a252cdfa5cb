"""The server that runs on a state directory, asked over REST with its operator's token.

What a person commands goes this way, so that the one process that carries rollouts out also decides what is allowed.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from server.app.state_directory import StateDirectory
from server.config import read_config
from server.errors import AnsweredError, NotRunningError
from wire.codec import Json

_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class RunningServer:
    """The server of ``state``."""

    state: StateDirectory

    def get(self, path: str, query: Mapping[str, str]) -> dict[str, Json]:
        """Return the answer to a GET of ``path``.

        Raises:
            NotRunningError: If no server answers.
            AnsweredError: If it refuses; with its own code and text.
        """
        return self._ask("GET", path, query, None)

    def post(self, path: str, body: Mapping[str, Json]) -> dict[str, Json]:
        """Return the answer to a POST of ``body``.

        Raises:
            NotRunningError: If no server answers.
            AnsweredError: If it refuses; with its own code and text.
        """
        return self._ask("POST", path, {}, body)

    def _ask(self, verb: str, path: str, query: Mapping[str, str], body: Mapping[str, Json] | None) -> dict[str, Json]:
        address = self.state.read_address()
        hint = f"fleet-server run {self.state.path}"
        if address is None:
            message = f"Expected a running server on {self.state.path}, got none: {hint}"
            raise NotRunningError(message)
        tls = read_config(self.state.config).tls
        trusted: ssl.SSLContext | bool = ssl.create_default_context(cafile=tls.ca) if tls.enabled else True
        token = {"Authorization": f"Bearer {self.state.token('operator')}"}
        try:
            with httpx.Client(base_url=address.http_url, trust_env=False, verify=trusted, timeout=_TIMEOUT_S) as client:
                answer = client.request(verb, path, params=dict(query), json=body, headers=token)
                found = answer.json()
        except (httpx.HTTPError, ValueError, OSError) as error:
            message = f"Expected a running server at {address.http_url}, got: {error}: {hint}"
            raise NotRunningError(message) from error
        if not answer.is_success:
            raise AnsweredError(str(found.get("code", answer.status_code)), str(found.get("text", answer.text[:500])))
        return dict(found)
