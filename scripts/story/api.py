"""The REST API as a person would use it: a token in a header, JSON both ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from scripts.story.console import StoryError

_ERROR = 400


@dataclass(slots=True)
class Api:
    """A client of ``fleet-server``."""

    url: str
    token: str

    def get(self, path: str, **query: str | int) -> Any:  # noqa: ANN401 - whatever JSON the server answers
        """Return the JSON at ``path``."""
        return self._answer(httpx.get(self.url + path, params=query, headers=self._headers(), timeout=30))

    def send(self, method: str, path: str, body: object) -> Any:  # noqa: ANN401 - whatever JSON the server answers
        """Send ``body`` and return the JSON answer."""
        return self._answer(httpx.request(method, self.url + path, json=body, headers=self._headers(), timeout=30))

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def _answer(self, response: httpx.Response) -> Any:  # noqa: ANN401 - whatever JSON the server answers
        if response.status_code >= _ERROR:
            message = f"Expected {response.request.url.path} to work, got {response.status_code}: {response.text[:300]}"
            raise StoryError(message)
        return response.json() if response.content else None
