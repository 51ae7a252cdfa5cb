"""What a person asked a device or said about it on its page, and its answer, as the page shows them; pure."""

from __future__ import annotations

from dataclasses import dataclass

from server.dashboard.views import Status, Tone, ago, clock_time
from server.drift.commissions import Commission
from server.fleet.fleet import SentCommand
from server.wording import in_bytes
from wire.codec import from_document
from wire.errors import WireError
from wire.messages import BenchmarkAnswer, LogsAnswer

LOGS, BENCHMARK = "logs", "benchmark"
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandView:
    """The last question of one kind: how it stands, a note for a person, and the lines of the answer."""

    status: Status
    note: str = ""
    lines: tuple[str, ...] = ()


def command_view(sent: SentCommand, now_ms: int) -> CommandView:
    """Return how a question stands."""
    if not sent.answered_ms:
        if now_ms > sent.expires_ms:
            note = f"asked {ago(sent.issued_ms, now_ms)}; is the device there, and not busy?"
            return CommandView(status=Status("no answer", Tone.WARN), note=note)
        return CommandView(status=Status(f"asked {ago(sent.issued_ms, now_ms)}", Tone.BUSY))
    if not sent.ok:
        return CommandView(status=Status(f"refused: {sent.code.replace('_', ' ')}", Tone.BAD), note=sent.text)
    answered = Status(f"answered {ago(sent.answered_ms, now_ms)}", Tone.GOOD)
    try:
        if sent.verb == LOGS:
            log = from_document(LogsAnswer, sent.data)
            left_out = f"{log.left_out} older lines left out: too much to send" if log.left_out else ""
            return CommandView(status=answered, note=left_out, lines=log.lines or ("no lines",))
        return CommandView(status=answered, lines=(_figures(from_document(BenchmarkAnswer, sent.data)),))
    except WireError as error:
        return CommandView(status=Status("an answer that can't be read", Tone.BAD), note=str(error))


def _figures(found: BenchmarkAnswer) -> str:
    text = f"{found.release}: {found.p50_ms:.3g} ms a run (p50), {found.p95_ms:.3g} (p95), {found.p99_ms:.3g} (p99)"
    text += f" over {found.runs} runs"
    text += f"; at most {in_bytes(found.peak_memory_bytes)} of memory" if found.peak_memory_bytes else ""
    text += f"; {found.temperature_celsius:.0f} °C" if found.temperature_celsius else ""
    return text + ("; timed beside the model that serves" if found.shared else "")


def certificate_text(expires_ms: int | None, now_ms: int, *, required: bool) -> str:
    """Return what is known about a device's certificate in words; ``expires_ms`` None: it never had one."""
    if expires_ms is None:
        return "none: it can't connect, enrol it again" if required else "none: it has a password"
    until = clock_time(expires_ms)[: len("2027-01-01")]
    if expires_ms <= now_ms:
        return f"expired on {until}: enrol it again with a new claim"
    return f"valid until {until}, {(expires_ms - now_ms) // _DAY_MS} days"


def commission_text(one: Commission) -> str:
    """Return from when on the device is commissioned again, by whom and why."""
    return f"from {clock_time(one.from_ms)} on, by {one.decided_by}: {one.why}"
