"""A run: what it works on, its files with the manifests that run them, and its cached stages.

Defines the inputs in each stage's cache key, so that an interrupted run resumes correctly. Does not decide their order
or what is compared (``pipeline`` does).
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compressor import formats, tasks
from compressor.cache import Cache, Result, Stage
from compressor.clean.given import PARITY, Given, random_rows
from compressor.closure import plugin
from compressor.data._calibration import CalibrationInputs
from compressor.data._front_end import preprocessing_of
from compressor.data._inputs import HELD_INPUT_BYTES, LazyInputs
from compressor.data._table import Table
from compressor.errors import RecipeError
from compressor.measurement import first_run
from compressor.measurement import predictions as measure
from compressor.measurement.onnx_graph import GraphFigures
from compressor.measurement.predictions import Candidate, Predictions
from compressor.portions import Inputs, rows_within
from compressor.progress import Progress
from compressor.recipe.model import Recipe, TargetRecipe, TrainRecipe
from compressor.steps._base import Rows
from compressor.steps._selection import network_steps
from compressor.tasks import Task
from edge_agent import declarations, decoders
from edge_agent import tasks as device_tasks
from edge_agent.inference import preprocess
from wire.canonical import canonical_bytes, sha256_hex
from wire.codec import parse_json, to_document
from wire.manifest import Manifest, Preprocessing, TensorSpec

if TYPE_CHECKING:
    from compressor.data._split import Drifted, Splits
    from compressor.devices.bench import DeviceBench
    from wire.bundle import Bundle

_BATCH = 64
_HEADER_BYTES = 8
Floats = NDArray[np.float32]


def table_digest(table: Table) -> str:
    """Return the SHA-256 of a table's content: images by hash, labels, slices, sources, class names."""
    rows = zip(table.hashes.tolist(), table.labels.tolist(), table.slices.tolist(), table.sources.tolist(), strict=True)
    text = "\n".join(f"{content} {label} {part} {source}" for content, label, part, source in rows)
    return sha256_hex((text + "\n" + "\0".join(table.class_names)).encode())


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Material:
    """The data of a run: the table and its splits, and the samples of a retraining.

    ``drifted``: those of the devices whose inputs drifted; ``watched``: those of other sites. ``calibration``: the
    array that sets the ranges of a quantization instead of the calibration split, if the recipe names one.
    ``unlabelled``: inputs beside the labelled rows, for a teacher to answer; their labels say nothing.
    """

    table: Table
    splits: Splits
    drifted: Drifted | None
    watched: Drifted | None = None
    calibration: CalibrationInputs | None = None
    unlabelled: Table | None = None

    @classmethod
    def none(cls) -> Material:
        """Return the data of a run before any is read."""
        from compressor.data._split import Splits  # noqa: PLC0415 - no stage depends on how rows are split

        rows, texts, images = np.zeros(0, np.int64), np.zeros(0, np.str_), np.zeros(0, object)
        table, splits = Table(images, rows, texts, texts, texts, ()), Splits(rows, rows, rows, rows, rows)
        return cls(table=table, splits=splits, drifted=None)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Form:
    """A runnable file. ``converted_from``: its plain form, whose graph can be read; empty: it is in that form.

    ``mended``: what step ``clean`` did to it, by mend. ``remarks``: what of the steps' settings it could not have.
    """

    candidate: Candidate
    converted_from: bytes = b""
    mended: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def data(self) -> bytes:
        """The file's bytes."""
        return self.candidate.artifact

    @property
    def plain(self) -> bytes:
        """The file in its format's plain form."""
        return self.converted_from or self.data

    @property
    def digest(self) -> str:
        """The SHA-256 of the file."""
        return sha256_hex(self.candidate.artifact)

    @property
    def mends(self) -> tuple[str, ...]:
        """A line for each mend; the same on every processor."""
        return tuple(f"{name}: {said}" for name, said in self.mended.items() if name != PARITY)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFile:
    """An exported file whose network is trained and exported; ``logits`` and ``embedding`` name its outputs.

    ``sigmoid``: one that makes the output ``logits`` is cut off, as a softmax is. ``decoder``: of scores, if it is not
    that of the task. ``decoder_options``: of a detector or of scores, as they were settled.
    """

    data: bytes
    logits: str
    embedding: str = ""
    sigmoid: bool = False
    decoder: str = ""
    decoder_options: Mapping[str, float] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The SHA-256 of the file and of what is taken from it."""
        end = " sigmoid" if self.sigmoid else ""
        end += f" {sorted(self.decoder_options.items())}" if self.decoder_options else ""
        end += f" {self.decoder}" if self.decoder else ""
        return sha256_hex(f"{sha256_hex(self.data)} {self.logits} {self.embedding}{end}".encode())

    def network(self) -> object:
        """Return a copy of the network in the file, in evaluation mode.

        Raises:
            ConversionError: If the file can't become a network.
        """
        from compressor.importing.heads import network_of  # noqa: PLC0415 - torch is loaded only to train

        return network_of(self.data, self.logits, self.embedding, sigmoid=self.sigmoid).network


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Models:
    """All models of a run; every field is empty until a model is made.

    ``trained``: the weights before any step, ``weights``: after the last (None for an imported file); ``baseline``: the
    float model without compression, for the baseline's runtime or that of the import; ``floats``: the float file after
    the network steps, by runtime; ``compressed``: the gated file, by target; ``notes``: measurements of the steps;
    ``source``: the file whose network these are, None for a network of the recipe; ``teacher``: the file that steps
    learn from, None for the network as it was trained.
    """

    trained: Result | None = None
    weights: Result | None = None
    baseline: Form = field(default_factory=lambda: Form(candidate=Candidate(Manifest(), b"")))
    floats: Mapping[str, Form] = field(default_factory=dict)
    compressed: Mapping[str, Form] = field(default_factory=dict)
    notes: tuple[tuple[str, Mapping[str, Any]], ...] = field(default=())
    source: NetworkFile | None = None
    teacher: NetworkFile | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Run:
    """What a run works on, and its stages, which go through the result cache and report progress.

    ``before``: the bundle of the previous release, for a retraining; ``devices``: access to the devices that gates
    name; ``material``: the data, and ``models``: all files made from it; both are empty until the run has them.
    """

    recipe: Recipe
    cache: Cache
    progress: Progress
    before: Bundle | None = None
    devices: DeviceBench | None = None
    material: Material = field(default_factory=Material.none)
    models: Models = field(default_factory=Models)

    @property
    def table(self) -> Table:
        """All rows of the data."""
        return self.material.table

    @property
    def drifted(self) -> Drifted | None:
        """The drifted samples of a retraining."""
        return self.material.drifted

    def rows(self, name: str) -> Table:
        """Return the rows of the split ``name``."""
        return self.table.take(getattr(self.material.splits, name))

    @property
    def task(self) -> Task:
        """The task of the recipe.

        Raises:
            PluginError: If the task is unknown.
        """
        return tasks.of(self.recipe.data)

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing from an image to an input, as in the manifest."""
        return preprocessing_of(self.recipe.data)

    def inputs(self, table: Table, layout: str = "NCHW") -> Floats:
        """Return the images of ``table`` after the device's preprocessing, float32 (N, C, H, W) or NHWC."""
        return self.joined([table], layout)

    def joined(self, tables: Sequence[Table], layout: str = "NCHW") -> Floats:
        """Return the images of all ``tables``, concatenated, in one array as in ``inputs``; holds nothing twice."""
        size = sum(len(table) for table in tables)
        made = self.batches(tables, layout)
        first = next(made, None)
        if first is None:
            return preprocess.to_batch([], preprocessing_of(self.recipe.data, layout))
        inputs = np.empty((size, *first.shape[1:]), np.float32)
        end = 0
        for batch in chain([first], made):
            inputs[end : end + len(batch)] = batch
            end += len(batch)
        return inputs

    def lessons(self, tables: Sequence[Table]) -> Rows:
        """Return the rows of all ``tables``, concatenated, to learn from; inputs above a limit stay on disk."""
        some = [table.images for table in tables if len(table)]
        lazy = LazyInputs(some, self.preprocessing) if some else None
        inputs: Inputs = lazy if lazy and lazy.nbytes > HELD_INPUT_BYTES else self.joined(tables)
        return Rows(inputs, np.concatenate([table.lessons for table in tables]), tables[0].task)

    def train(
        self, tables: Sequence[Table], settings: TrainRecipe, start: bytes | None = None, held: Table | None = None
    ) -> Result:
        """Return the weights (a state dict) after training on ``tables``, from the weights ``start`` if given.

        ``held`` is used for early stopping, if the settings enable it.

        Raises:
            TrainError: If training failed.
            CheckpointError: If ``start`` does not fit the network.
        """
        network = self.recipe.model.network
        inputs = {
            "data": sha256_hex("".join(table_digest(table) for table in tables).encode()),
            "settings": repr(settings), "network": f"{network} {sorted(self.recipe.model.network_options.items())}",
            "preprocessing": self._preprocessing_digest(), "start": sha256_hex(start) if start else "",
            "classes": "\0".join(tables[0].class_names), **_unit(tables[0]), **versions("torch", "numpy", "pillow"),
            **self.source_inputs,
        }  # fmt: skip
        inputs |= {"layers": settings.fine_tune_layers} if settings.keeps_body else {}
        inputs |= {"flips": settings.flips} if settings.flips != "none" else {}
        stops = held if settings.early_stopping else None
        inputs |= {"held": table_digest(stops)} if stops is not None else {}
        entries = (
            "compressor.train.checkpoint",
            "compressor.train.processes.distributed",
            "compressor.train.supervised",
            self.task.code("training"),
        )

        def make() -> bytes:
            resume.parent.mkdir(parents=True, exist_ok=True)
            weights = self._fit(tables, settings, start, stops, resume)
            resume.unlink(missing_ok=True)
            return weights

        stage = Stage(name="train", inputs=inputs, make=make, uses=(*entries, self.network_code))
        resume = self.cache.results / f"training-{stage.key()[:24]}.part"
        return self.cache.result(stage)

    def _fit(
        self,
        tables: Sequence[Table],
        settings: TrainRecipe,
        start: bytes | None,
        held: Table | None,
        resume: Path,
    ) -> bytes:
        from compressor.train import checkpoint, supervised  # noqa: PLC0415 - torch is loaded only to train
        from compressor.train.processes import distributed, job  # noqa: PLC0415 - torch is loaded only to train

        rows = self.lessons(tables)
        network = self._network(len(tables[0].class_names))
        with tempfile.TemporaryDirectory(prefix="tinyfleet-") as folder:
            path = Path(folder) / "weights.pt"
            if start is not None:
                path.write_bytes(start)
                network = checkpoint.load(network, path)  # type: ignore[arg-type]
            with self.progress.stage("train", settings.epochs, "epoch") as stage:

                def told(epoch: supervised.Epoch) -> None:
                    stage.advance(1, epoch.said)

                judged_by = self.lessons([held]) if held is not None else None
                if settings.processes > 1 or job.leading() is not None:
                    launch = distributed.Launch(start=start, held=judged_by, resume=resume, on_epoch=told)
                    network = distributed.fit_distributed(
                        self._spec(len(tables[0].class_names)), rows, settings, launch
                    )
                else:
                    options = supervised.Options(on_epoch=told, held=judged_by, resume=resume)
                    supervised.fit_with(network, rows, settings, options)  # type: ignore[arg-type]
            checkpoint.save(network, path)  # type: ignore[arg-type]
            return path.read_bytes()

    def _spec(self, classes: int) -> tuple[str, int, int, int, int, Mapping[str, int | float]]:
        data, model = self.recipe.data, self.recipe.model
        return model.network, classes, data.channels, data.height, data.width, model.network_options

    @property
    def network_code(self) -> str:
        """The module that makes the network."""
        if self.models.source is not None:
            return "compressor.importing.heads"
        return plugin("compressor.networks", self.recipe.model.network)

    @property
    def source_inputs(self) -> dict[str, str]:
        """The file that the network comes from, as an input of a stage."""
        return {"source": self.models.source.digest} if self.models.source is not None else {}

    def _network(self, classes: int) -> object:
        if self.models.source is not None:
            return self.models.source.network()
        from compressor import networks  # noqa: PLC0415 - torch is loaded only to train

        network = networks.build(*self._spec(classes))
        if (found := networks.decoder_of(network)) != self.task.decoder:
            wanted = f"outputs for the decoder {self.task.decoder!r}" if self.task.decoder else "no decoder"
            message = (
                f"Expected a network with {wanted} in a recipe {self.task.recipes}, got {found or 'one without'!r}"
            )
            raise RecipeError(f"{message}: name another [model] network, or another [data] task")
        return network

    def loaded(self, weights: bytes, classes: int, named: str = "") -> object:
        """Return the network with these weights, in evaluation mode; ``named``: the origin of a user's weights.

        Raises:
            CheckpointError: If they don't fit the network.
        """
        from compressor.train import checkpoint  # noqa: PLC0415 - torch is loaded only where needed

        with _file(weights) as path:
            return checkpoint.load(self._network(classes), path, named)  # type: ignore[arg-type]

    def learnt(self, weights: Result) -> dict[str, tuple[float, float]]:
        """Return the ranges that a step has learned, stored beside ``weights``, by FX node; empty if there are none.

        Raises:
            CheckpointError: If these are not weights.
        """
        from compressor.train import checkpoint  # noqa: PLC0415 - torch is loaded only where needed

        if not any(step.step == "qat" for step in network_steps(self.recipe)):
            return {}  # avoids importing torch for quantization
        with _file(weights.data) as path:
            return checkpoint.load_ranges(path)

    def export(self, weights: Result, classes: int, runtime: str = formats.BASELINE) -> Result:
        """Return the float file of these weights for ``runtime``.

        Raises:
            ExportError: If the network can't be exported.
            MeasureError: If the runtime crashes when it opens the file.
            PluginError: If ``runtime`` has no exporter, or its packages are missing.
        """
        data, model, target = self.recipe.data, self.recipe.model, formats.named(runtime)
        inputs = {
            "weights": weights.digest, "classes": str(classes), "network": model.network,
            "options": repr(sorted(model.network_options.items())), "runtime": runtime,
            "shape": f"{data.channels} {data.height} {data.width}", **versions(*target.exported_with),
            **self.source_inputs,
        }  # fmt: skip

        def make() -> bytes:
            with self.progress.stage("export", 1, "model") as stage:
                network = self.loaded(weights.data, classes)
                model_bytes = target.export(network, data.channels, data.height, data.width)  # type: ignore[arg-type]
                zeros = np.zeros((1, *input_of(self.recipe, runtime).shape[1:]), np.float32)
                first_run.check(runtime, model_bytes, zeros, "the exported float file")
                stage.advance()
            return model_bytes

        uses = (formats.code(runtime), "compressor.train.checkpoint", self.network_code)
        return self.cache.result(Stage(name="export", inputs=inputs, make=make, uses=uses))

    def cleaned(self, model: bytes, runtime: str, given: Given | None = None) -> tuple[bytes, dict[str, str]]:
        """Return the file ``model`` of ``runtime`` after step ``clean``, and a line on each mend by its name.

        ``given``: rows and settings of a person's file; None: an export of ours, which needs no rows of the data.

        Raises:
            ModelSignatureError: If ``[model] constants`` does not fit its inputs.
        """
        file_format = formats.named(runtime)
        if not file_format.cleaned_with:
            return model, {}
        asked = given or Given(rows=random_rows(input_of(self.recipe, runtime).shape[1:]))
        inputs = {
            "model": sha256_hex(model), "runtime": runtime, "rows": sha256_hex(asked.rows.tobytes()),
            "given": repr((asked.shape, asked.compressed, sorted(asked.constants.items()), asked.factor, asked.offset)),
            **versions(*file_format.cleaned_with),
        }  # fmt: skip

        def make() -> bytes:
            with self.progress.stage("clean", 1, "model") as stage:
                data, notes = file_format.cleaned(model, asked)
                stage.advance()
            return packed(notes, data)

        uses = (formats.code(runtime), "compressor.clean.mending")
        made = self.cache.result(Stage(name="clean", inputs=inputs, make=make, uses=uses))
        notes, data = unpacked(made.data)
        for name, said in notes.items() if given is not None and not made.cached else ():
            self.progress.say(f"clean, {name}: {said}")
        return data, notes

    def saved_as(self, model: bytes, runtime: str, kind: str) -> bytes:
        """Return ``model`` in the form ``kind`` of the files of ``runtime``.

        Raises:
            ExportError: If it can't be converted.
        """
        target, distribution = formats.named(runtime), declarations.runtime(runtime).distribution
        inputs = {"model": sha256_hex(model), **versions(*([distribution] if distribution else []))}
        stage = Stage(
            name=f"{kind}-format",
            inputs=inputs,
            make=lambda: target.saved_as(model, kind),
            uses=(formats.code(runtime),),
        )
        return self.cache.result(stage).data

    def batches(self, tables: Sequence[Table], layout: str = "NCHW", *, most: int = _BATCH) -> Iterator[Floats]:
        """Yield inputs in batches of at most ``most`` rows and ``INPUT_BYTES``: memory does not grow with the rows."""
        preprocessing = preprocessing_of(self.recipe.data, layout)
        for table in tables:
            size = rows_within(preprocess.to_batch(list(table.images[:1]), preprocessing).nbytes, most=most)
            for start in range(0, len(table), size):
                yield preprocess.to_batch(list(table.images[start : start + size]), preprocessing)

    def ranges_from(self, tables: Sequence[Table], layout: str = "NCHW") -> tuple[str, Callable[[], Iterator[Floats]]]:
        """Return a digest of the inputs that set ranges, and what yields them: those of ``tables``, or the given."""
        given = self.material.calibration
        if given is not None:
            return given.digest, partial(given.batches, layout)
        digest = sha256_hex("".join(table_digest(item) for item in tables).encode())
        return digest, partial(self.batches, tables, layout)

    def predict(self, name: str, candidate: Candidate, table: Table) -> Predictions:
        """Return the predictions for ``table``; ``name`` is shown as progress.

        Raises:
            MeasureError: If the artifact can't be run.
        """
        inputs = {
            "artifact": sha256_hex(candidate.artifact), "data": table_digest(table),
            "runtime": f"{candidate.manifest.runtime} {sorted(candidate.manifest.session_options.items())}",
            "inputs": repr(candidate.manifest.inputs), "preprocessing": self._preprocessing_digest(), **_unit(table),
            "outputs": repr([one.name for one in candidate.manifest.outputs]),
            **versions(declarations.runtime(candidate.manifest.runtime).distribution or "numpy", "numpy", "pillow"),
        }  # fmt: skip

        def make() -> bytes:
            with self.progress.stage(name, len(table), "image") as stage:
                batches = self.batches([table], candidate.manifest.preprocessing.layout, most=measure.MOST_ROWS)
                return _pack(measure.predict(candidate, batches, stage.advance))

        uses: tuple[str, ...] = (plugin("edge_agent.runtimes", candidate.manifest.runtime),)
        if candidate.manifest.decoder:
            inputs |= {"decoder": f"{candidate.manifest.decoder} {sorted(candidate.manifest.decoder_options.items())}"}
            uses = (*uses, plugin("edge_agent.decoders", candidate.manifest.decoder))
        return _unpack(self.cache.result(Stage(name="predict", inputs=inputs, make=make, uses=uses)).data)

    def bare(self, artifact: bytes, target: TargetRecipe, table: Table | None = None) -> Candidate:
        """Return ``artifact`` as ``bare`` does, with the decoder and its settled options of the network's file."""
        made, source = bare(self.recipe, self.table if table is None else table, artifact, target), self.models.source
        if source is None or not (source.decoder or source.decoder_options):
            return made
        return replace(made, manifest=decoded_by(made.manifest, source.decoder, source.decoder_options))

    def torch_logits(self, weights: Result, table: Table) -> Floats:
        """Return the network's own logits, float32 (N, classes); for a regression, predictions in the target's unit."""

        def make() -> bytes:
            import torch  # noqa: PLC0415 - torch is loaded only where needed

            network = self.loaded(weights.data, len(table.class_names))  # in evaluation mode, and used only here
            with torch.no_grad():
                parts = [self._decoded(network(torch.from_numpy(batch))[0].numpy(), batch, table)  # type: ignore[operator]
                         for batch in self.batches([table])]  # fmt: skip
            joined = np.concatenate(parts)
            joined = table.unit.real(joined) if table.unit is not None else joined
            return _pack(Predictions(joined, np.zeros((len(joined), 0), np.float32)))

        inputs = {"weights": weights.digest, "data": table_digest(table), **versions("torch", "numpy", "pillow")}
        inputs |= _unit(table) | self.source_inputs
        model = self.recipe.model
        inputs |= {"network": f"{model.network} {sorted(model.network_options.items())}",
                   "preprocessing": self._preprocessing_digest()}  # fmt: skip
        source = self.models.source
        name = (source.decoder if source is not None else "") or self.recipe.decoder.kind or self.task.decoder
        decoding = (plugin("edge_agent.decoders", name),) if name else ()
        uses = ("compressor.train.checkpoint", self.network_code, *decoding)
        return _unpack(self.cache.result(Stage(name="torch", inputs=inputs, make=make, uses=uses)).data).logits

    def _decoded(self, outputs: Floats, inputs: Floats, table: Table) -> Floats:
        """Return the first ``outputs`` for ``inputs``, (N, C, H, W), after the task's decoder, if it has one."""
        manifest = self.bare(b"", self.recipe.targets[0], table).manifest
        pixels = replace(manifest.preprocessing, layout="NCHW")
        decoder = decoders.of_manifest(replace(manifest, preprocessing=pixels))
        return outputs if decoder is None else np.asarray(decoders.decoded(decoder, inputs, [outputs]), np.float32)

    def timings(self, candidates: Mapping[str, Candidate], table: Table) -> dict[str, float]:
        """Return the latency of ``candidates`` on this host; cached, so that a resumed run gives the same figures.

        Raises:
            MeasureError: If an artifact can't be run.
        """

        def taken(images: Mapping[str, Floats]) -> dict[str, dict[str, float]]:
            with self.progress.stage("measure", 1, "model") as stage:
                found = measure.latency(candidates, images)
                stage.advance()
            figures = {name: one.figures for name, one in found.items()}
            if {"float", "candidate"} <= found.keys():  # they took turns: each repeat gives a ratio
                pairs = zip(found["candidate"].p50_repeats_ms, found["float"].p50_repeats_ms, strict=True)
                ratios = [own / plain for own, plain in pairs if plain > 0]
                middle = found["candidate"].p50_ms / found["float"].p50_ms
                figures["candidate"] |= measure.repeated("latency_ratio", middle, ratios)
                backwards = [1 / ratio for ratio in ratios if ratio > 0]
                figures["candidate"] |= measure.repeated("speed_up_ratio", 1 / middle, backwards)
            return figures

        return self._measured("measure", candidates, table, taken)

    def memory(self, candidates: Mapping[str, Candidate], table: Table) -> dict[str, float]:
        """Return the peak memory of a separate process for each of ``candidates``; cached.

        Raises:
            MeasureError: If an artifact can't be run, or takes too long.
        """

        def taken(images: Mapping[str, Floats]) -> dict[str, dict[str, float]]:
            found = {}
            with self.progress.stage("memory", len(candidates), "model") as stage:
                for name, item in candidates.items():
                    found[name] = {"peak_memory_bytes": float(measure.peak_memory_bytes(item, images[name]))}
                    stage.advance()
            return found

        return self._measured("memory", candidates, table, taken)

    def _measured(
        self, name: str, candidates: Mapping[str, Candidate], table: Table, taken: Callable[..., dict[str, Any]]
    ) -> dict[str, float]:
        inputs = {f"artifact {name}": sha256_hex(item.artifact) for name, item in candidates.items()}
        inputs |= {f"runtime {name}": item.manifest.runtime for name, item in candidates.items()}
        inputs |= {f"manifest {name}": repr(item.manifest.threads) for name, item in candidates.items()}

        def make() -> bytes:
            images = {name: self.inputs(table, item.manifest.preprocessing.layout) for name, item in candidates.items()}
            return canonical_bytes(taken(images))

        names = sorted({item.manifest.runtime for item in candidates.values()})
        stage = Stage(
            name=name, inputs=inputs, make=make, uses=tuple(plugin("edge_agent.runtimes", runtime) for runtime in names)
        )
        document = parse_json(self.cache.result(stage).data)
        figures: dict[str, float] = {}
        for candidate, values in document.items():
            prefix = "float_" if candidate == "float" else ""
            figures |= {f"{prefix}{key}": float(value) for key, value in values.items()}  # type: ignore[union-attr,arg-type]
        return figures

    def graph(self, form: Form) -> GraphFigures:
        """Return the figures of the graph of a file, in the plain form that it was made from.

        Raises:
            MeasureError: If it can't be read.
        """
        manifest = form.candidate.manifest
        return formats.named(manifest.runtime).figures(form.plain, manifest.session_options, manifest.threads)

    def _preprocessing_digest(self) -> str:
        return sha256_hex(canonical_bytes(to_document(self.preprocessing)))


def packed(notes: Mapping[str, Any], data: bytes) -> bytes:
    """Return ``data`` with ``notes`` before it: the result of a stage that has both."""
    said = json.dumps(dict(notes), default=str).encode()
    return len(said).to_bytes(_HEADER_BYTES, "big") + said + data


def unpacked(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the notes and the bytes that ``packed`` joined."""
    end = _HEADER_BYTES + int.from_bytes(data[:_HEADER_BYTES], "big")
    return json.loads(data[_HEADER_BYTES:end]), data[end:]


def _unit(table: Table) -> dict[str, str]:
    """Return the unit of a regression's values, as an input of a stage."""
    return {"unit": repr(table.unit)} if table.unit is not None else {}


@contextmanager
def _file(data: bytes) -> Iterator[Path]:
    """Write ``data`` to a temporary file while the context is open."""
    with tempfile.TemporaryDirectory(prefix="tinyfleet-") as folder:
        path = Path(folder) / "weights.pt"
        path.write_bytes(data)
        yield path


def _pack(predictions: Predictions) -> bytes:
    buffer = io.BytesIO()
    for array in (predictions.logits, predictions.embedding):
        np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def _unpack(data: bytes) -> Predictions:
    buffer = io.BytesIO(data)
    read: Callable[[], NDArray[np.float32]] = lambda: np.lib.format.read_array(buffer, allow_pickle=False)  # noqa: E731
    return Predictions(read(), read())


def versions(*names: str) -> dict[str, str]:
    """Return the installed version of each package, as inputs of a stage."""
    return {f"version {name}": importlib.metadata.version(name) for name in names}


def bare(recipe: Recipe, table: Table, artifact: bytes, target: TargetRecipe) -> Candidate:
    """Return ``artifact`` with the minimal manifest to run it on ``target``: a float32 input, our exporters' names.

    The embedding's width is left open.
    """
    data, runtime = recipe.data, declarations.runtime(target.runtime)
    layout, suffix = runtime.layout, runtime.formats[target.format]
    preprocessing, task = preprocessing_of(data, layout), tasks.of(data)
    told = device_tasks.is_told(task.device)  # else it is found by the reference
    mean, spread = (table.unit.mean, table.unit.spread) if table.unit is not None else ((), ())
    classes = len(table.class_names)
    decoder, options = recipe.decoder.kind or task.decoder, recipe.decoder.options
    shape = decoders.output_shape(decoder, classes) if decoder else (-1, classes)
    logits = TensorSpec(name="logits", shape=shape, mean=mean, spread=spread)
    made = Manifest(
        model=recipe.model.name,
        version=recipe.model.version,
        security_floor=recipe.model.security_floor,
        target=target.name,
        runtime=target.runtime,
        artifact=f"model.{suffix}",
        opset=formats.or_plain(target.runtime).opset,
        threads=target.threads,
        inputs=(input_of(recipe, target.runtime),),
        outputs=(logits, TensorSpec(name="embedding", shape=(-1, -1))),
        preprocessing=preprocessing,
        hardware=(target.cpu,),
        task=task.device if told else "",
        smoothing=recipe.smoothing.kind,
        smoothing_options=recipe.smoothing.options,
        stream_interval_ms=recipe.smoothing.interval_ms if task.smoother else 0,  # there it was checked with the data
        decoder=decoder,
        decoder_options=decoders.complete(decoder, options) if decoder else {},
        **{task.names_are: table.class_names},  # type: ignore[arg-type]  # labels or values
    )
    return Candidate(replace(made, schema=made.needed_schema), artifact)


def decoded_by(manifest: Manifest, decoder: str, options: Mapping[str, float]) -> Manifest:
    """Return ``manifest`` with the settled ``options`` of its decoder, or with another ``decoder`` and its options."""
    if not decoder or decoder == manifest.decoder:
        return replace(manifest, decoder_options=options)
    first = replace(manifest.outputs[0], shape=decoders.output_shape(decoder, len(manifest.labels)))
    outputs = (first, *manifest.outputs[1:])
    return replace(manifest, decoder=decoder, decoder_options=decoders.complete(decoder, options), outputs=outputs)


def input_of(recipe: Recipe, runtime: str) -> TensorSpec:
    """Return the float32 input that ``recipe`` describes, in the layout of ``runtime``."""
    data, layout = recipe.data, declarations.runtime(runtime).layout
    sizes = {"NCHW": (data.channels, data.height, data.width), "NHWC": (data.height, data.width, data.channels)}
    return TensorSpec(name="input", shape=(-1, *sizes[layout]), dtype="float32", layout=layout)


def with_contract(candidate: Candidate, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Candidate:
    """Return ``candidate`` with the actual inputs and outputs of its file; their meaning is kept."""
    meant = candidate.manifest.outputs[0]
    first = replace(outputs[0], mean=meant.mean, spread=meant.spread, meaning=meant.meaning or outputs[0].meaning)
    outputs, known = (first, *outputs[1:]), candidate.manifest
    pixels = replace(known.preprocessing, layout=inputs[0].layout or known.preprocessing.layout)
    return replace(candidate, manifest=replace(known, inputs=inputs, outputs=outputs, preprocessing=pixels))


def float_target(recipe: Recipe, runtime: str) -> TargetRecipe:
    """Return a target for the float file of ``runtime``: the recipe's first with it, in the plain format."""
    found = [target for target in recipe.targets if target.runtime == runtime]
    first = found[0] if found else replace(recipe.targets[0], runtime=runtime)
    return replace(first, format="")
