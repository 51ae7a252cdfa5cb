"""The Python interface of the device: its answers are those of the inference child, its refusals a device's."""

from __future__ import annotations

import io
import json
import math
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compressor.data._front_end import preprocessing_of
from compressor.data._table import make_table
from compressor.recipe.model import DataRecipe
from compressor.release.keys import init_keys
from compressor.release.signing import sign_bundles
from edge_agent.api import DeviceModel, Trust, open_bundle
from edge_agent.errors import (
    AgentConfigError,
    ImageError,
    ModelClosedError,
    SensorError,
    SignatureRefusedError,
    SourceError,
)
from edge_agent.inference import drift_counters
from edge_agent.tasks.regression import Regression
from server.trust.online_keys import init_online_keys
from server.trust.repository import TrustRepository
from server.trust.roots import install_root
from wire.bundle import build_bundle
from wire.errors import BundleError
from wire.reference import Context, write_reference

RATE = 8000
GATE = json.dumps({"schema": 1, "verdict": "pass", "figures": {}}).encode()
SOUND = DataRecipe(
    dataset="spoken", width=8, height=8, colour="grey", front_end="log_mel",
    options={"sample_rate_hz": RATE, "clip_s": 0.25, "hop_ms": 31, "mels": 8, "low_hz": 100},
)  # fmt: skip
WINDOW = DataRecipe(dataset="windows", width=8, height=8, colour="grey", front_end="window", options={"steps": 8})


@pytest.fixture
def model(bundle: Callable[..., Path]) -> DeviceModel:
    """The tiny model, open."""
    return open_bundle(bundle())


def with_front_end(tiny: dict, path: Path, data: DataRecipe) -> Path:
    """Write a bundle of the tiny model with the preprocessing ``data``."""
    artifact = tiny["onnx"]()
    files = {"model.onnx": artifact, "reference.bin": write_reference(tiny["reference"](artifact))}
    path.write_bytes(build_bundle(replace(tiny["manifest"], preprocessing=preprocessing_of(data)), files))
    return path


def test_the_answer_is_that_of_the_child(
    bundle: Callable[..., Path], child: Callable, drop: Callable, tiny: dict
) -> None:
    """Class and confidence of each sample that a real child sends equal those of the interface, to the last bit."""
    images = {f"{index}.png": tiny["png"](image) for index, image in enumerate(tiny["images"](5))}
    running = child(bundle(), window_ms=60_000)
    running.tell(type="samples", request="r1", count=5, budget_bytes=1 << 20, lane="audit")
    running.until("beat")
    drop(images)
    running.until("beat", lambda frame: frame.header["n"] > 0)
    assert running.end() == 0
    samples = [frame for frame in running.heard if frame.kind == "sample"]
    with open_bundle(bundle()) as model:
        answers = [model.answer(frame.payload) for frame in samples]
    assert samples
    assert [(model.labels.index(one.label), one.confidence) for one in answers] == [
        (frame.header["predicted"], round(frame.header["confidence"], 4)) for frame in samples
    ]


def test_a_picture_gives_one_answer_as_path_bytes_and_array(model: DeviceModel, tiny: dict, tmp_path: Path) -> None:
    """A file, its bytes and its pixels are one input; a grey array is one of equal channels."""
    (image,) = tiny["images"](1)
    (tmp_path / "a.png").write_bytes(tiny["png"](image))
    given = [tmp_path / "a.png", str(tmp_path / "a.png"), tiny["png"](image), image]
    answers = [replace(model.answer(one), run_ms=0.0) for one in given]
    assert answers == answers[:1] * 4
    grey = image[:, :, 0]
    assert model.answer(grey).outputs == model.answer(np.repeat(grey[:, :, None], 3, axis=2)).outputs
    assert set(answers[0].streams) >= {"confidence", "predicted", "residual"}


def test_sound_and_windows_are_taken_as_arrays(tiny: dict, tmp_path: Path) -> None:
    """Samples at the front end's rate are a WAV file's; numbers are a window's."""
    sound = np.random.default_rng(0).integers(-9000, 9000, 2400, dtype=np.int16)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(sound.tobytes())
    with open_bundle(with_front_end(tiny, tmp_path / "sound.tfb", SOUND)) as model:
        outputs = [model.answer(given).outputs for given in (buffer.getvalue(), sound, sound / 32_768)]
    assert outputs == outputs[:1] * 3
    steps = np.linspace(-1, 1, 8)
    for binary, given in ((0, json.dumps(steps.tolist()).encode()), (1, steps.astype("<f4").tobytes())):
        data = replace(WINDOW, options={"steps": 8, "binary": binary})
        with open_bundle(with_front_end(tiny, tmp_path / f"{binary}.tfb", data)) as model:
            assert model.answer(steps).outputs == model.answer(given).outputs


def test_a_regression_answers_with_numbers(tiny: dict, tmp_path: Path) -> None:
    """Values have names, there is no label, and figures that only a classifier has are NaN."""
    artifact, specs = tiny["onnx"](), drift_counters.stream_specs(Regression(3), has_embedding=True)
    edges = tuple(float(np.float32(value)) for value in np.linspace(0, 1, 15))
    reference = replace(
        tiny["reference"](artifact), streams=specs, classes=0, table_right=(), table_seen=(),
        contexts=(Context(n=1, n_effective=1, counts=(0,) * 16 * len(specs)),), edges=(edges,) * len(specs),
    )  # fmt: skip
    manifest = replace(tiny["manifest"], labels=(), extra={"values": ["x", "y", "z"]})
    files = {"model.onnx": artifact, "reference.bin": write_reference(reference)}
    (tmp_path / "numbers.tfb").write_bytes(build_bundle(manifest, files))
    with open_bundle(tmp_path / "numbers.tfb") as model:
        answer = model.answer(tiny["images"](1)[0])
    assert (answer.label, model.labels) == ("", ("x", "y", "z"))
    assert [np.float32(value) for value in answer.values.values()] == [np.float32(value) for value in answer.outputs]
    assert math.isnan(answer.confidence)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((4, 4), np.float32), "scale it to 0..255"),
        (np.zeros((4, 4, 4), np.uint8), "got uint8 (4, 4, 4)"),
        (np.zeros((0, 4), np.uint8), "got uint8 (0, 4)"),
        (b"no image", "Expected an intact image"),
    ],
)
def test_what_is_no_picture_is_refused(model: DeviceModel, given: object, said: str) -> None:
    """The error has the expected and the actual type and shape, and the next step."""
    with pytest.raises(ImageError) as caught:
        model.answer(given)
    assert said in str(caught.value)


@pytest.mark.parametrize("given", [np.zeros((2, 400)), np.full(400, np.nan), np.zeros(400, np.int32)])
def test_what_is_no_sound_is_refused(tiny: dict, tmp_path: Path, given: np.ndarray) -> None:
    """Two channels, no numbers and another type are named."""
    model = open_bundle(with_front_end(tiny, tmp_path / "sound.tfb", SOUND))
    with pytest.raises(SensorError, match="Expected mono sound"):
        model.answer(given)


def test_files_that_are_not_there_and_a_closed_model_are_named(
    model: DeviceModel, bundle: Callable, tmp_path: Path
) -> None:
    """Errors of the library alone, each with its path; closing twice does no harm."""
    with pytest.raises(SourceError, match=r"nothing\.png"):
        model.answer(tmp_path / "nothing.png")
    for path in (tmp_path / "nothing.tfb", tmp_path):
        with pytest.raises(BundleError, match="Expected a bundle"):
            open_bundle(path)
    bad = bundle(version=2)
    bad.write_bytes(bad.read_bytes()[:-1])
    with pytest.raises(BundleError):
        open_bundle(bad)
    model.close()
    model.close()
    with pytest.raises(ModelClosedError, match="tiny-1"):
        model.answer(b"")


def test_the_probe_is_that_of_the_device(bundle: Callable[..., Path], tiny: dict) -> None:
    """Golden vectors in a process of its own: right ones pass, those of another model fail."""
    with open_bundle(bundle()) as model:
        found = model.probe()
    assert (found.ok, found.latency_p95_ms > 0) == (True, True)
    with open_bundle(bundle(golden_npz=_of_another(tiny))) as model:
        assert model.probe().code == "golden_mismatch"


def _of_another(tiny: dict) -> bytes:
    buffer = io.BytesIO()
    table = make_table(tiny["images"](2), ["a", "b"], slices=["", ""])
    np.savez(buffer, inputs=np.zeros((len(table), 1, 8, 8), np.float32), logits=np.full((len(table), 3), 7, np.float32))
    return buffer.getvalue()


@pytest.fixture
def trust(tmp_path: Path, bundle: Callable[..., Path]) -> Trust:
    """Release 1 signed and published; root and metadata as a device gets them."""
    server, path = tmp_path / "server", bundle(gate_json=GATE)
    root = init_keys(tmp_path / "keys", init_online_keys(server))
    install_root(server, root)
    signed = sign_bundles([path], tmp_path / "keys").read_bytes()
    TrustRepository(server).publish_targets(signed, lambda _sha256: True)
    return Trust(root, server / "tuf")


def test_says_whether_the_signature_was_checked(trust: Trust, tmp_path: Path) -> None:
    """With trust, signed metadata confirms the bytes; without, the model states that nothing was checked."""
    path = tmp_path / "tiny-1.tfb"
    with open_bundle(path, trust=trust) as model, open_bundle(path) as unchecked:
        assert (model.signed, unchecked.signed) == (True, False)
        assert "not checked" in repr(unchecked)
        assert "not checked" not in repr(model)


def test_refuses_what_a_device_refuses(trust: Trust, bundle: Callable[..., Path], tmp_path: Path) -> None:
    """Refused: other bytes under a signed name, an unsigned release, another's root, and missing metadata."""
    other = bundle(gate_json=GATE + b" ")
    with pytest.raises(SignatureRefusedError) as caught:
        open_bundle(other, trust=trust)
    assert caught.value.refused == "target_mismatch"
    foreign = init_keys(tmp_path / "others", init_online_keys(tmp_path / "elsewhere"))
    (tmp_path / "bad.json").write_text("{}")
    path = bundle(version=2, gate_json=GATE)
    for offered, code in (
        (trust, "unknown_target"), (replace(trust, root=foreign), "signature_invalid"),
        (replace(trust, metadata=tmp_path / "none"), "metadata_unreachable"),
        (replace(trust, root=tmp_path / "bad.json"), "root_invalid"),
    ):  # fmt: skip
        with pytest.raises(SignatureRefusedError) as caught:
            open_bundle(path, trust=offered)
        assert caught.value.refused == code


def test_the_control_process_never_loads_it() -> None:
    """No module of the agent names it: its imports are numpy and a runtime."""
    folder = Path(drift_counters.__file__).parent
    others = [path for path in folder.rglob("*.py") if path.name != "api.py"]
    assert [path.name for path in others if "edge_agent.api" in path.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("given", [None, 7, [[1, 2], [3, 4]], {"path": "a.png"}, object()])
def test_a_value_of_another_type_is_named(model: DeviceModel, given: object) -> None:
    """With what fits, and as an error of this interface."""
    with pytest.raises(ImageError, match=f"Expected a path, a file's bytes or an array, got {type(given).__name__}"):
        model.answer(given)


def test_wrong_types_of_the_arguments_are_named(bundle: Callable[..., Path]) -> None:
    """Each is an ``AgentError`` or a ``WireError`` with the expectation."""
    with pytest.raises(BundleError, match="Expected the path of a bundle, got NoneType"):
        open_bundle(None)
    with pytest.raises(BundleError, match="embedded null byte"):
        open_bundle("a\0b")
    with pytest.raises(AgentConfigError, match="Expected trust=Trust"):
        open_bundle(bundle(), trust="1.root.json")
    for threads in (0, -1, "2", 1.5, True):
        with pytest.raises(AgentConfigError, match="Expected threads as a whole number from 1 on"):
            open_bundle(bundle(), threads=threads)


def test_bytes_of_any_kind_and_a_path_with_a_zero_byte(model: DeviceModel) -> None:
    """A buffer is read like bytes; a path that can't exist is an error of the source."""
    for given in (bytearray(b"no picture"), memoryview(b"no picture")):
        with pytest.raises(ImageError):
            model.answer(given)
    with pytest.raises(SourceError, match="embedded null byte"):
        model.answer("a\0b")
