"""``./scripts/demo``: tell the story; exit 0 only if it came true."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import click

from scripts.story import chapters
from scripts.story.chapters import RATE_HZ, Story
from scripts.story.console import Console, StoryError
from scripts.story.ending import conclude
from scripts.story.fleet import Fleet
from scripts.story.plans import Plan, digits_plan, meter_plan
from scripts.story.processes import Programs
from scripts.story.world import World


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="meter-digits-dev.zip: tell the story on real utility meters.")  # fmt: skip
@click.option("--keep", is_flag=True, help="Leave fleet and dashboard running until Ctrl-C.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Where everything goes (default: a new folder in .tinyfleet)."
)
def main(data: Path | None, out: Path | None, *, keep: bool) -> None:
    """Train, compress, gate, sign, roll out, hear drift, retrain, roll out again: six devices on this machine."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console()
    root = _root(out)
    console.say(f"everything goes to {root}")
    plan = meter_plan(data) if data else digits_plan()
    fleet = Fleet(root, Programs(root / "logs"), console)
    world = World({device.device: fleet.inbox(device.device) for device in plan.devices}, RATE_HZ)
    story = Story(plan, fleet, console, root / "build", world)
    try:
        _tell(story)
        if keep:
            console.say(f"still running: {story.server.url}/ — Ctrl-C ends it")
            signal.pause()
    except StoryError as error:
        click.echo(f"\nerror [story]: {error}\nlogs: {root / 'logs'}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        console.say("ending")
    finally:
        world.stop()
        fleet.stop()


def _root(out: Path | None) -> Path:
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        return out.resolve()
    parent = Path(".tinyfleet")
    parent.mkdir(exist_ok=True)
    for older in sorted(parent.glob("demo-*"), key=lambda path: path.stat().st_mtime)[:-2]:
        shutil.rmtree(older, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=time.strftime("demo-%H%M%S-"), dir=parent)).resolve()


def _tell(story: Story) -> None:
    samples, labels = _label_counts(story.plan)
    story.fleet.init(samples=samples, labels=labels)
    chapters.build(story)
    chapters.serve(story)
    chapters.enrol(story)
    chapters.roll_out(story, chapters.releases(story)[0], limit_s=120)
    chapters.commission(story)
    chapters.change(story)
    chapters.label(story, limit_s=120)
    chapters.retrain(story)
    story.console.chapter(f"The server rolls {story.retrained} out by itself: a canary first, then the rest")
    chapters.watch_rollout(story, story.retrained, limit_s=180)
    conclude(story)


def _label_counts(plan: Plan) -> tuple[int, int]:
    """Return how many samples are asked of each device, and how many labels start a retraining."""
    return 450 // len(plan.drifted), 300


if __name__ == "__main__":
    main()
