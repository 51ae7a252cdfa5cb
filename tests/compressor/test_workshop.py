"""The key of a result has all of its inputs, including a network of the user's own."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compressor.cache import Cache, Result
from compressor.data._table import Table, make_table
from compressor.progress import Silent
from compressor.recipe.model import Recipe
from compressor.recipe.read import parse_recipe
from compressor.run.stages import Run
from wire.canonical import sha256_hex

RECIPE = parse_recipe(b'[model]\nname = "own"\nnetwork = "own_package.net:build"\n[data]\nwidth = 4\nheight = 4\n')
NETWORK = """
from torch import nn
from own_package.parts import pooled
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)
    def forward(self, x):
        seen = pooled(x)
        return self.head(seen), seen
def build(classes, channels, height, width):
    return Net()
"""
MEAN, MAX = (f"def pooled(x):\n    return x.{name}((2, 3))\n" for name in ("mean", "amax"))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's package ``own_package``, whose network pools by a function of another module."""
    folder = tmp_path / "code" / "own_package"
    folder.mkdir(parents=True)
    for name, text in {"__init__.py": "", "net.py": NETWORK, "parts.py": MEAN}.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return folder


def fresh(tmp_path: Path, recipe: Recipe = RECIPE) -> Run:
    """Return a run as in a new process: the user's modules are imported again."""
    for name in [name for name in sys.modules if name.startswith("own_package")]:
        del sys.modules[name]
    return Run(recipe=recipe, cache=Cache(tmp_path / "cache"), progress=Silent())


def weights(path: Path) -> Result:
    """Weights of the user's network, as for ``--checkpoint``."""
    import torch  # noqa: PLC0415 - after the user's package is on the path
    from own_package.net import build  # type: ignore[import-not-found]  # noqa: PLC0415 - made by the fixture

    from compressor.train import checkpoint  # noqa: PLC0415 - torch is loaded only where needed

    torch.manual_seed(0)
    checkpoint.save(build(2, 3, 4, 4), path)
    return Result(path.read_bytes(), sha256_hex(path.read_bytes()), cached=True)


def rows() -> Table:
    """Two images."""
    images = [np.full((4, 4, 3), grey, np.uint8) for grey in (10, 200)]
    return make_table(images, ["0", "1"], slices=["all", "all"])


def test_a_changed_module_of_the_users_package_is_exported_anew(tmp_path: Path, package: Path) -> None:
    """Same weights, other network: otherwise the cached file would be gated and released instead."""
    run = fresh(tmp_path)
    given = weights(tmp_path / "w.pt")
    first = run.export(given, 2)
    (package / "parts.py").write_text(MAX)
    second = fresh(tmp_path).export(given, 2)
    assert not second.cached
    assert second.digest != first.digest
    assert fresh(tmp_path).export(given, 2).cached


def test_logits_of_the_network_follow_the_preprocessing(tmp_path: Path, package: Path) -> None:
    """Same weights and images with another mean: cached logits would not match the new export."""
    del package
    run = fresh(tmp_path)
    given = weights(tmp_path / "w.pt")
    other = replace(RECIPE, data=replace(RECIPE.data, mean=0.1))
    before, after = run.torch_logits(given, rows()), fresh(tmp_path, other).torch_logits(given, rows())
    assert not np.allclose(before, after)
