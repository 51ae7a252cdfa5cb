"""Other people's detectors from file to answer: each form of outputs, int8, letterbox, and what is refused by name."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from compressor.api import RunResult, run
from compressor.clean.given import Given
from compressor.errors import CompressorError, ModelOutputsError, ModelSignatureError, RecipeError
from compressor.formats import named
from compressor.measurement.predictions import Candidate, predict
from compressor.recipe.model import DataRecipe
from compressor.recipe.read import parse_recipe, read_recipe
from compressor.run import described, imported_detector, imported_model
from compressor.run.imported_detector import BoxOutputs
from compressor.run.report_inputs import as_judged
from compressor.steps.quantize import Settings
from edge_agent import decoders
from edge_agent.api import open_bundle
from edge_agent.pictures.resizing import framed, unframed
from tests.compressor import foreign_detectors as foreign
from wire.bundle import read_bundle
from wire.manifest import Manifest, Preprocessing, TensorSpec

RECIPE = """
[model]
name = "squares"
onnx = "squares.onnx"
labels = ["red", "green", "blue"]
[data]
dataset = "boxes"
task = "detection"
path = "squares.zip"
width = 64
height = 64
mean = 0.0
std = 1.0
shares = {train = 0, calibration = 0.3, gate = 0.5, reference = 0.2}
[decoder]
kind = "yolo"
[gates]
map = {min = 0.95}
detection_map_drop = {max = 0.05}
detection_f1_drop = {max = 0.05}
"""
SHARES = ("train = 0, calibration = 0.3", "train = 0.2, calibration = 0.1")
BOTH = '[targets.host]\n[targets.lite]\nruntime = "litert"\n'
SQUARES = ((0, 8, 16), (2, 40, 32))
"""Class, left and top edge in pixels."""


def picture(height: int = foreign.SIDE) -> np.ndarray:
    """Return a picture with two squares, uint8 (height, 64, 3)."""
    pixels = np.full((height, foreign.SIDE, 3), 20, np.uint8)
    for kind, left, top in SQUARES:
        if top < height:
            pixels[top : top + 8, left : left + 8, kind] = 220
    return pixels


def inputs(count: int = 1) -> np.ndarray:
    """Return the picture as an input, float32 (count, 3, 64, 64)."""
    return np.repeat(picture().transpose(2, 0, 1)[None].astype(np.float32) / 255, count, axis=0)


def candidate(data: bytes, kind: str, **options: float) -> tuple[Candidate, tuple[TensorSpec, ...]]:
    """Return a file with the manifest of its input and decoder, and its outputs."""
    (given,), outputs = named("onnx").tensors(data)
    manifest = Manifest(
        task="detection", labels=foreign.NAMES, decoder=kind, decoder_options=decoders.complete(kind, options),
        preprocessing=Preprocessing(width=64, height=64), outputs=outputs,
        inputs=(TensorSpec(name=given.name, shape=(-1, *given.shape[1:]), layout="NCHW"),),
    )  # fmt: skip
    return Candidate(manifest, data), outputs


def settled(data: bytes, kind: str, **options: float) -> tuple[Candidate, BoxOutputs]:
    """Return the file with the manifest that a run gives it."""
    made, outputs = candidate(data, kind, **options)
    found = imported_detector.settled(made, outputs, inputs(3))
    manifest = replace(made.manifest, decoder_options=found.options, outputs=found.outputs)
    return Candidate(manifest, data), found


def squares(model: Candidate, count: int = 1) -> list[list[float]]:
    """Return class and edges in pixels of the sure boxes of the last of ``count`` equal inputs, sorted."""
    boxes = predict(model, inputs(count)).logits.reshape(count, -1, 6)[-1]
    sure = boxes[boxes[:, 1] > 0.5]
    return sorted([float(box[0]), *(64 * box[2:]).round().tolist()] for box in sure)


WANTED = [[float(kind), left, top, left + 8, top + 8] for kind, left, top in SQUARES]


@pytest.mark.parametrize("form", sorted(foreign.FORMS))
def test_each_form_gives_its_boxes_alone_and_in_a_batch(form: str) -> None:
    """With everything left open; the lines say how it was read."""
    kind, make = foreign.FORMS[form]
    model, found = settled(make(), kind)
    assert squares(model) == squares(model, 3) == WANTED
    assert any(line.startswith("layout = ") for line in found.remarks)


def test_a_file_of_a_batch_of_one_is_read() -> None:
    """As mobile exports are."""
    assert squares(settled(foreign.v8(1), "yolo")[0], 2) == WANTED


@pytest.mark.slow
def test_a_tflite_file_with_its_own_post_processing_goes_to_a_device(tmp_path: Path) -> None:
    """Boxes as y0, x0, y1, x1 in ratios, classes without the background, scores, count; LiteRT has the operator."""
    text = RECIPE.replace('onnx = "squares.onnx"', 'tflite = "squares.tflite"').replace('"yolo"', '"ssd"')
    recipe = written(tmp_path, text.replace("[gates]", '[targets.lite]\nruntime = "litert"\n[gates]'))
    (tmp_path / "squares.tflite").write_bytes(foreign.post_processed())
    result = run(recipe, out=tmp_path / "build")
    assert result.passed, result.gates
    settings = decoders.settings_from("ssd", read_bundle(result.bundle("lite")).manifest.decoder_options)
    assert (settings.layout, settings.boxes, settings.background) == ("suppressed", "corners_yx", "none")
    with open_bundle(result.bundle("lite")) as model:
        assert model.probe().ok


@pytest.mark.parametrize("compressed", [True, False])
def test_a_file_of_float16_gives_its_boxes(compressed: bool) -> None:  # noqa: FBT001 - a case
    """As exporters of phones write it; step ``clean`` makes the rest of it."""
    model = onnx.load_from_string(foreign.v8(1))
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT:
            half = onnx.numpy_helper.to_array(weight).astype(np.float16)
            weight.CopyFrom(onnx.numpy_helper.from_array(half, weight.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    given = Given(rows=inputs(3), compressed=compressed)
    data, notes = named("onnx").cleaned(model.SerializeToString(), given)
    assert squares(settled(data, "yolo")[0]) == WANTED
    assert notes


def test_a_file_whose_sizes_are_open_is_read_from_its_answers() -> None:
    """Dynamic axes: nothing is known before the first run."""
    model = onnx.load_from_string(foreign.v8())
    for place, dim in enumerate(model.graph.output[0].type.tensor_type.shape.dim):
        dim.dim_param = f"d{place}"
    assert squares(settled(model.SerializeToString(), "yolo")[0]) == WANTED


def int8(data: bytes, kept: tuple[str, ...]) -> bytes:
    """Return the file in int8, but for the nodes ``kept``."""
    rng = np.random.default_rng(0)
    rows = [np.concatenate([inputs(4), rng.random((12, 3, 64, 64), np.float32)])]
    return named("onnx").quantize(data, lambda: rows, Settings(float_layers=kept), None)


def output(data: bytes) -> np.ndarray:
    """Return boxes in pixels and scores of every cell, (7, 64)."""
    import onnxruntime  # noqa: PLC0415

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"images": inputs()})[0][0]
    return found


def test_boxes_and_scores_of_one_output_keep_their_precision_in_int8() -> None:
    """In int8 a box in pixels has a step of a 255th of the picture; what is behind the layers stays float.

    A join of boxes and scores stays float by itself (``tests/compressor/quantize/test_joined.py``).
    """
    data = foreign.v8()
    behind = named("onnx").behind_layers(data)
    model = onnx.load_from_string(data)
    assert set(behind) >= {node.name for node in model.graph.node if node.op_type in {"Concat", "Sigmoid", "Add"}}
    assert not set(behind) & {node.name for node in model.graph.node if node.op_type == "Conv"}
    plain, whole, kept = output(data), output(int8(data, ())), output(int8(data, behind))
    assert np.abs(whole - plain)[:4].max() > 0.1
    assert np.abs(kept - plain)[:4].max() < 0.05
    assert np.abs(kept - plain)[4:].max() < 0.01
    assert b"QuantizeLinear" in int8(data, behind)


def test_a_mean_over_a_distribution_is_no_last_layer() -> None:
    """The box edges of v8 and later come from a convolution with 16 weights, after a softmax."""
    graph = foreign.Graph()
    graph.add("Conv", ["flat_shifts_4d", graph.constant("steps", np.ones((1, 4, 1, 1), np.float32))], "mean")
    graph.reshaped("flat_shifts", (0, 4, 8, 8), "flat_shifts_4d")
    graph.nodes[-1], graph.nodes[-2] = graph.nodes[-2], graph.nodes[-1]
    data = graph.file({"mean": (["N", 1, 8, 8], onnx.TensorProto.FLOAT)})
    behind = named("onnx").behind_layers(data)
    assert {"n_mean", "n_flat_shifts_4d", "n_flat_shifts"} <= set(behind)
    assert "n_shifts" not in behind


def written(folder: Path, text: str = RECIPE, data: bytes | None = None, **pictures: int) -> Path:
    """Write recipe, file and pictures into ``folder``; return the recipe."""
    foreign.pictures(folder / "squares.zip", **pictures)
    (folder / "squares.onnx").write_bytes(data if data is not None else foreign.v8(1, dict(enumerate(foreign.NAMES))))
    (folder / "recipe.toml").write_text(text)
    return folder / "recipe.toml"


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """Return a run on pictures of 64 x 32, with a border above and below, for both formats."""
    folder = tmp_path_factory.mktemp("letterbox")
    text = RECIPE.replace("mean = 0.0", 'resize = "letterbox"\nmean = 0.0').replace("[gates]", f"{BOTH}[gates]")
    return run(written(folder, text, height=32), out=folder / "build")


@pytest.mark.slow
@pytest.mark.parametrize("target", ["host", "lite"])
def test_a_letterboxed_detector_is_quantized_judged_and_bundled(outcome: RunResult, target: str) -> None:
    """The labels move with the pictures; the manifest holds what was read off, as numbers."""
    assert outcome.passed, outcome.gates
    manifest = read_bundle(outcome.bundle(target)).manifest
    assert (manifest.decoder, manifest.preprocessing.resize, manifest.schema) == ("yolo", "letterbox", 6)
    settings = decoders.settings_from("yolo", manifest.decoder_options)
    assert (settings.layout, settings.coordinates, settings.boxes, settings.scores) == (
        "scores",
        "pixels",
        "centre",
        "plain",
    )


@pytest.mark.slow
@pytest.mark.parametrize("target", ["host", "lite"])
def test_a_device_answers_in_pixels_of_the_picture_without_its_border(outcome: RunResult, target: str) -> None:
    """Also of a picture twice as large, which is reduced."""
    for factor in (1, 2):
        buffer = io.BytesIO()
        pixels = picture(32)
        Image.fromarray(pixels).resize((64 * factor, 32 * factor), Image.Resampling.NEAREST).save(buffer, "PNG")
        with open_bundle(outcome.bundle(target)) as model:
            said = model.answer(buffer.getvalue())
            assert model.probe().ok
        assert [box["label"] for box in said.boxes] == ["red"]
        found = [float(said.boxes[0][edge]) / factor for edge in ("x0", "y0", "x1", "y1")]  # type: ignore[arg-type]
        assert found == pytest.approx([8, 16, 16, 24], abs=0.5)


def test_pictures_of_the_report_have_the_border_that_their_boxes_count_from() -> None:
    """At their own resolution; without a border they are as they came."""
    pre, image = Preprocessing(width=64, height=64, resize="letterbox", fill=114), picture(32)
    large = np.repeat(np.repeat(image, 3, axis=0), 3, axis=1)
    made = as_judged(large, pre)
    assert made.shape == (192, 192, 3)
    assert (made[:48] == 114).all()
    assert (made[48:144] == large).all()
    assert as_judged(large, replace(pre, resize="stretch", fill=0)) is large


def test_boxes_move_with_a_border_and_back() -> None:
    """Of a tall picture the border is left and right."""
    pre = Preprocessing(width=64, height=32, resize="letterbox")
    edges = np.array([[0, 0, 1, 1], [0.5, 0.25, 0.75, 0.5]], np.float32)
    moved = framed(edges, 50, 100, pre)
    assert moved[0] == pytest.approx([0.375, 0, 0.625, 1])
    assert unframed(moved, 50, 100, pre) == pytest.approx(edges)
    assert unframed(np.array([[0, 0, 1, 1]], np.float32), 50, 100, pre) == pytest.approx(edges[:1])


@pytest.mark.slow
def test_a_file_that_suppresses_inside_goes_to_a_device(tmp_path: Path) -> None:
    """Boxes, scores and labels of one picture, as many as there are; classes begin behind a background."""
    recipe = written(tmp_path, RECIPE.replace('"yolo"', '"ssd"'), foreign.listed())
    result = run(recipe, out=tmp_path / "build")
    assert result.passed, result.gates
    with open_bundle(result.bundle("host")) as model:
        assert model.probe().ok


def checked(folder: Path, change: tuple[str, str], data: bytes | None = None) -> None:
    """Check a recipe with a change, without data."""
    imported_model.check(read_recipe(written(folder, RECIPE.replace(*change), data, count=1)))


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (('labels = ["red", "green", "blue"]', 'labels = ["red", "green"]'), ModelSignatureError, "3 classes"),
        (('"red", "green"', '"green", "red"'), ModelSignatureError, "order of the file's own labels"),
        (('kind = "yolo"', 'kind = "yolo"\nlayout = "objectness"'), ModelSignatureError, "of layout 'objectness'"),
        (('kind = "yolo"', 'kind = "ssd"'), ModelSignatureError, "name another decoder"),
        (('kind = "yolo"', 'kind = "yolo"\nlayout = "v8"'), RecipeError, "layout.*scores.*got 'v8'"),
        (('kind = "yolo"', 'kind = "yol"'), RecipeError, "decoder of centres, .*, yolo.*did you mean 'yolo'"),
        (('[decoder]\nkind = "yolo"', ""), RecipeError, "kind one of centres, ssd, yolo, got none"),
        (("mean = 0.0", 'resize = "centre_crop"\nmean = 0.0'), RecipeError, "resize = 'centre_crop'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_any_data_is_read(
    tmp_path: Path, change: tuple[str, str], error: type[CompressorError], said: str
) -> None:
    """By a coded error that says what would fit."""
    with pytest.raises(error, match=said):
        checked(tmp_path, change)


def test_sides_are_multiples_of_the_stride_that_the_file_notes() -> None:
    """A file with open sizes would else fail where its branches join."""
    words = named("onnx").words(foreign.v8(1, dict(enumerate(foreign.NAMES))))
    assert (words.stride, words.labels) == (8, foreign.NAMES)
    described.check_sides(words, DataRecipe(width=64, height=32))
    with pytest.raises(ModelSignatureError, match="multiples of 8, the stride that the file notes, got 60 x 64"):
        described.check_sides(words, DataRecipe(width=60, height=64))
    assert named("onnx").words(foreign.v8()).stride == 0


@pytest.mark.parametrize(("task", "said"), [("segment", "masks"), ("pose", "keypoints"), ("obb", "rotated"),
                                            ("classify", "leave .decoder.")])  # fmt: skip
def test_a_file_that_notes_another_task_is_no_detector(task: str, said: str) -> None:
    """Its outputs have more numbers a box, which would be taken for classes."""
    model = onnx.load_from_string(foreign.v8(1, dict(enumerate(foreign.NAMES))))
    described.check_task(named("onnx").words(model.SerializeToString()), boxes=True)
    onnx.helper.set_model_props(model, {"task": task})
    words = named("onnx").words(model.SerializeToString())
    described.check_task(words, boxes=False)
    with pytest.raises(ModelSignatureError, match=f"notes the task '{task}'.*{said}"):
        described.check_task(words, boxes=True)


def test_boxes_and_scores_apart_become_no_network_for_another_runtime(tmp_path: Path) -> None:
    """Refused before any data is read."""
    with pytest.raises(ModelSignatureError, match=r"one output.*got boxes_out, scores_out: join them"):
        checked(tmp_path, ('[decoder]\nkind = "yolo"', f'{BOTH}[decoder]\nkind = "ssd"'), foreign.ssd())


def test_boxes_of_another_input_size_are_refused() -> None:
    """And centres with sizes that are taken for corners."""
    model = onnx.load_from_string(foreign.v8())
    grid = next(one for one in model.graph.initializer if one.name == "grid")
    grid.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(grid) * 20, "grid"))
    with pytest.raises(ModelOutputsError, match=r"outside.*width and height"):
        settled(model.SerializeToString(), "yolo")
    with pytest.raises(ModelOutputsError, match="boxes = 'centre'"):
        settled(foreign.v8(), "yolo", boxes=2.0)


def test_a_decoder_is_for_imported_detectors_alone() -> None:
    """A network of this project names its own."""
    text = RECIPE.replace('onnx = "squares.onnx"', 'network = "centre_net"')
    with pytest.raises(RecipeError, match=r"no \[decoder\] without an imported file"):
        parse_recipe(text.replace(*SHARES))
    with pytest.raises(RecipeError, match=r"'prune' with .decoder. kind = 'yolo', got one: .*only quantize applies"):
        parse_recipe(RECIPE.replace(*SHARES).replace("[decoder]", '[[compress]]\nstep = "prune"\n[decoder]'))
    assert parse_recipe(RECIPE).decoder.options["least"] == 0.05
