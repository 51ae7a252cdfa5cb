"""``/api/me``: who calls; ``/api/users`` and ``/api/tokens``: for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from server.access.roles import Need, Role
from server.access.tokens import MAX_DAYS, IssuedToken, TokenKind, TokenOrder, Tokens
from server.access.users import Users
from server.api.auth import Auth, Caller
from server.api.values import ValueBody

Name = Annotated[str, Field(min_length=1, max_length=63)]
Password = Annotated[str, Field(max_length=1_000)]


class MeBody(BaseModel):
    """The account that the token proved, and what it may do."""

    account: str
    kind: str
    role: Role
    read_only: bool


class UserBody(ValueBody):
    """A user. ``disabled_ms``: 0 while it may log in."""

    name: str
    role: Role
    created_ms: int
    created_by: str
    disabled_ms: int
    last_login_ms: int


class UsersBody(BaseModel):
    """Every user, by name."""

    users: list[UserBody]


class UserRequest(BaseModel, extra="forbid"):
    """A new user."""

    name: Name
    role: Role
    password: Password


class RoleRequest(BaseModel, extra="forbid"):
    """The role that a user gets."""

    role: Role


class PasswordRequest(BaseModel, extra="forbid"):
    """The password that a user gets."""

    password: Password


class TokenBody(ValueBody):
    """A token, without its secret. ``owner``: the user of a personal one; ``expires_ms``: 0 for never."""

    id: str
    name: str
    kind: TokenKind
    owner: str
    role: Role
    read_only: bool
    created_ms: int
    created_by: str
    expires_ms: int
    revoked_ms: int
    revoked_by: str
    last_used_ms: int


class TokensBody(BaseModel):
    """Every token, the newest first."""

    tokens: list[TokenBody]


class NewTokenBody(TokenBody):
    """A new token with its secret, which nobody can read again."""

    secret: str


class TokenRequest(BaseModel, extra="forbid"):
    """A wanted token. ``owner``: the user whose personal token it is, "" for a service token; ``days`` 0: for ever."""

    name: Name
    role: Role
    owner: str = Field(default="", max_length=63)
    read_only: bool = False
    days: float = Field(default=90.0, ge=0, le=MAX_DAYS)


def me_router(auth: Auth) -> APIRouter:
    """Return the route for every person and program."""
    routes = APIRouter(tags=["people"], dependencies=[Depends(auth.view_or_builder)])

    @routes.get("/api/me")
    def me(request: Request) -> MeBody:
        """Return who calls, and the role."""
        found = auth.staff(request, Need.VIEW_OR_BUILD)
        actor = found.actor
        return MeBody(account=actor.account, kind=actor.kind.value, role=found.role, read_only=found.read_only)

    return routes


def users_router(auth: Auth, users: Users) -> APIRouter:
    """Return the routes for admins.

    Their handlers raise ``UnknownUserError`` for a name that nobody has.
    """
    routes = APIRouter(tags=["people"], dependencies=[Depends(auth.admin)])

    @routes.get("/api/users")
    def list_users() -> UsersBody:
        """Return every user."""
        return UsersBody(users=[UserBody.of(one) for one in users.all()])

    @routes.post("/api/users", status_code=201)
    def add(request: UserRequest, caller: Caller) -> UserBody:
        """Add a user."""
        return UserBody.of(users.add(request.name, request.role, request.password, by=caller))

    @routes.post("/api/users/{name}/role")
    def role(name: str, request: RoleRequest, caller: Caller) -> UserBody:
        """Give a user another role, also in open sessions and for personal tokens."""
        return UserBody.of(users.set_role(name, request.role, by=caller))

    @routes.post("/api/users/{name}/password")
    def password(name: str, request: PasswordRequest, caller: Caller) -> UserBody:
        """Give a user another password, and end the sessions of before."""
        return UserBody.of(users.set_password(name, request.password, by=caller))

    @routes.post("/api/users/{name}/disable")
    def disable(name: str, caller: Caller) -> UserBody:
        """End the sessions and personal tokens of a user, who can't log in any more."""
        return UserBody.of(users.disable(name, by=caller))

    @routes.post("/api/users/{name}/enable")
    def enable(name: str, caller: Caller) -> UserBody:
        """Let a disabled user log in again."""
        return UserBody.of(users.enable(name, by=caller))

    @routes.post("/api/users/{name}/log-out")
    def log_out(name: str, caller: Caller) -> UserBody:
        """End every session of a user."""
        return UserBody.of(users.end_sessions(name, by=caller))

    return routes


def tokens_router(auth: Auth, tokens: Tokens) -> APIRouter:
    """Return the routes for admins.

    Their handlers raise ``UnknownTokenError`` for an id that no token has.
    """
    routes = APIRouter(tags=["people"], dependencies=[Depends(auth.admin)])

    @routes.get("/api/tokens")
    def list_tokens() -> TokensBody:
        """Return every token, without the secrets."""
        return TokensBody(tokens=[TokenBody.of(one) for one in tokens.all()])

    @routes.post("/api/tokens", status_code=201)
    def issue(request: TokenRequest, caller: Caller) -> NewTokenBody:
        """Issue a token, and return its secret, this once."""
        made, secret = tokens.issue(TokenOrder(**request.model_dump()), by=caller)
        return _with_secret(made, secret)

    @routes.post("/api/tokens/{token}/revoke")
    def revoke(token: str, caller: Caller) -> TokenBody:
        """Refuse a token from the next request on."""
        return TokenBody.of(tokens.revoke(token, by=caller))

    return routes


def _with_secret(made: IssuedToken, secret: str) -> NewTokenBody:
    return NewTokenBody(**TokenBody.of(made).model_dump(), secret=secret)
