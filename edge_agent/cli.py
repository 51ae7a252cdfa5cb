"""``edge-agent``: enrol a device, run its agent, look at it.

Exit codes: 0 done · 1 a check of ``selftest`` failed, or an unexpected fault · 2 wrong usage · 3 not enrolled or bad
configuration · 4 the state directory is in use · 5 enrolment failed · 6 the disk or the spool can't be written; of
``status`` also: 7 no agent runs · 8 it serves or answers nothing, or is degraded · 9 it has reported nothing for long;
of ``selftest``: 10 the device is fit, the server is not reachable or reports a fault; of ``rollback`` and
``import``: 11 refused.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click

from edge_agent.config import AgentConfig, document_of, read_config
from edge_agent.control.status_file import AgentHealth, read_status
from edge_agent.device import hardware
from edge_agent.device.disk import RealDisk
from edge_agent.device.identity import check_folder
from edge_agent.device.identity import enrol as trade_claim
from edge_agent.device.lock import holder
from edge_agent.errors import EnrolmentError, IdentityError
from edge_agent.exits import EXIT_FAULT, EXIT_UNUSABLE, STOPS, coded, end_at_once_when_stopped
from edge_agent.logs import log_to_stderr
from edge_agent.software.installed import installed_software
from edge_agent.software.running import with_releases
from edge_agent.sources import placed
from edge_agent.updater.storage.slots import Slots
from wire import __version__
from wire.canonical import canonical_bytes
from wire.codec import Json, from_document, to_document
from wire.cyclonedx import cyclonedx_document
from wire.errors import InstallationError, PathError
from wire.installation import check_alone
from wire.messages import Reported
from wire.paths import typed_path, without_tilde
from wire.software import software_bytes, software_digest

EXIT_NOT_RUNNING, EXIT_DEGRADED, EXIT_STALE, EXIT_SERVER = 7, 8, 9, 10
_HEALTH_EXITS = {
    AgentHealth.SERVING: 0,
    AgentHealth.NOT_RUNNING: EXIT_NOT_RUNNING,
    AgentHealth.WAITING: EXIT_DEGRADED,
    AgentHealth.REFUSED: EXIT_DEGRADED,
    AgentHealth.DEGRADED: EXIT_DEGRADED,
    AgentHealth.ANSWERS_NOTHING: EXIT_DEGRADED,
    AgentHealth.STALE: EXIT_STALE,
}
_MAX_CLAIM_BYTES = 1024
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class _Seconds(click.FloatRange):
    """A time in its range; "nan", which click takes for one inside of any range, is none."""

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or end with a usage error."""
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"Expected a number of seconds, got {value!r}", param, ctx)
        return seconds


def _address(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Return a path without a tilde; an address stays as it is."""
    path = None if value is None or "://" in value else _path(_context, _parameter, value)
    return value if path is None else str(path)


def _path(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Path | None:
    try:
        return None if value is None else typed_path(value)
    except PathError as error:
        raise click.BadParameter(str(error)) from error


def _since(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int:
    """Return a time in UTC milliseconds, 0 without one."""
    if value is None:
        return 0
    try:
        if value[-1:] in _UNITS_S:
            return round((time.time() - float(value[:-1]) * _UNITS_S[value[-1]]) * 1000)
        at = datetime.fromisoformat(value)
        return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        message = f"Expected 30s, 10m, 2h, 3d or a time such as 2026-11-29T15:00, got {value!r}"
        raise click.BadParameter(message) from error


_STATE = click.option(
    "--state",
    type=click.Path(file_okay=False),
    required=True,
    callback=_path,
    help="The agent's state directory.",
)


def _example(*lines: str) -> str:
    return "\b\n" + "\n".join([f"Example{'s' if len(lines) > 1 else ''}:", *(f"  {line}" for line in lines)])


_EPILOG = """\b
From nothing to a device that serves:
  fleet-server claim STATE --site north --device cam-1 > cam-1.claim       (on the server)
  edge-agent enrol --server https://fleet.example --claim-file cam-1.claim --state agent
  edge-agent run --state agent
  edge-agent status --state agent

\b
Exit codes:
  0  done
  1  a check of selftest failed, or an unexpected fault
  2  wrong usage
  3  not enrolled, or a bad configuration
  4  another agent runs on the state directory
  5  enrolment failed
  6  the disk or the spool can't be written
  7  status: no agent runs
  8  status: it runs and serves nothing, answers none of its inputs, or is degraded
  9  status: it runs and has reported nothing for three minutes
  10 selftest: this device is fit, but the server did not answer or reports a fault
  11 rollback, import, benchmark: the device refuses, for the reason in the message
"""


@click.group(
    help="Run a model on this device and keep it right: infer, watch for drift, report, update.",
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="edge-agent")
def main() -> None:
    """Check the installation, before any command."""
    try:
        check_alone()
    except InstallationError as error:
        print(f"error [{error.code}]: {error}", file=sys.stderr)
        sys.exit(EXIT_UNUSABLE)


@main.command(
    help="Trade a one-time claim for this device's identity.\n\nThe claim comes from `fleet-server claim`, by file or"
    " standard input: every user of this machine can read a command line. Identity and credentials are written to the"
    " state directory, readable by its owner only. If the server signs certificates, the device makes a key that never"
    " leaves it, by the program openssl.",
    epilog=_example(
        "edge-agent enrol --server https://fleet.example --claim-file cam-1.claim --state agent",
        "edge-agent enrol --server https://fleet.example --ca ca.pem --claim-file - --state agent < claim",
    ),
)
@click.option("--server", required=True, help="Address of fleet-server, http://… or https://…")
@click.option("--claim-file", metavar="FILE", help="File with the one-time claim of this device; - is standard input.")
@click.option("--claim", help="The claim itself, where nobody else uses this machine.")
@click.option(
    "--ca",
    type=click.Path(),
    callback=_path,
    help="PEM file to trust for https, instead of the system's.",
)
@click.option(
    "--password", is_flag=True, help="Get a password, also from a server that signs certificates (for development)."
)
@_STATE
def enrol(
    server: str, claim_file: str | None, claim: str | None, ca: Path | None, state: Path, *, password: bool
) -> None:
    """Enrol."""
    if (claim is None) == (claim_file is None):
        raise click.UsageError("Expected --claim-file FILE (- is standard input) or --claim, and not both")
    with coded(state):
        if (state / "identity.json").exists():
            message = f"Expected no identity in {state}, got one: use another --state or remove identity.json"
            raise EnrolmentError(message)
        check_folder(state)
        secret = _claim_in(claim_file) if claim_file is not None else str(claim)
        identity = trade_claim(server, secret, state, RealDisk(), ca=_certificates(ca) if ca else "", password=password)
        proof = "certificate" if identity.certified else "password"
        print(f"enrolled device={identity.device} site={identity.site} proof={proof} state={state}")


def _claim_in(name: str) -> str:
    try:
        with click.open_file(without_tilde(name), encoding="ascii") as file:
            claim: str = file.read(_MAX_CLAIM_BYTES + 1).strip()
    except (OSError, UnicodeDecodeError, PathError) as error:
        message = f"Expected a claim in {name}, got: {error}: make one with fleet-server claim"
        raise EnrolmentError(message) from error
    if len(claim.split()) > 1:
        message = f"Expected one claim in {name}, which has no white space in it, got {len(claim.split())} words"
        raise EnrolmentError(f"{message}: write the output of fleet-server claim to it, and nothing else")
    if not 0 < len(claim) <= _MAX_CLAIM_BYTES:
        message = f"Expected one claim of at most {_MAX_CLAIM_BYTES} characters in {name}, got {len(claim)} characters"
        raise EnrolmentError(message)
    return claim


def _certificates(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        message = f"Expected PEM certificates in {path}, got: {error}"
        raise EnrolmentError(message) from error


@main.command(
    help="Run the agent until SIGTERM.\n\nIt reads its source, infers with the installed release, reports to the server"
    " and installs what the server assigns. Without a network it goes on; reports wait on the disk.",
    epilog=_example("edge-agent run --state agent", "edge-agent run --state agent --config agent.toml --verbose"),
)
@_STATE
@click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False),
    callback=_path,
    help="agent.toml: source, windows, limits. Default: images from the folder STATE/inbox, one report an hour.",
)
@click.option("--verbose", is_flag=True, help="Log every step.")
def run(state: Path, config_path: Path | None, *, verbose: bool) -> None:
    """Become the control process, which needs less memory without this command line.

    What takes code that it needs only once is done here: the configuration, its plug-ins, the runtimes that there are.
    """
    end_at_once_when_stopped()
    log_to_stderr(logging.DEBUG if verbose else logging.INFO)
    with coded(state):
        config = AgentConfig() if config_path is None else read_config(config_path)
        config = replace(config, source=placed(config.source, state))
    installed = json.loads(software_bytes(installed_software()))
    checked = canonical_bytes(
        {"config": document_of(config), "runtimes": list(hardware.runtimes()), "software": installed}
    )
    handed = os.memfd_create("checked", 0)  # stays open over exec; other users may read a command line
    os.write(handed, checked)
    asked = json.dumps({"state": str(state), "verbose": verbose, "checked": handed})
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # stays over exec; the control process takes it once it can end
    os.execv(sys.executable, [sys.executable, "-P", "-m", "edge_agent.control", asked])  # noqa: S606 - no shell


@main.command(
    help="Print the software of this device: the agent, Python, its packages, the runtimes, the system, and the models"
    " in the slots.\n\nA line a component: kind, name, version, SHA-256 of a model's bundle. The agent reports the"
    " digest of the list to the server, and sends the list if the server asks.",
    epilog=_example("edge-agent software --state agent", "edge-agent software --state agent --json > device.cdx.json"),
)
@_STATE
@click.option("--json", "as_json", is_flag=True, help="A CycloneDX 1.6 document.")
def software(state: Path, *, as_json: bool) -> None:
    """Print the list."""
    with coded(state):
        check_folder(state)
        slots = Slots(state, RealDisk())
        kept = [(one.release, one.sha256) for one in (slots.current(), slots.previous()) if one is not None]
        found = with_releases(installed_software(), kept)
        if as_json:
            print(json.dumps(cyclonedx_document(found), indent=1, ensure_ascii=False))
            return
        print("kind\tname\tversion\tsha256")
        for one in found.components:
            print(f"{one.kind}\t{one.name}\t{one.version}\t{one.sha256}")
        if found.left_out:
            print(f"{found.left_out} more are left out: names that are none, or too many", file=sys.stderr)
        print(f"digest {software_digest(found)}", file=sys.stderr)


@main.command(
    "try",
    help="Print what a model answers, one JSON line for each input, without any server.\n\nBUNDLE is a file .tfb of"
    " `compressor run`; without it, the handwritten digits that came with this program. Files are never deleted. A"
    " folder is watched for new files until Ctrl-C; with --once the command ends when the present ones are answered."
    " Exit code 1: it ended by itself, and no input got an answer."
    " The keys of a record: docs/reference/answers.md.",
    epilog=_example(
        "edge-agent try build/digits-1-gateway.tfb --path pictures",
        "edge-agent try build/digits-1-gateway.tfb --path pictures --once | jq -r .label",
        "edge-agent try model.tfb --path picture.png",
        "edge-agent try model.tfb --path pictures --listen 127.0.0.1:8500",
        "edge-agent try model.tfb --source camera --path rtsp://camera.local/stream --set rate_hz=2",
        "edge-agent try model.tfb --source my_package.camera:open_source --set device=2 --count 100",
    ),
)
@click.argument("bundle", required=False, type=click.Path(), callback=_path)
@click.option("--source", "kind", default="folder", metavar="KIND", help="folder, or a kind of [source]. [folder]")
@click.option("--path", callback=_address, help="The folder, a zip, one file, or the address or device of a camera.")
@click.option("--set", "keys", multiple=True, metavar="KEY=VALUE", help="Another key of the source, as in [source].")
@click.option("--once", is_flag=True, help="End when the files that are there are answered.")
@click.option("--count", type=click.IntRange(min=0), default=0, help="End after this many answers. [0: go on]")
@click.option(
    "--listen",
    default="",
    metavar="ADDRESS:PORT",
    help="Serve the local interface on loopback: a page with the last picture and its answer, KServe v2, metrics.",
)
def try_(bundle: Path | None, kind: str, path: str | None, keys: tuple[str, ...], *, listen: str, **ends: int) -> None:
    """Try; ``ends``: ``once`` and ``count``."""
    end_at_once_when_stopped()
    with coded(bundle or Path()):
        from edge_agent.inference import trial as trying  # noqa: PLC0415 - numpy and a runtime

        own, pictures = trying.packaged() if bundle is None else (bundle, None)
        own_path = str(pictures) if pictures is not None and kind == trying.FOLDER else None
        document = trying.document_of(kind, path or own_path, keys)
        trial = trying.Trial(bundle=own, source=document, once=bool(ends["once"]), count=ends["count"], listen=listen)
        ended = trying.run(trial, lambda text: print(text, file=sys.stderr))
        if not ended.answers and not ended.stopped:
            sys.exit(EXIT_FAULT)


@main.command(
    help="Show whether an agent runs and its last report: connected or not, the release it serves, the update under"
    " way.\n\nIts lock file shows whether it runs; the rest is as old as `age`. Exit codes: 0 it runs and serves,"
    " 7 none runs, 8 it runs and serves nothing (degraded, in safe mode, refused by the broker, or"
    " waiting for a first release) or answers none of its inputs, 9 it runs and"
    " has reported nothing for three minutes, 3 none ever ran here.",
    epilog=_example("edge-agent status --state agent", "edge-agent status --state agent --json"),
)
@_STATE
@click.option("--json", "as_json", is_flag=True, help="The whole document.")
def status(state: Path, *, as_json: bool) -> None:
    """Show the status."""
    with coded(state):
        seen = read_status(state)
        if as_json:
            health: dict[str, Json] = {"health": seen.health.value, "age_s": seen.age_s, "pid": seen.pid}
            print(canonical_bytes({**seen.document, **health}).decode())
        else:
            print(f"{'agent':12} {seen.health}{f', pid {seen.pid}' if seen.pid > 0 else ''}")
            print(f"{'age':12} {f'{seen.age_s:.0f} s' if seen.age_s >= 0 else 'unknown'}")
            if not seen.pid:
                print("Its last report:")
            for key in ("state", "reason", "connected", "serving", "safe_mode", "spool_rows", "spool_bytes"):
                print(f"{key:12} {seen.document.get(key)}")
            _show_inputs(seen.document)
            _show_broker(seen.document)
            answers = seen.document.get("answers")
            for name, counts in answers.items() if isinstance(answers, dict) else ():
                print(f"{'answers':12} {name}: {_short(counts)}")
            usage, dropped = seen.document.get("usage"), seen.document.get("dropped")
            for day in usage.values() if isinstance(usage, dict) else ():
                if isinstance(day, dict) and day.get("day"):
                    air = f"sent {day.get('sent_bytes')} B, received {day.get('received_bytes')} B"
                    print(f"{'used':12} {day['day']}: {air}, written to the disk {day.get('written_bytes')} B")
            if dropped or seen.document.get("merged"):
                print(
                    f"{'spool full':12} dropped: {_short(dropped)}; drift reports merged: {seen.document.get('merged')}"
                )
            for key in ("current", "previous", "update", "certificate"):
                print(f"{key:12} {_short(_of_now(key, seen.document.get(key)))}")
        sys.exit(_HEALTH_EXITS[seen.health])


def _show_inputs(document: Mapping[str, Json]) -> None:
    """Print which inputs are not answered and what to do, or that a committed release has had none to answer."""
    found = from_document(Reported, {key: document[key] for key in ("unread", "update") if key in document})
    if found.unread is not None:
        step = f": {found.unread.text}" if found.unread.text else ""
        never = found.unread.never or found.update.answered == 0
        since = "none answered yet" if never else "none answered since the last answer"
        print(f"{'inputs':12} {since}: it {found.unread.words}{step}")
    elif found.update.answered == 0 and document.get("serving") is True:
        print(f"{'inputs':12} none yet: the source has given nothing that was answered, and nothing lies unread")


def _of_now(key: str, value: Json) -> Json:
    """Return ``value`` without how many inputs a release had answered when it was committed: it is no count of now."""
    if key != "update" or not isinstance(value, dict):
        return value
    return {name: item for name, item in value.items() if name != "answered"}


def _show_broker(document: Mapping[str, Json]) -> None:
    """Print why there is no connection to the broker, if that is known."""
    if refused := document.get("refused"):
        unknown = str(refused).endswith(("(134)", "(135)", "(tls)"))  # MQTT 5, 3.2.2.2: bad password, not authorized
        advice_text = ": it is revoked or unknown there: ask the operator" if unknown else "; it is tried again"
        advice_text = ": see certificate below" if "certificate expired" in str(refused) else advice_text
        print(f"{'broker':12} refused this device: {refused}{advice_text}")
    if unreached := document.get("unreached"):
        print(f"{'broker':12} not reached: {unreached}")


@main.command(
    help="Check identity, disk, runtime and the installed release on this device, then the server's health"
    " and whether it knows the device.\n\n"
    "One line a check. Exit codes: 0 every check passed, 1 a check of the device failed, 10 the device is fit, but the"
    " server did not answer or reports a fault (tried for some seconds).",
    epilog=_example("edge-agent selftest --state agent"),
)
@_STATE
def selftest(state: Path) -> None:
    """Check."""
    with coded(state):
        from edge_agent.device.selftest import checks  # noqa: PLC0415 - status needs none of it

        code = 0
        for check in checks(state, hardware.runtimes()):
            if not check.ok:
                code = EXIT_FAULT if check.own else code or EXIT_SERVER
            print(f"{'ok  ' if check.ok else 'FAIL' if check.own else 'wait'} {check.name}: {check.text}")
        sys.exit(code)


@main.command(
    help="Go back to the release that was committed before the current one, and give the current one up.\n\nFor a"
    " person on site; it works without a network, and whether an agent runs or not. The server sees the device as"
    " rolled back, and this release does not come back until the server assigns one again. Refused below the security"
    " floor, and where there is no release before. After a move to another model the release before is one of"
    " the earlier model: a warning says so.",
    epilog=_example("edge-agent rollback --state agent"),
)
@_STATE
def rollback(state: Path) -> None:
    """Roll back."""
    with coded(state):
        from edge_agent.control import care  # noqa: PLC0415 - status needs none of it
        from wire.manifest import model_in  # noqa: PLC0415 - as above

        care.act_as_owner(state)
        left, found = care.roll_back(state)
        print(f"rolled back from {left} to {found}")
        before, after = model_in(left), model_in(found)
        if before != after:
            text = f"warning: {found} is a release of another model ({after}, {left} is one of {before})"
            print(f"{text}: look whether it fits this device's inputs", file=sys.stderr)


@main.command(
    "import",
    help="Install a release from a USB stick: a folder or zip of `fleet-server releases export`.\n\nNothing is trusted"
    " because it is at hand: signatures, expiry, security floor and digests are verified as over the network, the"
    " golden vectors are run, and the release is on probation. The next assignment of the server counts, whatever it"
    " names. Where no agent runs, the release is copied, and installed as one starts.",
    epilog=_example(
        "edge-agent import /media/usb --state agent", "edge-agent import digits-3.zip --state agent --probation 60"
    ),
)
@click.argument("at", metavar="FOLDER|ZIP", type=click.Path(), callback=_path)
@_STATE
@click.option(
    "--probation",
    type=_Seconds(1, 86_400),
    default=600.0,
    show_default=True,
    help="Seconds of trial.",
)
def import_(at: Path, state: Path, probation: float) -> None:
    """Import."""
    with coded(state):
        from edge_agent.control import care  # noqa: PLC0415 - status needs none of it

        care.act_as_owner(state)
        print(care.bring(state, at, probation, lambda text: print(text, file=sys.stderr)))


@main.command(
    help="Time a model on this device: p50, p95 and p99 of one inference at a time, and the peak memory of its process."
    "\n\nBUNDLE is a file .tfb; without it, the release that is current on --state. Where an agent runs on --state, the"
    " benchmark has the lowest priority and says so: the model that serves is not disturbed, and the figures are those"
    " of what it leaves over.",
    epilog=_example("edge-agent benchmark --state agent", "edge-agent benchmark model.tfb --seconds 20 --json"),
)
@click.argument("bundle", required=False, type=click.Path(dir_okay=False), callback=_path)
@click.option("--state", type=click.Path(file_okay=False), callback=_path, help="The agent's state directory.")
@click.option("--seconds", type=_Seconds(0.2, 3600), default=5.0, show_default=True, help="For so long.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def benchmark(bundle: Path | None, state: Path | None, seconds: float, *, as_json: bool) -> None:
    """Time."""
    if bundle is None and state is None:
        raise click.UsageError("Expected a bundle or --state, got neither")
    with coded(state or Path()):
        from edge_agent.control import care  # noqa: PLC0415 - status needs none of it

        pid = holder(state) if state is not None else 0
        if pid:
            print(f"an agent serves here (pid {pid}): this runs at the lowest priority beside it", file=sys.stderr)
        found = care.benchmark(bundle, state, seconds)
        if as_json:
            print(canonical_bytes(to_document(found)).decode())
        else:
            print(f"{'release':12} {found.release}")
            print(f"{'latency':12} p50 {found.p50_ms:.3f} ms, p95 {found.p95_ms:.3f} ms, p99 {found.p99_ms:.3f} ms")
            print(f"{'inferences':12} {found.runs}{', beside a model that serves' if found.shared else ''}")
            print(f"{'memory':12} {found.peak_memory_bytes / 1e6:.1f} MB at the peak, of a process of its own")


@main.command(
    help="Show the device's own log, oldest first: the control process and the inference child, of level INFO and"
    " above.\n\nIt is in the state directory, at most half a megabyte, without passwords; where systemd runs the"
    " agent, its journal has the same lines and more: journalctl -u tinyfleet-agent.",
    epilog=_example(
        "edge-agent logs --state agent",
        "edge-agent logs --state agent --since 2h --level WARNING",
        "edge-agent logs --state agent --since 2026-11-29T15:00 --lines 1000",
    ),
)
@_STATE
@click.option("-n", "--lines", type=click.IntRange(1, 100_000), default=100, show_default=True, help="At most so many.")
@click.option("--since", callback=_since, metavar="WHEN", help="30s, 10m, 2h or 3d ago, or a time in UTC.")
@click.option("--level", type=click.Choice(["INFO", "WARNING", "ERROR"]), default="INFO", help="And above. [INFO]")
def logs(state: Path, lines: int, since: int, level: str) -> None:
    """Show."""
    with coded(state):
        from edge_agent.logs import FILE, read_ring  # noqa: PLC0415 - status needs none of it

        if not state.is_dir():
            raise IdentityError(f"Expected the state directory of an agent, got none at {state}: give it by --state")
        found = read_ring(state, lines, since_ms=since, level=getattr(logging, level))
        for line in found:
            print(line)
        if not found:
            print(f"no lines in {state / FILE} for this", file=sys.stderr)


@main.command(
    help="Run the update client by itself, for judges from outside (tuf-conformance): `init` trusts the root metadata"
    " in a file, `refresh` follows the metadata of a repository, `download` then stores a target. Exit code 0 if all"
    " of it was accepted, 1 otherwise.",
    epilog=_example(
        "edge-agent tuf --metadata-dir trusted init 1.root.json",
        "edge-agent tuf --metadata-dir trusted --metadata-url http://localhost:8888/tuf refresh",
    ),
)
@click.option("--metadata-dir", required=True, type=click.Path(), callback=_path, help="Folder of trusted metadata.")
@click.option("--metadata-url", default="", help="Address of the repository's metadata.")
@click.option("--target-name", default="", help="Path of the target.")
@click.option("--target-base-url", default="", help="Address of the repository's targets.")
@click.option("--target-dir", type=click.Path(), callback=_path, help="Folder for downloads.")
@click.argument("act", metavar="init|refresh|download", type=click.Choice(["init", "refresh", "download"]))
@click.argument("trusted_root", required=False, type=click.Path(), callback=_path)
def tuf(metadata_dir: Path, metadata_url: str, act: str, trusted_root: Path | None, **wanted: str | Path) -> None:
    """Judge; ``wanted``: ``target_name``, ``target_base_url`` and ``target_dir``."""
    if (trusted_root is None) == (act == "init") or (act == "download" and not all(wanted.values())):
        raise click.UsageError("Expected a root for init, and only there; three options --target-… for download")
    with coded(metadata_dir):
        from edge_agent.updater import verification  # noqa: PLC0415 - python-tuf

        if trusted_root is not None:
            verification.trust_root(metadata_dir, trusted_root)
            return
        name, base_url, folder = (wanted[key] for key in ("target_name", "target_base_url", "target_dir"))
        target = verification.JudgedTarget(str(name), str(base_url), Path(folder)) if act == "download" else None
        verification.refresh_judged(metadata_dir, metadata_url, target)


def _short(value: Json) -> str:
    if not isinstance(value, dict):
        return "none" if value is None else str(value)
    return " ".join(f"{key}={item}" for key, item in value.items() if item not in ("", None))
