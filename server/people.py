"""Who decides something: the name and the account that are recorded, and the maximum lengths of names and reasons.

``Actor`` goes from the route, the page or the command to the service, which stores it with the act. Decides nothing
about what an account may do (``server.access.roles``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

SOMEBODY = "an operator"
MAX_NAME, MAX_WHY = 100, 500


class ActorKind(StrEnum):
    """What proved who acts."""

    USER = "user"  # a person: a session of the pages, or a personal token
    TOKEN = "token"  # noqa: S105 - a kind; a program: a service token
    DEVICE = "device"  # a device, by its certificate, password or claim
    COMMAND = "command"  # a command on the server's own machine, by the file permissions of its state directory
    SERVER = "server"  # the server itself, such as a pause for a threshold
    ANYBODY = "anybody"  # nobody proved anything, such as a login that failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acts: the ``account`` that was proved, and how.

    ``said``: for whom a program, or a command on the server's machine, says that it acts; nobody proved that.
    ``through``: the id of the token, or "page". ``address``: of the caller, "" if it is the server's own machine.
    """

    account: str
    kind: ActorKind
    said: str = ""
    through: str = ""
    address: str = ""

    @property
    def name(self) -> str:
        """The name that is shown with what was decided."""
        return self.said or self.account

    def __str__(self) -> str:
        """Return the name, so that it reads well in a sentence."""
        return self.name

    def saying(self, name: str) -> Actor:
        """Return the same who says that it acts for ``name``; a person always acts for himself."""
        if self.kind is ActorKind.USER or name in ("", SOMEBODY, self.account):
            return self
        return replace(self, said=name[:MAX_NAME])


By: TypeAlias = Actor | str
"""Who decides: an actor, or the bare name that a command on the server's machine gives."""
SERVER_ACTOR = Actor(account="server", kind=ActorKind.SERVER)


def actor_of(by: By) -> Actor:
    """Return the actor; a bare name is that of a command on the server's machine, "" the server itself."""
    if isinstance(by, Actor):
        return by
    return Actor(account=by[:MAX_NAME], kind=ActorKind.COMMAND) if by else SERVER_ACTOR
