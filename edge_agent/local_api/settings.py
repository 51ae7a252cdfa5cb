"""``[api]`` of ``agent.toml``: where the local interface listens, and its limits. Off by default.

Decides which addresses are valid: loopback, or any other with a token. Standard library only: the control process reads
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from wire.errors import SettingsError
from wire.settings import Bound

_PORTS = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiConfig:
    """The local interface: KServe v2, metrics, answers, corrections. Off without ``listen`` and ``unix``."""

    listen: str = ""  # ADDRESS:PORT, "127.0.0.1:8500" or "[::1]:8500"; port 0 is any free one, which the log names
    unix: Path | None = None  # a unix socket, for owner and group; it needs no token
    token_file: Path | None = None  # of mode 0600; required by every address that is not loopback
    keep_bytes: Annotated[int, Bound(0, 2**30)] = 8 * 1024 * 1024  # of the last inputs, for the page and corrections
    body_bytes: Annotated[int, Bound(1024, 64 * 1024 * 1024)] = 8 * 1024 * 1024  # of one request
    connections: Annotated[int, Bound(1, 256)] = 16  # at once; half of them may be streams
    queue: Annotated[int, Bound(1, 256)] = 8  # requests that wait for the model; beyond, 503
    wait_s: Annotated[float, Bound(0.1, 300)] = 10.0  # for a request's model run; a slow client is cut off after it too

    def __post_init__(self) -> None:
        """Reject an address that is none, and one outside of loopback without a token.

        Raises:
            SettingsError: If there is such.
        """
        if not self.listen:
            return
        host, _ = address_of(self.listen)
        if not is_loopback(host) and self.token_file is None:
            message = f"Expected token_file beside listen = {self.listen!r}, which is not loopback, got none"
            raise SettingsError(f"{message}: set it, or listen on 127.0.0.1")

    @property
    def on(self) -> bool:
        """Whether anything is served."""
        return bool(self.listen) or self.unix is not None


def address_of(listen: str) -> tuple[str, int]:
    """Return the IP address and the port of ``ADDRESS:PORT``.

    Raises:
        SettingsError: If it is no such address.
    """
    import ipaddress  # noqa: PLC0415 - only a device with a local interface needs it

    host, colon, port = listen.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        colon = ""
    if not colon or not (port.isascii() and port.isdigit() and int(port) <= _PORTS):
        message = f"Expected listen as ADDRESS:PORT, for example 127.0.0.1:8500, got {listen!r}"
        raise SettingsError(message)
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches the IP address ``host``."""
    import ipaddress  # noqa: PLC0415 - only a device with a local interface needs it

    return ipaddress.ip_address(host).is_loopback
