"""The figures of the demo: runs it and prints each promise beside its result.

scripts/bench/demo.py [--data meter-digits-dev.zip] [--json FILE]   runs a new demo (minutes)
scripts/bench/demo.py --quick                                       evaluates the newest finished demo again (seconds)
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from scripts.story.figures import SiteFigures, compare  # noqa: E402 - found through the line above
from scripts.story.plans import digits_plan  # noqa: E402 - found through the line above

Row = dict[str, str | float | bool | None]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Real utility meters.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the rows there.")
@click.option("--quick", is_flag=True, help="Judge the newest finished story on digits again.")
def main(data: Path | None, json_file: Path | None, *, quick: bool) -> None:
    """Print the demo's figures; exit 1 if one of them is missed."""
    rows = _again() if quick else _told(data)
    for row in rows:
        print(f"{'ok    ' if row['met'] else 'MISSED'} {row['what']:70} {row['ours']:10.4g}  {row['target']}")
    if json_file is not None:
        json_file.write_text(json.dumps(rows, indent=1))
    sys.exit(0 if all(row["met"] for row in rows) else 1)


def _told(data: Path | None) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "scripts.story", "--json", str(file)]
        command += ["--data", str(data.resolve())] if data else []
        done = subprocess.run(command, cwd=ROOT, check=False)
        if not file.exists():
            sys.exit(done.returncode or 1)
        rows: list[Row] = json.loads(file.read_text())
    return rows


def _again() -> list[Row]:
    plan = digits_plan()
    before, after = _bundles()
    return [_row(site, plan.after_min) for site in compare(plan.judges, before, after)]


def _bundles() -> tuple[Path, Path]:
    for folder in sorted((ROOT / ".tinyfleet").glob("demo-*"), reverse=True):
        bundles = [*folder.glob("build/v1/digits-1-*.tfb"), *folder.glob("build/jobs/*/digits-2-*.tfb")]
        if len(bundles) == len(("before", "after")):
            return bundles[0], bundles[1]
    click.echo(
        "error [no_story]: Expected a finished story on digits in .tinyfleet: run ./scripts/demo first", err=True
    )
    sys.exit(1)


def _row(site: SiteFigures, after_min: float) -> Row:
    ratio = site.after / site.before
    if site.drifted:
        met, target = site.after >= after_min, f">= {after_min:g}"
        return {"what": f"{site.name}: accuracy after", "ours": site.after, "reference": site.before, "ratio": ratio,
                "target": target, "met": met}  # fmt: skip
    drop = site.before - site.after
    what = f"{site.name}: accuracy lost, at most {site.drop_upper:.4f} with 95 %"
    return {"what": what, "ours": drop, "reference": site.before, "ratio": ratio, "target": "<= 0.01",
            "met": drop <= 0.01}  # fmt: skip  # noqa: PLR2004 - one point


if __name__ == "__main__":
    main()
