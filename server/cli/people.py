"""``fleet-server users`` and ``tokens``, and the log of acts: ``audit verify``, ``audit head``, ``audit export``.

With DIR they work on the state directory itself, also beside a running server and before the first user exists:
whoever may write there may do everything anyway. Each change is in the log under the name of the user of this machine.
From another host an admin's token does the same over the API (``server.cli.afar``).
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from server.access.audit_log import AuditLog, ChainFinding, parsed_anchor
from server.access.passwords import MIN_LETTERS
from server.access.roles import PEOPLES, Role
from server.access.tokens import MAX_DAYS, IssuedToken, TokenOrder, Tokens
from server.access.users import User, Users
from server.app.services import build_users
from server.cli import listings
from server.cli.frame import JSON, STATE, Listing, coded, console, example, opened, print_rows
from server.cli.place import AnyHost
from server.clock import system_now_ms
from server.errors import AuditLogBrokenError, UserRefusedError
from server.store.database import Database

_NAME = click.argument("name", metavar="NAME")
_ROLE = click.option(
    "--role", type=click.Choice([role.value for role in PEOPLES]), required=True, help="What it may do."
)
_SAID = click.option("--by", default="", help="For whom you act, if not for yourself; it is recorded.")
USER_COLUMNS = ("name", "role", "created_ms", "created_by", "disabled_ms", "last_login_ms")
TOKEN_COLUMNS = (
    "id", "name", "kind", "owner", "role", "read_only", "created_ms", "expires_ms", "revoked_ms", "last_used_ms",
)  # fmt: skip


@click.group(
    cls=Listing,
    epilog=example("fleet-server users state", "fleet-server users add state ada --role approver"),
)
def users() -> None:
    """Print the people who may log in; add, change or disable one.

    "fleet-server users DIR" is short for "fleet-server users list DIR". Roles, each with the rights of those before:
    viewer, labeller, operator, approver, admin.
    """


@users.command("list", epilog=example("fleet-server users list state --json"))
@STATE
@JSON
@coded
def users_list(directory: Path, *, as_json: bool) -> None:
    """Print the users.

    Tab-separated values with a header line. disabled_ms: since when it can't log in, 0 while it can.
    """
    known, database = _users(directory)
    rows = [_user_row(one) for one in known.all()]
    database.close()
    print_rows(rows, USER_COLUMNS, as_json=as_json)


@users.command(
    epilog=example(
        "fleet-server users add state ada --role approver", "fleet-server users add state ada --role viewer < password"
    )
)
@STATE
@_NAME
@_ROLE
@_SAID
@coded
def add(directory: Path, name: str, role: str, by: str) -> None:
    """Add the user NAME.

    Asks for the password twice on a terminal; elsewhere it is the first line of standard input. At least 12 letters.
    """
    known, database = _users(directory)
    made = known.add(name, role, read_password(), by=console(by))
    database.close()
    click.echo(f"{made.name} {made.role}")


@users.command(epilog=example("fleet-server users role state ada --role operator"))
@STATE
@_NAME
@_ROLE
@_SAID
@coded
def role(directory: Path, name: str, role: str, by: str) -> None:
    """Give the user NAME another role, at once, also in open sessions and for personal tokens."""
    known, database = _users(directory)
    found = known.set_role(name, role, by=console(by))
    database.close()
    click.echo(f"{found.name} {found.role}")


@users.command(epilog=example("fleet-server users disable state ada"))
@STATE
@_NAME
@_SAID
@coded
def disable(directory: Path, name: str, by: str) -> None:
    """End the sessions and personal tokens of the user NAME, who can't log in any more.

    The name stays with what was done under it, and is given to nobody else. "users enable" takes it back.
    """
    known, database = _users(directory)
    known.disable(name, by=console(by))
    database.close()
    click.echo(f"{name} disabled")


@users.command(epilog=example("fleet-server users enable state ada"))
@STATE
@_NAME
@_SAID
@coded
def enable(directory: Path, name: str, by: str) -> None:
    """Let the disabled user NAME log in again."""
    known, database = _users(directory)
    known.enable(name, by=console(by))
    database.close()
    click.echo(f"{name} enabled")


@users.command(epilog=example("fleet-server users password state ada"))
@STATE
@_NAME
@_SAID
@coded
def password(directory: Path, name: str, by: str) -> None:
    """Give the user NAME another password, read as by "users add", and end the sessions of before."""
    known, database = _users(directory)
    known.get(name)
    known.set_password(name, read_password(), by=console(by))
    database.close()
    click.echo(f"{name} has another password; its sessions have ended")


@click.group(
    cls=Listing,
    epilog=example("fleet-server tokens state", "fleet-server tokens issue state grafana --role viewer --read-only"),
)
def tokens() -> None:
    """Print the tokens of programs; issue or revoke one.

    "fleet-server tokens DIR" is short for "fleet-server tokens list DIR". The tokens in the files operator.token and
    builder.token are not among them: replace the file to change one, and start the server anew.
    """


@tokens.command("list", epilog=example("fleet-server tokens list state --json"))
@STATE
@JSON
@coded
def tokens_list(directory: Path, *, as_json: bool) -> None:
    """Print the tokens, without their secrets; the newest first.

    Tab-separated values with a header line. owner: the user of a personal token. expires_ms: 0 for never;
    last_used_ms: exact to a minute, 0 for never.
    """
    known, database = _tokens(directory)
    rows = [_token_row(one) for one in known.all()]
    database.close()
    print_rows(rows, TOKEN_COLUMNS, as_json=as_json)


@tokens.command(
    epilog=example(
        "fleet-server tokens issue state grafana --role viewer --read-only > grafana.token",
        "fleet-server tokens issue state build-2 --role builder --days 30 > builder.token",
        "fleet-server tokens issue state notebook --user ada --role operator > ada.token",
    )
)
@STATE
@_NAME
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True, help="What it may do at most.")
@click.option("--user", "owner", default="", help="The user whose personal token it is. [a service token]")
@click.option("--read-only", is_flag=True, help="It changes nothing, whatever its role.")
@click.option(
    "--days", type=click.FloatRange(0, MAX_DAYS), default=90.0, show_default=True, help="Until it expires; 0: never."
)
@_SAID
@coded
def issue(  # noqa: PLR0913 - one argument a command-line option
    directory: Path, name: str, role: str, owner: str, days: float, by: str, *, read_only: bool
) -> None:  # fmt: skip
    """Issue the token NAME, and print it: nobody can read it again.

    A personal token acts under its user's name, with at most the role that the user has at that moment. Its id, for
    "tokens revoke", stands on standard error.
    """
    known, database = _tokens(directory)
    order = TokenOrder(name=name, role=role, owner=owner, read_only=read_only, days=days)
    made, secret = known.issue(order, by=console(by))
    database.close()
    click.echo(secret)
    click.echo(f"id {made.id}", err=True)


@tokens.command(epilog=example("fleet-server tokens revoke state 3f2a91c0"))
@STATE
@click.argument("token", metavar="ID")
@_SAID
@coded
def revoke(directory: Path, token: str, by: str) -> None:
    """Revoke the token with this ID: it is refused from the next request on."""
    known, database = _tokens(directory)
    found = known.revoke(token, by=console(by))
    database.close()
    click.echo(f"{found.id} {found.name} revoked")


def record_commands(group: click.Group) -> None:
    """Add the commands on the log of acts to ``audit``."""
    for command in (verify, head, export_acts):
        group.add_command(command)


@click.command(
    cls=AnyHost,
    epilog=example(
        "fleet-server audit verify state && echo nothing was changed",
        'fleet-server audit verify state --anchor "$(cat /backups/anchor)"',
    ),
)
@STATE
@click.option("--anchor", metavar="SEQ:SHA256", help="What audit head printed before, kept elsewhere.")
@coded
def verify(directory: Path, anchor: str | None) -> None:
    """Check that no record of the log of acts was changed, removed, inserted or moved.

    Prints how many records there are, or the first that is wrong, and ends with 1. Somebody who may write the database
    could remove the newest records, or write all anew from some record on: only --anchor shows that.
    """
    _, database = opened(directory)
    found = AuditLog(database).verify(None if anchor is None else parsed_anchor(anchor))
    database.close()
    print_finding(found)


def print_finding(found: ChainFinding) -> None:
    """Print what a check of the log of acts found.

    Raises:
        AuditLogBrokenError: If a record is wrong.
    """
    if found.broken_seq:
        message = f"Expected a whole log of acts, got one that breaks at record {found.broken_seq}: {found.why}"
        raise AuditLogBrokenError(f"{message}: compare it with a backup, and find out who may write the database")
    click.echo(f"{found.count} records, none was changed")
    click.echo(f"head {found.count}:{found.head_sha256}")


@click.command(cls=AnyHost, epilog=example("fleet-server audit head state > /backups/anchor"))
@STATE
@coded
def head(directory: Path) -> None:
    """Print number and hash of the newest record of the log of acts, as SEQ:SHA256.

    Kept on another machine, it is the anchor for "audit verify": what was recorded until then can't be changed
    unnoticed.
    """
    _, database = opened(directory)
    seq, sha256 = AuditLog(database).head()
    database.close()
    click.echo(f"{seq}:{sha256}")


@click.command("export", cls=AnyHost, epilog=example("fleet-server audit export state > acts.jsonl"))
@STATE
@coded
def export_acts(directory: Path) -> None:
    """Print the log of acts, a line of JSON each, oldest first.

    sha256 is that of previous_sha256 followed by the record without these two, as canonical JSON (keys sorted, no
    blanks, UTF-8), so that others can verify it.
    """
    _, database = opened(directory)
    for line in AuditLog(database).export():
        click.echo(line)
    database.close()


def _users(directory: Path) -> tuple[Users, Database]:
    config, database = opened(directory)
    return build_users(database, config, system_now_ms), database


def _tokens(directory: Path) -> tuple[Tokens, Database]:
    known, database = _users(directory)
    return Tokens(database=database, users=known, clock=system_now_ms), database


def read_password() -> str:
    """Return a password: typed twice on a terminal, else the first line of standard input; never an argument.

    Raises:
        UserRefusedError: If there is none.
    """
    if sys.stdin.isatty():
        return str(click.prompt(f"Password, {MIN_LETTERS} letters or more", hide_input=True, confirmation_prompt=True))
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise UserRefusedError("Expected a password in the first line of standard input, got none")
    return line


def _user_row(one: User) -> listings.Row:
    return {
        "name": one.name, "role": one.role.value, "created_ms": one.created_ms, "created_by": one.created_by,
        "disabled_ms": one.disabled_ms, "last_login_ms": one.last_login_ms,
    }  # fmt: skip


def _token_row(one: IssuedToken) -> listings.Row:
    return {
        "id": one.id, "name": one.name, "kind": one.kind.value, "owner": one.owner, "role": one.role.value,
        "read_only": one.read_only, "created_ms": one.created_ms, "created_by": one.created_by,
        "expires_ms": one.expires_ms, "revoked_ms": one.revoked_ms, "revoked_by": one.revoked_by,
        "last_used_ms": one.last_used_ms,
    }  # fmt: skip
