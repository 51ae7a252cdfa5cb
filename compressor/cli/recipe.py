"""``compressor recipe``: what the file of a recipe may contain."""

from __future__ import annotations

import json
from pathlib import Path

import click

from compressor.errors import PackageError


@click.group("recipe")
def recipe() -> None:
    """Describe the keys of a recipe.

    \b
    Example:
      compressor recipe schema > recipe.schema.json
    """  # noqa: D301 - \b is click's: keep the lines


@recipe.command("schema")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write it there. Default: print it.")
def schema_command(out: Path | None) -> None:
    """Print the JSON schema of a recipe: keys, types, ranges, choices, meanings.

    Editors that know TOML (Taplo, Even Better TOML) complete and check a recipe by it. Name it in the first line of
    the recipe, relative to its folder: #:schema ./recipe.schema.json

    What several tables say together is checked by `compressor run` alone.

    \b
    Examples:
      compressor recipe schema --out recipe.schema.json
      compressor recipe schema | jq '.properties.train.properties | keys'
    """  # noqa: D301 - \b is click's: keep the lines
    from compressor.cache import write_atomically  # noqa: PLC0415 - the command line starts fast
    from compressor.recipe.schema import schema  # noqa: PLC0415 - the command line starts fast

    text = json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"
    if out is None:
        click.echo(text, nl=False)
        return
    if out.exists() and not _is_ours(out):
        message = f"Expected --out to be new or an earlier schema, got the file {out} of other origin"
        raise PackageError(f"{message}, which would be overwritten: choose another --out")
    write_atomically(out, text.encode())
    click.echo(str(out), err=True)


def _is_ours(path: Path) -> bool:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("title") == "recipe of compressor"
