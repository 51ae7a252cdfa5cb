"""``compressor data``: explores data, checks expectations, computes its digest, fits ranges."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from compressor.cli.device_options import SET, FiniteRange
from compressor.errors import DataError
from compressor.recipe.preflight import check_report_folder

EXIT_VIOLATED = 2
_PATH = click.Path(path_type=Path)
_DATA = click.option("--data", "given", type=_PATH, help="The data set's zip or folder, instead of the recipe's path.")
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
Command = Callable[..., Any]


@click.group("data")
def data() -> None:
    """Look at data before it is trained on.

    RECIPE is a recipe (or its folder); where PATH is accepted too, it may be a zip or folder of images with labels.csv
    or in folders of classes, or of idx files. Sounds and sensor windows need a recipe, because it says how the
    sensor is read.

    \b
    Examples:
      compressor data explore models/digits --out build/data
      compressor data validate models/digits --schema digits-schema.toml
      compressor data digest models/digits
      compressor data fit models/spoken_digits --data spoken-digits.zip
    """  # noqa: D301 - \b is click's: keep the lines


@data.command("explore")
@click.argument("path", metavar="RECIPE|PATH", type=_PATH)
@_DATA
@SET
@click.option("--out", type=_PATH, help="Folder for data.html and data.json. Default: nothing is written.")
@_AS_JSON
def explore_command(
    path: Path,
    given: Path | None,
    changes: tuple[str, ...],
    out: Path | None,
    as_json: bool,  # noqa: FBT001 - click passes flags so
) -> None:
    """Describe the data of RECIPE|PATH and what in it is worth a look.

    Balance, sizes and values; exact duplicates, near duplicates in different splits, content or sources in two parts,
    outliers, and labels that look wrong to a model trained on other rows. Lines are tab-separated: name, number.

    \b
    Examples:
      compressor data explore models/digits --out build/data    then open build/data/data.html
      compressor data explore meter-digits-dev.zip | grep near
      compressor data explore models/digits --json | jq .findings
    """  # noqa: D301 - \b is click's: keep the lines
    from compressor.exploration import report  # noqa: PLC0415 - the command line starts fast
    from compressor.exploration.explore import explore  # noqa: PLC0415 - the command line starts fast
    from compressor.exploration.load import open_path  # noqa: PLC0415 - the command line starts fast
    from compressor.progress import Bars  # noqa: PLC0415 - the command line starts fast

    what, progress = open_path(path, given, changes), Bars()
    if out is not None:
        check_report_folder(out, ("data.json", "data.html"), frozenset({"name", "rows", "findings"}))
    with progress.stage("data", 1, "set") as stage:
        table = what.table()
        stage.advance()
    found = explore(table, progress, seed=what.seed, slices=what.data.train_slices)
    document = json.dumps({"name": what.name, **asdict(found)}, sort_keys=True)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "data.json").write_text(document)
        (out / "data.html").write_text(report.render(what.name, found, table))
        progress.say(f"{out / 'data.html'}\n{out / 'data.json'}")
    if as_json:
        click.echo(document)
        return
    counts = {"rows": found.rows, "sources": found.sources, "corrupt": len(found.corrupt), **found.counts}
    for name, count in counts.items():
        click.echo(f"{name}\t{count}")
    for text in (*found.findings, *found.notes):
        progress.say(text)


@data.command("validate")
@click.argument("path", metavar="RECIPE|PATH", type=_PATH)
@_DATA
@SET
@click.option("--schema", required=True, type=_PATH, help="TOML file of expectations.")
@_AS_JSON
def validate_command(
    path: Path,
    given: Path | None,
    changes: tuple[str, ...],
    schema: Path,
    as_json: bool,  # noqa: FBT001 - click passes flags so
) -> None:
    """Check the data of RECIPE|PATH against the expectations in a TOML file.

    Lines are tab-separated: ok or violated, expectation, wanted, got. Exit 0: all hold; 2: one is violated.

    \b
    Keys of the file; each may be left out, not all:
      classes = ["0", "1"]        exactly these, in any order
      slices = ["lens-a"]         exactly these
      min_rows = 1000             and min_rows_per_class = 50, min_rows_per_slice = 100
      max_class_ratio = 3.0       rows of the largest class over the smallest
      max_corrupt = 0             files left out because they can't be read
      max_duplicate_ratio = 0.01  rows that repeat another row's content
      height = [32, 32]           pixels, least and most; likewise width
      value_range = [0, 255]      of all pixels; mean_range of each image's mean
      max_clipped_ratio = 0.5     pixels at 0 or 255

    \b
    Examples:
      compressor data validate models/digits --schema digits-schema.toml
      compressor data validate models/digits --schema s.toml | grep ^violated
    """  # noqa: D301 - \b is click's: keep the lines
    from compressor.exploration.load import open_path  # noqa: PLC0415 - the command line starts fast
    from compressor.exploration.schema import read_schema, validate  # noqa: PLC0415 - the command line starts fast

    wanted = read_schema(schema)
    found = validate(open_path(path, given, changes).table(), wanted)
    if not found:
        message = f"Expected at least one expectation in {schema}, got none: an empty schema would pass anything"
        raise DataError(message)
    if as_json:
        click.echo(json.dumps([asdict(item) for item in found]))
    else:
        for item in found:
            click.echo(f"{'ok' if item.holds else 'violated'}\t{item.name}\t{item.wanted}\t{item.got}")
    raise SystemExit(0 if all(item.holds for item in found) else EXIT_VIOLATED)


@data.command("digest")
@click.argument("path", metavar="RECIPE|PATH", type=_PATH)
@_DATA
@SET
@_AS_JSON
def digest_command(
    path: Path,
    given: Path | None,
    changes: tuple[str, ...],
    as_json: bool,  # noqa: FBT001 - click passes flags so
) -> None:
    """Print the content digest of the data and the rows of each split, tab-separated.

    The digest covers images, labels, slices, sources and class names; the lineage of a run contains the same one.

    \b
    Examples:
      compressor data digest models/digits
      compressor data digest models/digits | cut -f2 | head -1
    """  # noqa: D301 - \b is click's: keep the lines
    from compressor.exploration.explore import PARTS, UNUSED, parts_of  # noqa: PLC0415 - the command line starts fast
    from compressor.exploration.load import open_path  # noqa: PLC0415 - the command line starts fast
    from compressor.run.stages import table_digest  # noqa: PLC0415 - the command line starts fast

    what = open_path(path, given, changes)
    table = what.table()
    parts = parts_of(table, what.seed, what.data.train_slices).tolist()
    lines = {"digest": table_digest(table), **{part: parts.count(part) for part in (*PARTS, UNUSED)}}
    if as_json:
        click.echo(json.dumps(lines))
        return
    for name, value in lines.items():
        click.echo(f"{name}\t{value}")


@data.command("fit")
@click.argument("path", metavar="RECIPE", type=_PATH)
@_DATA
@SET
@click.option("--inside", type=FiniteRange(0.5, 1.0), default=0.99, show_default=True, help="Share kept unclipped.")
def fit_command(path: Path, given: Path | None, changes: tuple[str, ...], inside: float) -> None:
    """Print the ranges of RECIPE's features, fitted on its train rows only, as lines for [data.options].

    Write them into the recipe: they are shipped in the manifest, and gate rows have no effect on them.

    \b
    Example:
      compressor data fit models/spoken_digits --data spoken-digits.zip
    """  # noqa: D301 - \b is click's: keep the lines
    from compressor.exploration.load import fit_ranges, open_path  # noqa: PLC0415 - the command line starts fast

    what = open_path(path, given, changes)
    for name, value in fit_ranges(what.data, what.root, seed=what.seed, inside=inside).items():
        click.echo(f"{name} = {value!r}")
