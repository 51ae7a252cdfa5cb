"""``./scripts/demo``: runs the demo; exit 0 only if every promise was kept."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click

from scripts.story import chapters, picture
from scripts.story.chapters import RATE_HZ, Story
from scripts.story.console import Console, StoryError
from scripts.story.ending import conclude
from scripts.story.fleet import Fleet
from scripts.story.in_process import LEFT_OUT, InProcessFleet
from scripts.story.plans import digits_plan, meter_plan
from scripts.story.processes import Programs
from scripts.story.world import World
from server.errors import ServerError

_KEPT_FOLDERS = 2
_OURS = re.compile(r"demo-\d{8}-\d{6}-\w+")  # names made by ``_root``: a folder of another name is a person's


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    data: Path | None
    out: Path | None
    json_file: Path | None
    keep: bool
    memory: bool
    seed: int


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="meter-digits-dev.zip: tell the story on real utility meters.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Where everything goes (default: a folder in .tinyfleet).")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the figures there, as rows.")
@click.option("--keep", is_flag=True, help="Leave fleet and dashboard running until Ctrl-C.")
@click.option("--memory", is_flag=True, help="One process, in-memory broker: as where mosquitto can't be had.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="Of the world: which images are taken, in which order.")  # fmt: skip
def main(
    data: Path | None, out: Path | None, json_file: Path | None, *, keep: bool, memory: bool, seed: int
) -> None:  # fmt: skip
    """Train, compress, gate, sign, roll out, detect drift, retrain, roll out again: six devices on this machine.

    Windows are 3 seconds here instead of an hour, so that the demo takes minutes. Exit code 0 only if every promise
    was kept; all its files stay in the folder that it prints.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = Options(data, out, json_file, keep, memory, seed)
    story = _story(options)
    code = 0
    try:
        _tell(story, options)
    except (StoryError, ServerError) as error:
        click.echo(f"\nerror [story]: {error}\nlogs: {story.fleet.programs.logs}", err=True)
        code = 1
    except KeyboardInterrupt:
        story.console.say("ending")
        code = 130
    finally:
        story.world.stop()
        story.fleet.stop()
    sys.exit(code)


def _story(options: Options) -> Story:
    console = Console()
    root = _root(options.out)
    console.say(f"everything goes to {root}")
    plan = meter_plan(options.data, options.seed) if options.data else digits_plan(options.seed)
    programs = Programs(root / "logs")
    if options.memory or _mosquitto() is None:
        console.say(LEFT_OUT)
        fleet: Fleet = InProcessFleet(root, programs, console)
    else:
        fleet = Fleet(root, programs, console)
    world = World({device.device: fleet.inbox(device.device) for device in plan.devices}, RATE_HZ, 7 + options.seed)
    return Story(plan, fleet, console, root / "build", world)


def _mosquitto() -> str | None:
    return shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def _root(out: Path | None) -> Path:
    if out is not None:
        if out.exists() and any(out.iterdir()):
            message = f"Expected --out to be an empty or new folder, got {out}"
            raise click.UsageError(message)
        out.mkdir(parents=True, exist_ok=True)
        return out.resolve()
    parent = Path(".tinyfleet")
    parent.mkdir(exist_ok=True)
    ours = [path for path in parent.glob("demo-*") if _OURS.fullmatch(path.name)]
    for older in sorted(ours, key=lambda path: path.stat().st_mtime)[:-_KEPT_FOLDERS]:
        shutil.rmtree(older, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=time.strftime("demo-%Y%m%d-%H%M%S-"), dir=parent)).resolve()


def _tell(story: Story, options: Options) -> None:
    story.fleet.init(samples=story.plan.samples, labels=story.plan.labels)
    chapters.build(story)
    chapters.serve(story)
    chapters.enrol(story)
    chapters.roll_out(story, chapters.releases(story)[0], limit_s=180)
    chapters.commission(story)
    chapters.change(story)
    picture.take(story)
    chapters.label(story, limit_s=180)
    chapters.retrain(story)
    story.console.chapter(f"The server rolls {story.retrained} out by itself: a canary first, then the rest")
    chapters.watch_rollout(story, story.retrained, limit_s=240)
    rows = conclude(story)
    if options.json_file is not None:
        options.json_file.write_text(json.dumps(rows, indent=1))
    story.console.say(f"dashboard: {story.server.url}/   token: in {story.fleet.server_dir / 'operator.token'}")
    if options.keep:
        story.console.say("still running; Ctrl-C ends it")
        signal.pause()


if __name__ == "__main__":
    main()
