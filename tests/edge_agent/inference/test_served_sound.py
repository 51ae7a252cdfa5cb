"""A model with a front end serves sounds: the tensor that the compressor trains on; a cut-off WAV is counted."""

import io
import struct
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compressor.data import spoken
from compressor.data._front_end import preprocessing_of
from compressor.recipe.model import DataRecipe
from edge_agent.errors import ImageError
from edge_agent.inference.preprocess import to_batch, to_tensor
from edge_agent.inference.served_model import ServedModel, load_model
from wire.bundle import build_bundle
from wire.reference import write_reference

RATE = 8000
DATA = DataRecipe(
    dataset="spoken", width=8, height=8, colour="grey", front_end="log_mel",
    options={"sample_rate_hz": RATE, "clip_s": 0.25, "hop_ms": 31, "mels": 8, "low_hz": 100},
)  # fmt: skip


def spoken_wav(seed: int, seconds: float = 0.3) -> bytes:
    """Return two seeded tones in noise as a 16-bit WAV."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(int(seconds * RATE)) / RATE
    sound = sum(np.sin(2 * np.pi * hertz * time_s) for hertz in rng.uniform(150, 3500, 2)) + rng.normal(
        size=time_s.size
    )
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((sound * 4000).astype("<i2").tobytes())
    return buffer.getvalue()


@pytest.fixture
def sound_bundle(tmp_path: Path, tiny: dict) -> Path:
    """A bundle of the tiny model whose manifest names the front end as a recipe writes it."""
    artifact = tiny["onnx"]()
    manifest = replace(tiny["manifest"], preprocessing=preprocessing_of(DATA))
    path = tmp_path / "sound.tfb"
    files = {"model.onnx": artifact, "reference.bin": write_reference(tiny["reference"](artifact))}
    path.write_bytes(build_bundle(manifest, files))
    return path


@pytest.fixture
def model(sound_bundle: Path) -> ServedModel:
    """That bundle, loaded as the agent loads it."""
    return load_model(sound_bundle)


def test_a_wav_gives_the_tensor_and_logits_of_the_compressors_path(model: ServedModel, tmp_path: Path) -> None:
    """Equal bytes through data set and batch, and through the served model: equal tensors, bit for bit."""
    sounds = [spoken_wav(seed, seconds) for seed, seconds in enumerate((0.1, 0.25, 0.4))]
    folder = tmp_path / "sounds"
    folder.mkdir()
    for index, data in enumerate(sounds):
        (folder / f"{index}_anna_{index}.wav").write_bytes(data)
    learnt = to_batch(list(spoken.load(replace(DATA, path="sounds"), tmp_path).images), preprocessing_of(DATA))
    outcomes = [model.infer(data) for data in sounds]
    served = np.concatenate([to_tensor(outcome.image, model.manifest.preprocessing) for outcome in outcomes])
    assert np.array_equal(served, learnt)
    assert len(np.unique(served)) > len(sounds)
    assert np.array_equal(np.concatenate([one.logits for one in outcomes]), model.runtime.run(learnt)[0])


def test_the_bundle_carries_every_option_of_its_front_end(model: ServedModel) -> None:
    """Options that the recipe leaves out are in the manifest too, so that new defaults don't change old bundles."""
    options = model.manifest.preprocessing.front_end_options
    assert options["window_ms"] == 32
    assert {**options, **DATA.options} == options


@pytest.mark.parametrize("length", [0, 20, 44, 300])
def test_a_truncated_wav_is_an_image_error(model: ServedModel, length: int) -> None:
    """No bytes, a part of the header, a header alone and half a sound are refused as invalid."""
    with pytest.raises(ImageError):
        model.infer(spoken_wav(0)[:length])


def test_a_header_that_promises_more_than_comes_is_an_image_error(model: ServedModel) -> None:
    """A data chunk longer than the file is a sound that was cut off."""
    data = bytearray(spoken_wav(0))
    data[40:44] = struct.pack("<I", 1 << 30)
    with pytest.raises(ImageError, match="cut off"):
        model.infer(bytes(data))


def test_a_child_serves_sounds_and_counts_one_that_is_cut_off(
    sound_bundle: Path, child: Callable, drop: Callable
) -> None:
    """The truncated WAV is named and counted as an error; the complete ones beside it are served."""
    drop({"0.wav": spoken_wav(0)[:300], "1.wav": spoken_wav(1), "2.wav": spoken_wav(2)})
    running = child(sound_bundle)
    fault = running.until("fault").header
    running.until("window", lambda _: sum(one.header["n"] for one in running.heard if one.kind == "window") == 2)
    assert fault["code"] == "sensor_invalid"
    assert fault["text"].startswith("0.wav: ")
    running.until("beat")
    assert sum(one.header["errors"] for one in running.heard if one.kind == "beat") == 1
