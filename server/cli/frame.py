"""What the commands of ``fleet-server`` share: arguments, errors, tables, and the open database of a directory.

Exit codes: 0 done, 1 refused or failed (``error [code]: …`` on stderr), 2 wrong usage.
"""

from __future__ import annotations

import errno
import getpass
import os
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
from server.config import ServerConfig, read_config
from server.errors import AnsweredError, NotAgreedError, ServerError
from server.people import Actor, ActorKind
from server.store.database import Database, next_step, open_database
from wire.errors import PathError, WireError
from wire.paths import typed_path
from wire.settings import nearest

P = ParamSpec("P")
R = TypeVar("R")


def path_value(_context: click.Context, _parameter: click.Parameter, value: str) -> Path:
    """Return the path that was typed; a usage error if it is none."""
    try:
        return typed_path(value)
    except PathError as error:
        raise click.BadParameter(str(error)) from error


STATE = click.argument("directory", metavar="DIR", type=click.Path(), callback=path_value)
JSON = click.option("--json", "as_json", is_flag=True, help="A JSON array with every field instead of a table.")


def coded(command: Callable[P, R]) -> Callable[P, R]:
    """Return the command that prints errors with their code and ends with 1."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except AnsweredError as error:
            click.echo(f"error [{error.answered}]: {error}", err=True)
        except (ServerError, WireError) as error:
            click.echo(f"error [{error.code}]: {error}", err=True)
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


class Listing(click.Group):
    """A group whose first command, ``list``, may be left out: ``devices DIR`` is ``devices list DIR``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert ``list`` before arguments that name no command.

        Raises:
            click.UsageError: If the first can only be a command, and there is none of that name.
        """
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


def person(by: str) -> str:
    """Return the name of the person who decides: ``by``, or the user who runs this."""
    try:
        return by or getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        return f"uid {os.getuid()}"


def console(by: str = "") -> Actor:
    """Return who runs a command on the server's machine: the user there, and for whom that user says to act."""
    user = person("")
    actor = Actor(account=user, kind=ActorKind.COMMAND, through="command line")
    return actor.saying(by)
