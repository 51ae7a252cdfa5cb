"""Reads the present state from a server, and carries out a plan, one change after the other, until one is refused."""

from __future__ import annotations

from collections.abc import Callable

from server.access.roles import PEOPLES
from server.client import DeviceInfo, FleetClient, part
from server.declared.plan import Change, PresentFleet, plan, rollout_refusal
from server.declared.wanted import FORMAT, WantedFleet, WantedUser
from server.errors import AnsweredError, ForbiddenError, PlanStaleError, UnknownDeviceError
from wire.codec import Json

_FEW = 50  # devices that are asked for one by one


def read_present(
    server: FleetClient, wanted: WantedFleet | None, *, prune: bool = False, users: bool = True
) -> PresentFleet:
    """Return what the server has of what a file names; ``wanted`` None: of all; ``users``: whether these, too."""
    me = server.request("GET", "/api/me")
    return PresentFleet(
        account=str(me["account"]),
        users=_users(server) if users and (wanted is None or wanted.users) else {},
        devices=_devices(server, wanted, everything=prune or wanted is None),
        rollouts=server.rollouts(members=False) if wanted is None or wanted.rollouts else (),
        models={one.name: one.model for one in server.releases()} if wanted is None or wanted.rollouts else {},
    )


def sees_users(server: FleetClient) -> bool:
    """Return whether the token may see users."""
    try:
        server.request("GET", "/api/users")
    except AnsweredError as error:
        if error.answered == ForbiddenError.code:
            return False
        raise
    return True


def carry_out(
    server: FleetClient, changes: tuple[Change, ...], by: str, *, again: bool, done: Callable[[Change], None]
) -> None:
    """Carry out changes in their order; ``done`` is called after each.

    Raises:
        PlanStaleError: If what a change is about is another since the plan was made.
        AnsweredError: If the server refuses; the changes before it stay.
    """
    for change in changes:
        if change.kind == "user":
            _change_user(server, change)
        elif change.kind == "device":
            _change_device(server, change, by)
        elif change.rollout is not None:
            _create(server, change, by, again=again)
        done(change)


def _users(server: FleetClient) -> dict[str, WantedUser]:
    found = server.request("GET", "/api/users")["users"]
    known = {role.value for role in PEOPLES}
    return {
        str(one["name"]): WantedUser(role=str(one["role"]), enabled=not one["disabled_ms"])
        for one in (found if isinstance(found, list) else [])
        if isinstance(one, dict) and one["role"] in known
    }


def _devices(server: FleetClient, wanted: WantedFleet | None, *, everything: bool) -> dict[str, DeviceInfo]:
    if everything or (wanted is not None and len(wanted.devices) > _FEW):
        return {one.device: one for one in server.devices()}
    found: dict[str, DeviceInfo] = {}
    for name in wanted.devices if wanted is not None else ():
        try:
            one = server.device(name)
        except AnsweredError as error:
            if error.answered != UnknownDeviceError.code:
                raise
        else:
            if not one.ended:
                found[name] = one
    return found


def _expect_unchanged(change: Change, now: object) -> None:
    if now != change.now:
        message = f"Expected {change.key} of {change.name} as planned, {change.now!r}, got {now!r}"
        raise PlanStaleError(f"{message}: somebody changed it meanwhile; look, and apply again")


def _change_user(server: FleetClient, change: Change) -> None:
    known = _users(server).get(change.name)
    _expect_unchanged(change, getattr(known, change.key, None))
    path = f"/api/users/{part(change.name)}"
    if change.key == "role":
        server.request("POST", f"{path}/role", {"role": str(change.wanted)})
    else:
        server.request("POST", f"{path}/{'enable' if change.wanted else 'disable'}")


def _change_device(server: FleetClient, change: Change, by: str) -> None:
    path, now = f"/api/devices/{part(change.name)}", server.device(change.name)
    if change.key == "title":
        _expect_unchanged(change, now.title)
        server.request("POST", f"{path}/title", {"title": str(change.wanted), "by": by})
    elif change.key == "tags":  # adding one that is there and removing one that is gone change nothing
        come, gone = change.wanted, change.now
        body: dict[str, Json] = {"add": _texts(come), "remove": _texts(gone), "by": by}
        server.request("POST", f"{path}/tags", body)
    else:
        _expect_unchanged(change, now.muted_ms > 0)
        why: dict[str, Json] = {"why": "apply"} if change.wanted else {}
        server.request("POST", f"{path}/{'mute' if change.wanted else 'unmute'}", {"by": by, **why})


def _texts(value: object) -> list[Json]:
    return [str(one) for one in value] if isinstance(value, tuple) else []


def _create(server: FleetClient, change: Change, by: str, *, again: bool) -> None:
    wanted = change.rollout
    if wanted is None:
        return
    only = WantedFleet(format=FORMAT, rollouts=(wanted,))
    present = read_present(server, only)
    why = rollout_refusal(wanted, present, again=again)
    if why or not plan(only, present, again=again).changes:
        message = (
            why or f"Expected no rollout of {wanted.release} on its scope, got one that somebody created meanwhile"
        )
        raise PlanStaleError(f"{message}; look, and apply again")
    server.request("POST", "/api/rollouts", {**wanted.body, "by": by})
