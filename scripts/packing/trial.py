"""What `edge-agent try` answers without arguments: the digits bundle, and pictures of the same camera.

The pictures are of sources that the model was not trained on, two of each digit.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

from PIL import Image

from compressor.data import digits
from compressor.data._split import split
from compressor.recipe.model import DataRecipe

EACH = 2
SHARE = 0.9
"""Of the pictures, at least this many are answered rightly and are inside of the training data."""
AGENT = "from edge_agent.cli import main; main()"
_SEED = 0  # of models/digits: the split
_DATE = (2026, 1, 1, 0, 0, 0)  # the archive is the same each time


def digits_bundle(root: Path, out: Path) -> Path:
    """Run ``models/digits`` and return its bundle.

    Raises:
        CalledProcessError: If it fails or does not pass its gates.
    """
    command = [sys.executable, "-m", "compressor.cli", "run", "models/digits", "--out", str(out)]
    subprocess.run(command, cwd=root, check=True)
    return next(out.glob("*.tfb"))


def write_pictures(path: Path) -> int:
    """Write ``path``, a zip of PNG files named after their digit; return how many."""
    table = digits.load(DataRecipe(dataset="digits"))
    rows = [int(row) for row in split(table, _SEED).gate]
    chosen = []
    for name in table.class_names:
        of_class = [row for row in rows if table.class_names[table.labels[row]] == name]
        chosen += [(name, row) for row in of_class[:: len(of_class) // EACH][:EACH]]
    with zipfile.ZipFile(path, "w") as archive:
        for number, (name, row) in enumerate(chosen):
            data = io.BytesIO()
            Image.fromarray(table.images[row]).save(data, "png")
            archive.writestr(zipfile.ZipInfo(f"{number:02}-a-{name}.png", _DATE), data.getvalue())
    return len(chosen)


def check(bundle: Path, pictures: Path, count: int) -> None:
    """Check with the device's own program that the pictures are inputs for the bundle.

    Raises:
        CalledProcessError: If the program fails.
        ValueError: If too few answers are right or supported.
    """
    command = [sys.executable, "-c", AGENT, "try", str(bundle), "--path", str(pictures), "--once"]
    answers = [json.loads(line) for line in subprocess.check_output(command).splitlines()]
    right = sum(answer["id"].partition(".")[0][-1] == answer.get("label") for answer in answers)
    supported = sum(answer.get("supported") is True for answer in answers)
    if min(right, supported, len(answers)) < SHARE * count:
        message = f"Expected at least {SHARE:.0%} of {count} pictures answered rightly and supported"
        raise ValueError(f"{message}, got {right} right and {supported} supported: look at {pictures}")
