"""The command line of the build host.

Exit codes: 0 pass, 2 a gate failed, 3 inconclusive, 4 any other error (including a mistake in the command), 5 passed
but not logged, 130 interrupted. Results go to stdout, progress and errors to stderr.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from compressor.cli import output
from compressor.cli.device_options import SET, Reach, device_options
from compressor.errors import CompressorError
from wire import __version__
from wire.errors import WireError
from wire.extras import missing_extra
from wire.installation import check_alone

EXIT_PASS, EXIT_FAIL, EXIT_INCONCLUSIVE, EXIT_ERROR, EXIT_NOT_LOGGED, EXIT_INTERRUPTED = 0, 2, 3, 4, 5, 130
_FILE = click.Path(path_type=Path, dir_okay=False)
_DEBUG = "TINYFLEET_DEBUG"
_EXITS = {"pass": EXIT_PASS, "fail": EXIT_FAIL, "inconclusive": EXIT_INCONCLUSIVE}
_LAZY = {"keys": ("compressor.release.keys", "keys"), "publish": ("compressor.release.publish", "command"),
         "worker": ("compressor.worker", "command"), "data": ("compressor.cli.data", "data"),
         "search": ("compressor.cli.search", "command"), "recipe": ("compressor.cli.recipe", "recipe"),
         "init": ("compressor.cli.init", "command")}  # fmt: skip
_LAZY_HELP = {
    "keys": "Make and show the keys that sign releases.",
    "publish": "Sign bundles that passed and hand them to the server.",
    "worker": "Lease retraining jobs from the server and do them.",
    "data": "Look at data before training: explore, validate, digest, fit.",
    "init": "Look at data and write a recipe for it, with reasons.",
    "recipe": "Describe the keys of a recipe to an editor.",
    "search": "Find the smallest and fastest form that passes the gates.",
}
_ORDER = ("init", "data", "recipe", "run", "search", "gate", "verify", "keys", "publish", "worker")


class _Commands(click.Group):
    """A group that imports ``keys``, ``publish``, ``worker`` … only when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all commands in the order of use."""
        return sorted([*super().list_commands(ctx), *_LAZY], key=_ORDER.index)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one command; a lazy one is imported now.

        Raises:
            CompressorError: If the object of that name is not a command.
        """
        if cmd_name not in _LAZY:
            return super().get_command(ctx, cmd_name)
        module, name = _LAZY[cmd_name]
        command = getattr(importlib.import_module(module), name)
        if not isinstance(command, click.Command):
            message = f"Expected a command {name!r} in {module}, got {type(command).__name__}"
            raise CompressorError(message)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing the lazy ones."""
        known = {name: command.get_short_help_str(80) for name, command in self.commands.items()} | _LAZY_HELP
        with formatter.section("Commands, in the order of the work"):
            formatter.write_dl([(name, known[name]) for name in self.list_commands(ctx)])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="compressor")
def app() -> None:
    """Make a small model smaller and prove that it did not get worse.

    A recipe (TOML) goes in; a bundle with model, drift reference and certificate comes out, together with a report.
    Only what passed its gates becomes a bundle and may be signed.

    \b
    Examples:
      compressor run models/digits/recipe.toml --out build      the data is built in: no download
      compressor verify build/digits-1-gateway.tfb              digests, golden vectors, certificate
      compressor data explore models/digits                     duplicates, leakage, label suspects
      compressor run models/meter_digits/recipe.toml --data meter-digits-dev.zip --out build/meter
      compressor keys init keys --online state/online.pub.json  once: then runs can be signed
      compressor run models/digits/recipe.toml --version 2 --keys keys

    \b
    Exit codes:
      0    every gate passed
      2    a gate failed
      3    inconclusive: more labelled samples are needed
      4    error, in one line on stderr
      5    passed, but --mlflow could not log it
      130  interrupted: the same command resumes
    """  # noqa: D301 - \b is click's: keep the lines


@app.command("run")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--data", type=click.Path(path_type=Path), help="The data set's zip or folder, instead of the recipe's path."
)
@click.option("--out", type=click.Path(path_type=Path), help="Where results go. Default: build beside the recipe.")
@click.option("--version", type=click.IntRange(1, 2**31 - 1), help="The release's number, instead of the recipe's.")
@click.option("--keys", type=click.Path(path_type=Path), help="Folder of `compressor keys init`: sign what passed.")
@click.option("--checkpoint", type=_FILE, help="Weights (.pt, .safetensors) of the recipe's network.")
@click.option("--onnx", type=_FILE, help="Your own ONNX file: the steps after training, gates and bundle.")
@click.option("--tflite", type=_FILE, help="Your own TFLite file: gates and bundle.")
@click.option("--against", type=_FILE, help="The bundle that devices run: judge against it, by slice and class.")
@click.option("--looks", type=click.IntRange(1, 1000), help="Candidates that may be judged on this gate split, planned "
              "before the first: equal parts of the risk. Default: 20, the first with nine tenths of it.")  # fmt: skip
@SET
@click.option("--quick", is_flag=True, help="Try it: two epochs, on generated data where it has none. The gates stay.")
@device_options
@click.option("--mlflow", metavar="[URI]", is_flag=False, flag_value="",
              help="Log the finished run to MLflow there; without URI, where MLFLOW_TRACKING_URI says.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def run_command(  # noqa: PLR0913, PLR0917 - one parameter per option
    recipe: Path,
    data: Path | None,
    out: Path | None,
    version: int | None,
    keys: Path | None,
    checkpoint: Path | None,
    onnx: Path | None,
    tflite: Path | None,
    against: Path | None,
    looks: int | None,
    changes: tuple[str, ...],
    quick: bool,  # noqa: FBT001 - click passes flags so
    mlflow: str | None,
    as_json: bool,  # noqa: FBT001 - click passes flags so
    **reach: Any,  # noqa: ANN401 - the options of ``device_options``, by name
) -> None:
    """Train, compress, measure and gate RECIPE, and write bundle and report.

    A run that was stopped resumes: results are cached in OUT/cache by their inputs, and a changed setting re-runs
    only what depends on it.

    \b
    Examples:
      compressor run models/digits/recipe.toml --out build    then open build/report.html
      compressor run models/digits/recipe.toml --out build --version 2 --keys keys
      compressor run models/digits/recipe.toml --quick --out /tmp/digits --json | jq .verdict
      compressor run models/gestures --quick                  on a stand-in: nothing to download
      compressor run mine.toml --set train.epochs=3 --set data.size=64    other values, once
      compressor run mine.toml --checkpoint mine.pt           your own weights of the recipe's network
      compressor run mine.toml --onnx mine.onnx               your own exported model
      compressor run mine.toml --against mine-1-host.tfb    not worse than what devices run
      compressor run mine.toml --mlflow http://ml.example:5000
      compressor run mine.toml --server URL --token-file t --keys keys    gates on a device

    \b
    Writes, once it is through:
      OUT/report.html                     what was measured, with bounds; opens without a network
      OUT/gate.json                       the certificate: rules, figures, verdicts
      OUT/MODEL-VERSION-TARGET.tfb        a bundle per target, only if every gate passed
      OUT/float.pt                        the float weights, from which a retraining starts
      OUT/disagreements.tsv               rows worth a label, if inconclusive or --against
      OUT/looks.json                      how often the gate split was used, if a gate has a bound
    Exit codes are those of `compressor --help`; docs/reference/recipe.md explains
    every key of a recipe.
    """  # noqa: D301 - \b is click's: keep the lines
    from compressor.cli.devices import bench_for  # noqa: PLC0415 - the command line starts fast
    from compressor.progress import Bars  # noqa: PLC0415 - the command line starts fast
    from compressor.recipe.read import read_recipe, unread  # noqa: PLC0415 - the command line starts fast
    from compressor.run.ledger import LooksAt  # noqa: PLC0415 - the command line starts fast
    from compressor.run.pipeline import BasePoint, quick_of, run_recipe  # noqa: PLC0415 - the command line starts fast
    from compressor.steps._selection import fits_distance, learns  # noqa: PLC0415 - the command line starts fast
    from compressor.tracking.logbook import logbook  # noqa: PLC0415 - the command line starts fast

    bars = Bars()
    given = _given(checkpoint=checkpoint, onnx=onnx, tflite=tflite)
    read = read_recipe(recipe, changes, given).with_data(data)
    if given and (ignored := [f"{item.table} {item.key}" for item in unread(read)]):
        click.echo(f"not read with --{next(iter(given))}: {', '.join(ignored)}", err=True)
    folder = out or read.folder / "build"
    if keys is not None:  # checked now, not after the training
        from compressor.release.keys import load_signer, read_root  # noqa: PLC0415 - cryptography only with keys

        load_signer(keys, "targets", read_root(keys))
    if quick:
        read = quick_of(read, folder, bars)
    log, bench = logbook(mlflow, bars), bench_for(read, Reach(**reach), keys)
    base = None if against is None else BasePoint(against, compared=True)
    outcome = run_recipe(
        read,
        out=folder,
        version=version,
        base=base,
        progress=log.progress,
        quick=quick,
        devices=bench,
        looks=LooksAt(path=folder / "looks.json", planned=looks or 0),
    )
    written = [*outcome.bundles, outcome.report]
    if keys is not None and outcome.verdict == "pass":
        from compressor.release.publish import sign_bundles  # noqa: PLC0415 - cryptography only where keys are used

        written.append(sign_bundles(list(outcome.bundles), keys))
    missing = output.no_bundle(outcome.certificate, quick=quick and learns(read) and not fits_distance(read))
    output.print_outcome(outcome.certificate, written, as_json=as_json, targets=outcome.targets, missing=missing)
    code, unlogged = _EXITS[outcome.verdict.value], log.keep(outcome)
    if unlogged is not None:
        _failed(unlogged.code, f"{unlogged}. The run is complete in {folder}; the same command logs it")
        code = EXIT_NOT_LOGGED if code == EXIT_PASS else code
    raise SystemExit(code)


def _given(**files: Path | None) -> dict[str, Path]:
    """Return the options that name a file, by the key of ``[model]`` in whose place it stands."""
    return {key: path for key, path in files.items() if path is not None}


@app.command("gate")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--on", metavar="device:ID", help="Measure the bundle on this device too, through --server.")
@click.option("--against", type=_FILE, help="The bundle that devices run: judge PATH, a bundle, against it.")
@click.option("--recipe", type=click.Path(path_type=Path), help="Whose gate split judges, with --against.")
@click.option("--data", type=click.Path(path_type=Path), help="Data for --recipe, instead of the recipe's path.")
@SET
@click.option("--disagreements", type=_FILE, help="TSV file for the rows that the two models answer differently.")
@click.option("--unlabelled", type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="Folder of pictures without labels: their rows are in --disagreements too.")  # fmt: skip
@click.option("--keys", type=click.Path(path_type=Path), help="Folder of `compressor keys init`: a device obeys "
              "it; with --against, OLD must be signed by it.")  # fmt: skip
@device_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def gate_command(  # noqa: PLR0913, PLR0917 - one parameter per option
    path: Path,
    on: str | None,
    against: Path | None,
    recipe: Path | None,
    data: Path | None,
    changes: tuple[str, ...],
    disagreements: Path | None,
    unlabelled: Path | None,
    keys: Path | None,
    as_json: bool,  # noqa: FBT001 - click passes flags so
    **reach: Any,  # noqa: ANN401 - the options of ``device_options``, by name
) -> None:
    """Evaluate the gates of a bundle, or of the folder of a run, again.

    A bundle is measured again on this machine: size, graph, latency, golden vectors. A folder is evaluated from the
    measurements in its gate.json. With --on, latency, peak memory and golden vectors are also measured on a device of
    the fleet; where it and this machine disagree, the gate fails. With --against, drops are judged against the
    release that devices run, on the gate split of --recipe and at its limits: on the average, by slice and by class.
    That is a look at this split, counted in looks.json beside the bundle. Exit codes as for run.

    \b
    Examples:
      compressor gate build/digits-1-gateway.tfb    here and now
      compressor gate build                         the last run's, from what it measured
      compressor gate my.tfb --on device:cam-1 --server URL --token-file t --keys keys
      compressor gate my-2-host.tfb --against my-1-host.tfb --recipe my.toml --disagreements rows.tsv
    """  # noqa: D301 - \b is click's: keep the lines
    from compressor.cli.devices import gate_bundle  # noqa: PLC0415 - the command line starts fast
    from compressor.progress import Bars  # noqa: PLC0415 - the command line starts fast

    beside = {"--recipe": recipe, "--data": data, "--disagreements": disagreements, "--unlabelled": unlabelled}
    given = [option for option, value in beside.items() if value is not None] + ["--set"] * bool(changes)
    if against is None and given:
        raise click.UsageError(f"Expected --against OLD.tfb with {', '.join(given)}, got none: give the release before")
    if against is None:
        certificate = gate_bundle(path, on or "", Reach(**reach), keys, Bars())
    elif recipe is None:
        raise click.UsageError("Expected --recipe RECIPE with --against, got none: its gate split judges")
    elif on:
        raise click.UsageError(f"Expected no --on with --against, got {on}: measure on the device in a call of its own")
    elif unlabelled is not None and disagreements is None:
        raise click.UsageError("Expected --disagreements FILE with --unlabelled, got none: its rows are written there")
    else:
        from compressor.recipe.read import read_recipe  # noqa: PLC0415 - the command line starts fast
        from compressor.run.against import Against, gate_against  # noqa: PLC0415 - as above

        asked = Against(
            old=against, recipe=read_recipe(recipe, changes).with_data(data), keys=keys, disagreements=disagreements,
            unlabelled=unlabelled,
        )  # fmt: skip
        certificate = gate_against(path, asked, Bars())
    output.print_outcome(certificate, [] if disagreements is None else [disagreements], as_json=as_json)
    raise SystemExit(_EXITS[certificate.verdict])


@app.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--keys",
    type=click.Path(path_type=Path),
    help="Folder with metadata/: check the signature too; needs no private key.",
)
@click.option("--rebuild", type=click.Path(path_type=Path), help="RECIPE: build it again from nothing, compare bytes.")
@click.option("--data", type=click.Path(path_type=Path), help="Data for --rebuild, instead of the recipe's path.")
@SET
@device_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
def verify_command(
    bundle: Path,
    keys: Path | None,
    rebuild: Path | None,
    data: Path | None,
    changes: tuple[str, ...],
    as_json: bool,  # noqa: FBT001 - click passes flags so
    **reach: Any,  # noqa: ANN401 - the options of ``device_options``, by name
) -> None:
    """Check a bundle: is it complete, does it compute what it claims, what is missing?

    Every digest is computed again, the golden vectors run, and the verdict must follow from the numbers in the
    certificate. Exit 0: complete; 4: not.

    \b
    Examples:
      compressor verify build/digits-1-gateway.tfb
      compressor verify build/digits-1-gateway.tfb --keys keys    and who signed it
      compressor verify build/digits-1-gateway.tfb --rebuild models/digits/recipe.toml
    """  # noqa: D301 - \b is click's: keep the lines
    from compressor.recipe.read import read_recipe  # noqa: PLC0415 - the command line starts fast
    from compressor.release.verify import verify_bundle  # noqa: PLC0415 - the command line starts fast

    if changes and not rebuild:
        raise click.UsageError("Expected --rebuild RECIPE with --set, got none: give the recipe that was run")
    verified = verify_bundle(bundle, keys)
    rebuilt = None
    if rebuild:
        from compressor.cli.devices import bench_for  # noqa: PLC0415 - only to run the recipe again
        from compressor.progress import Bars  # noqa: PLC0415 - as above
        from compressor.release import rebuild as again  # noqa: PLC0415 - as above

        read = read_recipe(rebuild, changes).with_data(data)
        rebuilt = again.rebuild(bundle, read, Bars(), bench_for(read, Reach(**reach), keys))
    ok = verified.complete and (rebuilt is None or rebuilt.same)
    if as_json:
        same = asdict(rebuilt) if rebuilt else None
        click.echo(json.dumps({**asdict(verified), "rebuilt": same, "ok": ok}, sort_keys=True))
    else:
        output.print_verified(verified)
        if rebuilt is not None:
            output.print_rebuilt(rebuilt)
    raise SystemExit(EXIT_PASS if ok else EXIT_ERROR)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; every error is one line on stderr and exit code 4."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    if os.environ.get(_DEBUG):
        logging.basicConfig(level=logging.DEBUG)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, _stop)
    sys.exit(_run(arguments))


def _stop(_number: int, _frame: object) -> None:
    """Stop as on Ctrl-C, so that child processes and temporary files are removed."""
    raise KeyboardInterrupt


def _run(arguments: Sequence[str] | None) -> int:
    """Return the exit code; under torchrun one process runs the command, the others share its trainings."""

    def command() -> object:
        check_alone()
        return app.main(args=arguments, prog_name="compressor", standalone_mode=False)

    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
        return _ended(command)
    from compressor.train.processes import job  # noqa: PLC0415 - torch, only under torchrun

    return _ended(lambda: job.shared(lambda: _ended(command)))


def _ended(work: Callable[[], object]) -> int:  # noqa: PLR0911 - one exit per kind of end
    """Return the exit code of ``work``; every error is one line."""
    try:
        code = work()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted: nothing half-written; run the same command again to go on", err=True)
        return EXIT_INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return EXIT_ERROR
    except click.ClickException as error:
        return _failed("usage", error.format_message())
    except (CompressorError, WireError) as error:
        return _failed(error.code, str(error))
    except OSError as error:
        return _failed("io", f"Expected to read or write {error.filename or 'a file'}, got: {error.strerror or error}")
    except Exception as error:
        logging.getLogger(__name__).debug("unexpected error", exc_info=True)
        return _unexpected(error)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else EXIT_ERROR
    return code if isinstance(code, int) else EXIT_PASS


def _unexpected(error: Exception) -> int:
    """Report which package to install if one is missing, or else an internal error."""
    text = missing_extra(error, "compressor", "compressor") if isinstance(error, ImportError) else ""
    if text:
        click.echo(f"error [extra_missing]: {text}", err=True)  # not by _failed, which needs one of those packages
        return EXIT_ERROR
    reason = f"{type(error).__name__}: {str(error)[:300]}"
    return _failed("internal", f"{reason}: this is a fault of ours; {_DEBUG}=1 shows where, please report it")


def _failed(code: str, text: str) -> int:
    from compressor.progress import printable  # noqa: PLC0415 - only where something failed

    click.echo(f"error [{code}]: {printable(' '.join(text.split()))}", err=True)
    return EXIT_ERROR
