"""Sends a notice as a message by ``apprise``, an optional package that knows over a hundred services.

Which address is called, and whether a redirect is followed, is up to ``apprise`` and the service of the URL. The text
has no picture, and a message that is sent twice carries no key by which the service could tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from server.alerts.config import AlertRoute
from server.alerts.model import AlertSeverity, NoticeEvent
from server.alerts.notices import subject_of, text_of
from server.alerts.receivers.message import NoticeMessage, secret_in
from server.errors import ConfigError, DeliveryError


@dataclass(frozen=True, slots=True)
class Chat:
    """A service that ``apprise`` knows."""

    route: AlertRoute

    def check(self) -> None:
        """Check that the package is there and knows the URL.

        Raises:
            ConfigError: If not.
        """
        self._service()

    def send(self, message: NoticeMessage) -> str:
        """Send the message.

        Raises:
            DeliveryError: If the service did not accept it.
            ConfigError: As ``check``.
        """
        service, document = self._service(), message.document
        if not service.notify(title=subject_of(document), body=text_of(document), notify_type=_type(message)):
            raise DeliveryError(
                "Expected the service to accept the message, got a refusal: the log of apprise says why"
            )
        return "accepted"

    def _service(self) -> Any:  # noqa: ANN401 - a class of an optional package
        try:
            import apprise  # noqa: PLC0415 - optional, and half a second to load
        except ImportError as error:
            message = f"Expected apprise for the route {self.route.name!r}, got none: pip install 'tinyfleet[alerts]'"
            raise ConfigError(message) from error
        service = apprise.Apprise()
        if not service.add(secret_in(self.route.url_file)):
            raise ConfigError(f"Expected a URL that apprise knows in {self.route.url_file}, got another text")
        return service


def _type(message: NoticeMessage) -> str:
    if message.event == NoticeEvent.RESOLVED:
        return "success"
    alert = message.document["alert"]
    alarm = isinstance(alert, dict) and alert["severity"] == AlertSeverity.ALARM
    return "failure" if alarm else "warning"
