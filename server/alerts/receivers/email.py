"""Sends a notice as a mail, by SMTP with TLS.

The server's certificate is verified. A mail is accepted when the server has answered 250 to its end (RFC 5321,
4.1.1.4). One recipient of several that is refused is logged, not tried again: the others would get the mail twice. The
``Message-ID`` is the same each time that a notice is sent, so that mail programs show it once.
"""

from __future__ import annotations

import contextlib
import logging
import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, localtime

from server.alerts.config import AlertRoute
from server.alerts.notices import subject_of, text_of
from server.alerts.receivers.message import NoticeMessage, line_of, secret_in
from server.errors import ConfigError, DeliveryError

_LOG = logging.getLogger(__name__)
_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_OK = 250
_ACCEPTED = (250, 251)


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail server."""

    route: AlertRoute

    def check(self) -> None:
        """Check password and authority.

        Raises:
            ConfigError: If one can't be used.
        """
        self._password()
        self._context()

    def send(self, message: NoticeMessage) -> str:
        """Send the mail; return what the server answered to its end.

        Raises:
            DeliveryError: If the server can't be reached, is not who it says, or refuses login, sender, mail or all
                recipients.
            ConfigError: If password or authority can't be used.
        """
        password, context, mail = self._password(), self._context(), mail_of(self.route, message)
        try:
            with self._connected(context) as server:
                if self.route.user:
                    server.login(self.route.user, password)
                return self._hand_over(server, mail)
        except smtplib.SMTPAuthenticationError as error:
            text = f"Expected {self.route.host} to accept the login of {self.route.user}, got {error.smtp_code}"
            raise DeliveryError(text) from error
        except (smtplib.SMTPException, OSError, ValueError) as error:
            said = line_of(str(error)) or type(error).__name__
            raise DeliveryError(f"Expected {self.route.host} to take a mail, got: {said}") from error

    def _connected(self, context: ssl.SSLContext) -> smtplib.SMTP:
        host, port, within_s = self.route.host, self.route.port or _PORTS[self.route.security], self.route.timeout_s
        if self.route.security == "tls":
            return smtplib.SMTP_SSL(host, port, timeout=within_s, context=context)
        server = smtplib.SMTP(host, port, timeout=within_s)
        if self.route.security == "starttls":
            try:
                server.starttls(context=context)  # raises if the server does not offer it
            except BaseException:
                server.close()
                raise
        return server

    def _hand_over(self, server: smtplib.SMTP, mail: EmailMessage) -> str:
        server.ehlo_or_helo_if_needed()
        code, said = server.mail(self.route.sender)
        if code != _OK:
            raise smtplib.SMTPSenderRefused(code, said, self.route.sender)
        refused = {}
        for recipient in self.route.recipients:
            code, said = server.rcpt(recipient)
            if code not in _ACCEPTED:
                refused[recipient] = (code, said)
        if len(refused) == len(self.route.recipients):
            raise smtplib.SMTPRecipientsRefused(refused)
        code, said = server.data(mail.as_bytes(policy=SMTP))
        if code != _OK:
            raise smtplib.SMTPDataError(code, said)
        for recipient, (why, _) in refused.items():
            _LOG.error("A recipient is refused by the mail server. route=%s to=%s code=%d", self.route.name, recipient,
                       why)  # fmt: skip
        left_out = f"; not to {', '.join(refused)}" if refused else ""
        with contextlib.suppress(smtplib.SMTPException, OSError):
            server.quit()
        return line_of(f"{code} {said.decode(errors='replace')}{left_out}")

    def _password(self) -> str:
        return secret_in(self.route.password_file) if self.route.password_file else ""

    def _context(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.route.ca or None)
        except (OSError, ssl.SSLError) as error:
            message = f"Expected a PEM file of an authority at {self.route.ca}, got: {error}"
            raise ConfigError(message) from error


def mail_of(route: AlertRoute, message: NoticeMessage) -> EmailMessage:
    """Return the mail about a notice; with the picture of its evidence, if there is one, and its caption."""
    mail, domain, document = EmailMessage(policy=SMTP), route.sender.partition("@")[2], message.document
    mail["From"], mail["To"] = route.sender, ", ".join(route.recipients)
    mail["Subject"] = subject_of(document)
    mail["Date"] = format_datetime(localtime())
    mail["Message-ID"] = f"<{message.key}@{domain}>"
    if message.alert:
        mail["References"] = f"<alert-{message.alert}@{domain}>"  # mail programs show one alert as one thread
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday notes in answer
    mail["Idempotency-Key"] = message.key
    text = text_of(document)
    if message.picture is None:
        mail.set_content(text)
        return mail
    mail.set_content(f"{text}\nPicture: {message.picture.caption}.\n")
    mail.add_attachment(
        message.picture.png, maintype="image", subtype="png", filename="evidence.png", disposition="inline"
    )
    return mail
