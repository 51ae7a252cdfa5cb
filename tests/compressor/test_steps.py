"""Every step of ``[[compress]]`` fulfils the contract of all steps, a new file in the folder included."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from compressor import networks, steps
from compressor.errors import PluginError, RecipeError
from compressor.recipe.model import TrainRecipe
from compressor.steps._base import ARTIFACT, NETWORK, Applied, Bench, Rows
from compressor.steps._settings import Settings
from compressor.train import checkpoint
from wire.settings import Bound, rules

OPTIONS = {"filters": 4, "stem_stride": 2}
SMALL = {"epochs": 1, "fine_tune_epochs": 1, "rounds": 1, "round_to": 1}
LEVELS = {name: steps.module(name).LEVEL for name in steps.names()}
NETWORK_STEPS = [name for name, level in LEVELS.items() if level == NETWORK]


def fresh() -> torch.nn.Module:
    """Return the tiny network, as on every host."""
    return networks.build("resnet8", 3, 3, 16, 16, OPTIONS).eval()


def rows(seed: int) -> Rows:
    """Return 16 seeded rows of three classes that differ in light."""
    labels = np.arange(16, dtype=np.int64) % 3
    noise = np.random.default_rng(seed).normal(0, 0.3, (16, 3, 16, 16))
    return Rows((noise + labels[:, None, None, None] - 1).astype(np.float32), labels)


def small(name: str) -> Settings:
    """Return the step's defaults with as little training as it can do."""
    settings = steps.module(name).Settings()
    known = {field.name for field in dataclasses.fields(settings)}
    made: Settings = dataclasses.replace(settings, **{key: SMALL[key] for key in known & set(SMALL)})
    return made


def applied(name: str, network: torch.nn.Module) -> Applied:
    """Return the result of the step for ``network`` on a small bench."""
    bench = Bench(
        train=rows(1),
        calibration=rows(2),
        search=rows(3),
        settings=TrainRecipe(epochs=1, fine_tune_epochs=1, batch=8),
        teacher=fresh(),
    )
    return steps.apply(network, bench, small(name))


@pytest.fixture(scope="module", params=NETWORK_STEPS)
def done(request: pytest.FixtureRequest) -> tuple[str, Applied]:
    """A network step's name and its result, made once."""
    return request.param, applied(request.param, fresh())


def test_all_steps_of_the_issue_are_there() -> None:
    """The names are those of the files, and each has a level."""
    assert {"prune", "sparsify", "distill", "fine_tune", "qat", "equalize", "quantize"} <= set(steps.names())
    assert set(LEVELS.values()) <= {NETWORK, ARTIFACT}
    assert "_base" not in steps.names()


@pytest.mark.parametrize("name", steps.names())
def test_the_settings_are_a_frozen_value_named_as_the_file(name: str) -> None:
    """A recipe finds the file by ``step``, and the cache keys results by the settings' text."""
    settings = steps.module(name).Settings()
    assert dataclasses.fields(settings)[0].name == "step"
    assert settings.step == name
    assert repr(settings) == repr(type(settings)())
    assert steps.level(settings) == LEVELS[name]
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.step = "other"
    assert not hasattr(settings, "__dict__")


@pytest.mark.parametrize("name", steps.names())
def test_the_defaults_are_in_their_own_ranges(name: str) -> None:
    """``step = "<name>"`` alone is a step that runs."""
    steps.check(steps.module(name).Settings())


@pytest.mark.parametrize("name", steps.names())
def test_a_value_out_of_range_is_said_with_its_key(name: str) -> None:
    """Each number is refused below its bound and above it, and accepted at both, by name."""
    settings = steps.module(name).Settings()
    bounds = {key: rule for key, rule in rules(type(settings)).items() if isinstance(rule, Bound)}
    for key, bound in bounds.items():
        steps.check(dataclasses.replace(settings, **{key: bound.low}))
        steps.check(dataclasses.replace(settings, **{key: bound.high}))
        for value in (bound.low - 1, bound.high + 1):
            with pytest.raises(RecipeError, match=rf"\[\[compress\]\] {name} {key} between"):
                steps.check(dataclasses.replace(settings, **{key: value}))


def test_an_unknown_step_names_the_nearest() -> None:
    """The mistake of one letter is understood."""
    with pytest.raises(PluginError, match="did you mean 'quantize'"):
        steps.module("quantise")


def test_naming_and_checking_steps_loads_no_torch() -> None:
    """A recipe with a mistake is refused in a moment."""
    code = (
        "import sys; from compressor import steps\n"
        "for name in steps.names(): steps.check(steps.module(name).Settings())\n"
        "sys.exit(', '.join({'torch', 'onnxruntime', 'onnx', 'torch_pruning'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.stderr.strip() == ""


def test_it_is_the_network_with_the_modules_it_had(done: tuple[str, Applied]) -> None:
    """Nothing is added, renamed, removed or wrapped: the state dict is all there is to keep."""
    _, result = done
    before, after = dict(fresh().named_modules()), dict(result.network.named_modules())
    assert list(after) == list(before)
    assert [type(module) for module in after.values()] == [type(module) for module in before.values()]
    assert list(result.network.state_dict()) == list(fresh().state_dict())


def test_it_returns_logits_of_all_classes_and_an_embedding(done: tuple[str, Applied]) -> None:
    """The shapes that the device reads stay; only the embedding may narrow."""
    _, result = done
    with torch.no_grad():
        logits, embedding = result.network.eval()(torch.from_numpy(rows(4).inputs))
        _, before = fresh()(torch.from_numpy(rows(4).inputs))
    assert (logits.shape, embedding.ndim) == ((16, 3), 2)
    assert 0 < embedding.shape[1] <= before.shape[1]
    assert logits.isfinite().all()
    assert embedding.isfinite().all()


def test_it_leaves_finite_weights_that_are_not_those_it_was_given(done: tuple[str, Applied]) -> None:
    """A step that does nothing would pass for one that works."""
    _, result = done
    state, before = result.network.state_dict(), fresh().state_dict()
    assert result.finite()
    assert any(state[key].shape != before[key].shape or not state[key].equal(before[key]) for key in before)


def test_it_survives_disk_with_its_ranges(done: tuple[str, Applied], tmp_path: Path) -> None:
    """A fresh network fitted to the saved shapes has exactly the same outputs."""
    _, result = done
    checkpoint.save(result.network, tmp_path / "weights.pt", result.ranges)
    again = checkpoint.load(fresh(), tmp_path / "weights.pt")
    inputs = torch.from_numpy(rows(4).inputs)
    with torch.no_grad():
        pairs = zip(again(inputs), result.network.eval()(inputs), strict=True)
    assert all(left.equal(right) for left, right in pairs)
    assert checkpoint.load_ranges(tmp_path / "weights.pt") == dict(result.ranges)


def test_what_it_says_can_be_kept_as_json(done: tuple[str, Applied]) -> None:
    """Notes are text and finite numbers under text, and ranges are ordered pairs."""
    name, result = done
    assert result.notes, name
    numbers = [value for value in result.notes.values() if isinstance(value, int | float)]
    assert all(isinstance(key, str) for key in result.notes)
    assert np.isfinite(numbers).all()
    assert all(low <= high for low, high in result.ranges.values())


def test_equal_copies_become_equal(done: tuple[str, Applied]) -> None:
    """Same network, rows, settings and seed: the same bits, or the cache and ``verify --rebuild`` would lie."""
    name, result = done
    torch.manual_seed(99)  # whatever ran before in this process must not matter
    np.random.seed(99)  # noqa: NPY002 - the global state is the point
    again = applied(name, copy.deepcopy(fresh()))
    ours, theirs = result.network.state_dict(), again.network.state_dict()
    assert all(ours[key].equal(theirs[key]) for key in ours)
    assert dict(again.ranges) == dict(result.ranges)


WRAPS = """
from dataclasses import dataclass
from torch import nn
from compressor.steps._base import NETWORK, Applied
LEVEL = NETWORK

@dataclass(frozen=True, slots=True)
class Settings:
    step: str = "wraps"

def check(settings):
    pass

def apply(network, bench, settings):
    return Applied(nn.Sequential(network))
"""


def test_a_step_that_wraps_the_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the folder is a step, and its contract is checked when it is applied."""
    (tmp_path / "wraps.py").write_text(WRAPS)
    folders = [*steps.__path__, str(tmp_path)]
    monkeypatch.setattr(steps, "__path__", folders)
    monkeypatch.setattr(steps.__spec__, "submodule_search_locations", folders)
    assert "wraps" in steps.names()
    with pytest.raises(PluginError, match="Expected the modules to stay as they were in step 'wraps'"):
        applied("wraps", fresh())
