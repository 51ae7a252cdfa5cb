"""The Python interface of the build host: run a recipe, or compress a model with data held in memory.

``run`` takes a recipe; ``compress`` takes a trained model and arrays, and writes a recipe beside its results, so that
the command line can repeat the run. Both return a ``RunResult``. This module decides nothing itself: stages, gates and
bundles are those of ``compressor run``.

    result = run("models/digits/recipe.toml", out="build", quick=True)
    print(result.verdict, result.figures["gateway"]["size_bytes"])

Every error is a ``CompressorError``. Nothing is printed; ``progress`` is called with events, and may stop a run by
raising.
"""

from __future__ import annotations

import copy
import html
import io
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compressor.cache import write_atomically
from compressor.data.arrays import pictures
from compressor.errors import CheckpointError, DataError, ExportError, PackageError, RecipeError
from compressor.gates.certificate import Certificate
from compressor.gates.evidence import Verdict
from compressor.progress import Silent, StageProgress
from compressor.recipe.model import Recipe
from compressor.recipe.read import parse_recipe, read_recipe, recipe_of
from compressor.run.pipeline import quick_of, run_recipe
from compressor.search.recipe_text import recipe_text
from wire.errors import SettingsError
from wire.settings import plain_table

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "Arrays", "CompressOptions", "GateRow", "OnProgress", "ProgressEvent", "Recipe", "RunResult", "Verdict", "compress",
    "parse_recipe", "read_recipe", "run",
]  # fmt: skip

INPUTS = "compress-inputs"
"""The folder below ``out`` in which ``compress`` keeps the model, the arrays and the recipe."""
_TARGET = "host"
_SHARES = MappingProxyType({"train": 0.02, "calibration": 0.18, "gate": 0.6, "reference": 0.2})
"""Nothing is trained, so nearly all rows of the usual train split are used for gating and calibration."""
_GREY = 3
_RGB = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressEvent:
    """Progress of a stage: ``done`` of ``total`` ``unit``, with a note in ``text``; or, without a stage, a remark."""

    stage: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    text: str = ""


OnProgress = Callable[[ProgressEvent], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arrays:
    """Labelled images in memory.

    ``x``: uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3), range 0..255. ``y``: integers (N,), rows of ``class_names``.
    ``sources``: rows with the same source show the same object (empty: each picture is its own); a source is never
    split between train and gate. ``slices``: the group of each row, for per-slice gates (empty: no groups).
    """

    x: NDArray[Any]
    y: NDArray[Any]
    class_names: Sequence[str]
    sources: Sequence[str] = ()
    slices: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressOptions:
    """Settings of ``compress``; names and values as in a recipe (``docs/reference/recipe.md``).

    ``mean`` and ``std``: normalisation of the input after scaling to 0..1, as used in training (0 and 1: none); one
    number, or one for each channel.
    ``quantize``: the keys of a step ``quantize``. ``gates``: the table ``[gates]``. ``seed``: of the splits.
    """

    name: str = "model"
    version: int = 1
    mean: float | Sequence[float] = 0.0
    std: float | Sequence[float] = 1.0
    quantize: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    gates: Mapping[str, Mapping[str, float | str]] = field(
        default_factory=lambda: MappingProxyType({"accuracy_drop": {"max": 0.01}})
    )
    threads: int = 1
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRow:
    """One gate's result. ``value`` and ``bound`` are None where the measurement is missing.

    ``n``: samples behind the value; ``needs``: how many more an inconclusive gate asks for; ``device``: the device that
    measured it, "" for this host; ``text``: the result as a sentence.
    """

    name: str
    target: str
    device: str
    verdict: Verdict
    value: float | None
    bound: float | None
    limit: float | None
    n: int
    needs: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """Result of a run; a notebook displays it as a table of gates.

    ``figures``: every measured number by target and name (``docs/reference/recipe.md``). ``bundles``: the bundle of
    each target; empty unless every gate passed. ``report``, ``certificate``: ``report.html`` and ``gate.json``.
    ``remarks``: warnings to read before the gates. ``recipe``: the recipe that was run.
    """

    verdict: Verdict
    gates: tuple[GateRow, ...]
    figures: Mapping[str, Mapping[str, float]]
    bundles: Mapping[str, Path]
    report: Path
    certificate: Path
    remarks: tuple[str, ...]
    recipe: Recipe

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return self.verdict is Verdict.PASS

    def bundle(self, target: str = "") -> Path:
        """Return the path of the bundle for ``target``, which may be omitted if there is only one.

        Raises:
            PackageError: If there is none, or there are several and none was named.
        """
        names = [target] if target else list(self.bundles)
        if len(names) != 1 or names[0] not in self.bundles:
            got = ", ".join(self.bundles) or f"none: the verdict is {self.verdict}, read .gates"
            raise PackageError(f"Expected a bundle for {repr(target) if target else 'one target'}, got {got}")
        return self.bundles[names[0]]

    def bundle_bytes(self, target: str = "") -> bytes:
        """Return the bytes of the bundle for ``target``.

        Raises:
            PackageError: As ``bundle``, or if the file is gone.
        """
        path = self.bundle(target)
        try:
            return path.read_bytes()
        except OSError as error:
            raise PackageError(f"Expected a bundle at {path}, got: {error.strerror}: run it again") from error

    def _repr_html_(self) -> str:
        """Return verdict and gates as self-contained HTML."""
        model = self.recipe.model
        head = ("gate", "target", "verdict", "value", "bound", "limit", "in words")
        lines = [f"<tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>"]
        for row in self.gates:
            where = f"{row.target} on {row.device}" if row.device else row.target
            numbers = ["" if number is None else f"{number:.6g}" for number in (row.value, row.bound, row.limit)]
            cells = "".join(
                f"<td>{html.escape(text)}</td>" for text in (row.name, where, row.verdict, *numbers, row.text)
            )
            lines.append(f'<tr style="background:{_SHADES[row.verdict]}">{cells}</tr>')
        remarks = "".join(f"<p>{html.escape(remark)}</p>" for remark in self.remarks)
        title = html.escape(f"{model.name}-{model.version}: {self.verdict}")
        return f"<div><p><b>{title}</b></p>{remarks}<table>{''.join(lines)}</table></div>"


_SHADES = {Verdict.PASS: "#2e7d3222", Verdict.FAIL: "#c6282822", Verdict.INCONCLUSIVE: "#f9a82522"}


def run(
    recipe: Recipe | Path | str,
    *,
    out: Path | str,
    data: Path | str | None = None,
    version: int | None = None,
    quick: bool = False,
    progress: OnProgress | None = None,
) -> RunResult:
    """Run a recipe to its verdict; an interrupted run resumes where it stopped.

    Args:
        recipe: The path of a recipe or its folder, or a ``Recipe`` (``read_recipe``, ``parse_recipe``), whose
            values are checked again, because they may have been replaced.
        out: The folder for bundles, report, certificate and the cache of stages.
        data: The data set's zip or folder, instead of the recipe's path.
        version: Version of the release, instead of the recipe's.
        quick: Train only two epochs, on generated data if the recipe's own is missing. The gates stay as they are.
        progress: Called at every step of a stage and for every remark, in the caller's thread.

    Raises:
        CompressorError: If the run fails; the subclass and its ``code`` give the reason.
    """
    read = _checked(recipe) if isinstance(recipe, Recipe) else read_recipe(recipe)
    read = read.with_data(None if data is None else Path(data))
    said = None if progress is None else _Reported(progress)
    if quick:
        read = quick_of(read, Path(out), said or Silent())
    outcome = run_recipe(read, out=Path(out), version=version, progress=said, quick=quick)
    parts: Sequence[Certificate] = outcome.targets or (outcome.certificate,)
    by_name = {path.name: path for path in outcome.bundles}
    model = outcome.recipe.model
    files = {part.target: by_name.get(f"{model.name}-{model.version}-{part.target}.tfb") for part in parts}
    rows = tuple(
        GateRow(
            name=line.name, target=line.target, device=line.on, verdict=Verdict(line.verdict), value=line.value,
            bound=line.bound, limit=line.limit, n=line.n, needs=line.needs, text=line.text,
        )
        for line in outcome.certificate.gates
    )  # fmt: skip
    return RunResult(
        verdict=outcome.verdict,
        gates=rows,
        figures={part.target: dict(part.figures) for part in parts},
        bundles={target: path for target, path in files.items() if path is not None},
        report=outcome.report,
        certificate=outcome.report.with_name("gate.json"),
        remarks=tuple(dict.fromkeys(remark for part in parts for remark in part.remarks)),
        recipe=outcome.recipe,
    )


def _checked(recipe: Recipe) -> Recipe:
    """Return ``recipe`` as read from a file with its values, so that replaced ones are checked as strictly."""
    stand_in = recipe.data.stand_in if recipe.data.generated else ""  # set by an earlier run with quick, beside a path
    own = replace(recipe, data=replace(recipe.data, stand_in="")) if stand_in else recipe
    read = parse_recipe(recipe_text(own).encode())
    data = replace(read.data, stand_in=stand_in or read.data.stand_in)
    return replace(read, folder=recipe.folder, data=data)


def compress(
    model: nn.Module | bytes | Path | str,
    data: Arrays,
    *,
    out: Path | str,
    options: CompressOptions | None = None,
    progress: OnProgress | None = None,
) -> RunResult:
    """Quantize a trained classifier for onnxruntime on this host, and gate it against the original.

    Of the rows, 60 % gate, 20 % make the drift reference, 18 % calibrate, and 2 % are not used.

    Args:
        model: A network that takes float32 (N, C, H, W) and returns logits, or (logits, embedding): a torch module,
            which is not changed, or an ONNX file's path or bytes.
        data: Rows that the model was not trained on: training rows can't gate it.
        out: As in ``run``; model, arrays and recipe are kept in its folder ``compress-inputs``.
        options: Normalisation, gates and settings.
        progress: As in ``run``.

    Raises:
        CompressorError: If the run fails; the subclass and its ``code`` give the reason.
    """
    settings = options or CompressOptions()
    folder = Path(out) / INPUTS
    x = np.asarray(data.x)
    height, width = pictures(x, "Arrays.x")[0].shape[:2]
    colour = "grey" if x.ndim == _GREY or x.shape[3] != _RGB else "rgb"
    names = _names(data)
    try:
        quantize = plain_table(settings.quantize, "CompressOptions.quantize")
    except SettingsError as error:
        raise RecipeError(str(error)) from error
    recipe = recipe_of(_plain({
        "model": {
            "name": settings.name, "version": settings.version, "labels": names, "onnx": "model.onnx",
        },
        "data": {
            "dataset": "arrays", "path": "data.npz", "slices": "slice" if len(data.slices) else "", "colour": colour,
            "width": width, "height": height, "mean": settings.mean, "std": settings.std, "shares": dict(_SHARES),
        },
        "train": {"seed": settings.seed},
        "compress": [{"step": "quantize", **quantize}],
        "targets": {_TARGET: {"runtime": "onnx", "cpu": platform.machine(), "threads": settings.threads}},
        "gates": settings.gates,
    }))  # fmt: skip
    artifact = _artifact(model, (len(names), recipe.data.channels, height, width))
    write_atomically(folder / "model.onnx", artifact)
    write_atomically(folder / "data.npz", _npz(data))
    write_atomically(folder / "recipe.toml", recipe_text(recipe, ("Written by compressor.api.compress.",)).encode())
    return run(folder / "recipe.toml", out=out, progress=progress)


def _artifact(model: nn.Module | bytes | Path | str, sizes: tuple[int, int, int, int]) -> bytes:
    """Return the model as an ONNX file; ``sizes``: classes, channels, height and width."""
    if isinstance(model, bytes):
        return model
    if isinstance(model, str | os.PathLike):
        try:
            return Path(model).read_bytes()
        except OSError as error:
            message = f"Expected an ONNX file at {model}, got: {error.strerror}: check the path"
            raise CheckpointError(message) from error
    import torch  # noqa: PLC0415 - only a torch module needs it

    from compressor.export.onnx import export_onnx  # noqa: PLC0415 - as above
    from compressor.networks import with_embedding  # noqa: PLC0415 - as above

    given: object = model
    if not isinstance(given, torch.nn.Module):
        message = f"Expected a torch.nn.Module, or an ONNX file's path or bytes, got {type(given).__name__}"
        raise ExportError(message)
    classes, *shape = sizes
    try:
        own = copy.deepcopy(given).cpu()
    except (RuntimeError, TypeError) as error:  # what torch can't copy
        message = f"Expected a module that can be copied, got: {str(error)[:200]}: export it to ONNX and give the file"
        raise ExportError(message) from error
    name = type(given).__name__
    return export_onnx(with_embedding(name, own, classes, torch.zeros(2, *shape)), *shape)


def _names(data: Arrays) -> list[str]:
    given: object = data.class_names
    names = [] if given is None or isinstance(given, str) else list(data.class_names)
    wrong = next((name for name in names if not isinstance(name, str)), None)
    if not names or wrong is not None:
        got = repr(given)[:80] if wrong is None else f"{type(wrong).__name__} {wrong!r}"
        message = f"Expected Arrays.class_names as a list of texts, one for each class, got {got}"
        raise DataError(f"{message}: write [str(name) for name in names]")
    return [str(name) for name in names]


def _plain(value: Any) -> Any:  # noqa: ANN401 - any value of a recipe
    """Return ``value`` with Python's numbers in the place of numpy's, which a mean or an index of arrays gives."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def _npz(data: Arrays) -> bytes:
    """Return ``data`` as a file of the data set ``arrays``; equal arrays give equal bytes."""
    arrays: dict[str, Any] = {"x": np.asarray(data.x), "y": np.asarray(data.y)}
    arrays["class_names"] = np.array(data.class_names, np.str_)
    for name, values in (("source", data.sources), ("slice", data.slices)):
        arrays |= {name: np.array(values, np.str_)} if len(values) else {}
    if arrays["y"].dtype.kind not in "iu":  # objects would be pickled
        message = f"Expected Arrays.y as integers (N,), got {arrays['y'].dtype} {arrays['y'].shape}"
        raise DataError(f"{message}: give each row the index of its class in class_names")
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


class _Reported:
    """Turns the progress of a run into events."""

    def __init__(self, tell: OnProgress) -> None:
        self._tell = tell

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[StageProgress]:
        self._tell(ProgressEvent(stage=name, total=total, unit=unit))
        yield _Counted(self._tell, ProgressEvent(stage=name, total=total, unit=unit))

    def say(self, text: str) -> None:
        self._tell(ProgressEvent(text=text))


class _Counted:
    def __init__(self, tell: OnProgress, event: ProgressEvent) -> None:
        self._tell, self._event = tell, event

    def advance(self, count: int = 1, note: str = "") -> None:
        self._event = replace(self._event, done=self._event.done + count, text=note)
        self._tell(self._event)
