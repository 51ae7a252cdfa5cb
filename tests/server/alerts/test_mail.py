"""A mail: over TLS with a verified certificate, with a login, accepted only when the server took it."""

from __future__ import annotations

import email
import email.policy
import ssl
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from server.alerts.config import AlertRoute
from server.alerts.model import Alert, AlertKind, AlertSeverity, NoticeEvent
from server.alerts.notices import document_of
from server.alerts.picture import draw
from server.alerts.receivers.email import Mail
from server.alerts.receivers.message import NoticeMessage
from server.errors import DeliveryError

pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")  # it has TLS from the start
ALERT = Alert(
    id=7, key="verdict:1", subject="", kind=AlertKind.VERDICT, severity=AlertSeverity.ALARM,
    title="Site north sees\nsomething new", cause="luma_mean higher", action="collect samples", devices=("cam-1",),
    device_count=200, sites=("north",), opened_ms=1_800_000_000_000, seen_ms=1_800_000_000_000,
)  # fmt: skip
BODY = document_of(ALERT, NoticeEvent.OPENED, 1_800_000_000_000, "Gerät", "https://fleet.example.org").encode()
MESSAGE = NoticeMessage(key="ab" * 16, alert=7, event="opened", body=BODY, sent_s=1)
PASSWORD = "correct horse"


class MailSink:
    """Takes mails from ``ops`` with the right password; answers ``refuse`` to what that names."""

    def __init__(self) -> None:
        """Begin without a mail."""
        self.mails: list[tuple[list[str], EmailMessage]] = []
        self.refuse: dict[str, str] = {}
        self.port = 0

    async def handle_RCPT(  # noqa: N802 - the names of aiosmtpd
        self, _: SMTP, __: Session, envelope: Envelope, address: str, ___: list[str]
    ) -> str:
        """Take a recipient."""
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(self, _: SMTP, __: Session, envelope: Envelope) -> str:  # noqa: N802 - as above
        """Take a mail."""
        if "DATA" in self.refuse:
            return self.refuse["DATA"]
        found = email.message_from_bytes(bytes(envelope.content or b""), policy=email.policy.default)
        assert isinstance(found, EmailMessage)
        self.mails.append((list(envelope.rcpt_tos), found))
        return "250 queued as 42"


class _OnAFreePort(Controller):
    """A mail server on the port that the system gave it."""

    def _trigger_server(self) -> None:
        assert self.server is not None
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


def _login(_: SMTP, __: Session, ___: Envelope, mechanism: str, given: object) -> AuthResult:
    right = isinstance(given, LoginPassword) and given.password.decode() == PASSWORD
    return AuthResult(success=right and mechanism in ("LOGIN", "PLAIN"), handled=False)


@pytest.fixture
def start(certificates: Path) -> Iterator[Callable[[str], MailSink]]:
    """Start a mail server on localhost with ``starttls``, ``tls``, or ``plain`` without any."""
    running: list[Controller] = []

    def started(security: str) -> MailSink:
        sink = MailSink()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
        keys = {
            "starttls": {"tls_context": context, "require_starttls": True},
            "tls": {"ssl_context": context, "auth_require_tls": False},
            "plain": {},
        }[security]
        login = {} if security == "plain" else {"authenticator": _login, "auth_required": True}
        controller = _OnAFreePort(sink, hostname="localhost", port=0, **keys, **login)  # type: ignore[arg-type]
        controller.start()
        running.append(controller)
        sink.port = controller.port
        return sink

    yield started
    for controller in running:
        controller.stop()


def mail_by(sink: MailSink, certificates: Path, tmp_path: Path, **keys: object) -> Mail:
    """Return a route to ``sink``."""
    file = tmp_path / "mail.password"
    file.write_text(PASSWORD)
    file.chmod(0o600)
    values = {
        "name": "ops", "to": "email", "host": "localhost", "port": sink.port, "user": "ops", "timeout_s": 2.0,
        "password_file": str(file), "sender": "fleet@example.org", "recipients": ("ada@example.org", "bo@example.org"),
        "ca": str(certificates / "ca.pem"), **keys,
    }  # fmt: skip
    return Mail(AlertRoute(**values))  # type: ignore[arg-type]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_mail_arrives_with_text_and_picture(
    start: Callable[[str], MailSink], certificates: Path, tmp_path: Path, security: str
) -> None:
    """Encrypted, logged in, with what a person needs, and as one line of subject."""
    sink, drawn = start(security), draw({"cam-1": [(0, 0.5), (1, 1.5)]})
    message = NoticeMessage(key="ab" * 16, alert=7, event="opened", body=BODY, sent_s=1, picture=drawn)
    assert mail_by(sink, certificates, tmp_path, security=security).send(message) == "250 queued as 42"
    recipients, mail = sink.mails[0]
    assert recipients == ["ada@example.org", "bo@example.org"]
    assert mail["Subject"] == "[tinyfleet alarm] Site north sees something new"
    assert (mail["Message-ID"], mail["Idempotency-Key"]) == (f"<{'ab' * 16}@example.org>", "ab" * 16)
    body, picture = mail.get_body(("plain",)), next(iter(mail.iter_attachments()))
    text = "" if body is None else str(body.get_content())
    for words in ("luma_mean higher", "collect samples", "200: cam-1 and 199 more", "Gerät",
                  "https://fleet.example.org/alerts?id=7", "at least once", "Evidence of cam-1 (blue)"):  # fmt: skip
        assert words in text
    assert drawn is not None
    assert (picture.get_content_type(), picture.get_content()) == ("image/png", drawn.png)


def test_a_refused_login_is_a_failure_that_shows_no_password(
    start: Callable[[str], MailSink], certificates: Path, tmp_path: Path
) -> None:
    """It is tried again: somebody may mend the file."""
    sink = start("starttls")
    mail = mail_by(sink, certificates, tmp_path)
    Path(mail.route.password_file).write_text("wr0ng one")
    with pytest.raises(DeliveryError, match="accept the login of ops, got 535") as refused:
        mail.send(MESSAGE)
    assert "wr0ng" not in str(refused.value)
    assert not sink.mails


def test_a_server_with_a_foreign_certificate_gets_neither_password_nor_mail(
    start: Callable[[str], MailSink], certificates: Path, tmp_path: Path
) -> None:
    """The authority is not among those of the system."""
    sink = start("starttls")
    with pytest.raises(DeliveryError, match="certificate verify failed"):
        mail_by(sink, certificates, tmp_path, ca="").send(MESSAGE)
    assert not sink.mails


def test_a_server_without_starttls_gets_nothing(
    start: Callable[[str], MailSink], certificates: Path, tmp_path: Path
) -> None:
    """Somebody in between may have taken the offer away."""
    sink = start("plain")
    with pytest.raises(DeliveryError, match="STARTTLS"):
        mail_by(sink, certificates, tmp_path).send(MESSAGE)
    assert not sink.mails


def test_a_relay_of_this_machine_may_be_plain(
    start: Callable[[str], MailSink], certificates: Path, tmp_path: Path
) -> None:
    """Without a password; a picture is no must."""
    sink = start("plain")
    plain = {"security": "none", "user": "", "password_file": "", "ca": ""}
    assert mail_by(sink, certificates, tmp_path, **plain).send(MESSAGE) == "250 queued as 42"
    assert not list(sink.mails[0][1].iter_attachments())


@pytest.mark.parametrize(
    ("refuse", "words"),
    [
        ({"DATA": "451 try later"}, "451"),
        ({"ada@example.org": "550 no", "bo@example.org": "550 no"}, "550"),
    ],
)
def test_a_mail_that_is_not_taken_is_a_failure(
    start: Callable[[str], MailSink], certificates: Path, tmp_path: Path, refuse: dict[str, str], words: str
) -> None:
    """Also after all went well until its end."""
    sink = start("tls")
    sink.refuse = refuse
    with pytest.raises(DeliveryError, match=words):
        mail_by(sink, certificates, tmp_path, security="tls").send(MESSAGE)


def test_one_refused_recipient_of_two_is_told_and_not_tried_again(
    start: Callable[[str], MailSink], certificates: Path, tmp_path: Path
) -> None:
    """The other has the mail, and would get it twice."""
    sink = start("tls")
    sink.refuse = {"bo@example.org": "550 no such person"}
    said = mail_by(sink, certificates, tmp_path, security="tls").send(MESSAGE)
    assert said == "250 queued as 42; not to bo@example.org"
    assert sink.mails[0][0] == ["ada@example.org"]
