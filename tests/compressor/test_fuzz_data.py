"""Seeded damage of every layout of a data set: a table or one coded error, in bounded memory and time.

Each layout is damaged in a process of its own with a limit of memory, because a damaged header may claim any size.
"""

from __future__ import annotations

import io
import json
import random
import resource
import signal
import subprocess
import sys
import traceback
import wave
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.compressor.data.test_boxes import CVAT, STUDIO

ROUNDS = 200
MEMORY_BYTES = 3 << 30
ROUND_S = 20
"""Of one damaged set that takes milliseconds when it is whole."""
WINDOW = {"steps": 4, "channels": 2, "low": 0, "high": 10}


def _png(seed: int) -> bytes:
    import numpy as np  # noqa: PLC0415 - only in the process that damages
    from PIL import Image  # noqa: PLC0415 - as above

    picture = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(picture, "PNG")
    return picture.getvalue()


def _npy(values: object) -> bytes:
    import numpy as np  # noqa: PLC0415 - as above

    held = io.BytesIO()
    np.save(held, np.asarray(values))
    return held.getvalue()


def _wav(seed: int) -> bytes:
    import numpy as np  # noqa: PLC0415 - as above

    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes((np.random.default_rng(seed).standard_normal(800) * 1000).astype("<i2").tobytes())
    return held.getvalue()


def _parquet(columns: Mapping[str, list[object]]) -> bytes:
    import pyarrow as pa  # noqa: PLC0415 - as above
    from pyarrow import parquet  # noqa: PLC0415 - as above

    held = io.BytesIO()
    parquet.write_table(pa.table(dict(columns)), held)
    return held.getvalue()


def _npz() -> bytes:
    import numpy as np  # noqa: PLC0415 - as above

    held = io.BytesIO()
    x = np.random.default_rng(0).random((6, 4, 2), dtype=np.float32)
    np.savez(held, x=x, y=np.array([0, 1] * 3), class_names=np.array(["a", "b"]), source=np.array(list("uvwxyz")))
    return held.getvalue()


def _zip(files: Mapping[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return held.getvalue()


def _boxes() -> dict[str, dict[str, bytes]]:
    pictures = {"images/a.png": _png(0), "images/b.png": _png(1)}
    voc = (
        "<annotation><filename>{}.png</filename><size><width>80</width><height>60</height></size><object><name>cell"
        "</name><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>40</xmax><ymax>50</ymax></bndbox></object></annotation>"
    )
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": 80, "height": 60}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 7, "name": "cell"}],
        "annotations": [{"image_id": image, "category_id": 7, "bbox": [10, 20, 30, 30]} for image in (1, 2)],
    }
    lists = {"ImageSets/Main/train.txt": b"a\n", "ImageSets/Main/test.txt": b"b\n"}
    return {
        "voc": pictures | lists | {f"Annotations/{one}.xml": voc.format(one).encode() for one in "ab"},
        "coco": pictures | {"instances.json": json.dumps(coco).encode()},
        "yolo": pictures | {f"labels/{one}.txt": b"0 0.31 0.58 0.37 0.5\n" for one in "ab"}
        | {"data.yaml": b"path: .\nnames:\n  0: cell\n"},
    }  # fmt: skip


def layouts() -> dict[str, tuple[dict[str, bytes], str, dict[str, object]]]:
    """Return of each layout its files, those to be damaged (by their endings), and the recipe's ``[data]``.

    ``path`` in the recipe is the folder of the files unless it is given.
    """
    marked = _boxes()
    pictures = {f"{'ab'[n % 2]}/{n}.png": _png(n) for n in range(6)}
    listed = "path;label;source\n" + "".join(f"{name};{name[0]};{name}\n" for name in pictures)
    cvat = "".join(f'<image name="{name}" subset="Train"><tag label="a"/></image>' for name in pictures)
    sources = "path,source\n" + "".join(f"{name.replace('/', '-')},s\n" for name in pictures)
    studio = [
        {"id": n, "data": {"image": f"/data/upload/1/{name}"},
         "annotations": [{"result": [{"type": "choices", "from_name": "c", "to_name": "i",
                                      "value": {"choices": [name[0]]}}]}]}
        for n, name in enumerate(pictures)
    ]  # fmt: skip
    steps = "time,x,y,label\n" + "".join(f"{n / 10},{n % 7},{n % 5},{'ab'[n // 20]}\n" for n in range(40))
    windows = "window,label,source,x,y\n"
    windows += "".join(f"{n // 4},{'ab'[n // 16]},{n // 4},{n % 7},{n % 5}\n" for n in range(32))
    values = {"label": list("ababab"), **{f"f{k}": [float(n + k) for n in range(6)] for k in range(8)}}
    table = ",".join(values) + "\n" + "".join(
        ",".join(str(column[n]) for column in values.values()) + "\n" for n in range(6)
    )  # fmt: skip
    series: dict[str, object] = {"front_end": "window", "options": WINDOW}
    sound = {"sample_rate_hz": 8000, "clip_s": 0.1, "window_ms": 32, "hop_ms": 16, "mels": 8}
    boxes: dict[str, object] = {"dataset": "boxes", "task": "detection"}
    return {
        "voc": (marked["voc"], ".xml .txt", boxes | {"split": "ImageSets/Main"}),
        "coco": (marked["coco"], ".json", boxes),
        "yolo": (marked["yolo"], ".txt .yaml", boxes),
        "cvat_boxes": (CVAT, ".xml", boxes),
        "label_studio_boxes": (STUDIO, ".json", boxes),
        "list": (pictures | {"labels.csv": listed.encode()}, ".csv", {"dataset": "labelled_images"}),
        "cvat": (
            {f"images/{name}": one for name, one in pictures.items()}
            | {"annotations.xml": f"<annotations>{cvat}</annotations>".encode()}, ".xml", {"dataset": "cvat"},
        ),
        "label_studio": (pictures | {"e.json": json.dumps(studio).encode()}, ".json", {"dataset": "label_studio"}),
        "class_folders": (pictures, ".png", {"dataset": "class_folders", "allow_corrupt": 1}),
        "sounds": (
            {f"{'ab'[n % 2]}/{n}.wav": _wav(n) for n in range(6)}, ".wav",
            {"dataset": "class_folders", "front_end": "log_mel", "options": sound, "allow_corrupt": 1},
        ),
        "events": (
            {f"{n}.wav": _wav(n) for n in range(3)}
            | {f"{n}.csv": b"start_s,end_s,label\n.02,.06,tap\n" for n in range(3)},
            ".wav .csv",
            {"dataset": "sound_events", "task": "stream_events", "front_end": "log_mel",
             "options": {**sound, "clip_s": 0.06, "stride_s": 0.02}},
        ),
        "arrays_in_folders": (
            {f"{'ab'[n % 2]}/{n}.npy": _npy([[n, 1.0]] * 4) for n in range(6)}, ".npy",
            {"dataset": "class_folders", "allow_corrupt": 1} | series,
        ),
        "recordings": ({"r/one.csv": steps.encode()}, ".csv", {"dataset": "recordings"} | series),
        "windows": ({"w.csv": windows.encode()}, ".csv", {"dataset": "windows"} | series),
        "features": ({"f.csv": table.encode()}, ".csv", {"dataset": "features"} | series),
        "parquet": ({"f.parquet": _parquet(values)}, ".parquet", {"dataset": "features"} | series),
        "npz": ({"x.npz": _npz()}, ".npz", {"dataset": "arrays", "path": "x.npz"} | series),
        "zip": ({"p.zip": _zip(pictures)}, ".zip", {"dataset": "class_folders", "path": "p.zip"}),
        "unlabelled": (
            {name.replace("/", "-"): one for name, one in pictures.items()}
            | {"sources.csv": sources.encode()},
            ".csv .png", {"dataset": "unlabelled", "allow_corrupt": 1},
        ),
        "array": ({"x.npy": _npy([[[1.0, 2.0]] * 4] * 5)}, ".npy", {"dataset": "unlabelled", "path": "x.npy"} | series),
    }  # fmt: skip


NAMES = ("voc", "coco", "yolo", "cvat_boxes", "label_studio_boxes", "list", "cvat", "label_studio", "class_folders",
         "sounds", "arrays_in_folders", "events", "recordings", "windows", "features", "parquet", "npz", "zip",
         "unlabelled", "array")  # fmt: skip


ALLOWED = ("class_folders", "sounds", "arrays_in_folders", "unlabelled")
"""One broken file is allowed, so that nearly each damaged set is still a table."""


def _late(_number: int, _frame: object) -> None:
    raise TimeoutError(f"more than {ROUND_S} s")


def try_damage(name: str, folder: Path) -> dict[str, int]:
    """Return how often each kind of end came; ``escaped …`` is what must not be. Run in a process of its own."""
    from compressor import data  # noqa: PLC0415 - only in that process
    from compressor.errors import CompressorError  # noqa: PLC0415 - as above
    from compressor.recipe.model import DataRecipe  # noqa: PLC0415 - as above
    from tests.compressor.test_fuzz import damaged  # noqa: PLC0415 - as above

    files, endings, given = layouts()[name]
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    recipe = DataRecipe(**{"path": ".", **given})  # type: ignore[arg-type]
    assert len(data.load(recipe, folder))  # whole, it is a set
    targets = [path for path in files if path.endswith(tuple(endings.split()))]
    rng, ends = random.Random(name), dict[str, int]()  # noqa: S311 - damage, no secret
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGALRM, _late)
    for _ in range(ROUNDS):
        path = folder / rng.choice(targets)
        whole = path.read_bytes()
        path.write_bytes(damaged(whole, rng))
        signal.alarm(ROUND_S)
        try:
            end = f"table of {type(data.load(recipe, folder)).__name__}"
        except CompressorError as error:
            end = "coded" if error.code != "internal" and "\n" not in str(error) else f"escaped {error!r}"
        except BaseException as error:  # noqa: BLE001 - what escapes is what is looked for
            end = f"escaped {error!r} at {traceback.format_tb(error.__traceback__)[-1].strip()}"
        signal.alarm(0)
        path.write_bytes(whole)
        ends[end] = ends.get(end, 0) + 1
    return ends


@pytest.mark.nightly
@pytest.mark.parametrize("name", NAMES)
def test_damage_is_a_table_or_one_coded_error(name: str, tmp_path: Path) -> None:
    """200 kinds of damage of each layout."""
    command = [sys.executable, "-m", "tests.compressor.test_fuzz_data", name, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    ends: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    assert {end for end in ends if not end.startswith(("table", "coded"))} == set()
    assert ends.get("coded", 0) >= (0 if name in ALLOWED else ROUNDS // 10)


if __name__ == "__main__":
    print(json.dumps(try_damage(sys.argv[1], Path(sys.argv[2]))))  # noqa: T201 - to the test that started it
