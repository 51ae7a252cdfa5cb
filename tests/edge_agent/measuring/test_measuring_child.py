"""A measurement in its own process: its report, its refusals, and that it ends with its parent."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edge_agent.inference.preprocess import to_batch
from wire.bundle import build_bundle
from wire.canonical import sha256_file, sha256_hex
from wire.codec import encode
from wire.measurement import MeasureOrder, MeasureReport, decode_report

pytest.importorskip("onnxruntime")
TINY = Path(__file__).parents[1] / "inference" / "conftest.py"
T_MS = 1_795_000_000_000


@pytest.fixture(scope="module")
def tiny() -> ModuleType:
    """The module that makes small real models."""
    spec = importlib.util.spec_from_file_location("tiny_models", TINY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_models"] = module
    spec.loader.exec_module(module)
    return module


@dataclass
class Case:
    """Files of one measurement, and how to run it."""

    folder: Path
    order: MeasureOrder
    pixels: np.ndarray

    def command(self) -> list[str]:
        """Write the order; return the command of the child."""
        (self.folder / "order.json").write_bytes(encode(self.order))
        files = {"--order": "order.json", "--bundle": "bundle", "--out": "report"}
        files |= {"--rows": "rows"} if self.order.rows else {}
        files |= {"--energy": "meter"} if (self.folder / "meter").exists() else {}
        arguments = [text for name, file in files.items() for text in (name, str(self.folder / file))]
        return [sys.executable, "-m", "edge_agent.measuring.child", *arguments]

    def run(self) -> dict[str, object]:
        """Run the child to its end and return its output."""
        with subprocess.Popen(self.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            return dict(json.loads(child.stdout.read().splitlines()[-1]))

    def report(self) -> tuple[MeasureReport, np.ndarray]:
        """Return the report and its logits."""
        report, raw = decode_report((self.folder / "report").read_bytes())
        return report, np.frombuffer(raw, "<f4").reshape(report.rows, report.classes)


@pytest.fixture
def case(tmp_path: Path, tiny: ModuleType) -> Case:
    """The tiny model and 5 rows of grey pixels."""
    artifact = tiny.tiny_onnx(1)
    bundle = build_bundle(
        tiny.MANIFEST, {"model.onnx": artifact, "golden.npz": tiny.golden_npz(tiny.MANIFEST, artifact)}
    )
    (tmp_path / "bundle").write_bytes(bundle)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    with (tmp_path / "rows").open("wb") as file:
        np.lib.format.write_array(file, pixels, allow_pickle=False)
    order = MeasureOrder(
        order="ab" * 16, device="cam-1", artifact_sha256=sha256_hex(artifact), bundle_sha256=sha256_hex(bundle),
        bundle_length_bytes=len(bundle), rows_sha256=sha256_file(tmp_path / "rows"),
        rows_length_bytes=(tmp_path / "rows").stat().st_size, rows=5, issued_ms=T_MS, expires_ms=T_MS + 1000,
    )  # fmt: skip
    return Case(tmp_path, order, pixels)


def test_reports_what_the_model_says_of_every_row(case: Case, tiny: ModuleType) -> None:
    """The logits equal those of the runtime in this process, row by row."""
    assert case.run() == {"ok": True}
    report, logits = case.report()
    inputs = to_batch(list(np.repeat(case.pixels, 3, axis=3)), tiny.MANIFEST.preprocessing)
    expected = tiny.runtimes.load(tiny.MANIFEST, tiny.tiny_onnx(1)).run(inputs)[0]
    assert np.abs(logits - expected).max() < 1e-5
    assert (report.golden_rows, report.golden_flips) == (4, 0)
    assert 0 < report.latency_p50_ms <= report.latency_p95_ms
    assert report.facts["priority"] == "nice 19"


def test_a_meter_gives_the_energy_of_one_inference(case: Case) -> None:
    """A file that counts while the child runs; without one, or one that stands still, there is no figure."""
    assert case.run() == {"ok": True}
    assert case.report()[0].energy_mj == 0
    meter, end = case.folder / "meter", threading.Event()

    def count() -> None:
        spent_uj = 0
        while not end.wait(0.002):
            spent_uj += 5000
            (case.folder / "new").write_text(f"{spent_uj}\n")
            (case.folder / "new").rename(meter)

    meter.write_text("0")
    ticking = threading.Thread(target=count)
    ticking.start()
    assert case.run() == {"ok": True}
    end.set()
    ticking.join()
    assert case.report()[0].energy_mj > 0


def test_golden_vectors_alone_are_measured_too(case: Case) -> None:
    """A bundle without rows: latency, memory and golden vectors."""
    case.order = replace(case.order, rows=0, rows_sha256="", rows_length_bytes=0)
    assert case.run() == {"ok": True}
    report, logits = case.report()
    assert (report.rows, logits.size, report.golden_rows) == (0, 0, 4)
    assert report.peak_memory_bytes > 10_000_000


@pytest.mark.parametrize(
    "change",
    [{"bundle_sha256": "0" * 64}, {"artifact_sha256": "0" * 64}, {"rows_sha256": "0" * 64}, {"rows": 4}],
    ids=str,
)
def test_measures_nothing_but_what_the_order_names(case: Case, change: dict[str, object]) -> None:
    """Another bundle, artifact or rows than those of the order are refused, and there is no report."""
    case.order = replace(case.order, **change)  # type: ignore[arg-type]
    said = case.run()
    assert said["ok"] is False
    assert str(said["text"]).startswith("Expected")
    assert not (case.folder / "report").exists()


def test_rows_that_are_no_pixels_are_refused(case: Case) -> None:
    """A pickle in an npy is never opened."""
    with (case.folder / "rows").open("wb") as file:
        np.lib.format.write_array(file, np.array([{}, {}, {}, {}, {}], dtype=object), allow_pickle=True)
    case.order = replace(case.order, rows_sha256=sha256_file(case.folder / "rows"))
    said = case.run()
    assert said["ok"] is False
    assert not (case.folder / "report").exists()


def test_ends_with_its_parent(case: Case) -> None:
    """Its stdin's end ends it at once, in the middle of whatever it does."""
    with subprocess.Popen(case.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(30) == 1
    assert not (case.folder / "report").exists()
