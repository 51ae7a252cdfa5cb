"""What each role may do. The roles of people are cumulative: each may do what those before it may, and more.

viewer < labeller < operator < approver < admin; ``builder`` is the role of build hosts and has no part in that order.

The line between operator and approver: an operator prepares, and does what makes a fleet safer (pause, abort, revoke,
withdraw). Whatever lets a release go to more devices than before is the approver's: approve, resume, skip a group,
dismiss a verdict that holds a rollout. Decides only; ``server.api.auth`` and the pages ask.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from server.people import Actor


class Role(StrEnum):
    """The role of a user or a token."""

    VIEWER = "viewer"  # sees everything but users, tokens and the log of acts
    LABELLER = "labeller"  # labels samples
    OPERATOR = "operator"  # claims, commands, new rollouts, pauses, aborts, revocations, withdrawals
    APPROVER = "approver"  # approvals and whatever lets a release go on
    ADMIN = "admin"  # users, tokens, the log of acts
    BUILDER = "builder"  # a build host: bundles, signed metadata, jobs, measurements


class Need(StrEnum):
    """What a route or a button needs of the caller."""

    ANYBODY = "anybody"
    VIEW = "view"
    LABEL = "label"
    OPERATE = "operate"
    APPROVE = "approve"
    ADMINISTER = "administer"
    BUILD = "build"
    VIEW_OR_BUILD = "view or build"
    DEVICE = "device"  # the device's own certificate or password
    CERTIFIED_DEVICE = "device with a certificate"
    DEVICE_OR_STAFF = "device, view or build"


PEOPLES = (Role.VIEWER, Role.LABELLER, Role.OPERATOR, Role.APPROVER, Role.ADMIN)
"""The roles that a user can have, each with the rights of those before it."""
_LEAST = {
    Need.VIEW: Role.VIEWER, Need.LABEL: Role.LABELLER, Need.OPERATE: Role.OPERATOR, Need.APPROVE: Role.APPROVER,
    Need.ADMINISTER: Role.ADMIN,
}  # fmt: skip
_READS = frozenset({Need.VIEW, Need.VIEW_OR_BUILD, Need.DEVICE_OR_STAFF})
_EITHER = frozenset({Need.VIEW_OR_BUILD, Need.DEVICE_OR_STAFF})


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A person or a program that proved its account, with its role. ``read_only``: a token that may only read."""

    actor: Actor
    role: Role
    read_only: bool = False

    def may(self, need: Need, *, reading: bool = False) -> bool:
        """Return whether it may do what needs ``need``.

        ``reading``: it changes nothing though it needs more than to view, such as a list of users: a read-only token
        of that role may.
        """
        if self.read_only and not reading and need not in _READS:
            return False
        return allows(self.role, need)


def allows(role: Role, need: Need) -> bool:
    """Return whether ``role`` suffices for ``need``. What a device needs, no role has."""
    if need is Need.ANYBODY:
        return True
    if need in {Need.DEVICE, Need.CERTIFIED_DEVICE}:
        return False
    if role is Role.BUILDER:
        return need is Need.BUILD or need in _EITHER
    if need is Need.BUILD:
        return False
    return need in _EITHER or PEOPLES.index(role) >= PEOPLES.index(_LEAST[need])


def lower(one: Role, other: Role) -> Role:
    """Return the lower of two roles of people."""
    return min(one, other, key=PEOPLES.index)


def wanted(need: Need) -> str:
    """Return who may do what needs ``need``, in words."""
    known = {
        Need.ANYBODY: "anybody", Need.BUILD: "a builder", Need.VIEW_OR_BUILD: "a viewer or a builder",
        Need.DEVICE: "a device", Need.CERTIFIED_DEVICE: "a device with a certificate",
        Need.DEVICE_OR_STAFF: "a device, a viewer or a builder",
    }  # fmt: skip
    if need in known:
        return known[need]
    role = _LEAST[need]
    return f"{'an' if role.value[0] in 'aeiou' else 'a'} {role}"
