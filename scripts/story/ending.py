"""The final table, and whether every promise of the demo was kept."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scripts.story import chapters
from scripts.story.chapters import Story
from scripts.story.console import StoryError
from scripts.story.figures import SiteFigures, compare
from scripts.story.fleet import WINDOW_S
from server.ingest.windows import StoredWindow, Windows
from server.store.database import open_database
from wire.drift_report import DriftReport, encode_report

_MAX_DROP = 0.01
_REPORT_LIMIT_BYTES = 800
_MAX_WINDOWS = 4
_MAX_OFF = 0.10
_MAX_STORY_S = 300


def conclude(story: Story) -> list[Figure]:
    """Print the table of all promises; return its figures as rows.

    Raises:
        StoryError: If a promise was not kept.
    """
    story.console.chapter("What came of it")
    before, after = chapters.bundle(story, "v1"), _retrained(story)
    judges = story.plan.judges
    spared = _spared(story)
    sites = tuple(
        replace(site, after=site.before, drop_upper=0.0) if site.name in spared else site
        for site in compare(judges, before, after)
    )
    for name, why in spared.items():
        story.console.say(f"{story.retrained} was not rolled out to {name}, {why}")
    story.console.table("Accuracy per site, int8 on the device's runtime, images no model was trained on",
                        ["site", "n", "before", "after", "change", "worse by at most (95 %)"],
                        [_row(site) for site in sites])  # fmt: skip
    sizes = _report_sizes(story)
    false_alarms = _false_alarms(story)
    story.console.table(
        "The loop", ["what", "figure"], [*_loop(story, before, after), *_alarms(story, false_alarms, sizes)]
    )
    rows = _promises(story, sites, false_alarms, sizes)
    _check(rows)
    # The time is a figure for the bench, not a promise of the demo: a slow machine may still pass.
    rows.append(_promise("whole story, s, once installed", story.console.elapsed_s, most=_MAX_STORY_S))
    return rows


def _spared(story: Story) -> dict[str, str]:
    """Return the sites whose devices keep the first release, because the retrained one is worse there, with the why."""
    rollout = next(one for one in chapters.rollouts(story) if one["release"] == story.retrained)
    members = {member["device"] for member in rollout["members"]}
    sees = {device.device: device.sees for device in story.plan.devices}
    return {sees[name]: why for name, why in rollout["cautions"].items() if name not in members}


def _retrained(story: Story) -> Path:
    return next(chapters.bundle_folder(story).glob(f"{story.retrained}-*.tfb"))


def _row(site: SiteFigures) -> list[str]:
    mark = " (changed)" if site.drifted else ""
    bound = "-" if site.drifted else f"{100 * site.drop_upper:.1f} points"
    change = f"{100 * (site.after - site.before):+.1f}"
    return [site.name + mark, str(site.n), f"{site.before:.3f}", f"{site.after:.3f}", change, bound]


def _loop(story: Story, before: Path, after: Path) -> list[list[str]]:
    first = story.first["figures"]
    air = {one["release"]: f"{one['air_bytes']} / {one['forecast_bytes']}" for one in chapters.rollouts(story)}
    return [
        ["float model, bytes", _figure(first, "float_size_bytes")],
        ["int8 model, bytes", _figure(first, "size_bytes")],
        ["float latency p50, ms", _figure(first, "float_latency_p50_ms")],
        ["int8 latency p50, ms", _figure(first, "latency_p50_ms")],
        ["bundle of the first / retrained release, bytes", f"{before.stat().st_size} / {after.stat().st_size}"],
        *(
            [f"bytes fetched / forecast, rollout of {release}, six devices", told]
            for release, told in sorted(air.items())
        ),
    ]


def _figure(figures: dict[str, float], name: str) -> str:
    return f"{figures[name]:g}" if name in figures else "not measured"


def _alarms(story: Story, false_alarms: Sequence[str], sizes: Sequence[int]) -> list[list[str]]:
    return [
        ["drift report, bytes, median / largest", f"{statistics.median(sizes):.0f} / {max(sizes)}"],
        [f"time to detect, windows of {WINDOW_S:.0f} s", str(chapters.windows_to_detect(story))],
        ["verdict", f"{story.detected['kind']}: {story.detected['cause']}"],
        ["false alarms on devices whose world did not change", str(len(false_alarms))],
        ["whole story, s", f"{story.console.elapsed_s:.0f}"],
    ]


def _false_alarms(story: Story) -> list[str]:
    return sorted(
        {
            device
            for verdict in chapters.drift_verdicts(story)
            for device in verdict["devices"]
            if device not in story.plan.drifted or verdict["first_window_ms"] + WINDOW_S * 1000 < story.changed_ms
        }
    )


def _report_sizes(story: Story) -> list[int]:
    """Return the size of every drift report as it was sent, recomputed from the stored counters."""
    database = open_database(f"sqlite:///{story.fleet.server_dir / 'fleet.db'}")
    windows = Windows(database).since(0, limit=100_000)
    database.close()
    return [len(encode_report(_report(window))) for window in windows]


def _report(window: StoredWindow) -> DriftReport:
    return DriftReport(
        boot="0" * 16,
        seq=1000,
        oldest_seq=999,
        window_start_ms=window.start_ms,
        window_len_ms=window.len_ms,
        context=window.context,
        artifact=window.artifact,
        ref_id=window.ref_id,
        counters=window.counters,
    )


Figure = dict[str, str | float | bool | None]


def _promises(
    story: Story, sites: Sequence[SiteFigures], false_alarms: Sequence[str], sizes: Sequence[int]
) -> list[Figure]:
    plan = story.plan
    rows: list[Figure] = []
    for site in sites:
        if site.drifted:
            rows.append(_promise(f"{site.name}: accuracy before", site.before, below=plan.before_max))
            rows.append(
                _promise(f"{site.name}: accuracy after", site.after, reference=site.before, least=plan.after_min)
            )
        else:
            what = f"{site.name}: accuracy lost, at most {site.drop_upper:.4f} with 95 %"
            rows.append(_promise(what, site.before - site.after, most=_MAX_DROP))
    rows.append(
        _promise("int8 against float, drop at most (95 %)", story.first["figures"]["drop_upper"], most=_MAX_DROP)
    )
    rows.append(_promise("drift report, largest, bytes", float(max(sizes)), most=_REPORT_LIMIT_BYTES))
    rows.append(_promise("false alarms on unchanged devices", float(len(false_alarms)), most=0))
    for rollout in chapters.rollouts(story):
        fetched, forecast = float(rollout["air_bytes"]), float(rollout["forecast_bytes"])
        what = f"rollout of {rollout['release']}: bytes fetched, off the forecast by"
        rows.append(_promise(what, abs(fetched / forecast - 1), most=_MAX_OFF))
    rows.append(_promise("windows to detect", float(chapters.windows_to_detect(story)), most=_MAX_WINDOWS))
    return rows


def _promise(
    what: str,
    ours: float,
    *,
    reference: float | None = None,
    least: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> Figure:
    met = (least is None or ours >= least) and (most is None or ours <= most) and (below is None or ours < below)
    bound = [f"{sign} {limit:g}" for sign, limit in ((">=", least), ("<=", most), ("<", below)) if limit is not None]
    ratio = ours / reference if reference else None
    return {"what": what, "ours": ours, "reference": reference, "ratio": ratio, "target": bound[0], "met": met}


def _check(rows: Sequence[Figure]) -> None:
    broken = [f"{row['what']}: expected {row['target']}, got {row['ours']:.4g}" for row in rows if not row["met"]]
    if broken:
        raise StoryError("The story did not come true: " + "; ".join(broken))
