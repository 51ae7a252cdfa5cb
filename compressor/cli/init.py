"""``compressor init``: drafts a recipe for data that nobody has described yet."""

from __future__ import annotations

from pathlib import Path

import click

from compressor.cache import write_atomically
from compressor.errors import PackageError


@click.command("init")
@click.argument("path", metavar="DATA", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False),
              help="The recipe to write; it must be new. Default: NAME.toml here, after DATA.")  # fmt: skip
@click.option("--allow-corrupt", type=click.IntRange(0), default=0, show_default=True, metavar="N",
              help="Leave out up to N broken files, and let the recipe allow as many as there are.")  # fmt: skip
@click.option("--label", "labels", multiple=True, metavar="COLUMN",
              help="The column of a table that is the label; given again: columns of 0 and 1.")  # fmt: skip
def command(path: Path, out: Path | None, allow_corrupt: int, labels: tuple[str, ...]) -> None:
    """Look at DATA, a folder, zip or file, and write a recipe for it, with the reason at each key.

    All of the data is read once, as a run would. Task (classes, numbers, several labels, boxes, anomalies, events),
    sizes, classes, splits by source, steps and the margins that so many sources can show are written down; what you
    alone know, such as the accuracy that your use needs, is a comment. DATA stays as it is, nothing is overwritten.

    \b
    Examples:
      compressor init photos                  folders of classes, or images with a CSV
      compressor init sounds.zip --out words/recipe.toml
      compressor init houses.csv --label price
      compressor run photos.toml --quick      then try it
    """  # noqa: D301 - \b is click's: keep the lines
    from compressor.exploration.draft import draft, name_of  # noqa: PLC0415 - the command line starts fast
    from compressor.progress import Bars  # noqa: PLC0415 - the command line starts fast

    file = out or Path(f"{name_of(str(path.resolve()))}.toml")
    _check_new(file)
    progress = Bars()
    drafted = draft(path, file.parent, progress, allow_corrupt=allow_corrupt, labels=labels)
    _write_new(file, drafted.text)
    for said in drafted.remarks:
        progress.say(said)
    click.echo(str(file))


def _check_new(file: Path) -> None:
    if file.exists():
        message = f"Expected a new file for the recipe, got {file}, which exists"
        raise PackageError(f"{message} and is never overwritten: give another --out, or move it away")


def _write_new(file: Path, text: str) -> None:
    """Write ``text`` to ``file``, whole or not at all, unless somebody has written it meanwhile."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("x").close()  # ours from here on
    except FileExistsError:
        _check_new(file)
    except OSError as error:
        message = f"Expected to write the recipe to {file}, got: {error.strerror or error}"
        raise PackageError(f"{message}: choose another --out") from error
    try:
        write_atomically(file, text.encode())
    except PackageError:
        file.unlink(missing_ok=True)
        raise
