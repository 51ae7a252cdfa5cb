"""Submits a report to the server: one PUT with the device's own password, retried while the server is unreachable."""

from __future__ import annotations

import base64
import urllib.parse
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from edge_agent.updater.download import FetchSettings, connection
from edge_agent.updater.ports import Progress, Refusal

_OK = range(200, 300)
_FINAL = range(300, 500)
_TRY_AGAIN = frozenset({408, 425, 429})
_ANSWER_BYTES = 4096


def hand_in(settings: FetchSettings, address: str, report: Path, progress: Progress) -> Refusal | None:
    """Send the file ``report`` to ``address`` below the server's URL; return None, or why it was refused."""
    reason = ""
    for attempt in range(settings.attempts):
        if progress.cancelled.is_set():
            break
        try:
            status, said = _put(settings, address, report)
            if status in _OK:
                return None
            reason = f"HTTP {status}: {said}"
            if status in _FINAL and status not in _TRY_AGAIN:
                return Refusal(f"http_{status}", f"Expected the server to take the report, got {reason}")
        except (OSError, HTTPException) as error:
            reason = f"{type(error).__name__}: {error}"
        progress.cancelled.wait(min(settings.retry_max_s, settings.retry_min_s * 2.0**attempt))
    return Refusal("report_undelivered", f"Expected the server to take the report, got {reason}")


def _put(settings: FetchSettings, address: str, report: Path) -> tuple[int, str]:
    secret = base64.b64encode(f"{settings.username}:{settings.password}".encode()).decode()
    link = connection(settings)
    try:
        prefix = urllib.parse.urlsplit(settings.base_url).path.rstrip("/")
        headers = {"Authorization": f"Basic {secret}", "Content-Length": str(report.stat().st_size)}
        with report.open("rb") as body:
            link.request("PUT", prefix + address, body=body, headers=headers)
        answer: HTTPResponse = link.getresponse()
        return answer.status, answer.read(_ANSWER_BYTES).decode(errors="replace")[:200]
    finally:
        link.close()
