"""The steps of a run, each kept by content: train, export, quantize, predict, time.

Decides what each step's result depends on (that is what makes resuming right). Does not decide their order or what
is compared with what (``pipeline`` does).
"""

from __future__ import annotations

import importlib.metadata
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor import graph, measure
from compressor.data.table import Table
from compressor.measure import Candidate, Latency, Predictions
from compressor.progress import Progress
from compressor.recipe import QuantizeRecipe, Recipe, TrainRecipe
from compressor.step import Cache, Result
from edge_agent import preprocess
from wire.canonical import canonical_bytes, sha256_hex
from wire.codec import parse_json, to_document
from wire.manifest import Preprocessing

_BATCH = 64
Floats = NDArray[np.float32]


def table_digest(table: Table) -> str:
    """Return the SHA-256 of a table's content: images by hash, labels, slices, sources, class names."""
    rows = zip(table.hashes.tolist(), table.labels.tolist(), table.slices.tolist(), table.sources.tolist(), strict=True)
    text = "\n".join(f"{content} {label} {part} {source}" for content, label, part, source in rows)
    return sha256_hex((text + "\n" + "\0".join(table.class_names)).encode())


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where steps run: the recipe, the cache of results, and where progress is said."""

    recipe: Recipe
    cache: Cache
    progress: Progress

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes an input, as the manifest carries it."""
        return self.recipe.data.preprocessing()

    def inputs(self, table: Table) -> Floats:
        """Return the images of ``table`` as the device's preprocessing makes them, float32 (N, C, H, W)."""
        return preprocess.to_batch(list(table.images), self.preprocessing)

    def pixels(self, table: Table) -> NDArray[np.uint8]:
        """Return the images of ``table`` as the monitor sees them, uint8 (N, H, W, 3)."""
        return np.stack([preprocess.resize_pixels(image, self.preprocessing) for image in table.images])

    def train(self, tables: Sequence[Table], settings: TrainRecipe, start: bytes | None = None) -> Result:
        """Return the weights (a state dict) after training on ``tables``, from the weights ``start`` if given.

        Raises:
            TrainError: If training came to nothing.
            CheckpointError: If ``start`` fits another network.
        """
        network = self.recipe.model.network
        inputs = {
            "data": sha256_hex("".join(table_digest(table) for table in tables).encode()),
            "settings": repr(settings), "network": f"{network} {sorted(self.recipe.model.network_options.items())}",
            "preprocessing": self._preprocessing_digest(), "start": sha256_hex(start) if start else "",
            "classes": "\0".join(tables[0].class_names), **_versions("torch", "numpy", "pillow"),
        }  # fmt: skip
        modules = ("compressor.train", "compressor.networks", "edge_agent.preprocess")
        own = (network.partition(":")[0],) if ":" in network else ()

        def make() -> bytes:
            return self._fit(tables, settings, start)

        return self.cache.step("train", inputs, make, modules=(*modules, *own))

    def _fit(self, tables: Sequence[Table], settings: TrainRecipe, start: bytes | None) -> bytes:
        from compressor.train import checkpoint, supervised  # noqa: PLC0415 - torch is loaded only to train

        x = np.concatenate([self.inputs(table) for table in tables])
        y = np.concatenate([table.labels for table in tables])
        network = self._network(len(tables[0].class_names))
        with tempfile.TemporaryDirectory(prefix="tinyfleet-") as folder:
            path = Path(folder) / "weights.pt"
            if start is not None:
                path.write_bytes(start)
                network = checkpoint.load(network, path)  # type: ignore[arg-type]
            with self.progress.stage("train", settings.epochs, "epoch") as stage:
                supervised.fit(
                    network,  # type: ignore[arg-type]
                    x,
                    y,
                    settings,
                    on_epoch=lambda epoch: stage.advance(1, f"loss {epoch.loss:.3f} accuracy {epoch.accuracy:.3f}"),
                )
            checkpoint.save(network, path)  # type: ignore[arg-type]
            return path.read_bytes()

    def _network(self, classes: int) -> object:
        from compressor import networks  # noqa: PLC0415 - torch is loaded only to train

        data, model = self.recipe.data, self.recipe.model
        return networks.build(model.network, classes, data.channels, data.height, data.width, model.network_options)

    def _loaded(self, weights: bytes, classes: int) -> object:
        from compressor.train import checkpoint  # noqa: PLC0415 - torch is loaded only where needed

        with tempfile.TemporaryDirectory(prefix="tinyfleet-") as folder:
            path = Path(folder) / "weights.pt"
            path.write_bytes(weights)
            return checkpoint.load(self._network(classes), path)  # type: ignore[arg-type]

    def export(self, weights: Result, classes: int) -> Result:
        """Return the float ONNX model of these weights.

        Raises:
            ExportError: If the network does not export.
        """
        data, model = self.recipe.data, self.recipe.model
        inputs = {
            "weights": weights.digest, "classes": str(classes), "network": model.network,
            "options": repr(sorted(model.network_options.items())),
            "shape": f"{data.channels} {data.height} {data.width}", **_versions("torch", "onnx"),
        }  # fmt: skip

        def make() -> bytes:
            from compressor.export.onnx import export_onnx  # noqa: PLC0415 - torch is loaded only to export

            with self.progress.stage("export", 1, "model") as stage:
                network = self._loaded(weights.data, classes)
                model_bytes = export_onnx(network, data.channels, data.height, data.width)  # type: ignore[arg-type]
                stage.advance()
            return model_bytes

        return self.cache.step("export", inputs, make, modules=("compressor.export", "compressor.networks"))

    def quantize(self, model: Result, tables: Sequence[Table], settings: QuantizeRecipe) -> Result:
        """Return ``model`` in int8, calibrated on ``tables``.

        Raises:
            QuantizeError: If it can't be quantized.
            PluginError: If the scheme is not there.
        """
        inputs = {
            "model": model.digest, "settings": repr(settings), "preprocessing": self._preprocessing_digest(),
            "data": sha256_hex("".join(table_digest(table) for table in tables).encode()),
            **_versions("onnx", "onnxruntime", "numpy"),
        }  # fmt: skip

        def make() -> bytes:
            from compressor.quantize import quantize  # noqa: PLC0415 - onnxruntime only to quantize

            with self.progress.stage("quantize", 1, "model") as stage:
                result = quantize(model.data, lambda: self._calibration(tables), settings)
                stage.advance()
            return result

        return self.cache.step("quantize", inputs, make, modules=("compressor.quantize",))

    def _calibration(self, tables: Sequence[Table]) -> Iterator[Floats]:
        """Yield inputs batch by batch: memory does not grow with the number of samples."""
        for table in tables:
            for start in range(0, len(table), _BATCH):
                yield self.inputs(table.take(np.arange(start, min(start + _BATCH, len(table)))))

    def predict(self, name: str, candidate: Candidate, table: Table) -> Predictions:
        """Return the predictions for ``table``; ``name`` is shown while it runs.

        Raises:
            MeasureError: If the artifact can't be run.
        """
        inputs = {
            "artifact": sha256_hex(candidate.artifact), "data": table_digest(table),
            "runtime": f"{candidate.manifest.runtime} {sorted(candidate.manifest.session_options.items())}",
            "preprocessing": self._preprocessing_digest(), **_versions("onnxruntime", "numpy", "pillow"),
        }  # fmt: skip

        def make() -> bytes:
            with self.progress.stage(name, len(table), "image") as stage:
                return _pack(measure.predict(candidate, self.inputs(table), stage.advance))

        modules = ("edge_agent.runtimes", "edge_agent.preprocess", "compressor.measure")
        return _unpack(self.cache.step("predict", inputs, make, modules=modules).data)

    def torch_logits(self, weights: Result, table: Table) -> Floats:
        """Return the logits of the network itself, float32 (N, classes)."""

        def make() -> bytes:
            import torch  # noqa: PLC0415 - torch is loaded only where needed

            network = self._loaded(weights.data, len(table.class_names))
            with torch.no_grad():
                logits = [network(torch.from_numpy(batch))[0].numpy() for batch in _batches(self.inputs(table))]  # type: ignore[operator]
            joined = np.concatenate(logits)
            return _pack(Predictions(joined, np.zeros((len(joined), 0), np.float32)))

        inputs = {"weights": weights.digest, "data": table_digest(table), **_versions("torch", "numpy", "pillow")}
        modules = ("compressor.networks", "edge_agent.preprocess")
        return _unpack(self.cache.step("torch", inputs, make, modules=modules).data).logits

    def timings(self, candidates: Mapping[str, Candidate], table: Table) -> dict[str, float]:
        """Return latency and peak memory of ``candidates`` on this host; kept, so that a resumed run says the same.

        Raises:
            MeasureError: If an artifact can't be run.
        """
        inputs = {f"artifact {name}": sha256_hex(item.artifact) for name, item in candidates.items()}
        inputs |= {f"manifest {name}": repr(item.manifest.threads) for name, item in candidates.items()}

        def make() -> bytes:
            images = self.inputs(table)
            with self.progress.stage("measure", 1 + len(candidates), "model") as stage:
                taken = measure.latency(candidates, images)
                stage.advance()
                memory = {}
                for name, item in candidates.items():
                    memory[name] = measure.peak_memory_bytes(item, images)
                    stage.advance()
            return canonical_bytes({name: _timing(taken[name], memory[name]) for name in candidates})

        modules = ("compressor.measure", "edge_agent.runtimes")
        document = parse_json(self.cache.step("measure", inputs, make, modules=modules).data)
        figures: dict[str, float] = {}
        for name, values in document.items():
            prefix = "float_" if name == "float" else ""
            figures |= {f"{prefix}{key}": float(value) for key, value in values.items()}  # type: ignore[union-attr,arg-type]
        return figures

    def graph(self, candidate: Candidate) -> graph.GraphFigures:
        """Return what the runtime's optimiser makes of the artifact.

        Raises:
            MeasureError: If it can't be read.
        """
        return graph.inspect(candidate.artifact, candidate.manifest.session_options, candidate.manifest.threads)

    def _preprocessing_digest(self) -> str:
        return sha256_hex(canonical_bytes(to_document(self.preprocessing)))


def _timing(latency: Latency, memory_bytes: int) -> dict[str, float]:
    return {"latency_p50_ms": latency.p50_ms, "latency_p95_ms": latency.p95_ms, "peak_memory_bytes": memory_bytes}


def _batches(inputs: Floats) -> Iterator[Floats]:
    for start in range(0, len(inputs), _BATCH):
        yield inputs[start : start + _BATCH]


def _pack(predictions: Predictions) -> bytes:
    buffer = io.BytesIO()
    for array in (predictions.logits, predictions.embedding):
        np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def _unpack(data: bytes) -> Predictions:
    buffer = io.BytesIO(data)
    read: Callable[[], NDArray[np.float32]] = lambda: np.lib.format.read_array(buffer, allow_pickle=False)  # noqa: E731
    return Predictions(read(), read())


def _versions(*names: str) -> dict[str, str]:
    return {f"version {name}": importlib.metadata.version(name) for name in names}
