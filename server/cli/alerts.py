"""``fleet-server alerts``: what needs a person, what people do about it, and whether a route works."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import click

from server.alerts.delivery import trial
from server.alerts.model import KINDS, AlertState
from server.app.state_directory import open_state
from server.cli import listings
from server.cli.frame import JSON, STATE, Listing, coded, example, print_rows
from server.cli.place import PLACE, ServerPlace
from server.client import AlertInfo
from server.clock import system_now_ms
from server.config import read_config
from server.errors import ConfigError

COLUMNS = (
    "id", "severity", "state", "kind", "title", "device_count", "sites", "owner", "opened_ms", "cause", "action",
)  # fmt: skip
_ROUTES = ("route", "waiting", "since_ms", "attempts", "error")
_UNITS_S, _MOST_DAYS = {"m": 60, "h": 3_600, "d": 86_400}, 90
_ALERT = click.argument("alert", metavar="ALERT", type=click.IntRange(1))
_BY = click.option("--by", default="", help="Who does it; by default the user who runs this.")
_NOTE = click.option("--note", default="", help="A note for others.")
_BY_JSON = click.option("--json", "as_json", is_flag=True, help="The alert as a JSON object instead of its lines.")


def span_s(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int:
    """Return the seconds of an option such as 4h, 0 if it is left out."""
    if value is None:
        return 0
    found = re.fullmatch(r"(\d{1,6})([mhd])", value)
    if found is None or int(found[1]) == 0:
        raise click.BadParameter(f"Expected a time such as 30m, 4h or 2d, got {value!r}")
    seconds = int(found[1]) * _UNITS_S[found[2]]
    if seconds > _MOST_DAYS * _UNITS_S["d"]:
        raise click.BadParameter(f"Expected at most {_MOST_DAYS}d, got {value!r}")
    return seconds


@click.group(
    cls=Listing,
    epilog=example(
        "fleet-server alerts state",
        "fleet-server alerts ack state 7 --note 'a fuse, on my way'",
        "fleet-server alerts test state pager",
    ),
)
def alerts() -> None:
    """Print what needs a person, and deal with it.

    "fleet-server alerts DIR" is short for "fleet-server alerts list DIR". All but test ask the running server.
    An alert is sent at least once to each route of server.toml that it fits; one of drift may be a false alarm, within
    the budget of docs/explanation/drift.md.
    """


@alerts.command(
    "list", epilog=example("fleet-server alerts list state --state all", "fleet-server alerts state --json")
)
@PLACE
@click.option(
    "--state",
    type=click.Choice(["unresolved", "all", *(state.value for state in AlertState)]),
    default="unresolved",
    show_default=True,
    help="Which to print.",
)
@click.option("--kind", type=click.Choice(KINDS), help="Only those of this kind.")
@click.option("--search", default="", help="Words of title or cause.")
@JSON
@coded
def list_(place: ServerPlace, state: str, kind: str | None, search: str, *, as_json: bool) -> None:
    """Print the alerts, the newest first.

    Routes whose receivers have not accepted something are named on standard error.
    """
    with place.client() as server:
        found = server.alerts(state=state, kind=kind or "", search=search)
        waiting = server.alert_routes()
    print_rows([_row(one) for one in found], COLUMNS, as_json=as_json)
    for route in waiting:
        if route.attempts:
            click.echo(f"not delivered by {route.route}: {route.waiting}, tried {route.attempts} times: {route.error}",
                       err=True)  # fmt: skip


@alerts.command(epilog=example("fleet-server alerts routes state"))
@PLACE
@JSON
@coded
def routes(place: ServerPlace, *, as_json: bool) -> None:
    """Print the routes by which something is not delivered yet: how much, since when, and why."""
    with place.client() as server:
        print_rows([asdict(one) for one in server.alert_routes()], _ROUTES, as_json=as_json)


@alerts.command(epilog=example("fleet-server alerts show state 7"))
@PLACE
@_ALERT
@_BY_JSON
@coded
def show(place: ServerPlace, alert: int, *, as_json: bool) -> None:
    """Print ALERT with its history, and what was and is to be delivered about it."""
    with place.client() as server:
        _print(server.alert(alert), as_json=as_json)


@alerts.command(epilog=example("fleet-server alerts ack state 7 --note 'seen'"))
@PLACE
@_ALERT
@_NOTE
@_BY
@_BY_JSON
@coded
def ack(place: ServerPlace, alert: int, note: str, by: str, *, as_json: bool) -> None:
    """Acknowledge ALERT: you have seen it. Its end is still sent."""
    with place.client() as server:
        _print(server.acknowledge_alert(alert, note=note, by=place.signer(server, by)), as_json=as_json)


@alerts.command(epilog=example("fleet-server alerts take state 7 --by ada"))
@PLACE
@_ALERT
@_NOTE
@_BY
@_BY_JSON
@coded
def take(place: ServerPlace, alert: int, note: str, by: str, *, as_json: bool) -> None:
    """Take ALERT: you look after it, and others see that."""
    with place.client() as server:
        _print(server.take_alert(alert, note=note, by=place.signer(server, by)), as_json=as_json)


@alerts.command(epilog=example("fleet-server alerts snooze state 7 --for 4h --note 'parts arrive at noon'"))
@PLACE
@_ALERT
@click.option("--for", "seconds", required=True, callback=span_s, metavar="TIME", help="30m, 4h or 2d; at most 90d.")
@_NOTE
@_BY
@_BY_JSON
@coded
def snooze(place: ServerPlace, alert: int, seconds: int, note: str, by: str, *, as_json: bool) -> None:
    """Send nothing about ALERT for a while, but its end.

    If its cause is still there then, it opens again and is sent.
    """
    with place.client() as server:
        _print(server.snooze_alert(alert, seconds, note=note, by=place.signer(server, by)), as_json=as_json)


@alerts.command(epilog=example("fleet-server alerts resolve state 7 --note 'the fuse was changed'"))
@PLACE
@_ALERT
@click.option("--note", required=True, help="Why it is over.")
@_BY
@_BY_JSON
@coded
def resolve(place: ServerPlace, alert: int, note: str, by: str, *, as_json: bool) -> None:
    """End ALERT with a reason, although its cause may last.

    It stays resolved until its cause was over and came back, or is more severe.
    """
    with place.client() as server:
        _print(server.resolve_alert(alert, note=note, by=place.signer(server, by)), as_json=as_json)


@alerts.command("test", epilog=example("fleet-server alerts test state pager"))
@STATE
@click.argument("route", metavar="ROUTE")
@coded
def try_route(directory: Path, route: str) -> None:
    """Send a trial message by ROUTE of server.toml, and print what its receiver answered.

    It works beside a running server and without one: it reads server.toml as it is now.
    """
    state = open_state(directory)
    config = read_config(state.config)
    wanted = next((one for one in config.alerts.route if one.name == route), None)
    if wanted is None:
        known = ", ".join(one.name for one in config.alerts.route) or "none"
        raise ConfigError(f"Expected a route of {state.config} ({known}), got {route!r}: see docs/how-to/get-alerts.md")
    address = state.read_address()
    base_url = config.http.public_url or (address.http_url if address is not None else "")
    click.echo(f"accepted   {trial(wanted, system_now_ms(), base_url.rstrip('/'))}")


def _row(alert: AlertInfo) -> listings.Row:
    left_out = ("history", "deliveries", "promise")
    row = {name: value for name, value in asdict(alert).items() if name not in left_out}
    return row | {"devices": list(alert.devices), "sites": list(alert.sites)}


def _print(alert: AlertInfo, *, as_json: bool) -> None:
    if as_json:
        click.echo(listings.as_json([asdict(alert)])[1:-1])
        return
    for name in ("id", "title", "severity", "state", "kind", "cause", "action", "owner", "opened_ms", "resolved_ms"):
        click.echo(f"{name:<12} {getattr(alert, name)}")
    click.echo(f"{'devices':<12} {alert.device_count}: {','.join(alert.devices)}")
    click.echo(f"{'sites':<12} {','.join(alert.sites)}")
    for act in alert.history:
        click.echo(f"{'act':<12} {act.at_ms} {act.act} {act.by or 'server'}: {act.text}")
    for one in alert.deliveries:
        said = f"delivered at {one.delivered_ms}: {one.answer}" if one.delivered_ms else f"waits: {one.error or 'new'}"
        click.echo(f"{'notice':<12} {one.created_ms} {one.event} by {one.route}, tried {one.attempts} times, {said}")
    click.echo(f"{'promise':<12} {alert.promise}")
