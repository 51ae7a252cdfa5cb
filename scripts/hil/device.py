#!/usr/bin/env python3
"""Hardware in the loop: checks whether a real device is fit, through its server, and prints a verdict.

    scripts/hil/device.py --server URL --token-file state/operator.token --device cam-1 [--release digits-2] [--json]

Checks, in this order: the server knows the device; it is online; it runs (or has committed) the release; its last
update did not fail; it passes a self-test; it reported a drift window recently. Exit code 0: fit, 1: not, 2: usage.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import httpx

_ONLINE = frozenset({"init", "ready", "degraded", "updating"})
_BAD_ENDS = frozenset({"rolled_back", "refused"})
_MISSED_WINDOWS, _GRACE_S = 3, 30.0
_POLL_S = 0.5
_ANSWER_S = 60.0
_ERROR = 400


@dataclass(frozen=True, slots=True)
class Check:
    """One check and its result."""

    name: str
    ok: bool
    text: str


@dataclass(frozen=True, slots=True)
class Server:
    """The REST interface."""

    url: str
    token: str

    def ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - whatever JSON the server answers
        """Return the JSON answer.

        Raises:
            click.ClickException: If the server can't be reached or refuses.
        """
        headers = {"Authorization": f"Bearer {self.token}"}
        try:
            answer = httpx.request(method, self.url.rstrip("/") + path, json=body, headers=headers, timeout=30)
        except httpx.HTTPError as error:
            message = f"error [server_unreachable]: Expected a server at {self.url}, got: {error}"
            raise click.ClickException(message) from error
        if answer.status_code >= _ERROR:
            message = f"error [{answer.status_code}]: {path}: {answer.text[:300]}"
            raise click.ClickException(message)
        return answer.json()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--server", "url", required=True, help="The server, http://host:port.")
@click.option("--token-file", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--device", required=True, help="The device's id.")
@click.option("--release", default="", help="The release it must run; default: the one the server desires.")
@click.option("--window-s", default=3600.0, show_default=True, help="The length of the device's drift windows.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tab-separated lines.")
def main(url: str, token_file: Path, device: str, release: str, window_s: float, *, as_json: bool) -> None:
    """Check whether a device is fit for a rollout."""
    server = Server(url, token_file.read_text().strip())
    checks = [*_standing(server, device, release), _selftest(server, device), _window(server, device, window_s)]
    if as_json:
        click.echo(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        for check in checks:
            click.echo(f"{'ok' if check.ok else 'FAILED'}\t{check.name}\t{check.text}")
    sys.exit(0 if all(check.ok for check in checks) else 1)


def _standing(server: Server, device: str, release: str) -> Iterator[Check]:
    known = server.ask("GET", f"/api/devices/{device}")
    yield Check("online", known["last_seen_ms"] > 0 and known["state"] in _ONLINE, known["state"])
    wanted = release or known["desired_release"]
    yield Check(
        "release", known["release"] == wanted, f"runs {known['release'] or 'nothing'}, wanted {wanted or 'none'}"
    )
    update = (known["reported"] or {}).get("update") or {}
    phase, code = update.get("phase", "idle"), update.get("code", "")
    yield Check("last update", phase not in _BAD_ENDS, f"{phase} {code}".strip())


def _selftest(server: Server, device: str) -> Check:
    path = f"/api/devices/{device}/commands"
    sent = server.ask("POST", path, {"verb": "selftest", "ttl_s": _ANSWER_S})
    deadline_s = time.monotonic() + _ANSWER_S
    while time.monotonic() < deadline_s:
        answer = server.ask("GET", f"{path}/{sent['id']}")
        if answer["answered_ms"]:
            return Check("self-test", answer["ok"], answer["text"] or json.dumps(answer["data"]))
        time.sleep(_POLL_S)
    return Check("self-test", ok=False, text=f"no answer within {_ANSWER_S:g} s")


def _window(server: Server, device: str, window_s: float) -> Check:
    rows = server.ask("GET", f"/api/evidence?device={device}&limit=1")["evidence"]
    if not rows:
        return Check("drift window", ok=False, text="none yet")
    age_s = time.time() - rows[0]["start_ms"] / 1000
    text = f"newest began {age_s:.0f} s ago, {rows[0]['n']} inferences, {rows[0]['phase']}"
    return Check("drift window", age_s < _MISSED_WINDOWS * window_s + _GRACE_S, text)


if __name__ == "__main__":
    main()
