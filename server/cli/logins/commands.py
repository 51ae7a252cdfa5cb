"""``fleet-server login``, ``logout`` and ``whoami``: a server on another host, and the token for it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from server.cli.frame import JSON, coded, example, path_value, print_rows
from server.cli.logins.saved import SavedLogins
from server.cli.place import PLACE, AnyHost, ServerPlace, expect_encrypted, remember_place
from server.client import MAX_TOKEN_BYTES, FleetClient
from server.errors import ClientFileError, NotLoggedInError

_COLUMNS = ("server", "account", "kind", "role", "read_only")


@click.command(
    cls=AnyHost,
    epilog=example(
        "fleet-server login https://fleet.example.org:8080 --ca ca.pem",
        "fleet-server login https://fleet.example.org:8080 < ada.token",
    ),
)
@click.argument("url", metavar="URL")
@click.option(
    "--ca", type=click.Path(), callback=lambda *given: path_value(*given) if given[2] else None,
    help="PEM file of the authority to trust, such as ca.pem of the server's state. [the system's]",
)  # fmt: skip
@coded
def login(url: str, ca: Path | None) -> None:
    """Keep the server at URL and a token for it, for all commands from now on.

    Asks for the token on a terminal; elsewhere it is the first line of standard input. It is tried before it is kept,
    in a folder that only you can read ($XDG_CONFIG_HOME/tinyfleet). An admin issues tokens: "fleet-server tokens issue
    --user". With several servers the last login counts, and --server URL chooses another.
    """
    expect_encrypted(url)
    remember_place(click.get_current_context(), ServerPlace(url=url, chosen_by="URL"))
    logins = SavedLogins()
    trial = logins.try_out(url, _token(), _read(ca) if ca else b"")
    try:
        with FleetClient(trial.url, trial.token, ca=trial.ca or None) as server:
            me = server.request("GET", "/api/me")
        logins.keep(trial)
    finally:
        logins.forget_trial(trial.url)
    click.echo(f"{trial.url} as {me['account']}, {me['role']}")


@click.command(cls=AnyHost, epilog=example("fleet-server logout", "fleet-server logout https://fleet.example.org:8080"))
@click.argument("url", metavar="[URL]", required=False)
@coded
def logout(url: str | None) -> None:
    """Forget the server of the last login, or that at URL, and its token.

    The token itself stays valid until it expires or is revoked: "fleet-server tokens revoke".
    """
    logins = SavedLogins()
    gone = url or logins.current()
    if not gone or not logins.drop(gone):
        raise NotLoggedInError(f"Expected a login{f' at {gone}' if gone else ''}, got none: nothing was changed")
    click.echo(f"{gone} forgotten")


@click.command(
    cls=AnyHost, epilog=example("fleet-server whoami", "fleet-server whoami --json", "fleet-server whoami state")
)
@PLACE
@JSON
@coded
def whoami(place: ServerPlace, *, as_json: bool) -> None:
    """Print which server the other commands talk to, and the account and role of the token there."""
    with place.client() as server:
        row = {"server": server.url, **server.request("GET", "/api/me")}
    print_rows([row], _COLUMNS, as_json=as_json)


def add_commands(main: click.Group) -> None:
    """Add the commands to ``main``."""
    for command in (login, logout, whoami):
        main.add_command(command)


def _token() -> str:
    """Return the token that was typed, or the first line of standard input."""
    if sys.stdin.isatty():
        return str(click.prompt("Token", hide_input=True)).strip()
    token = sys.stdin.readline(MAX_TOKEN_BYTES + 1).strip()
    if not token:
        raise ClientFileError("Expected a token in the first line of standard input, got none: < FILE")
    return token


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ClientFileError(f"Expected PEM certificates in {path}, got: {error.strerror}: see --ca") from error
