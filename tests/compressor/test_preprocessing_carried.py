"""What a recipe says of a picture's way to the input is what a device does with the file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from compressor.api import run
from compressor.plugins import attribute
from edge_agent.api import open_bundle

transforms: Any = attribute("torchvision:transforms")
CLASSES, SIDE = 3, 12
RECIPE = """
compress = []
[model]
name = "colours"
onnx = "m.onnx"
allow_constant = "untrained weights"
[data]
dataset = "labelled_images"
path = "."
width = 12
height = 12
resize = "centre_crop"
resize_to = 16
resample = "bicubic"
colour = "bgr"
mean = [0.406, 0.456, 0.485]
std = [0.225, 0.224, 0.229]
shares = {train = 0.2, calibration = 0.2, gate = 0.3, reference = 0.3}
[gates]
size_bytes = {max = 1000000}
"""


def _onnx(channels: int = 3) -> bytes:
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(4, channels, 3, 3)), "v": rng.normal(size=(4, CLASSES))}
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["logits"]),
    ]
    spec = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "colours", [spec("input", TensorProto.FLOAT, ["N", channels, SIDE, SIDE])],
        [spec("logits", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def _file(row: int) -> bytes:
    image = np.random.default_rng(row).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).resize((41 + row % 3, 30), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a recipe, its model and 120 pictures."""
    root = tmp_path_factory.mktemp("colours")
    (root / "recipe.toml").write_text(RECIPE)
    (root / "m.onnx").write_bytes(_onnx())
    for row in range(120):
        (root / f"{row}.png").write_bytes(_file(row))
    (root / "labels.csv").write_text("path,label\n" + "".join(f"{row}.png,{row % CLASSES}\n" for row in range(120)))
    return root


def test_a_device_answers_a_file_as_the_training_pipeline_does(folder: Path) -> None:
    """From the file to the logits: torchvision's steps and onnxruntime on one side, the bundle on the other."""
    result = run(folder, out=folder / "out")
    steps = transforms.Compose([
        transforms.Resize(16, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(12), transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])  # fmt: skip
    session = onnxruntime.InferenceSession(_onnx(), providers=["CPUExecutionProvider"])
    with open_bundle(result.bundles["host"]) as model:
        assert (model.manifest.schema, model.manifest.preprocessing.colour) == (5, "bgr")
        for row in range(0, 120, 17):
            given = steps(Image.open(folder / f"{row}.png")).numpy()[None, ::-1]
            (wanted,) = session.run(["logits"], {"input": np.ascontiguousarray(given)})
            assert np.allclose(model.answer(folder / f"{row}.png").outputs, wanted[0], atol=1e-4)


THERMAL = (
    RECIPE[: RECIPE.index("resize = ")]
    + """resize = "letterbox"
fill = 30000
bits = 16
colour = "grey"
scale = 0.01
mean = 300
std = 10
slices = "site"
shares = {train = 0.2, calibration = 0.2, gate = 0.3, reference = 0.3}
[gates]
size_bytes = {max = 1000000}
"""
)


def test_a_thermal_camera_is_carried_in_16_bits(tmp_path: Path) -> None:
    """From levels of a PNG or TIFF to the logits, through near copies, report and drift reference of a run."""
    (tmp_path / "recipe.toml").write_text(THERMAL)
    (tmp_path / "m.onnx").write_bytes(_onnx(channels=1))
    rng, lines, scenes = np.random.default_rng(0), ["path,label,site"], {}
    for row in range(120):
        name = f"{row}.{'png' if row % 2 else 'tiff'}"
        scenes[name] = (30000 + 300 * (row % CLASSES) + rng.integers(0, 900, (12, 10))).astype(np.uint16)
        Image.fromarray(scenes[name]).save(tmp_path / name)
        lines.append(f"{name},{row % CLASSES},{'ab'[row // 2 % 2]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    result = run(tmp_path, out=tmp_path / "out")
    session = onnxruntime.InferenceSession(_onnx(channels=1), providers=["CPUExecutionProvider"])
    with open_bundle(result.bundles["host"]) as model:
        assert (model.manifest.schema, model.manifest.preprocessing.bits) == (5, 16)
        for name in list(scenes)[::13]:
            framed = np.pad(scenes[name], ((0, 0), (1, 1)), constant_values=30000)
            (wanted,) = session.run(["logits"], {"input": ((framed * 0.01 - 300) / 10).astype(np.float32)[None, None]})
            assert np.allclose(model.answer(tmp_path / name).outputs, wanted[0], atol=1e-4)
            assert np.allclose(model.answer(scenes[name]).outputs, wanted[0], atol=1e-4)
