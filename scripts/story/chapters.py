"""The chapters: each performs one task of a person or program in the field, and checks the result."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compressor.data._table import Table
from scripts.story.console import Console, StoryError
from scripts.story.fleet import BASELINE_WINDOWS, PROBATION_S, WINDOW_S, Fleet
from scripts.story.plans import Plan
from scripts.story.processes import run
from scripts.story.world import Shot, World, shots
from server.client import FleetClient

RATE_HZ = 25.0
_DRIFT_KINDS = frozenset({"device_local", "site", "cohort", "fleet", "release_regression"})


@dataclass(slots=True)
class Story:
    """State of the demo so far."""

    plan: Plan
    fleet: Fleet
    console: Console
    out: Path
    world: World
    api: FleetClient | None = None
    changed_ms: int = 0
    detected: dict[str, Any] = field(default_factory=dict)
    first: dict[str, Any] = field(default_factory=dict)
    second: dict[str, Any] = field(default_factory=dict)
    retrained: str = ""

    @property
    def server(self) -> FleetClient:
        """The operator's API.

        Raises:
            StoryError: If the server was not started yet.
        """
        if self.api is None:
            message = "Expected a running server, got none"
            raise StoryError(message)
        return self.api

    def wait_for(self, what: str, look: Any, *, limit_s: float) -> Any:  # noqa: ANN401 - whatever is found
        """Wait, but stop immediately if a program has ended."""

        def checked() -> Any:  # noqa: ANN401 - whatever is found
            self.fleet.check()
            return look()

        return self.console.wait_for(what, checked, limit_s=limit_s)


def build(story: Story) -> None:
    """Train, compress, gate and sign."""
    story.console.chapter("The build host trains a model, quantizes it to int8 and lets the gates judge it")
    command = ["compressor", "run", str(story.plan.recipe), "--out", str(story.out / "v1"), "--version", "1"]
    if story.plan.data is not None:
        command += ["--data", str(story.plan.data)]
    run(*command, "--keys", str(story.fleet.keys), "--json")
    story.first = _certificate(story.out / "v1")
    for gate in story.first["gates"]:
        story.console.say(f"{gate['verdict'].upper():13} {gate['name']:22} {gate['text']}")
    story.console.say(f"report: {story.out / 'v1' / 'report.html'}")


def _certificate(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "gate.json").read_text())
    return document


def bundle(story: Story, folder: str) -> Path:
    """Return the bundle in a build folder."""
    return next((story.out / folder).glob("*.tfb"))


def serve(story: Story) -> None:
    """Start the server and publish the release."""
    story.console.chapter("The server starts: private mosquitto, ingest, SQLite, REST, dashboard")
    story.api = story.fleet.start_server()
    token = story.fleet.server_dir / "operator.token"
    story.console.say(f"dashboard: {story.server.url}/   token: in {token}")
    builder = story.fleet.server_dir / "builder.token"
    run("compressor", "publish", str(bundle(story, "v1")), "--keys", str(story.fleet.keys),
        "--server", story.server.url, "--token-file", str(builder), quiet=True)  # fmt: skip
    story.console.say(f"signed release on the server: {', '.join(releases(story))}")


def releases(story: Story) -> list[str]:
    """Return the names of the releases on the server, oldest first."""
    return [release.name for release in story.server.releases()]


def devices(story: Story) -> list[dict[str, Any]]:
    """Return the server's record of every device."""
    found: list[dict[str, Any]] = story.server.request("GET", "/api/devices")["devices"]
    return found


def enrol(story: Story) -> None:
    """Enrol six devices and start their agents and cameras."""
    story.console.chapter("Six devices enrol with one-time claims and start their agents")
    story.fleet.enrol(story.server, story.plan)
    pools = {device.device: _pool(device.before) for device in story.plan.devices}
    for name, pool in pools.items():
        story.world.show(name, pool)
    story.world.start()
    story.fleet.start_agents(story.plan.devices)
    for device in story.plan.devices:
        story.console.say(f"{device.device:10} site {device.site:8} sees {device.sees}")
    story.wait_for("six devices online", lambda: _online(story), limit_s=60)


def _pool(table: Table) -> tuple[Shot, ...]:
    return shots(list(table.images), [table.class_names[label] for label in table.labels.tolist()])


def _online(story: Story) -> bool | None:
    heard = [device for device in devices(story) if device["last_seen_ms"]]
    here = [device for device in heard if device["state"] in {"init", "ready", "degraded", "updating"}]
    return True if len(here) == len(story.plan.devices) else None


def roll_out(story: Story, release: str, *, limit_s: float) -> None:
    """Roll a release out: one canary, then the rest."""
    story.console.chapter(f"Rollout of {release}: a canary first, then the rest")
    story.server.request(
        "POST", "/api/rollouts", {"release": release, "canary": 1, "probation_s": PROBATION_S, "approved": True}
    )
    watch_rollout(story, release, limit_s=limit_s)


def watch_rollout(story: Story, release: str, *, limit_s: float) -> None:
    """Wait until every device has committed ``release``, and print the steps."""
    said: set[str] = set()

    def finished() -> bool | None:
        rollout = next((item for item in rollouts(story) if item["release"] == release), None)
        if rollout is None:
            return None
        _say_devices(story, said)
        if rollout["phase"] in {"failed", "aborted", "paused"}:
            why = f"{rollout['phase']}: {rollout['code']} {rollout['text']}"
            message = f"Expected the rollout of {release} to succeed, it is {why}"
            raise StoryError(message)
        return True if rollout["phase"] == "succeeded" else None

    story.wait_for(f"{release} committed on all devices", finished, limit_s=limit_s)
    _say_devices(story, said)


def rollouts(story: Story) -> list[dict[str, Any]]:
    """Return every rollout, newest first."""
    found: list[dict[str, Any]] = story.server.request("GET", "/api/rollouts")["rollouts"]
    return found


def _say_devices(story: Story, said: set[str]) -> None:
    for device in devices(story):
        update = (device.get("reported") or {}).get("update") or {}
        words = [str(update.get(key, "")) for key in ("phase", "release", "code")]
        line = f"{device['device']:10} {' '.join(words)}".rstrip()
        if update.get("phase") in {"committed", "rolled_back", "refused", "probation"} and line not in said:
            said.add(line)
            story.console.say(line)


def commission(story: Story) -> None:
    """Let every device collect its first windows: its baseline."""
    story.console.chapter(f"Commissioning: the first {BASELINE_WINDOWS} windows of each device become its baseline")
    story.console.say(f"windows are {WINDOW_S:.0f} s here, an hour in production; nothing but counters leaves a device")

    def ready() -> bool | None:
        return True if _judged(story) >= {device.device for device in story.plan.devices} else None

    story.wait_for("a baseline on every device", ready, limit_s=300)
    alarms = drift_verdicts(story)
    story.console.say(f"alarms so far: {len(alarms)}")
    answers(story)


def _judged(story: Story) -> set[str]:
    rows = story.server.request("GET", "/api/evidence", query={"limit": "200"})["evidence"]
    return {row["device"] for row in rows if row["phase"] == "judged"}


def drift_verdicts(story: Story) -> list[dict[str, Any]]:
    """Return the verdicts about drift (not about faults)."""
    found = story.server.request("GET", "/api/verdicts")["verdicts"]
    return [verdict for verdict in found if verdict["kind"] in _DRIFT_KINDS]


def answers(story: Story) -> None:
    """Print the last answer of each device."""
    found = story.wait_for("an answer of every device", lambda: _last_answers(story), limit_s=60)
    for device, row in found.items():
        known = {True: "like the training data", False: "NOT like the training data"}.get(row["supported"], "")
        said = f"{row.get('label') or row.get('error')} ({100 * (row.get('confidence') or 0):.0f} %)"
        story.console.say(f"{device:10} answers {said:12} {known}")


def _last_answers(story: Story) -> dict[str, dict[str, Any]] | None:
    found = {}
    for device in story.plan.devices:
        path = f"/api/devices/{device.device}/telemetry"
        batches = story.server.request("GET", path, query={"stream": "answer", "limit": "1"})["batches"]
        rows = [row for batch in batches for row in batch["rows"] if row["at_ms"] > story.changed_ms]
        if not rows:
            return None
        found[device.device] = rows[-1]
    return found


def change(story: Story) -> None:
    """Change the world and wait until the server detects it."""
    story.console.chapter(f"The world changes: {story.plan.change}")
    for device in story.plan.devices:
        if device.after is not None:
            story.world.show(device.device, _pool(device.after))
    story.changed_ms = int(time.time() * 1000)
    found = story.wait_for("the alarm", lambda: _covering(story), limit_s=120)
    story.detected = found
    story.console.say(f"verdict: {found['kind']} on {', '.join(sorted(found['devices']))}: {found['cause']}")
    answers(story)
    story.console.say(f"detected after {windows_to_detect(story)} windows of {WINDOW_S:.0f} s")


def _covering(story: Story) -> dict[str, Any] | None:
    for verdict in drift_verdicts(story):
        if story.plan.drifted <= set(verdict["devices"]):
            return verdict
    return None


def windows_to_detect(story: Story) -> int:
    """Return the number of windows closed between the change and the alarm."""
    first_ms = int(story.detected["first_window_ms"])
    window_ms = WINDOW_S * 1000
    return int((first_ms + window_ms - story.changed_ms) // window_ms) + 1


def label(story: Story, *, limit_s: float) -> None:
    """Label the requested samples through the API, as a person would."""
    story.console.chapter("The server asks the drifted devices for samples; a person labels them")
    story.console.say("Raw inputs leave a device only because this demo switches it on at both ends (default: off):")
    story.console.say("agent.toml [samples] max_bytes_per_day, server.toml [retraining] sample_bytes_per_day")
    done: set[str] = set()

    def proposed() -> bool | None:
        waiting = story.server.request("GET", "/api/samples", query={"unlabelled": "1", "limit": "500"})
        for sample in waiting["samples"]:
            truth = story.world.label_of(sample["sha256"])
            if truth is not None and sample["id"] not in done:
                story.server.request("PUT", f"/api/samples/{sample['id']}/label", {"label": truth, "by": "demo"})
                done.add(sample["id"])
        found = triggers(story)
        if found and found[0]["phase"] in {"failed", "withdrawn"}:
            message = f"Expected retraining to be proposed, it is {found[0]['phase']}: {found[0]['text']}"
            raise StoryError(message)
        return True if found and found[0]["phase"] in _BEYOND else None

    story.wait_for("enough labelled samples and shown harm", proposed, limit_s=limit_s)
    story.console.say(f"labelled through the API: {len(done)}")
    for trigger in triggers(story):
        story.console.say(f"retraining {trigger['phase']}: {trigger['words']} {trigger['text']}")


_BEYOND = frozenset({"proposed", "training", "gated", "rollout", "settled"})


def triggers(story: Story) -> list[dict[str, Any]]:
    """Return the retraining triggers, newest first."""
    found: list[dict[str, Any]] = story.server.request("GET", "/api/retraining")["retraining"]
    return found


def retrain(story: Story) -> None:
    """Lease the job, train with the labelled samples, pass the same gates, sign and publish."""
    story.console.chapter("A worker on the build host leases the job, retrains, and the same gates judge")
    command = ["compressor", "worker", "--server", story.server.url, "--once", "--recipe", str(story.plan.recipe)]
    command += ["--token-file", str(story.fleet.server_dir / "builder.token"), "--keys", str(story.fleet.keys)]
    command += ["--out", str(story.out), "--checkpoint", str(story.out / "v1" / "float.pt")]
    if story.plan.data is not None:
        command += ["--data", str(story.plan.data)]
    run(*command)
    story.retrained = max(releases(story), key=lambda name: int(name.rpartition("-")[2]))
    story.second = _certificate(bundle_folder(story))
    for gate in story.second["gates"]:
        story.console.say(f"{gate['verdict'].upper():13} {gate['name']:22} {gate['text']}")


def bundle_folder(story: Story) -> Path:
    """Return the folder in which the worker built the retrained release."""
    found = sorted(story.out.rglob(f"{story.retrained}-*.tfb"))
    if not found:
        message = f"Expected a bundle of {story.retrained} below {story.out}, got none"
        raise StoryError(message)
    return found[0].parent
