"""Where a command finds its server: a state directory DIR beside it, or an address, from any host.

One mechanism for every command. ``AnyHost`` is the class of all commands in the groups of ``fleet-server``; it looks
at what a command declares:

- ``@STATE`` (``server.cli.frame``) alone: works on the state directory itself, on the server's machine only;
  ``--server`` is refused and the message says so.
- ``@PLACE`` instead of ``@STATE``: only sends requests. The function gets ``place: ServerPlace`` and
  calls ``place.client()``: with DIR that is a client of the server that runs there, with ``operator.token``.
- ``@STATE``, and ``@afar(command)`` on a second function: works on the database with DIR, and over the API from
  elsewhere. The second function gets a ``ServerPlace`` and the same other arguments.

Which it is, in this order: ``--server URL``; a first argument that is a state directory, or that is written as a path
(with a "/") and no file; ``TINYFLEET_SERVER``; the server of the last ``fleet-server login``. Without any of them the
first argument is DIR, as on the server's machine. The token comes from a file that only its owner can read, never from
an argument: ``--token-file``, else ``TINYFLEET_TOKEN_FILE`` unless the address is that of the login, else the token
that ``login`` saved for this address. It is sent over https, or over http on the same machine, and nowhere else.
"""

from __future__ import annotations

import getpass
import ipaddress
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import urlsplit

import click

from server.app.state_directory import StateDirectory, open_state
from server.cli.logins.saved import SavedLogins
from server.client import FleetClient
from server.config import read_config
from server.errors import ClientFileError, NotLoggedInError, NotRunningError
from server.people import ActorKind
from wire.errors import PathError
from wire.paths import typed_path

P = ParamSpec("P")
R = TypeVar("R")
SERVER_VARIABLE, TOKEN_VARIABLE, CA_VARIABLE = "TINYFLEET_SERVER", "TINYFLEET_TOKEN_FILE", "TINYFLEET_CA_FILE"
_META, _DIR = "tinyfleet.place", "directory"
LOGIN, OPTION = "fleet-server login", "--server"
_OTHERS = 0o077


def _kept(name: str, ctx: click.Context, value: str | None) -> None:
    if value is not None:
        ctx.meta.setdefault(f"{_META}.given", {})[name] = value


_OPTIONS = (
    click.Option(
        ["--server"], metavar="URL", expose_value=False, callback=lambda ctx, _, value: _kept("server", ctx, value),
        help="Address of the server, instead of DIR. [TINYFLEET_SERVER, else that of fleet-server login]",
    ),
    click.Option(
        ["--token-file"], type=click.Path(), expose_value=False,
        callback=lambda ctx, _, value: _kept("token_file", ctx, value),
        help="File (0600) with the token to use. [TINYFLEET_TOKEN_FILE, else that of login, or DIR/operator.token]",
    ),
    click.Option(
        ["--ca"], type=click.Path(), expose_value=False, callback=lambda ctx, _, value: _kept("ca", ctx, value),
        help="PEM file of the authority to trust with --server. [TINYFLEET_CA_FILE, else that of login]",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPlace:
    """A server: by its state ``directory``, or by its ``url`` ("" with a directory).

    ``chosen_by``: what gave the address: "--server", "TINYFLEET_SERVER", "fleet-server login" or "DIR".
    """

    directory: Path | None = None
    url: str = ""
    token_file: str = ""
    ca: str = ""
    chosen_by: str = "DIR"

    @property
    def is_afar(self) -> bool:
        """Whether requests are sent under a token that was named, instead of working on the directory."""
        return self.directory is None or bool(self.token_file)

    def client(self) -> FleetClient:
        """Return a client of the server.

        Raises:
            NotRunningError: If no server has ever run on the directory.
            NotLoggedInError: If there is no token for the address.
            ClientFileError: If a file can't be used, others can read the token, or it would be sent readable.
            StateDirectoryError: If the directory is none of a server.
        """
        if self.directory is not None:
            return operator_client(open_state(self.directory), Path(self.token_file) if self.token_file else None)
        expect_encrypted(self.url)
        saved = SavedLogins().get(self.url)
        token = self.token_file or (str(saved.token) if saved else "")
        if not token:
            message = f"Expected a token for {self.url}, got none: fleet-server login {self.url}, or --token-file FILE"
            raise NotLoggedInError(message)
        _expect_private(Path(token))
        ca = self.ca or (saved.ca if saved else "")
        return FleetClient(self.url, token, ca=ca or None)

    def signer(self, server: FleetClient, by: str) -> str:
        """Return whom to name as who decides: ``by``, the person of a personal token, or the user of this machine."""
        if by or not self.is_afar:
            return person(by)
        me = server.request("GET", "/api/me")
        return str(me["account"]) if me.get("kind") == ActorKind.USER else person("")


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


def expect_encrypted(url: str) -> None:
    """Check that a token may be sent to ``url``.

    Raises:
        ClientFileError: If the address is none, or anybody on the way could read the token.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in {"http", "https"} or not host or parts.username or parts.query or parts.fragment:
        shown = url.rpartition("@")[2][:200]  # what stands before may be a password
        named = " with a name before it: the token is in a file" if "@" in url else ": see what run prints"
        raise ClientFileError(f"Expected an address as https://HOST:PORT, got {shown!r}{named}")
    if parts.scheme == "http" and not _is_this_machine(host):
        message = f"Expected https, got {url[:200]}: others on the way would read the token"
        raise ClientFileError(f"{message}: turn on [tls] of the server (docs/how-to/own-server.md), or use a tunnel")


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _expect_private(token: Path) -> None:
    try:
        mode = token.stat().st_mode
    except OSError as error:
        raise ClientFileError(f"Expected a token in {token}, got: {error.strerror}: see --token-file") from error
    if mode & _OTHERS:
        message = f"Expected a token file that only you can read, got {token} with mode {mode & 0o777:04o}"
        raise ClientFileError(f"{message}: chmod 600 {token}, and revoke the token if others may have read it")


class AnyHost(click.Command):
    """A command that takes DIR as its first argument, and may work from other hosts: see the module."""

    afar: Callable[..., Any] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as click declares it
        """Add the options that name a server, where the command has ``PLACE``."""
        super().__init__(*args, **kwargs)
        self.takes_place = any(isinstance(parameter, _PlaceArgument) for parameter in self.params)
        if self.takes_place:
            self.params.extend(_OPTIONS)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Choose the server, then parse without DIR if it is another host's.

        Raises:
            click.UsageError: If both DIR and ``--server`` are given, or a command that needs DIR gets ``--server``.
        """
        if not any(parameter.name == _DIR for parameter in self.params):
            return super().parse_args(ctx, args)
        if not (self.takes_place or self.afar):
            self._expect_no_server(ctx, args)
            return super().parse_args(ctx, args)
        place = None
        if not ctx.resilient_parsing and not set(ctx.help_option_names) & set(args):
            given = self.make_parser(ctx).parse_args(args=list(args))[0]
            texts = {name: value for name, value in given.items() if isinstance(value, str)}  # without click's "unset"
            place = ctx.meta[_META] = _chosen(ctx, texts.get(_DIR), texts.get("server"))
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if place is not None and place.chosen_by in {SERVER_VARIABLE, LOGIN}:
                message = (
                    f"{error.format_message()} The server is {place.url}, by {place.chosen_by}: no DIR is expected."
                )
                raise click.UsageError(message, ctx) from error
            if isinstance(error, click.MissingParameter) and error.param and error.param.name == _DIR:
                message = "Expected DIR, --server URL, TINYFLEET_SERVER or a fleet-server login URL before, got none"
                raise click.UsageError(message, ctx) from error
            raise

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the parameters; without DIR where the server is another host's."""
        place = ctx.meta.get(_META)
        without = place is not None and place.directory is None
        return [one for one in super().get_params(ctx) if not (without and one.name == _DIR)]

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click declares it
        """Call the function for where the server is.

        Raises:
            click.UsageError: If an option needs ``--server``.
        """
        if ctx.meta.get(_META) is None:
            return super().invoke(ctx)
        place = ctx.meta[_META] = _with_files(ctx)
        if not (self.takes_place or place.is_afar):
            return super().invoke(ctx)
        ctx.params.pop(_DIR, None)
        if self.takes_place:
            ctx.params["place"] = place
            return super().invoke(ctx)
        return ctx.invoke(self.afar, place, **ctx.params) if self.afar else None

    def _expect_no_server(self, ctx: click.Context, args: Sequence[str]) -> None:
        if any(word == OPTION or word.startswith(f"{OPTION}=") for word in args):
            message = f"{ctx.command_path} works on the server's own machine only: expected its state directory DIR"
            raise click.UsageError(f"{message} there, got {OPTION}", ctx)


class _PlaceArgument(click.Argument):
    """The argument DIR of a command that only sends requests."""


def path_value(_context: click.Context, _parameter: click.Parameter, value: str) -> Path:
    """Return the path that was typed; a usage error if it is none."""
    try:
        return typed_path(value)
    except PathError as error:
        raise click.BadParameter(str(error)) from error


PLACE = click.argument(_DIR, cls=_PlaceArgument, metavar="DIR", type=click.Path(), callback=path_value)
"""Gives a command DIR or ``--server``; its function gets a ``ServerPlace`` as ``place``."""


def afar(
    command: click.Command,
) -> Callable[[Callable[Concatenate[ServerPlace, P], R]], Callable[Concatenate[ServerPlace, P], R]]:
    """Return a decorator of the function that does what ``command`` does, but from another host.

    It gets the ``ServerPlace``, and the other arguments of the command by name.

    Raises:
        TypeError: If the command is not in a group of ``fleet-server``.
    """
    if not isinstance(command, AnyHost):
        message = f"Expected a command of a group of fleet-server, got {command!r}: give it cls=AnyHost"
        raise TypeError(message)

    def take(function: Callable[Concatenate[ServerPlace, P], R]) -> Callable[Concatenate[ServerPlace, P], R]:
        command.afar = function
        command.params.extend(_OPTIONS)
        return function

    return take


def chosen_place(ctx: click.Context | None) -> ServerPlace | None:
    """Return where the command that runs finds its server, None if it takes none or did not choose yet."""
    return None if ctx is None else ctx.meta.get(_META)


def remember_place(ctx: click.Context, place: ServerPlace) -> None:
    """Let errors of the command that runs be told as those of the server at ``place``."""
    ctx.meta[_META] = place


def is_server_known() -> bool:
    """Return whether a command without DIR has a server: of the environment, or of a login."""
    try:
        return bool(os.environ.get(SERVER_VARIABLE) or SavedLogins().current())
    except ClientFileError:
        return False


def person(by: str) -> str:
    """Return the name of the person who decides: ``by``, or the user who runs this."""
    try:
        return by or getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        return f"uid {os.getuid()}"


def _chosen(ctx: click.Context, first: str | None, server: str | None) -> ServerPlace:
    """Return the server by the first argument and ``--server``; its files come later."""
    is_state = bool(first) and StateDirectory(Path(str(first))).config.is_file()
    if server is not None:
        if is_state:
            raise click.UsageError(f"Expected DIR or {OPTION}, one of them, got {first!r} and {server!r}", ctx)
        return ServerPlace(url=server.rstrip("/"), chosen_by=OPTION)
    is_path = first is not None and (os.sep in first or first in {"", os.curdir, os.pardir})
    if first is not None and (is_state or (is_path and not Path(first).is_file())):
        return ServerPlace(directory=Path(first))
    try:
        by_environment, by_login = os.environ.get(SERVER_VARIABLE, ""), SavedLogins().current()
    except ClientFileError as error:
        raise click.UsageError(str(error), ctx) from error
    if by_environment:
        return ServerPlace(url=by_environment.rstrip("/"), chosen_by=SERVER_VARIABLE)
    return ServerPlace(url=by_login, chosen_by=LOGIN) if by_login else ServerPlace(directory=Path(first or "."))


def _with_files(ctx: click.Context) -> ServerPlace:
    """Return the chosen server with the directory, the token and the authority that were given."""
    place: ServerPlace = ctx.meta[_META]
    given: Mapping[str, str] = ctx.meta.get(f"{_META}.given", {})
    token_file, ca = given.get("token_file", ""), given.get("ca", "")
    if place.directory is not None:
        if ca:
            raise click.UsageError(f"Expected --ca beside {OPTION}, got it beside DIR, whose [tls] has it", ctx)
        return ServerPlace(directory=ctx.params[_DIR], token_file=token_file)
    if place.chosen_by != LOGIN:
        token_file = token_file or os.environ.get(TOKEN_VARIABLE, "")
        ca = ca or os.environ.get(CA_VARIABLE, "")
    return ServerPlace(url=place.url, token_file=token_file, ca=ca, chosen_by=place.chosen_by)
