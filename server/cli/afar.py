"""What the commands that work on a state directory do from another host: the same, over the API, with the same output.

Each function has the words of its command, and gets its arguments by name (``server.cli.place.afar``). Commands that
only send requests are not here: they take ``@PLACE``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

import click

from server.access.audit_log import parsed_anchor, verify_chain
from server.cli import listings
from server.cli.device_life import end_of_mute, expect_one_choice, say_none
from server.cli.drift import print_map
from server.cli.frame import agreed, coded, expect_reason, pairs, print_rows
from server.cli.people import TOKEN_COLUMNS, USER_COLUMNS, print_finding, read_password
from server.cli.place import ServerPlace, afar
from server.client import DeviceInfo, FleetClient, RolloutInfo, VerdictInfo, part
from server.errors import DeviceEndedError, ReleaseWithdrawnError, ReplayMissingError
from server.registry.events import LoggedEvent
from server.rollout.scope import Scope
from server.rollout.thresholds import devices as counted
from server.telemetry.drift_map import DriftMap
from server.wording import listed
from wire.canonical import canonical_bytes
from wire.codec import Json, from_document
from wire.messages import Severity

_FUNCTIONS: dict[str, Callable[..., None]] = {}
_PAGE = 500
_ACTS = 1_000
_NAMED = 20
_COHORTS, _STREAMS = 500, 64  # of a look at one window
_TROUBLED = 50


def _of(words: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Keep a function as that of the command with these words."""

    def take(function: Callable[..., None]) -> Callable[..., None]:
        _FUNCTIONS[words] = coded(function)
        return function

    return take


def attach(main: click.Group) -> None:
    """Let the commands below ``main`` work from other hosts."""
    for words, function in _FUNCTIONS.items():
        found: click.Command = main
        for word in words.split():
            assert isinstance(found, click.Group)  # noqa: S101 - the words above
            found = found.commands[word]
        afar(found)(function)


def pages(server: FleetClient, path: str, name: str, query: Mapping[str, str], limit: int) -> list[Mapping[str, Json]]:
    """Return the first ``limit`` rows of a list, which stand under ``name`` in each page."""
    rows: list[Mapping[str, Json]] = []
    asked = {key: value for key, value in query.items() if value}
    cursor: dict[str, str] = {}
    while len(rows) < limit:
        wanted = {"limit": str(min(_PAGE, limit - len(rows)))}
        page = server.request("GET", path, query=asked | wanted | cursor)
        found = page[name]
        rows += found if isinstance(found, list) else []  # type: ignore[arg-type]  # of objects
        if not page.get("next"):
            break
        cursor = {"cursor": str(page["next"])}
    return rows[:limit]


@_of("claim")
def claim(place: ServerPlace, site: str, device: str, attributes: tuple[str, ...]) -> None:
    """Make a claim."""
    body: dict[str, Json] = {"site": site, "device": device, "attributes": dict(pairs(attributes))}
    with place.client() as server:
        made = server.request("POST", "/api/claims", body)
    click.echo(str(made["claim"]))
    if made.get("note"):
        click.echo(f"note: {made['note']}", err=True)


@_of("devices list")
def devices_list(place: ServerPlace, *, as_json: bool, condition: str | None, **wanted: Any) -> None:  # noqa: ANN401 - filters
    """Print the devices."""
    with place.client() as server:
        found = server.devices(condition=condition or "", **wanted)
    columns = listings.ENDED_COLUMNS if wanted["ended"] or wanted["retired"] else listings.DEVICE_COLUMNS
    print_rows([_device_row(one) for one in found], columns, as_json=as_json)


@_of("devices tag")
def tag(place: ServerPlace, device: str, tags: tuple[str, ...], gone: tuple[str, ...], by: str) -> None:
    """Tag a device."""
    with place.client() as server:
        body: dict[str, Json] = {"add": list(tags), "remove": list(gone), "by": place.signer(server, by)}
        found = server.request("POST", f"/api/devices/{part(device)}/tags", body)
    for name in _texts(found["tags"]):
        click.echo(name)


@_of("devices rename")
def rename(place: ServerPlace, device: str, title: str, by: str) -> None:
    """Name a device."""
    with place.client() as server:
        body: dict[str, Json] = {"title": title, "by": place.signer(server, by)}
        found = server.request("POST", f"/api/devices/{part(device)}/title", body)
    click.echo(f"{device}\t{found['title']}")


@_of("devices mute")
def mute(  # noqa: PLR0913 - the options of the command
    place: ServerPlace, devices: Sequence[str], *, site: str, tag: str, seconds: int, until_ms: int, why: str, by: str
) -> None:
    """Mute devices."""
    body: dict[str, Json] = {"until_ms": end_of_mute(seconds, until_ms), "why": why}
    _each(place, devices, (site, tag), by, "mute", body)


@_of("devices unmute")
def unmute(place: ServerPlace, devices: Sequence[str], *, site: str, tag: str, by: str) -> None:
    """Unmute devices."""
    _each(place, devices, (site, tag), by, "unmute", {})


def _each(
    place: ServerPlace, devices: Sequence[str], chosen: tuple[str, str], by: str, act: str, body: Mapping[str, Json]
) -> None:
    """Mute or unmute devices, named or ``chosen`` by site and tag."""
    site, tag = chosen
    expect_one_choice(devices, site, tag)
    with place.client() as server:
        if not devices:
            condition = "muted" if act == "unmute" else ""
            devices = [one.device for one in server.devices(site=site, tag=tag, condition=condition)]
            if not devices:
                say_none(site, tag, muted=bool(condition))
        signed: dict[str, Json] = {**body, "by": place.signer(server, by)}
        for name in devices:  # all are known before the first is changed
            server.device(name)
        for name in devices:
            now = server.request("POST", f"/api/devices/{part(name)}/{act}", signed)
            click.echo(f"{name}\t{now['muted_until_ms']}")


@_of("devices revoke")
def revoke(place: ServerPlace, device: str, why: str, by: str) -> None:
    """Revoke a device."""
    _end(place, device, "revoke", why, by)


@_of("devices retire")
def retire(place: ServerPlace, device: str, why: str, by: str) -> None:
    """Retire a device."""
    _end(place, device, "retire", why, by)


@_of("devices remove")
def remove(place: ServerPlace, device: str, why: str, by: str) -> None:
    """Remove a device."""
    _end(place, device, "remove", why, by)


def _end(place: ServerPlace, device: str, act: str, why: str, by: str) -> None:
    with place.client() as server:
        body: dict[str, Json] = {"why": why, "by": place.signer(server, by)}
        found = server.request("POST", f"/api/devices/{part(device)}/{act}", body)
    expect_reason(DeviceEndedError, device, f"{found['ended']} already", str(found["ended_why"]), why)
    click.echo(f"{device} {found['ended']}")


@_of("devices commission")
def commission(  # noqa: PLR0913 - the options of the command
    place: ServerPlace, device: str | None, attribute: str | None, why: str, by: str, *, yes: bool, as_json: bool
) -> None:
    """Commission devices again."""
    if (device is None) == (attribute is None):
        raise click.UsageError("Expected DEVICE or --attribute KEY=VALUE, one of them: say which devices it is about")
    with place.client() as server:
        signed: dict[str, Json] = {"why": why, "by": place.signer(server, by)}
        if attribute is None:
            begun = [server.request("POST", f"/api/devices/{part(device or '')}/commission", signed)]
        else:
            ((key, value),) = pairs((attribute,)).items()
            if not yes:
                known = {one.device: {**one.attributes, "site": one.site} for one in server.devices()}
                named = [name for name, has in known.items() if has.get(key) == value]
                click.echo(
                    f"{counted(len(named))}: {listed(named, _NAMED)}. Their baselines begin anew, for good.", err=True
                )
                agreed("Go on?", err=True)
            done = server.request("POST", "/api/commissions", signed | {"attribute": key, "value": value})
            begun = done["commissions"]  # type: ignore[assignment]  # a list of objects
    if as_json:
        print_rows(begun, listings.COMMISSION_COLUMNS, as_json=True)
        return
    for one in begun:
        click.echo(f"{one['device']} {one['from_ms']}")


@_of("commissions")
def commissions(place: ServerPlace, *, as_json: bool) -> None:
    """Print the commissions."""
    with place.client() as server:
        print_rows([asdict(one) for one in server.commissions()], listings.COMMISSION_COLUMNS, as_json=as_json)


@_of("releases list")
def releases_list(place: ServerPlace, *, as_json: bool) -> None:
    """Print the releases."""
    with place.client() as server:
        found = server.releases()
        running = [
            DeviceInfo(device=device, release=name)
            for name in dict.fromkeys(one.name for one in found) for device in server.running(name)
        ]  # fmt: skip
    print_rows(listings.release_rows(found, running), listings.RELEASE_COLUMNS, as_json=as_json)


@_of("releases withdraw")
def withdraw(place: ServerPlace, release: str, why: str, by: str) -> None:
    """Withdraw a release."""
    with place.client() as server:
        body: dict[str, Json] = {"why": why, "by": place.signer(server, by)}
        found = server.request("POST", f"/api/releases/{part(release)}/withdraw", body)
    running = _texts(found["running"])
    expect_reason(ReleaseWithdrawnError, release, "withdrawn already", str(found["withdrawn_why"]), why)
    click.echo(
        f"{release} withdrawn; it still runs on {'1 device' if len(running) == 1 else f'{len(running)} devices'}"
    )
    for device in running:
        click.echo(device)


@_of("verdicts list")
def verdicts_list(place: ServerPlace, limit: int, *, only_open: bool, as_json: bool) -> None:
    """Print the verdicts."""
    with place.client() as server:
        query = {"open": "true"} if only_open else {}
        found = pages(server, "/api/verdicts", "verdicts", query, limit)
    rows = [listings.verdict_info_row(from_document(VerdictInfo, dict(one))) for one in found]
    print_rows(rows, listings.VERDICT_COLUMNS, as_json=as_json)


@_of("verdicts dismiss")
def dismiss(place: ServerPlace, verdict: int, why: str, by: str) -> None:
    """Dismiss a verdict."""
    with place.client() as server:
        found = server.dismiss_verdict(verdict, why=why, by=place.signer(server, by))
    click.echo(f"{found.id} dismissed by {found.dismissed_by}")


@_of("verdicts replay")
def replay(place: ServerPlace, verdict: int, *, as_json: bool) -> None:
    """Derive an alarm again, on the server."""
    with place.client() as server:
        found: Mapping[str, Any] = server.request("GET", f"/api/verdicts/{verdict}/replay")
    rows = [
        {
            **{name: path[name] for name in ("device", "from_ms", "since_baseline")},
            "windows": len(path["log_values"]), "log_value": path["log_value"],
            "derived": path["log_values"][-1] if path["log_values"] else None,
            "log_threshold": found["log_threshold"],
            **{name: path[name] for name in ("same", "log_values", "missing")},
        }
        for path in found["paths"]
    ]  # fmt: skip
    print_rows(rows, listings.REPLAY_COLUMNS, as_json=as_json)
    if not found["same"]:
        why = "; ".join(found["missing"]) or "other bits"
        raise ReplayMissingError(f"Expected the alarm of verdict {verdict} to the bit, got: {why}")


@_of("drift explore")
def explore(  # noqa: PLR0913 - the options of the command
    place: ServerPlace, *, by: str, at: int | None, release: str, having: tuple[str, str] | None, stream: str,
    limit: int, as_json: bool,
) -> None:  # fmt: skip
    """Look at one window of the fleet; the server gives at most 500 cohorts."""
    attribute, value = having or ("", "")
    query = {
        "by": by, "release": release, "attribute": attribute, "value": value, "stream": stream,
        "limit": str(min(limit, _COHORTS)), "streams": str(_STREAMS),
    }  # fmt: skip
    path = "/api/drift/map"
    with place.client() as server:
        if at is not None and at < 0:  # so long before the newest window
            newest_ms = server.request("GET", path, query={"by": by, "limit": "1"})["newest_ms"]
            at = max(newest_ms + at, 0) if isinstance(newest_ms, int) else None
        when = {} if at is None else {"at_ms": str(at)}
        found = server.request("GET", path, query={name: text for name, text in query.items() if text} | when)
    print_map(from_document(DriftMap, dict(found)), as_json=as_json)


@_of("places list")
def places_list(place: ServerPlace, *, as_json: bool) -> None:
    """Print the places."""
    with place.client() as server:
        found = [asdict(one) for one in server.places()]
    risks = ("wrong", "lower_risk", "upper_risk", "source_risk")
    rows = [row | {name: round(row[name], 4) for name in risks} for row in found]
    print_rows(rows, listings.PLACE_COLUMNS, as_json=as_json)


@_of("places accept")
def accept(place: ServerPlace, device: str, why: str, by: str) -> None:
    """Accept a place."""
    with place.client() as server:
        found = server.accept_place(device, why=why, by=place.signer(server, by))
    click.echo(f"{found.device} {found.state}")


@_of("places withdraw")
def withdraw_place(place: ServerPlace, device: str, why: str, by: str) -> None:
    """Take back that a place was accepted."""
    with place.client() as server:
        found = server.withdraw_place(device, why=why, by=place.signer(server, by))
    click.echo(f"{found.device} {found.state}")


@_of("events")
def events(place: ServerPlace, after: int | None, limit: int, device: str | None, *, as_json: bool) -> None:
    """Print events."""
    with place.client() as server:
        if after is not None:
            found = islice(server.events(after=after, device=device or ""), limit)
            rows = [_event_row(asdict(one)) for one in found]
        else:
            rows = []
            for page in _event_pages(server, {"device": device or ""}, limit):
                rows = [*map(_event_row, page), *rows]
            rows = rows[-limit:]
    print_rows(rows, listings.EVENT_COLUMNS, as_json=as_json)


@_of("refused")
def refused(place: ServerPlace, device: str, limit: int, *, as_json: bool) -> None:
    """Print messages that the server could not take."""
    rows: list[listings.Row] = []
    with place.client() as server:
        for page in _event_pages(server, {"kind": "ingest", "device": device}, sys.maxsize):
            newest_first = [_logged(one) for one in reversed(page)]
            rows += [listings.refused_row(one) for one in newest_first if "payload" in one.data]
            if len(rows) >= limit:
                break
    print_rows(rows[:limit], listings.REFUSED_COLUMNS, as_json=as_json)


@_of("rollouts list")
def rollouts_list(place: ServerPlace, *, as_json: bool) -> None:
    """Print the rollouts."""
    with place.client() as server:
        rows = [_rollout_row(server, one) for one in server.rollouts(members=False)]
    print_rows(rows, listings.ROLLOUT_COLUMNS, as_json=as_json)


@_of("rollouts show")
def show(place: ServerPlace, rollout: str, *, as_json: bool) -> None:
    """Print one rollout."""
    with place.client() as server:
        found = from_document(RolloutInfo, dict(server.request("GET", f"/api/rollouts/{part(rollout)}")))
        under_way = _under_way(server, found)
        row = _rollout_row(server, found, sum(under_way))
        bad = [one for standing in ("failed", "stuck") for one in server.rollout_devices(rollout, standing=standing)]
    groups = [
        {
            "group": group.name, "open": "yes" if group.open else "no", "devices": group.total,
            "committed": group.committed, "under_way": moving, "failed": group.failed, "stuck": group.stuck,
            "pending": group.pending, "needs_committed_ratio": group.success_ratio,
            "pauses_above_ratio": group.error_ratio, "skipped_by": group.skipped_by,
            "forecast_bytes": group.forecast_bytes, "forecast_upper": group.forecast_upper,
            "air_bytes": group.air_bytes,
        }
        for group, moving in zip(found.groups, under_way, strict=True)
    ]  # fmt: skip
    troubled: list[listings.Row] = [
        {
            "device": one.device, "group": found.groups[one.group].name, "standing": one.standing, "code": one.code,
            "replaced_by": one.replaced_by, "settled_ms": one.settled_ms,
        }
        for one in sorted(bad, key=lambda one: (one.group, one.device))
    ]  # fmt: skip
    if as_json:
        click.echo(json.dumps({**row, "groups": groups, "troubled": troubled}))
        return
    shown = {
        "rollout": found.id, "release": found.release, "phase": found.phase, "text": found.text, "scope": row["scope"],
        "created by": found.created_by, "approved by": ", ".join(found.approvals),
        "failing": found.failing.get("text", "") if any(one.open for one in found.groups) else "",
    }  # fmt: skip
    click.echo("\n".join(listings.name_lines(shown)))
    click.echo("\n" + listings.as_tsv(groups, listings.GROUP_COLUMNS))
    if troubled:
        click.echo("\n" + listings.as_tsv(troubled[:_TROUBLED], listings.TROUBLE_COLUMNS))
        if len(troubled) > _TROUBLED:
            click.echo(f"and {len(troubled) - _TROUBLED} more: --json has all")


@_of("users list")
def users_list(place: ServerPlace, *, as_json: bool) -> None:
    """Print the users."""
    with place.client() as server:
        print_rows(_rows(server.request("GET", "/api/users"), "users"), USER_COLUMNS, as_json=as_json)


@_of("users add")
def add(place: ServerPlace, name: str, role: str, by: str) -> None:
    """Add a user."""
    _expect_no_by(by)
    with place.client() as server:
        made = server.request("POST", "/api/users", {"name": name, "role": role, "password": read_password()})
    click.echo(f"{made['name']} {made['role']}")


@_of("users role")
def role(place: ServerPlace, name: str, role: str, by: str) -> None:
    """Give a user another role."""
    found = _user(place, name, "role", by, {"role": role})
    click.echo(f"{found['name']} {found['role']}")


@_of("users disable")
def disable(place: ServerPlace, name: str, by: str) -> None:
    """Disable a user."""
    _user(place, name, "disable", by)
    click.echo(f"{name} disabled")


@_of("users enable")
def enable(place: ServerPlace, name: str, by: str) -> None:
    """Enable a user."""
    _user(place, name, "enable", by)
    click.echo(f"{name} enabled")


@_of("users password")
def password(place: ServerPlace, name: str, by: str) -> None:
    """Give a user another password."""
    _user(place, name, "password", by, {"password": read_password()})
    click.echo(f"{name} has another password; its sessions have ended")


@_of("tokens list")
def tokens_list(place: ServerPlace, *, as_json: bool) -> None:
    """Print the tokens."""
    with place.client() as server:
        print_rows(_rows(server.request("GET", "/api/tokens"), "tokens"), TOKEN_COLUMNS, as_json=as_json)


@_of("tokens issue")
def issue(  # noqa: PLR0913 - the options of the command
    place: ServerPlace, name: str, role: str, owner: str, days: float, by: str, *, read_only: bool
) -> None:
    """Issue a token."""
    _expect_no_by(by)
    body: dict[str, Json] = {"name": name, "role": role, "owner": owner, "read_only": read_only, "days": days}
    with place.client() as server:
        made = server.request("POST", "/api/tokens", body)
    click.echo(str(made["secret"]))
    click.echo(f"id {made['id']}", err=True)


@_of("tokens revoke")
def revoke_token(place: ServerPlace, token: str, by: str) -> None:
    """Revoke a token."""
    _expect_no_by(by)
    with place.client() as server:
        found = server.request("POST", f"/api/tokens/{part(token)}/revoke")
    click.echo(f"{found['id']} {found['name']} revoked")


@_of("audit verify")
def verify(place: ServerPlace, anchor: str | None) -> None:
    """Check the log of acts here: every hash is derived again on this host."""
    known = None if anchor is None else parsed_anchor(anchor)
    with place.client() as server:
        end = _head(server)
        print_finding(verify_chain(map(_chained, _acts(server)), end, known, newest=lambda: _head(server)[0]))


@_of("audit head")
def head(place: ServerPlace) -> None:
    """Print number and hash of the last act."""
    with place.client() as server:
        seq, sha256 = _head(server)
    click.echo(f"{seq}:{sha256}")


@_of("audit export")
def export_acts(place: ServerPlace) -> None:
    """Print the log of acts."""
    with place.client() as server:
        for act in _acts(server):
            click.echo(canonical_bytes(dict(act)).decode())


@_of("status")
def status(place: ServerPlace) -> None:
    """Print whether the server is healthy."""
    with place.client() as server:
        answer = dict(server.health())
    click.echo(json.dumps({"running": True, **answer, "age_s": 0.0, "http_url": server.url}))
    if answer.get("ok") is not True:
        sys.exit(1)


def _user(
    place: ServerPlace, name: str, act: str, by: str, body: Mapping[str, Json] | None = None
) -> Mapping[str, Json]:
    _expect_no_by(by)
    with place.client() as server:
        return server.request("POST", f"/api/users/{part(name)}/{act}", body)


def _expect_no_by(by: str) -> None:
    if by:
        message = "Expected no --by from another host, got one: this act is recorded under the account of the token"
        raise click.UsageError(message)


def _texts(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []


def _rows(answer: Mapping[str, Json], name: str) -> Sequence[listings.Row]:
    return answer[name]  # type: ignore[return-value]  # a list of objects


def _head(server: FleetClient) -> tuple[int, str]:
    newest = _rows(server.request("GET", "/api/acts", query={"limit": "1"}), "acts")
    return (int(str(newest[0]["seq"])), str(newest[0]["sha256"])) if newest else (0, "")


def _acts(server: FleetClient) -> Iterator[listings.Row]:
    after = 0
    while True:
        page = _rows(server.request("GET", "/api/acts", query={"after": str(after), "limit": str(_ACTS)}), "acts")
        yield from page
        if len(page) < _ACTS:
            return
        after = int(str(page[-1]["seq"]))


def _chained(act: listings.Row) -> Mapping[str, Any]:
    return {**act, "data": canonical_bytes(act["data"]).decode()}


def _event_pages(server: FleetClient, query: Mapping[str, str], limit: int) -> Iterator[list[Mapping[str, Any]]]:
    """Yield pages of events, the newest page first, each with its oldest event first."""
    asked, cursor = {key: value for key, value in query.items() if value}, dict[str, str]()
    while limit > 0:
        page: Mapping[str, Any] = server.request(
            "GET", "/api/events", query={**asked, "limit": str(min(limit, _PAGE)), **cursor}
        )
        yield page["events"]
        limit -= len(page["events"])
        if not page.get("next"):
            return
        cursor = {"cursor": str(page["next"])}


def _logged(event: Mapping[str, Any]) -> LoggedEvent:
    fields = {name: event[name] for name in ("id", "at_ms", "kind", "code", "text", "device", "boot", "seq", "data")}
    return LoggedEvent(severity=Severity(event["severity"]), **fields)


def _event_row(event: Mapping[str, Any]) -> listings.Row:
    return listings.event_row(_logged(event))


def _device_row(device: DeviceInfo) -> listings.Row:
    reported: Mapping[str, Any] = device.reported or {}
    update: Mapping[str, Any] = reported.get("update") or {}
    return {
        "device": device.device, "site": device.site, "attributes": dict(device.attributes), "state": device.state,
        "release": device.release, "phase": device.phase, "code": str(update.get("code", "")),
        "desired_gen": device.desired_gen, "desired_release": device.desired_release,
        "last_seen_ms": device.last_seen_ms, "enrolled_ms": device.enrolled_ms, "ended": device.ended,
        "ended_ms": device.ended_ms, "ended_why": device.ended_why, "presence": device.presence,
        "concern": device.concern, "tags": list(device.tags), "title": device.title, "muted_ms": device.muted_ms,
        "muted_until_ms": device.muted_until_ms, "muted_why": device.muted_why, "muted_by": device.muted_by,
    }  # fmt: skip


def _under_way(server: FleetClient, rollout: RolloutInfo) -> list[int]:
    """Return how many devices of each group are under way: of those it waits for, without those that wait."""
    waits = [0] * len(rollout.groups)
    if any(one.awaited for one in rollout.groups):
        for one in server.rollout_devices(rollout.id, standing="waiting"):
            waits[one.group] += 1
    return [group.awaited - waiting for group, waiting in zip(rollout.groups, waits, strict=True)]


def _rollout_row(server: FleetClient, rollout: RolloutInfo, under_way: int | None = None) -> listings.Row:
    moving = sum(_under_way(server, rollout)) if under_way is None else under_way
    return {
        "id": rollout.id, "release": rollout.release, "phase": rollout.phase, "committed": rollout.committed,
        "failed": rollout.failed, "stuck": rollout.stuck, "pending": rollout.pending, "under_way": moving,
        "devices": sum(group.total for group in rollout.groups), "replaced": rollout.replaced,
        "removed": rollout.removed, "created_ms": rollout.created_ms, "updated_ms": rollout.updated_ms,
        "code": rollout.code, "text": rollout.text, "air_bytes": rollout.air_bytes,
        "bundle_bytes": rollout.bundle_bytes,
        "failing": {name: value for name, value in rollout.failing.items() if name != "text"},
        "waiting": dict(rollout.waiting),
        "cautions": dict(rollout.cautions), "scope": scope_text(rollout.scope), "newcomers": rollout.newcomers,
        "forecast_bytes": rollout.forecast_bytes, "forecast_upper": rollout.forecast_upper,
        "groups": [group.name for group in rollout.groups],
        "bytes_by_group": {
            group.name: {
                "forecast_bytes": group.forecast_bytes, "forecast_upper": group.forecast_upper,
                "air_bytes": group.air_bytes,
            }
            for group in rollout.groups
        },
        "skipped": {group.name: group.skipped_by for group in rollout.groups if group.skipped_by},
    }  # fmt: skip


def scope_text(scope: Mapping[str, Json]) -> str:
    """Return the scope of a rollout in words."""
    return Scope.of(scope).text
