"""The settings of alerts: when one opens and ends, and the routes by which it reaches people."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

from server.alerts.model import KINDS
from wire.errors import SettingsError
from wire.paths import without_tilde
from wire.settings import Bound, OneOf

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
WEBHOOK, EMAIL, APPRISE = "webhook", "email", "apprise"
_KEYS = {
    WEBHOOK: {"url", "url_file", "secret_file", "ca"},
    EMAIL: {"host", "port", "security", "user", "password_file", "sender", "recipients", "ca"},
    APPRISE: {"url_file"},
}
_OWN = sorted({key for keys in _KEYS.values() for key in keys})
Kind: TypeAlias = Annotated[str, OneOf(KINDS)]
Within: TypeAlias = Annotated[float, Bound(0, 30 * 86_400.0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRoute:
    """One way to people: ``[[alerts.route]]``, as many as you like. An alert goes by every route that it fits.

    ``name``: for commands and the log. ``to``: webhook, email or apprise. ``severity``: this one and more urgent ones.
    ``sites``: names or patterns (``north-*``); empty: all, and alerts of no site. ``kinds``: empty: all.
    ``resolved``: also say when an alert ends. Webhook: ``url``, or ``url_file`` with the URL if it is a secret;
    ``secret_file``: what the signature is made with. E-mail: ``host``, ``port`` (0: 587, or 465 for tls), ``security``
    (starttls, tls, or none on this machine alone), ``user``, ``password_file``, ``sender``, ``recipients``. Apprise:
    ``url_file``, a URL a line. Files of secrets must be readable by their owner alone. ``ca``: PEM file of the
    authority of the receiver's certificate, "" for those of the system.
    """

    name: str = ""
    to: Annotated[str, OneOf((WEBHOOK, EMAIL, APPRISE))] = WEBHOOK
    severity: Annotated[str, OneOf(("attention", "alarm"))] = "attention"
    sites: tuple[str, ...] = ()
    kinds: tuple[Kind, ...] = ()
    resolved: bool = True
    timeout_s: Annotated[float, Bound(0, 60, above=True)] = 10.0  # a receiver that is slower gets it again
    url: str = ""
    url_file: str = ""
    secret_file: str = ""
    host: str = ""
    port: Annotated[int, Bound(0, 65_535)] = 0
    security: Annotated[str, OneOf(("starttls", "tls", "none"))] = "starttls"
    user: str = ""
    password_file: str = ""
    sender: str = ""
    recipients: tuple[str, ...] = ()
    ca: str = ""

    def __post_init__(self) -> None:
        """Check what belongs together.

        Raises:
            SettingsError: If a key is missing, does not belong to ``to``, or has an impossible value.
        """
        if not _NAME.fullmatch(self.name):
            raise SettingsError(f"Expected a name of a-z, 0-9, _ and -, got {self.name!r}")
        given = {key for key in _OWN if getattr(self, key) not in ("", 0, ()) and key != "security"}
        if odd := sorted(given - _KEYS[self.to]):
            wanted = ", ".join(sorted(_KEYS[self.to]))
            raise SettingsError(f"Expected of a route to {self.to} the keys {wanted}, got {', '.join(odd)}")
        {WEBHOOK: self._check_webhook, EMAIL: self._check_email, APPRISE: self._check_apprise}[self.to]()

    def _check_webhook(self) -> None:
        if bool(self.url) == bool(self.url_file):
            raise SettingsError("Expected url, or url_file with a URL that is a secret, got both or neither")
        if self.url:
            check_url(self.url)
        if not self.secret_file:
            raise SettingsError("Expected secret_file, got none: openssl rand -hex 32 > FILE && chmod 600 FILE")

    def _check_email(self) -> None:
        for key in ("host", "sender", "recipients"):
            if not getattr(self, key):
                raise SettingsError(f"Expected {key} of a route to email, got none")
        for address in (self.sender, *self.recipients):
            if not re.fullmatch(r"[^\s@<>,;:\"]+@[^\s@<>,;:\"]+", address):
                raise SettingsError(f"Expected an address such as ops@example.org, got {address!r}")
        if bool(self.user) != bool(self.password_file):
            raise SettingsError("Expected both of user and password_file, or none, got one")
        if self.security == "none" and (self.host not in _LOOPBACK or self.user):
            raise SettingsError(
                'Expected security = "starttls" or "tls", got "none": without a password, and to this machine only'
            )

    def _check_apprise(self) -> None:
        if not self.url_file:
            raise SettingsError("Expected url_file of a route to apprise, got none: its URLs are secrets")

    def below(self, folder: Path) -> AlertRoute:
        """Return the same with relative paths below ``folder``.

        Raises:
            PathError: If one begins with ``~user`` and there is no such user.
        """
        names = (self.url_file, self.secret_file, self.password_file, self.ca)
        url, secret, password, ca = (str(folder / without_tilde(name)) if name else "" for name in names)
        return replace(self, url_file=url, secret_file=secret, password_file=password, ca=ca)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertsConfig:
    """When an alert opens and ends. Without a route it is on the page and in the commands only.

    ``after_s``: how long devices are away, answer nothing, or a check of the server fails before that is an alert.
    ``clear_s``: how long it must be over before the alert ends, four times as long after each return, up to an hour.
    ``reopen_s``: a cause that returns within this time after the end opens the same alert again. ``site_devices``: as
    many devices of one site are one alert of the site. ``failing_s``: what a receiver has not accepted for so long is a
    concern of the overall status.
    """

    after_s: Within = 60.0  # a network that breaks for moments is no news
    clear_s: Within = 60.0
    reopen_s: Within = 6 * 3_600.0  # within one shift it is the same trouble
    site_devices: Annotated[int, Bound(2, 1_000_000)] = 3  # two at once may be chance
    failing_s: Within = 300.0  # a receiver that restarts is back by then
    route: tuple[AlertRoute, ...] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        """Check that no two routes have one name.

        Raises:
            SettingsError: If two have.
        """
        names = [one.name for one in self.route]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise SettingsError(f"Expected a name of its own for each route, got {twice[0]!r} twice")

    def below(self, folder: Path) -> AlertsConfig:
        """Return the same with relative paths of routes below ``folder``.

        Raises:
            PathError: If one begins with ``~user`` and there is no such user.
        """
        return replace(self, route=tuple(one.below(folder) for one in self.route))


def check_url(url: str) -> None:
    """Check the URL of a webhook.

    Raises:
        SettingsError: If it is none of HTTP, or holds a password. The message has no more of it than its host.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        raise SettingsError("Expected http://HOST/PATH or https://HOST/PATH as the url of a webhook, got another text")
    if parts.username or parts.password:
        raise SettingsError(f"Expected the url of {host} without a user and password, got one with: use url_file")
