"""``fleet-server apply``: bring a fleet to the state that a file wants, after a plan that a person agrees to."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from server.cli.frame import agreed, coded, example, path_value, print_rows
from server.cli.place import PLACE, AnyHost, ServerPlace
from server.client import FleetClient
from server.declared.carry_out import carry_out, read_present, sees_users
from server.declared.plan import Change, FleetPlan, plan, standing
from server.declared.wanted import MAX_BYTES, WantedFleet, read_wanted, words, written
from server.errors import ClientFileError, PlanRefusedError, ServerError

_COLUMNS = ("action", "kind", "name", "key", "now", "wanted")
_CHANGES = 2


@click.command(
    cls=AnyHost,
    epilog=example(
        "fleet-server apply state fleet.toml",
        "fleet-server apply fleet.toml --dry-run --server https://fleet.example.org:8080",
        "fleet-server apply state --export > fleet.toml",
    ),
)
@PLACE
@click.argument("file", metavar="[FILE|-]", type=click.Path(), required=False,
                callback=lambda *given: path_value(*given) if given[2] else None)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only print the plan; exit code 2 if something would change, 0 if not.")
@click.option("--prune", is_flag=True, help="Also remove tags, names and mutes of devices that FILE does not name.")
@click.option("--again", is_flag=True, help="Also roll out where a rollout failed, was aborted, or is not the newest.")
@click.option("--export", is_flag=True, help="Print a file that wants what there is, and change nothing.")
@click.option("--by", default="", help="For whom you act; by default the person of the token, or the user here.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="The plan as a JSON array instead of a table.")
@coded
def apply(  # noqa: PLR0913 - one argument a command-line option
    place: ServerPlace, file: Path | None, by: str, *, dry_run: bool, prune: bool, again: bool, export: bool,
    yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Bring users' roles, devices' names, tags and mutes, and rollouts to what FILE wants (docs/how-to/apply.md).

    Prints a plan: action, kind, name, key, what it is now and what it becomes. It asks, then changes one after the
    other, and stops at the first refusal; what was done stays, and applying again does the rest. What FILE does not
    name stays as it is. Nothing is done if a part of it can't be had.
    """
    if export == (file is not None):
        raise click.UsageError("Expected FILE or --export, one of them")
    with place.client() as server:
        if export:
            _export(server)
            return
        wanted = _read(file or Path("-"))
        found = plan(wanted, read_present(server, wanted, prune=prune), prune=prune, again=again)
        print_rows([_row(one, as_json=as_json) for one in found.changes], _COLUMNS, as_json=as_json)
        _expect_possible(found)
        if dry_run:
            sys.exit(_CHANGES if found.changes else 0)
        if not found.changes:
            click.echo("nothing to change", err=True)
            return
        if not yes:
            agreed("Change this?", err=True)
        _carry_out(server, found.changes, place.signer(server, by), again=again)


def _carry_out(server: FleetClient, changes: Sequence[Change], by: str, *, again: bool) -> None:
    done: list[Change] = []
    try:
        carry_out(server, tuple(changes), by, again=again, done=done.append)
    except ServerError:
        click.echo(f"done {len(done)} of {len(changes)}: {'; '.join(map(_text, done)) or 'nothing'}", err=True)
        click.echo(f"not done: {'; '.join(map(_text, changes[len(done) :]))}", err=True)
        raise
    click.echo(f"done {len(done)} of {len(changes)}", err=True)


def _export(server: FleetClient) -> None:
    with_users = sees_users(server)
    present = read_present(server, None, users=with_users)
    for line in written(present.users if with_users else None, present.devices, standing(present)):
        click.echo(line)


def _expect_possible(found: FleetPlan) -> None:
    if not found.refusals:
        return
    for text in found.refusals[:-1]:
        click.echo(f"error [{PlanRefusedError.code}]: {text}", err=True)
    raise PlanRefusedError(f"{found.refusals[-1]}; nothing was changed")


def _read(file: Path) -> WantedFleet:
    if str(file) == "-":
        return read_wanted(sys.stdin.buffer.read(MAX_BYTES + 1), "standard input")
    try:
        with file.open("rb") as content:
            return read_wanted(content.read(MAX_BYTES + 1), str(file))
    except OSError as error:
        raise ClientFileError(f"Expected a file that can be read at {file}, got: {error.strerror}") from error


def _row(change: Change, *, as_json: bool) -> dict[str, object]:
    found: dict[str, object] = {name: getattr(change, name) for name in _COLUMNS}
    if as_json:
        return found | ({"wanted": change.rollout.body} if change.rollout is not None else {})
    return found | {name: words(found[name]) for name in ("now", "wanted")}


def _text(change: Change) -> str:
    return f"{change.action} {change.kind} {change.name} {change.key}"
