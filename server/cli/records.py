"""Commands on what only the API has: samples, retrainings, jobs, evidence, the overall status, and details of devices.

All take ``@PLACE`` and send requests, so they work beside the server and from any host.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import click

from server.cli import listings
from server.cli.afar import pages
from server.cli.frame import JSON, CommandGroup, Listing, agreed, coded, example, path_value, print_rows
from server.cli.place import PLACE, AnyHost, ServerPlace
from server.client import part
from server.errors import AnsweredError, LabelFileError
from wire.codec import Json

SAMPLE_COLUMNS = ("id", "device", "lane", "predicted", "confidence", "at_ms", "label", "label_by", "claimed", "model")
CHANGE_COLUMNS = ("label", "label_by", "labelled_ms", "new_label", "changed_by", "changed_ms")
TRIGGER_COLUMNS = ("id", "phase", "model", "release", "cause", "devices", "job", "result", "rollout", "text")
JOB_COLUMNS = (
    "id",
    "state",
    "model",
    "base_release",
    "labelled",
    "worker",
    "attempts",
    "created_ms",
    "release",
    "text",
)
EVIDENCE_COLUMNS = (
    "device", "start_ms", "n", "phase", "log_value", "log_threshold", "flagged", "fault", "cause", "provisional",
)  # fmt: skip
POOL_COLUMNS = ("start_ms", "attribute", "value", "members", "log_value", "log_threshold", "alarm", "collecting")
FOUND_COLUMNS = ("kind", "id", "text", "detail")
CONCERN_COLUMNS = ("signal", "level", "count", "text", "names")
MEMBER_COLUMNS = ("device", "group", "standing", "code", "assigned_ms", "settled_ms", "waits_for", "air_bytes")
SPAN_COLUMNS = ("start_ms", "len_ms", "resolution", "n", "windows", "ref_id", "artifact")
DAY_COLUMNS = ("day", "sent_bytes", "received_bytes", "written_bytes", "merged")
_LIMIT = click.option(
    "--limit", type=click.IntRange(1, 10_000), default=200, show_default=True, help="So many at most."
)
_DEVICE = click.argument("device", metavar="DEVICE")
_SAMPLE = click.argument("sample", metavar="SAMPLE", type=click.IntRange(1, 2**63 - 1))
_FILE = click.argument("file", metavar="FILE|-", type=click.Path(), callback=path_value)
_TRIGGER = click.argument("trigger", metavar="RETRAINING", type=click.IntRange(1, 2**63 - 1))
_BY = click.option("--by", default="", help="Who decides it; by default the user who runs this.")
_PAGE_LIMIT = 1_000
_CSV, _STUDIO = _FORMATS = ("csv", "label-studio")
_PLAN = ("rows", "new", "changed", "same", "conflicting", "refused")


@click.group(
    cls=Listing,
    epilog=example("fleet-server samples state --unlabelled", "fleet-server samples label state 7 cat --by ada"),
)
def samples() -> None:
    """Print the inputs that devices sent for labels; fetch one, label it.

    "fleet-server samples DIR" is short for "fleet-server samples list DIR".
    """


@samples.command("list", epilog=example("fleet-server samples list state --unlabelled --device cam-1"))
@PLACE
@click.option("--unlabelled", is_flag=True, help="Only those without a label, each image once, the oldest first.")
@click.option("--device", default="", help="Only samples of this device.")
@click.option("--model", default="", help="Only samples of this model.")
@click.option("--lane", default="", help="Only samples that were taken for this purpose, such as audit.")
@click.option("--label", default="", help="Only samples with this label.")
@_LIMIT
@JSON
@coded
def samples_list(  # noqa: PLR0913 - one argument a command-line option
    place: ServerPlace, device: str, model: str, lane: str, label: str, limit: int, *, unlabelled: bool, as_json: bool
) -> None:
    """Print samples, the newest first: who took it, what the model said, and the label."""
    query = {"device": device, "model": model, "lane": lane, "label": label, "unlabelled": "true" if unlabelled else ""}
    with place.client() as server:
        print_rows(pages(server, "/api/samples", "samples", query, limit), SAMPLE_COLUMNS, as_json=as_json)


@samples.command("image", epilog=example("fleet-server samples image state 7 seven.png"))
@PLACE
@_SAMPLE
@_FILE
@coded
def samples_image(place: ServerPlace, sample: int, file: Path) -> None:
    """Write the input that SAMPLE is to a new FILE, or to standard output."""
    with place.client() as server:
        _write(file, server.image(sample))


@samples.command("label", epilog=example("fleet-server samples label state 7 cat --by ada"))
@PLACE
@_SAMPLE
@click.argument("label", metavar="LABEL")
@click.option("--replaces", help="The label that it has and that this one corrects.")
@_BY
@coded
def samples_label(place: ServerPlace, sample: int, label: str, replaces: str | None, by: str) -> None:
    """Label SAMPLE with a class of its model, or with numbers; take-back takes your label off."""
    with place.client() as server:
        found = server.label(sample, label, by=place.signer(server, by), replaces=replaces)
    click.echo(f"{found.id} {found.label}")


@samples.command("changes", epilog=example("fleet-server samples changes state 7 --json"))
@PLACE
@_SAMPLE
@JSON
@coded
def samples_changes(place: ServerPlace, sample: int, *, as_json: bool) -> None:
    """Print which labels SAMPLE had before, the first change first."""
    with place.client() as server:
        found = _objects(server.request("GET", f"/api/samples/{sample}/changes"), "changes")
    print_rows(found, CHANGE_COLUMNS, as_json=as_json)


@samples.command(
    "mark", epilog=example("fleet-server samples mark state 7 broken", "fleet-server samples mark state 7 ''")
)
@PLACE
@_SAMPLE
@click.argument("mark", metavar="MARK")
@_BY
@coded
def samples_mark(place: ServerPlace, sample: int, mark: str, by: str) -> None:
    """Say why SAMPLE can't be labelled: MARK is unsure or broken, '' takes it off."""
    with place.client() as server:
        body: dict[str, Json] = {"mark": mark, "by": place.signer(server, by)}
        found = server.request("PUT", f"/api/samples/{sample}/mark", body)
    click.echo(f"{found['id']} {mark}")


@samples.command("take-back", epilog=example("fleet-server samples take-back state 7 --by ada"))
@PLACE
@_SAMPLE
@_BY
@coded
def samples_take_back(place: ServerPlace, sample: int, by: str) -> None:
    """Take back the label that you gave SAMPLE; what it was is kept."""
    with place.client() as server:
        found = server.request("POST", f"/api/samples/{sample}/take-back", {"by": place.signer(server, by)})
    click.echo(f"{found['id']} {found['label']}")


@samples.command("review", epilog=example("fleet-server samples review state digits | jq .disputed"))
@PLACE
@click.argument("model", metavar="MODEL")
@coded
def samples_review(place: ServerPlace, model: str) -> None:
    """Print what of MODEL people should look at again, as one JSON object: disputes, doubtful labels, marks."""
    with place.client() as server:
        click.echo(json.dumps(dict(server.request("GET", "/api/labels/review", query={"model": model}))))


@samples.command(
    "export",
    epilog=example(
        "fleet-server samples export state digits labels.csv",
        "fleet-server samples export state digits tasks.json --format label-studio --config view.xml",
    ),
)
@PLACE
@click.argument("model", metavar="MODEL")
@_FILE
@click.option("--format", "form", type=click.Choice(_FORMATS), help="[by the name of FILE, else csv]")
@click.option("--unlabelled", is_flag=True, help="Only images without a label.")
@click.option(
    "--config", type=click.Path(), callback=lambda ctx, option, value: value and path_value(ctx, option, value),
    help="New file for the labelling configuration of Label Studio.",
)  # fmt: skip
@coded
def samples_export(
    place: ServerPlace, model: str, file: Path, form: str | None, config: Path | None, *, unlabelled: bool
) -> None:
    """Write the images of MODEL, each once, with their labels to a new FILE, or to standard output.

    CSV: one line an image; a cell that would be a formula has an apostrophe before it. label-studio: JSON tasks with
    the pictures in them, for Label Studio's import, and its configuration with --config.
    """
    form, after, parts, view = form or _format_of(file), 0, list[str](), ""
    with place.client() as server:
        while True:
            query = {"model": model, "format": form, "after": str(after), "unlabelled": str(unlabelled).lower()}
            part_of = server.request("GET", "/api/labels/export", query=query)
            parts.append(str(part_of["text"]))
            view, after = str(part_of["config"]), int(str(part_of["next"]))
            if not after:
                break
    if form == _CSV:
        text = parts[0] + "".join(one.partition("\n")[2] for one in parts[1:])
        count = sum(1 for _ in csv.reader(io.StringIO(text, newline=""))) - 1
    else:
        tasks = [task for one in parts for task in json.loads(one)]
        text, count = json.dumps(tasks, ensure_ascii=False, indent=1), len(tasks)
    _write(file, text.encode())
    click.echo(f"{count} images of {model}", err=True)
    if config is not None:
        _write(config, view.encode())


@click.group(cls=CommandGroup, epilog=example("fleet-server labels import state labels.csv --dry-run"))
def labels() -> None:
    """Take labels from a file: CSV, or the JSON that Label Studio exports."""


@labels.command(
    "import",
    epilog=example(
        "fleet-server labels import state labels.csv --dry-run",
        "fleet-server labels import state project-7.json --yes --by ada",
    ),
)
@PLACE
@_FILE
@click.option("--format", "form", type=click.Choice(_FORMATS), help="[by the name of FILE, else csv]")
@click.option("--dry-run", is_flag=True, help="Only print the plan.")
@click.option("--keep-newer", is_flag=True, help="Leave out images that got another label since, and import the rest.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_BY
@coded
def labels_import(  # noqa: PLR0913 - one argument a command-line option
    place: ServerPlace, file: Path, form: str | None, by: str, *, dry_run: bool, keep_newer: bool, yes: bool
) -> None:
    """Give images the labels in FILE, or standard input: all of them or none, by the name of who imports.

    The plan is printed first: how many images get a label, another one, or have it; and on standard error each row that
    can't be used, and each image that got another label since the file was made. With any of these nothing is imported.
    """
    raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    with place.client() as server:
        body: dict[str, Json] = {
            "format": form or _format_of(file), "text": raw.decode("utf-8-sig", errors="replace"),
            "keep_newer": keep_newer, "by": place.signer(server, by),
        }  # fmt: skip
        plan = server.request("POST", "/api/labels/import", {**body, "dry_run": True})
        click.echo("\t".join(_PLAN))
        click.echo("\t".join(str(plan[name]) for name in _PLAN))
        for what, word in (("problems", "row"), ("conflicts", "newer label, row")):
            for one in _objects(plan, what):
                click.echo(f"{word} {one['row']}: {one['text']}", err=True)
        if plan["refused"] or (plan["conflicting"] and not keep_newer):
            advice = "mend them, or leave newer labels alone with --keep-newer"
            got = f"{plan['refused']} that can't be used and {plan['conflicting']} in conflict"
            raise LabelFileError(f"Expected rows that can all be imported, got {got}: nothing was imported; {advice}")
        if dry_run:
            return
        if not yes:
            agreed(f"Give {int(str(plan['new'])) + int(str(plan['changed']))} images these labels?")
        done = server.request("POST", "/api/labels/import", {**body, "dry_run": False})
    if not done["done"]:
        message = "Expected the labels of the plan, got others meanwhile: nothing was imported; import again"
        raise LabelFileError(message)
    click.echo("imported")


def _format_of(file: Path) -> str:
    return _STUDIO if file.suffix.lower() == ".json" else _CSV


@click.group(
    cls=Listing, epilog=example("fleet-server retraining state", "fleet-server retraining approve state 3 --yes")
)
def retraining() -> None:
    """Print the retrainings; approve or withdraw one.

    "fleet-server retraining DIR" is short for "fleet-server retraining list DIR".
    """


@retraining.command("list", epilog=example("fleet-server retraining list state --json"))
@PLACE
@click.option("--model", default="", help="Only those of this model.")
@click.option("--phase", default="", help="Only those in this phase, such as awaiting_approval.")
@_LIMIT
@JSON
@coded
def retraining_list(place: ServerPlace, model: str, phase: str, limit: int, *, as_json: bool) -> None:
    """Print the retrainings, the newest first: why, how far, and what came of it."""
    with place.client() as server:
        found = pages(server, "/api/retraining", "retraining", {"model": model, "phase": phase}, limit)
    print_rows(found, TRIGGER_COLUMNS, as_json=as_json)


@retraining.command("approve", epilog=example("fleet-server retraining approve state 3"))
@PLACE
@_TRIGGER
@coded
def retraining_approve(place: ServerPlace, trigger: int) -> None:
    """Approve RETRAINING: a worker trains as soon as there are labels enough."""
    _decide(place, trigger, "approve")


@retraining.command("withdraw", epilog=example("fleet-server retraining withdraw state 3"))
@PLACE
@_TRIGGER
@coded
def retraining_withdraw(place: ServerPlace, trigger: int) -> None:
    """Withdraw RETRAINING: nothing is trained for this cause."""
    _decide(place, trigger, "withdraw")


def _decide(place: ServerPlace, trigger: int, act: str) -> None:
    with place.client() as server:
        found = server.request("POST", f"/api/retraining/{trigger}/{act}")
    click.echo(f"{found['id']} {found['phase']}")


@click.command(cls=AnyHost, epilog=example("fleet-server jobs state", "fleet-server jobs state --state failed"))
@PLACE
@click.option("--model", default="", help="Only those of this model.")
@click.option("--state", default="", help="Only those in this state, such as failed.")
@_LIMIT
@JSON
@coded
def jobs(place: ServerPlace, model: str, state: str, limit: int, *, as_json: bool) -> None:
    """Print the training jobs, the newest first."""
    with place.client() as server:
        found = pages(server, "/api/jobs", "jobs", {"model": model, "state": state}, limit)
    print_rows(found, JOB_COLUMNS, as_json=as_json)


@click.command(cls=AnyHost, epilog=example("fleet-server evidence state --device cam-1"))
@PLACE
@click.option("--device", default="", help="Only that of this device.")
@_LIMIT
@JSON
@coded
def evidence(place: ServerPlace, device: str, limit: int, *, as_json: bool) -> None:
    """Print the drift evidence of windows, the newest first; it is an alarm from log_threshold on."""
    with place.client() as server:
        found = pages(server, "/api/evidence", "evidence", {"device": device}, limit)
    print_rows(found, EVIDENCE_COLUMNS, as_json=as_json)


@click.command(cls=AnyHost, epilog=example("fleet-server pools state --attribute site"))
@PLACE
@click.option("--attribute", default="", help="Only pools of devices by this attribute; site too.")
@click.option("--value", default="", help="Only the pool of this value.")
@_LIMIT
@JSON
@coded
def pools(place: ServerPlace, attribute: str, value: str, limit: int, *, as_json: bool) -> None:
    """Print the drift evidence of devices together, by what they share, the newest first."""
    with place.client() as server:
        found = pages(server, "/api/pools", "pools", {"attribute": attribute, "value": value}, limit)
    print_rows(found, POOL_COLUMNS, as_json=as_json)


@click.command(cls=AnyHost, epilog=example("fleet-server overall state", "fleet-server overall state --signal lost"))
@PLACE
@click.option("--signal", default="", help="Print every name of this concern instead, one a line.")
@JSON
@coded
def overall(place: ServerPlace, signal: str, *, as_json: bool) -> None:
    """Print what concerns somebody, in fleet and server; nothing but the header if all is well.

    Exit code 1 while there is an alarm, so that a script can wait for the end of it.
    """
    with place.client() as server:
        if signal:
            for name in server.concern_names(signal):
                click.echo(name)
            return
        found = server.request("GET", "/api/overall")
    print_rows(_objects(found, "concerns"), CONCERN_COLUMNS, as_json=as_json)
    if found["level"] == "alarm":
        sys.exit(1)


@click.command(cls=AnyHost, epilog=example("fleet-server search state 'gate north'"))
@PLACE
@click.argument("text", metavar="WORDS")
@click.option("--limit", type=click.IntRange(1, 50), default=10, show_default=True, help="So many of each kind.")
@JSON
@coded
def search(place: ServerPlace, text: str, limit: int, *, as_json: bool) -> None:
    """Print what has WORDS in its name: devices, releases, rollouts, verdicts, samples, jobs and, for admins, users."""
    with place.client() as server:
        found = server.request("GET", "/api/search", query={"text": text, "limit": str(limit)})
    kinds = _objects(found, "found")
    rows = [one for kind in kinds for one in _objects(kind, "things")]
    print_rows(rows, FOUND_COLUMNS, as_json=as_json)
    for kind in kinds:
        if kind["more"]:
            click.echo(f"there are more {kind['kind']}: give more words, or --limit", err=True)


@click.command("show", cls=AnyHost, epilog=example("fleet-server devices show state cam-1 | jq .reported"))
@PLACE
@_DEVICE
@coded
def device_show(place: ServerPlace, device: str) -> None:
    """Print all that is known of DEVICE, as one JSON object."""
    with place.client() as server:
        click.echo(json.dumps(dict(server.request("GET", f"/api/devices/{part(device)}"))))


@click.command("ran", cls=AnyHost, epilog=example("fleet-server devices ran state cam-1 --at-ms 1796083200000"))
@PLACE
@_DEVICE
@click.option("--at-ms", type=click.IntRange(0, 2**63 - 1), required=True, help="The time, UTC milliseconds.")
@coded
def device_ran(place: ServerPlace, device: str, at_ms: int) -> None:
    """Print which release DEVICE ran at a time, as one JSON object."""
    with place.client() as server:
        found = server.request("GET", f"/api/devices/{part(device)}/ran", query={"at_ms": str(at_ms)})
    click.echo(json.dumps(dict(found)))


@click.command("history", cls=AnyHost, epilog=example("fleet-server devices history state cam-1 --json"))
@PLACE
@_DEVICE
@click.option("--since-ms", type=click.IntRange(0), help="Only windows from then on, UTC milliseconds.")
@click.option("--until-ms", type=click.IntRange(0), help="Only windows before then, UTC milliseconds.")
@click.option("--limit", type=click.IntRange(1, _PAGE_LIMIT), default=200, show_default=True, help="So many at most.")
@JSON
@coded
def device_history(
    place: ServerPlace, device: str, since_ms: int | None, until_ms: int | None, limit: int, *, as_json: bool
) -> None:
    """Print the kept windows of DEVICE, and what older ones were merged to."""
    given = {"since_ms": since_ms, "until_ms": until_ms, "limit": limit}
    query = {name: str(value) for name, value in given.items() if value is not None}
    with place.client() as server:
        found = server.request("GET", f"/api/devices/{part(device)}/history", query=query)
    print_rows(_objects(found, "spans"), SPAN_COLUMNS, as_json=as_json)


@click.command("telemetry", cls=AnyHost, epilog=example("fleet-server devices telemetry state cam-1 --stream health"))
@PLACE
@_DEVICE
@click.option("--stream", default="health", show_default=True, help="Which stream.")
@click.option("--limit", type=click.IntRange(1, _PAGE_LIMIT), default=100, show_default=True, help="So many batches.")
@coded
def device_telemetry(place: ServerPlace, device: str, stream: str, limit: int) -> None:
    """Print the newest telemetry of DEVICE, as one JSON object."""
    query = {"stream": stream, "limit": str(limit)}
    with place.client() as server:
        click.echo(json.dumps(dict(server.request("GET", f"/api/devices/{part(device)}/telemetry", query=query))))


@click.command("usage", cls=AnyHost, epilog=example("fleet-server devices usage state cam-1"))
@PLACE
@_DEVICE
@click.option("--days", type=click.IntRange(1, 366), default=30, show_default=True, help="So many days back.")
@JSON
@coded
def device_usage(place: ServerPlace, device: str, days: int, *, as_json: bool) -> None:
    """Print how many bytes DEVICE sent, received and wrote on each day."""
    with place.client() as server:
        found = server.request("GET", f"/api/devices/{part(device)}/usage", query={"days": str(days)})
    print_rows(_objects(found, "days"), DAY_COLUMNS, as_json=as_json)


@click.command("command", cls=AnyHost, epilog=example("fleet-server devices command state cam-1 selftest"))
@PLACE
@_DEVICE
@click.argument("verb", metavar="VERB")
@click.option("--arguments", default="{}", help="A JSON object, such as '{\"lines\": 20}'.")
@click.option("--wait", "wait_s", type=click.FloatRange(1, 3600), default=60.0, show_default=True, help="Seconds.")
@coded
def device_command(place: ServerPlace, device: str, verb: str, arguments: str, wait_s: float) -> None:
    """Send VERB to DEVICE, and print its answer as a JSON object: selftest, benchmark, logs, and what else it knows."""
    try:
        given = json.loads(arguments)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise click.BadParameter(f"Expected a JSON object, got {arguments!r}", param_hint="--arguments")
    with place.client() as server:
        answer = server.command(device, verb, given, wait_s=wait_s)
    if not answer.answered_ms:
        raise AnsweredError("no_answer", f"Expected an answer of {device} in {wait_s:.0f} s, got none: is it there?")
    if not answer.ok:
        raise AnsweredError(answer.code, f"{device}: {answer.text}")
    click.echo(json.dumps(dict(answer.data)))


@click.command("members", cls=AnyHost, epilog=example("fleet-server rollouts members state 3f2a91c0 --standing failed"))
@PLACE
@click.argument("rollout", metavar="ROLLOUT")
@click.option("--standing", default="", help="Only devices that stand so, such as failed or stuck.")
@click.option("--search", default="", help="Only devices with this part in their id.")
@click.option("--limit", type=click.IntRange(1, 200_000), default=200_000, help="So many at most.")
@JSON
@coded
def rollout_members(place: ServerPlace, rollout: str, standing: str, search: str, limit: int, *, as_json: bool) -> None:
    """Print the devices of ROLLOUT, by group and id: how each stands, why, and what it fetched."""
    query, path = {"standing": standing, "search": search}, f"/api/rollouts/{part(rollout)}/members"
    with place.client() as server:
        print_rows(pages(server, path, "members", query, limit), MEMBER_COLUMNS, as_json=as_json)


@click.command("show", cls=AnyHost, epilog=example("fleet-server releases show state digits-3"))
@PLACE
@click.argument("release", metavar="RELEASE")
@coded
def release_show(place: ServerPlace, release: str) -> None:
    """Print whether RELEASE was withdrawn, and the devices that run it, as one JSON object."""
    with place.client() as server:
        click.echo(json.dumps(dict(server.request("GET", f"/api/releases/{part(release)}"))))


@click.command("note", cls=AnyHost, epilog=example("fleet-server alerts note state 7 --note 'parts ordered'"))
@PLACE
@click.argument("alert", metavar="ALERT", type=click.IntRange(1))
@click.option("--note", required=True, help="A note for others.")
@_BY
@coded
def alert_note(place: ServerPlace, alert: int, note: str, by: str) -> None:
    """Add a note to ALERT; its state stays."""
    with place.client() as server:
        found = server.note_alert(alert, note=note, by=place.signer(server, by))
    click.echo(f"{found.id} {found.state}")


@click.command("picture", cls=AnyHost, epilog=example("fleet-server alerts picture state 7 why.png"))
@PLACE
@click.argument("alert", metavar="ALERT", type=click.IntRange(1))
@_FILE
@coded
def alert_picture(place: ServerPlace, alert: int, file: Path) -> None:
    """Write the picture of ALERT to a new FILE, or to standard output."""
    with place.client() as server:
        _write(file, server.alert_picture(alert))


@click.command("log-out", cls=AnyHost, epilog=example("fleet-server users log-out state ada"))
@PLACE
@click.argument("name", metavar="NAME")
@coded
def user_log_out(place: ServerPlace, name: str) -> None:
    """End every session of the user NAME; needs an admin's token."""
    with place.client() as server:
        server.request("POST", f"/api/users/{part(name)}/log-out")
    click.echo(f"{name} logged out")


def add_commands(main: click.Group) -> None:
    """Add the commands to ``main`` and to its groups."""
    own: tuple[click.Command, ...] = (samples, labels, retraining, jobs, evidence, pools, overall, search)
    for command in own:
        main.add_command(command)
    groups: Mapping[str, tuple[click.Command, ...]] = {
        "devices": (device_show, device_ran, device_history, device_telemetry, device_usage, device_command),
        "rollouts": (rollout_members,), "releases": (release_show,), "alerts": (alert_note, alert_picture),
        "users": (user_log_out,),
    }  # fmt: skip
    for name, commands in groups.items():
        group = main.commands[name]
        if isinstance(group, click.Group):
            for below in commands:
                group.add_command(below)


def _objects(answer: Mapping[str, object], name: str) -> list[listings.Row]:
    found = answer[name]
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _write(file: Path, data: bytes) -> None:
    """Write what the server sent to a new file, or to standard output for "-".

    Raises:
        click.BadParameter: If the file exists.
        OSError: If it can't be written; nothing is left then.
    """
    if str(file) == "-":
        sys.stdout.buffer.write(data)
        return
    try:
        with file.open("xb") as out:
            out.write(data)
    except FileExistsError as error:
        raise click.BadParameter(f"Expected a new file, got {file}, which exists", param_hint="FILE") from error
    except OSError:
        with suppress(OSError):
            file.unlink()
        raise
