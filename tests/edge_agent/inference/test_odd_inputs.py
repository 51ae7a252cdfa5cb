"""Odd inputs to a real child: each is named in an answer or an event, and none restarts it."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressor.data._front_end import preprocessing_of
from compressor.recipe.model import DataRecipe
from tests.edge_agent.inference.test_answers import LOG
from tests.edge_agent.inference.test_served_sound import spoken_wav
from wire.bundle import build_bundle
from wire.reference import write_reference


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _saved(Image.new("RGB", (12, 8), "red"), "JPEG", exif=exif)


PLAIN = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
JPEG = _saved(PLAIN, "JPEG")
DEEP = Image.fromarray(np.full((8, 8), 40_000, np.uint16))
FRAMES = [PLAIN, Image.new("RGB", (8, 8))]

ODD: dict[str, tuple[str, bytes, str]] = {
    "one pixel": ("dot.png", _saved(Image.new("RGB", (1, 1)), "PNG"), ""),
    "20 megapixels": ("large.jpg", _saved(Image.new("RGB", (5200, 3900)), "JPEG"), ""),
    "200 megapixels": ("huge.png", _saved(Image.new("1", (20_000, 10_000)), "PNG"), "image_too_large"),
    "truncated": ("cut.jpg", JPEG[: len(JPEG) // 2], "image_invalid"),
    "empty": ("empty.png", b"", "image_invalid"),
    "text": ("text.png", b"hello", "image_invalid"),
    "a GIF": ("moves.png", _saved(PLAIN, "GIF", save_all=True, append_images=FRAMES), "image_invalid"),
    "16 bits": ("deep.png", _saved(DEEP, "PNG"), "image_invalid"),
    "CMYK": ("print.jpg", _saved(PLAIN.convert("CMYK"), "JPEG"), ""),
    "turned by EXIF": ("turned.jpg", _turned(), ""),
    "a newline in its name": ("two\nlines.png", _saved(PLAIN, "PNG"), ""),
    "a name that is no text": ("caf\udce9.png", _saved(PLAIN, "PNG"), ""),
    "a palette with transparency": ("clear.png", _saved(Image.new("RGBA", (4, 4), (1, 2, 3, 0)), "PNG"), ""),
}


def _answers(state: Path) -> dict[str, dict]:
    path = state / "answers" / "log.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return {record["id"].rpartition("@")[0]: record for record in map(json.loads, lines)}


@pytest.mark.parametrize("decode", ["any", "reduced"])
def test_odd_images_are_answered_or_named_by_one_child(
    decode: str, bundle: Callable, child: Callable, drop: Callable, tmp_path: Path
) -> None:
    """All at once, before an ordinary one, which the same child answers."""
    running = child(bundle(decoding=decode == "reduced"), sinks=LOG, settle_s=0.0)
    drop(
        {name: data for name, data, _ in ODD.values()}
        | {"a.gif": _saved(PLAIN, "GIF"), "zz-last.png": _saved(PLAIN, "PNG")}
    )
    wanted = {name.replace("\udce9", "\\xe9"): code for name, _, code in ODD.values()} | {"zz-last.png": ""}
    if decode == "reduced":
        wanted["clear.png"] = "image_invalid"
    running.until("beat", lambda _: wanted.keys() <= _answers(tmp_path / "state").keys())
    found = _answers(tmp_path / "state")
    assert {name: found[name].get("error", "") for name in wanted} == wanted
    faults = {frame.header["code"]: str(frame.header["text"]) for frame in running.heard if frame.kind == "fault"}
    assert "a.gif" in faults["source_ignored"]
    assert all(found[name].get("label") for name, code in wanted.items() if not code)
    assert running.end() == 0


def test_a_picture_that_grows_is_answered_once_it_is_whole(
    bundle: Callable, child: Callable, drop: Callable, tmp_path: Path
) -> None:
    """Written in place by a program that holds it open; another picture is answered meanwhile."""
    running = child(bundle(), sinks=LOG, settle_s=0.05)
    with (tmp_path / "inbox" / "grows.jpg").open("wb") as file:
        file.write(JPEG[:100])
        file.flush()
        drop({"other.png": _saved(PLAIN, "PNG")})
        running.until("beat", lambda _: "other.png" in _answers(tmp_path / "state"))
        assert "grows.jpg" not in _answers(tmp_path / "state")
        file.write(JPEG[100:])
    running.until("beat", lambda _: "grows.jpg" in _answers(tmp_path / "state"))
    assert _answers(tmp_path / "state")["grows.jpg"].get("error", "") == ""
    assert running.end() == 0


def test_a_wav_whose_header_lies_is_named(tiny: dict, child: Callable, drop: Callable, tmp_path: Path) -> None:
    """More data than there is, none, no rate, another rate; the sound after them is answered."""
    options = {"sample_rate_hz": 8000, "clip_s": 0.25, "hop_ms": 31, "mels": 8, "low_hz": 100}
    data = DataRecipe(dataset="spoken", width=8, height=8, colour="grey", front_end="log_mel", options=options)
    artifact, path = tiny["onnx"](), tmp_path / "sound.tfb"
    files = {"model.onnx": artifact, "reference.bin": write_reference(tiny["reference"](artifact))}
    path.write_bytes(build_bundle(replace(tiny["manifest"], preprocessing=preprocessing_of(data)), files))
    good = spoken_wav(1)
    lies = {
        "long.wav": good[:40] + struct.pack("<I", 2**31) + good[44:],
        "none.wav": good[:44],
        "rate.wav": good[:24] + struct.pack("<I", 0) + good[28:],
        "other.wav": good[:24] + struct.pack("<I", 44_100) + good[28:],
        "bits.wav": good[:34] + struct.pack("<H", 0) + good[36:],
    }
    running = child(path, sinks=LOG, settle_s=0.0)
    drop({**lies, "zz-good.wav": good})
    running.until("beat", lambda _: {*lies, "zz-good.wav"} <= _answers(tmp_path / "state").keys())
    found = _answers(tmp_path / "state")
    assert {found[name].get("error") for name in lies} == {"sensor_invalid"}
    assert found["zz-good.wav"].get("error", "") == ""
    assert running.end() == 0
