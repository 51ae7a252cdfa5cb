#!/usr/bin/env python3
"""Peak memory of calibration and of whole runs on pictures of 224 x 224, compared with onnxruntime and few pictures.

``memory.py [--quick] [--runs] [--json FILE]``. Each figure is the peak of a fresh process (VmHWM) on one thread. The
pictures are noise: equal in size, none near another.

Calibration: MobileNetV2 x 0.35 with random weights (memory does not depend on them), the same rows in the same run;
onnxruntime reads them one at a time, which needs the least memory. A run imports that file and calibrates on 70 % of
the pictures. The other runs (alone with ``--runs``) read 10,000 JPEG files, in a zip and in a folder; they find near
copies, train a small ResNet8, simulate int8, calibrate, gate and pack. What the runtimes take themselves is the peak of
the same recipe with 100 of them, which fill its batches; the difference is what the data take.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402 - threads are set before the import that reads them
from numpy.typing import NDArray  # noqa: E402 - likewise
from PIL import Image  # noqa: E402 - likewise

from scripts.bench.rows import Row, told  # noqa: E402 - the path is set first

SIDE, BATCH = 224, 13
CALIBRATION_RATIO, RUN_MB, FLAT_RATIO = 1.2, 700.0, 1.05
ABOVE_MB, FEW, CLASSES = 600.0, 100, 2
PICTURES = f"""
import numpy as np
from compressor.data._table import make_table
def load(data, root=None):
    drawn, count = np.random.default_rng(0), int(open(__file__ + ".count").read())
    images = [drawn.integers(0, 256, ({SIDE}, {SIDE}, 3), dtype=np.uint8) for _ in range(count)]
    return make_table(images, [str(i % 10) for i in range(count)], slices=[""] * count)
"""
RECIPE = f"""
[model]
name = "memory"
[data]
dataset = "pictures:load"
width = {SIDE}
height = {SIDE}
shares = {{train = 0.1, calibration = 0.7, gate = 0.1, reference = 0.1}}
[[compress]]
step = "quantize"
calibration = "min_max"
[targets.host]
runtime = "onnx"
[gates]
accuracy_drop = {{max = 0.9}}
"""
TRAINED = f"""
[model]
name = "trained"
network = "resnet8"
network_options = {{filters = 4, stem_stride = 2}}
[data]
dataset = "labelled_images"
path = "PATH"
width = {SIDE}
height = {SIDE}
colour = "rgb"
shares = {{train = 0.4, calibration = 0.1, gate = 0.3, reference = 0.2}}
[train]
epochs = 1
batch = 8
early_stopping = 1
[[compress]]
step = "qat"
epochs = 1
max_steps = 50
allow_unchanged = true
[[compress]]
step = "quantize"
[targets.host]
runtime = "onnx"
[gates]
size_bytes = {{max = 1000000}}
"""
EXPORT = f"""
import sys, torch
from pathlib import Path
from compressor import networks
from compressor.export.onnx import export_onnx
torch.manual_seed(0)
network = networks.build("mobilenet_v2", 10, 3, {SIDE}, {SIDE}, {{}}).eval()
Path(sys.argv[1]).write_bytes(export_onnx(network, 3, {SIDE}, {SIDE}))
"""
PEAK = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__") if not sys.argv[0].endswith(".py") else \\
        runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    if end.code not in (0, None, 2, 3):
        raise
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM:")).split()[1])
"""


def rows_of(count: int) -> Iterator[NDArray[np.float32]]:
    """Yield ``count`` rows, float32 (1, 3, 224, 224), the same at each call."""
    for seed in range(count):
        yield np.random.default_rng(seed).random((1, 3, SIDE, SIDE), dtype=np.float32)


def calibrate_ours(model: str, count: int) -> None:
    """Quantize in this process with the project's calibration, in batches as a run makes them."""
    from compressor.quantize import quantize  # noqa: PLC0415 - the other child must not import it
    from compressor.steps.quantize import Settings as QuantizeRecipe  # noqa: PLC0415 - likewise

    def batches() -> Iterator[NDArray[np.float32]]:
        held: list[NDArray[np.float32]] = []
        for row in rows_of(count):
            held.append(row)
            if len(held) == BATCH:
                yield np.concatenate(held)
                held.clear()
        if held:
            yield np.concatenate(held)

    quantize(Path(model).read_bytes(), batches, QuantizeRecipe(calibration="min_max"))


def calibrate_onnxruntime(model: str, count: int) -> None:
    """Quantize in this process with ``quantize_static``, the same scheme and rows."""
    from onnxruntime.quantization import (  # noqa: PLC0415 - the other child must not import it
        CalibrationDataReader,
        CalibrationMethod,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415 - likewise

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
        """The rows in onnxruntime's interface."""

        def __init__(self) -> None:
            """Start at the first."""
            self._rows = rows_of(count)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            """Return the next row by input name; None at the end."""
            row = next(self._rows, None)
            return None if row is None else {"input": row}

    with tempfile.TemporaryDirectory() as folder:
        prepared, out = f"{folder}/prepared.onnx", f"{folder}/out.onnx"
        quant_pre_process(model, prepared)
        quantize_static(
            prepared, out, Reader(), per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )  # fmt: skip


CHILDREN = {"ours": calibrate_ours, "onnxruntime": calibrate_onnxruntime}


def peak_mb(*command: str, cwd: Path) -> float:
    """Return the peak resident memory, in MB, of a fresh Python that runs a module or file with these arguments."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{cwd}"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PEAK, *command], cwd=cwd, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"Expected {' '.join(command)} to end well, got {done.returncode}:\n{done.stderr[-2000:]}")
    return int(done.stdout.split()[-1]) / 1000


def write_pictures(folder: Path, count: int) -> None:
    """Write ``count`` JPEG files of noise and their labels to a new ``folder``, and all of it to a zip beside it."""
    folder.mkdir()
    drawn = np.random.default_rng(count)
    lines = [f"{row:05d}.jpg,{row % CLASSES}" for row in range(count)]
    (folder / "labels.csv").write_text("\n".join(["path,label", *lines]))
    for row in range(count):
        noise = drawn.integers(0, 256, (SIDE // 4, SIDE // 4, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((SIDE, SIDE)).save(folder / f"{row:05d}.jpg")
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)


def runs(folder: Path, count: int, forms: tuple[str, ...]) -> Iterator[Row]:
    """Yield what a run on ``count`` pictures takes above one on few, for each of ``forms``, "zip" or "folder"."""
    for name, size in (("few", FEW), ("many", count)):
        write_pictures(folder / name, size)
    for form in forms:
        peaks = []
        for name in ("few", "many"):
            path = f"{name}.zip" if form == "zip" else name
            (folder / "trained.toml").write_text(TRAINED.replace("PATH", path))
            out = f"out-{name}-{form}"
            peaks.append(peak_mb("compressor.cli", "run", "trained.toml", "--out", out, cwd=folder))
            shutil.rmtree(folder / out)
        yield Row(f"run on {count} JPEG in a {form}: MB above {FEW} of them (their peak)", peaks[1] - peaks[0],
                  peaks[0], f"<= {ABOVE_MB:g} MB", peaks[1] - peaks[0] <= ABOVE_MB)  # fmt: skip


def measured(folder: Path, counts: tuple[int, int], pictures: int) -> Iterator[Row]:
    """Yield every line."""
    model = folder / "model.onnx"
    subprocess.run([sys.executable, "-W", "ignore", "-c", EXPORT, model], check=True, cwd=ROOT, capture_output=True)
    first = 0.0
    for count in counts:
        ours, theirs = (peak_mb(__file__, "--child", kind, str(model), str(count), cwd=folder) for kind in CHILDREN)
        yield Row(f"calibration peak, MB, {count} rows (onnxruntime quantize_static)", ours, theirs,
                  f"<= {CALIBRATION_RATIO} x", ours <= CALIBRATION_RATIO * theirs)  # fmt: skip
        first = first or ours
    yield Row(f"calibration peak, MB, {counts[1]} rows ({counts[0]} rows)", ours, first, f"<= {FLAT_RATIO} x",
              ours <= FLAT_RATIO * first)  # fmt: skip
    (folder / "pictures.py").write_text(PICTURES)
    (folder / "pictures.py.count").write_text(str(pictures))
    (folder / "recipe.toml").write_text(RECIPE)
    run = peak_mb("compressor.cli", "run", "recipe.toml", "--onnx", "model.onnx", "--out", "out", cwd=folder)
    yield Row(f"compressor run, peak, MB, {pictures} pictures (what is allowed)", run, RUN_MB, f"<= {RUN_MB:g} MB",
              run <= RUN_MB)  # fmt: skip


def main() -> int:
    """Print the table; return 0 if every target is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rows and pictures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--runs", action="store_true", help="only the runs on many JPEG files")
    options = parser.parse_args()
    if options.child:
        kind, model, count = options.child
        CHILDREN[kind](model, int(count))
        return 0
    counts, pictures = ((26, 52), 100) if options.quick else ((64, 630), 900)
    many, forms = (150, ("zip",)) if options.quick else (10_000, ("zip", "folder"))
    with tempfile.TemporaryDirectory(prefix="tinyfleet-bench-") as folder:
        found = [] if options.runs else list(measured(Path(folder), counts, pictures))
        return told([*found, *runs(Path(folder), many, forms)], options.json)


if __name__ == "__main__":
    sys.exit(main())
