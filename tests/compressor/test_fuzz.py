"""Seeded damage of every file that a user supplies: one line with a code, never a stack, never a wrong pass.

A runtime may crash on a damaged model, so the damage is tried in a process of its own.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROUNDS = {"recipe": 300, "bundle": 300, "onnx": 100, "tflite": 60, "checkpoint": 100, "inputs": 300, "photo": 150,
          "deep.png": 150, "deep.tiff": 300}  # fmt: skip
"""300 of each were tried once; opening a model takes a fifth of a second."""
PICTURES = ("photo", "deep.png", "deep.tiff")
RECIPE = """{steps}[model]
name = "tiny"
version = 3
network_options = {{filters = 4}}
{model}
[data]
dataset = "labelled_images"
path = "{path}"
width = 8
height = 8
{inputs}[train]
epochs = 2
learning_rate = 0.01
[targets.host]
runtime = "{runtime}"
[gates]
size_bytes = {{max = 1000000}}
"""


INPUTS = """mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
scale = 0.0039
colour = "bgr"
resize = "centre_crop"
resize_to = 12
resample = "bicubic"
"""
DEEP = 'bits = 16\ncolour = "grey"\nscale = 0.01\nmean = 300\nstd = 10\nresize = "letterbox"\nfill = 30000\n'


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return ``data`` cut, doubled, or with bits, bytes or lengths changed, mostly near its ends."""
    if rng.random() < 0.15:
        return data[: rng.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        near = min(len(changed) - 1, int(rng.expovariate(1 / 800)))
        place = rng.choice([rng.randrange(len(changed)), near, len(changed) - 1 - near])
        kind = rng.randrange(4)
        if kind == 0:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[place] = rng.randrange(256)
        elif kind == 2:
            changed[place : place + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f"])
        else:
            changed[place : place + 8] *= 2
    return bytes(changed)


def among(whole: bytes, rng: random.Random) -> bytes:
    """Return the recipe with these lines of ``[data]`` damaged: its other lines keep it from training anything."""
    text = RECIPE.format(model="", steps="", runtime="onnx", path="none.zip", inputs="\0")
    before, after = text.encode().split(b"\0")
    return before + damaged(whole, rng) + b"\n" + after


def written(kind: str, folder: Path) -> bytes:
    """Write the inputs of a run of ``kind`` into ``folder`` and return the file to be damaged."""
    model = f'{kind} = "mine"' if kind in {"onnx", "tflite", "checkpoint"} else ""
    steps, runtime = ("compress = []\n", "litert") if kind == "tflite" else ("", "onnx")
    inputs = DEEP if kind.startswith("deep") else INPUTS if kind in {"inputs", "photo"} else ""
    path = "." if kind in PICTURES else "none.zip"
    text = RECIPE.format(model=model, steps=steps, runtime=runtime, path=path, inputs=inputs)
    (folder / "recipe.toml").write_text(text)
    if kind in {"recipe", "inputs"}:
        return text.encode() if kind == "recipe" else INPUTS.encode()
    if path == ".":
        return _picture(kind, folder)
    if kind == "bundle":
        return _bundle()
    import torch  # noqa: PLC0415 - only for models

    from compressor import networks  # noqa: PLC0415 - as above

    network = networks.build("resnet8", 2, 3, 8, 8, {"filters": 4}).eval()
    if kind == "checkpoint":
        torch.save(network.state_dict(), folder / "mine")
        return (folder / "mine").read_bytes()
    if kind == "onnx":
        from compressor.export.onnx import export_onnx as export  # noqa: PLC0415 - as above
    else:
        from compressor.export.tflite import export_tflite as export  # noqa: PLC0415 - as above
    return export(network, 3, 8, 8)


def _picture(kind: str, folder: Path) -> bytes:
    """Return a picture, and list it as the only row: one that can be read still ends at the split."""
    import numpy as np  # noqa: PLC0415 - only for pictures
    from PIL import Image  # noqa: PLC0415 - as above

    (folder / "labels.csv").write_text("path,label\nmine,a\n")
    levels, tags = np.random.default_rng(0).integers(29000, 31000, (40, 30)), Image.Exif()
    tags[0x0112] = 6
    picture = io.BytesIO()
    if kind == "photo":
        colours = np.repeat((levels % 256).astype(np.uint8)[..., None], 3, axis=2)
        Image.fromarray(colours).resize((300, 400)).save(picture, "JPEG", exif=tags)
    elif kind == "deep.png":
        Image.fromarray(levels.astype(np.uint16)).save(picture, "PNG", exif=tags)
    else:
        Image.fromarray(levels.astype(np.uint16)).save(picture, "TIFF", tiffinfo={0x0112: 6}, compression="tiff_lzw")
    return picture.getvalue()


def _bundle() -> bytes:
    import numpy as np  # noqa: PLC0415 - only for bundles

    from compressor.release.package import Golden, write_golden  # noqa: PLC0415 - as above
    from wire.bundle import build_bundle  # noqa: PLC0415 - as above
    from wire.manifest import Manifest, Preprocessing, TensorSpec  # noqa: PLC0415 - as above

    golden = Golden(np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32), np.zeros(1, np.int64))
    spec = TensorSpec(name="x", shape=(-1, 4))
    manifest = Manifest(
        model="m", version=1, target="host", runtime="onnx", inputs=(spec,), outputs=(spec,),
        preprocessing=Preprocessing(width=8, height=8),
    )  # fmt: skip
    files = {"model.onnx": b"weights", "golden.npz": write_golden(golden), "gate.json": b"{}"}
    return build_bundle(manifest, files)


def try_damage(kind: str, folder: Path) -> dict[str, list[str]]:
    """Return the output for each damaged file, by kind of end; run in a separate process."""
    from compressor.cli import main  # noqa: PLC0415 - only in that process

    whole, rng = written(kind, folder), random.Random(0)  # noqa: S311 - damage, no secret
    name = "recipe.toml" if kind in {"recipe", "inputs"} else "mine"
    command = ["verify", "mine"] if kind == "bundle" else ["run", "recipe.toml", "--out", "out"]
    ends: dict[str, list[str]] = {}
    for _ in range(ROUNDS[kind]):
        (folder / name).write_bytes(damaged(whole, rng) if kind != "inputs" else among(whole, rng))
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()), contextlib.chdir(folder):
            try:
                main(command)
            except SystemExit as stop:
                end = f"exit {stop.code}"
            except BaseException as error:  # noqa: BLE001 - what escapes is what is looked for
                end = f"escaped {error!r}"
        ends.setdefault(end, []).append(said.getvalue())
    return ends


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ROUNDS)
def test_damage_is_always_one_coded_line_and_never_a_pass(kind: str, tmp_path: Path) -> None:
    """Exit code 4 each time; a model that is still one ends at the data, which are not there."""
    if kind == "tflite":
        pytest.importorskip("litert_torch")
    command = [sys.executable, __file__, kind, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    ends: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    assert set(ends) == {"exit 4"}
    lines = [said.strip().splitlines() for said in ends["exit 4"]]
    if kind in PICTURES:  # the times of the stages before the error are above it
        assert not [line for said in lines for line in said[:-1] if not line.endswith(" s")]
        lines = [line[-1:] for line in lines]
    assert {len(line) for line in lines} == {1}
    wrong = [line[0] for line in lines if not line[0].startswith("error [") or "[internal]" in line[0]]
    assert wrong == []
    assert not list(tmp_path.rglob("*.tfb"))


if __name__ == "__main__":
    print(json.dumps(try_damage(sys.argv[1], Path(sys.argv[2]))))  # noqa: T201 - to the test that started it
