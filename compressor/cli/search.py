"""``compressor search``: finds the fastest and smallest form of a model, then gates it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from compressor.cli import output
from compressor.cli.device_options import SET, FiniteRange
from compressor.errors import DeviceMeasureError

if TYPE_CHECKING:
    from compressor.recipe.model import Recipe
    from compressor.run.pipeline import Outcome
    from compressor.search.pareto import SearchResult
    from compressor.search.study import Budget

_PATH = click.Path(path_type=Path)
_EXITS = {"pass": 0, "fail": 2, "inconclusive": 3}


@click.command("search")
@click.argument("recipe", type=_PATH)
@click.option("--data", type=_PATH, help="The data set's zip or folder, instead of the recipe's path.")
@click.option("--out", type=_PATH, help="Where results go. Default: build beside the recipe.")
@click.option("--trials", type=click.IntRange(2, 100_000), default=20, show_default=True,
              help="Forms the study has tried in the end, those of earlier runs and other hosts included.")  # fmt: skip
@click.option("--storage", help="SQLAlchemy URL of the study, shared by many hosts. Default: OUT/search.db.")
@click.option("--sampler", type=click.Choice(["tpe", "nsga2"]), default="tpe", show_default=True,
              help="What suggests the next form.")  # fmt: skip
@click.option("--target", default="", help="The target to search for. Default: the recipe's only one.")
@click.option("--timeout-s", type=FiniteRange(0), default=0.0, help="Start no trial after so many seconds.")
@SET
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
@click.option("--no-gate", is_flag=True, help="Only search; leave OUT/chosen.toml to `compressor run`.")
def command(  # noqa: PLR0913, PLR0917 - one parameter per option
    recipe: Path,
    data: Path | None,
    out: Path | None,
    trials: int,
    storage: str | None,
    sampler: str,
    target: str,
    timeout_s: float,
    changes: tuple[str, ...],
    as_json: bool,  # noqa: FBT001 - click passes flags so
    no_gate: bool,  # noqa: FBT001 - click passes flags so
) -> None:
    """Try schemes, calibrations, pruning, equalization and QAT on RECIPE's model, measure each, choose the best.

    The float model and the recipe's own steps are always tried. All forms learn from the same rows and are measured
    on separate search rows, never on the gate split: accuracy against the float model, bytes, and latency in turns with
    it. A form that loses more than the gate accuracy_drop allows (0.01 if there is none) is never chosen. The choice is
    the fastest form, or the smallest within 5 % of it; then the recipe's gates evaluate it on the gate split, as
    `compressor run OUT/chosen.toml` would do again: there, a choice without network steps learns from the search rows
    too.

    Ctrl-C stops; the same command resumes. A changed recipe, data set or code starts a new study in the same storage.

    \b
    Writes:
      OUT/search.html    the front, with bounds
      OUT/search.json    all trials
      OUT/chosen.toml    a recipe of the choice

    \b
    Examples:
      compressor search models/digits/recipe.toml
      compressor search models/digits/recipe.toml --trials 40 --sampler nsga2    20 more than before
      compressor search mine.toml --target gateway --timeout-s 3600 --no-gate
      compressor search mine.toml --storage postgresql+psycopg://search@db/search    on every host
      compressor search mine.toml --json | jq .reason

    \b
    Exit codes: 0 pass, 2 a gate failed, 3 inconclusive; 0 with --no-gate; 4 error, 130 stopped.
    """  # noqa: D301 - \b is click's: keep the lines
    from compressor.cli.devices import devices_named  # noqa: PLC0415 - the command line starts fast
    from compressor.recipe.read import read_recipe  # noqa: PLC0415 - the command line starts fast
    from compressor.search.study import Budget  # noqa: PLC0415 - the command line starts fast

    read = read_recipe(recipe, changes).with_data(data)
    if not no_gate and (devices := devices_named(read)):  # rejected now, not after all trials
        message = f"Expected --no-gate, got gates on {', '.join(devices)}: search here, then gate on the device with"
        raise DeviceMeasureError(f"{message} `compressor run OUT/chosen.toml --server URL --token-file F --keys DIR`")
    folder = out or read.folder / "build"
    found, files = _search(read, target, Budget(trials, timeout_s, sampler), storage, folder)
    outcome = None if no_gate else _gate(found, folder)
    _print(found, files, outcome, as_json=as_json)
    raise SystemExit(_EXITS[outcome.verdict.value] if outcome is not None else 0)


def _search(
    recipe: Recipe, name: str, budget: Budget, storage: str | None, out: Path
) -> tuple[SearchResult, tuple[Path, ...]]:  # fmt: skip
    from compressor.progress import Bars  # noqa: PLC0415 - the command line starts fast
    from compressor.recipe import preflight  # noqa: PLC0415 - the command line starts fast
    from compressor.run.pipeline import opened  # noqa: PLC0415 - the command line starts fast
    from compressor.search import results  # noqa: PLC0415 - the command line starts fast
    from compressor.search.space import Space  # noqa: PLC0415 - the command line starts fast
    from compressor.search.study import check_storage, search  # noqa: PLC0415 - the command line starts fast
    from compressor.search.trial import prepared, target_of, workable  # noqa: PLC0415 - the command line starts fast

    target = target_of(recipe, name)
    preflight.check(replace(recipe, targets=(target,)), out)
    out.mkdir(parents=True, exist_ok=True)
    url = storage or f"sqlite:///{(out / 'search.db').resolve()}"
    check_storage(url)
    ground = prepared(recipe, target, opened(recipe, out, Bars()).cache, Bars())
    tried = search(ground, workable(ground, Space.of(recipe, target)), budget, url)
    found = results.found_of(ground, recipe, tried)
    return found, results.write(found, out)


def _gate(found: SearchResult, out: Path) -> Outcome:
    from compressor.progress import Bars  # noqa: PLC0415 - the command line starts fast
    from compressor.run.pipeline import run_recipe  # noqa: PLC0415 - the command line starts fast

    return run_recipe(found.recipe, out=out, progress=Bars())


def _print(found: SearchResult, files: tuple[Path, ...], outcome: Outcome | None, *, as_json: bool) -> None:
    from compressor.search.pareto import points  # noqa: PLC0415 - the command line starts fast

    written = [*files, *((*outcome.bundles, outcome.report) if outcome is not None else ())]
    if as_json:
        verdict = outcome.verdict.value if outcome is not None else None
        told = {**found.document(), "verdict": verdict, "files": [str(path) for path in written]}
        click.echo(json.dumps(told, sort_keys=True))
        return
    for item in found.front:
        if item.measured is not None:
            mark = "*" if item.number == found.choice.tried.number else " "
            click.echo(
                f"{mark} {item.number:>3}  {item.name:<44}{item.measured.latency_ratio:>6.2f} x"
                f"{item.measured.size_bytes:>10} bytes  {points(item.measured)}"
            )
    for sentence in found.choice.reason:
        click.echo(sentence)
    if outcome is not None:
        missing = output.no_bundle(outcome.certificate)
        output.print_outcome(outcome.certificate, written, as_json=False, targets=outcome.targets, missing=missing)
    else:
        for path in written:
            click.echo(f"  {path}")
