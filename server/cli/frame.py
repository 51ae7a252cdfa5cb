"""What the commands of ``fleet-server`` share: arguments, errors, tables, and the open database of a directory.

Exit codes: 0 done, 1 refused or failed (``error [code]: …`` on stderr), 2 wrong usage. From another host also: 3 no
answer, 4 a certificate that is not trusted, 5 no token or a wrong one, 6 a role that does not suffice, 7 a server
without that request, which is older.
"""

from __future__ import annotations

import errno
import sqlite3
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import click
import sqlalchemy as sa

from server.app.state_directory import open_state
from server.cli import listings
from server.cli.place import AnyHost, ServerPlace, chosen_place, is_server_known
from server.cli.place import path_value as path_value  # noqa: PLC0414 - commands take them from here
from server.cli.place import person as person  # noqa: PLC0414
from server.config import ServerConfig, read_config
from server.errors import (
    AnsweredError,
    ForbiddenError,
    NotAgreedError,
    NotLoggedInError,
    NotRunningError,
    ServerError,
    ServerUntrustedError,
    UnauthorizedError,
)
from server.ingest.faults import shortened
from server.people import MAX_WHY, Actor, ActorKind
from server.store.database import Database, next_step, open_database
from wire.errors import WireError
from wire.settings import nearest

P = ParamSpec("P")
R = TypeVar("R")
_OLDER = (
    ": the server is older than this command, or another program: update the server, or use the fleet-server of its "
    "version (the field version of /api/health)"
)


STATE = click.argument("directory", metavar="DIR", type=click.Path(), callback=path_value)
JSON = click.option("--json", "as_json", is_flag=True, help="A JSON array with every field instead of a table.")


def coded(command: Callable[P, R]) -> Callable[P, R]:
    """Return the command that prints errors with their code and ends with 1."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (ServerError, WireError) as error:
            place = chosen_place(click.get_current_context(silent=True))
            code = error.answered if isinstance(error, AnsweredError) else error.code
            advice, status = ("", 1) if place is None or place.directory is not None else _from_afar(code, place)
            click.echo(f"error [{code}]: {error}{advice}", err=True)
            sys.exit(status)
        except sa.exc.SQLAlchemyError as error:
            advice = next_step(error)
            if not isinstance(error, sa.exc.OperationalError):  # it answered
                advice += "; where it is damaged, restore it from the backup"
            click.echo(f"error [store]: Expected a usable store, got: {error.__cause__ or error}: {advice}", err=True)
        except sqlite3.Error as error:
            advice = "make room where the disk is full, remove what is there of the copy, and try again"
            click.echo(f"error [store]: Expected to copy the database, got: {error}: {advice}", err=True)
        except BrokenPipeError:
            raise  # click ends quietly where the reader of a pipe has gone, as "| head" does
        except OSError as error:
            click.echo(f"error {_refused_by_system(error)}", err=True)
        sys.exit(1)

    return run


def _from_afar(code: str, place: ServerPlace) -> tuple[str, int]:
    """Return the next step and the exit code of an error that another host's server, or the way to it, gave."""
    return {
        NotRunningError.code: (f"; the address is from {place.chosen_by}", 3),
        ServerUntrustedError.code: ("", 4),
        NotLoggedInError.code: ("", 5),
        UnauthorizedError.code: (f": fleet-server login {place.url}, or --token-file with a token of this server", 5),
        ForbiddenError.code: ("; fleet-server whoami shows the account", 6),
        "http_404": (_OLDER, 7),
        "http_405": (_OLDER, 7),
    }.get(code, ("", 1))


def _refused_by_system(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f" for {error.filename}" if error.filename else ""
        return f"[disk_full]: Expected room on the disk{place}, got none: free it"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        advice = "mount its file system writable, or run as the user that owns it"
        return f"[not_writable]: Expected to write {error.filename}, got: {error.strerror}: {advice}"
    return f"[os]: {error}"


def agreed(question: str, *, err: bool = False) -> None:
    """Return if a person agrees.

    Raises:
        NotAgreedError: If not, or nobody is there to answer.
    """
    try:
        yes = click.confirm(question, default=False, err=err)
    except click.Abort:
        click.echo(err=err)
        yes = False
    if not yes:
        raise NotAgreedError("Expected yes, got no: nothing was changed; --yes skips the question")


def example(*lines: str) -> str:
    """Return the epilog of a command with its examples."""
    return "\b\n" + "\n".join([f"Example{'s' if len(lines) > 1 else ''}:", *(f"  {line}" for line in lines)])


def pairs(given: Sequence[str]) -> dict[str, str]:
    """Return the pairs of ``--attribute KEY=VALUE``.

    Raises:
        click.BadParameter: If one is no pair, or two give a key different values.
    """
    found: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"Expected KEY=VALUE, got {text!r}", param_hint="--attribute")
        if key in found:
            message = f"Expected one value for {key}, got {found[key]!r} and {value!r}: give the one that holds"
            raise click.BadParameter(message, param_hint="--attribute")
        found[key] = value
    return found


def expect_reason(error: type[ServerError], name: str, ended: str, first: str, why: str) -> None:
    """Check that ``name`` was not ended before for another reason than ``why``.

    Raises:
        ServerError: If so, as ``error``.
    """
    if why and shortened(why, MAX_WHY) != first:
        reason = f"with the reason {first!r}" if first else "without a reason"
        said = f"Expected no other reason than the first, got {why!r} for {name}, which was {ended} {reason}"
        raise error(f"{said}: the first is kept; leave --why out")


class CommandGroup(click.Group):
    """A group whose commands may work from other hosts."""

    command_class = AnyHost


class Listing(CommandGroup):
    """A group whose first command, ``list``, may be left out: ``devices DIR`` is ``devices list DIR``.

    With a server of the environment or of a login, ``devices`` alone is ``devices list``, too.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert ``list`` before arguments that name no command.

        Raises:
            click.UsageError: If the first can only be a command, and there is none of that name.
        """
        if not args and not ctx.resilient_parsing and is_server_known():
            args = ["list"]
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            asked = any(one in ctx.help_option_names or one[:1] != "-" for one in args[1:])  # ``list`` takes one
            if asked and args[0][:1] != "-" and not Path(args[0]).exists():
                known = sorted(self.commands)
                message = f"Expected a command ({', '.join(known)}) or a state directory, got {args[0]!r}"
                raise click.UsageError(message + nearest(args[0], known), ctx)
            args = ["list", *args]
        return super().parse_args(ctx, args)


def print_rows(rows: Sequence[listings.Row], columns: Sequence[str], *, as_json: bool) -> None:
    """Print rows as TSV with these columns, or as JSON with every field."""
    click.echo(listings.as_json(rows) if as_json else listings.as_tsv(rows, columns))


def opened(directory: Path) -> tuple[ServerConfig, Database]:
    """Return the settings and the open database of a state directory.

    Raises:
        ServerError: If one of them can't be used; the subclass says why.
    """
    state = open_state(directory)
    config = read_config(state.config)
    return config, open_database(
        config.store.url or state.database_url, str(directory), may_be_new=not state.has_served()
    )


def console(by: str = "") -> Actor:
    """Return who runs a command on the server's machine: the user there, and for whom that user says to act."""
    user = person("")
    actor = Actor(account=user, kind=ActorKind.COMMAND, through="command line")
    return actor.saying(by)
