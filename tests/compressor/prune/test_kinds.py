"""Networks of every kind are pruned rightly, or named parts of them are left alone; no network ends in a traceback."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional

from compressor import steps
from compressor.errors import PruneError, StepDidNothingError
from compressor.export.onnx import export_onnx
from compressor.prune.groups import narrow
from compressor.prune.plan import layer_macs
from compressor.prune.settings import PruneSettings
from compressor.prune.soundness import sound_groups
from compressor.recipe.model import TrainRecipe
from compressor.steps._base import Bench, Rows
from compressor.train.checkpoint import fit

SHAPE = (1, 16, 16)
QUICK = PruneSettings(macs_ratio=0.8, rounds=1, fine_tune_epochs=0)
Parts = dict[str, nn.Module]


class _Net(nn.Module):
    """Layers by name, and what to do with them up to the embedding; a linear layer ``head`` gives the logits."""

    def __init__(self, body: Callable[[Parts, torch.Tensor], torch.Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.body, self.layers = body, nn.ModuleDict(layers)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        embedding = self.body(dict(self.layers), x)
        logits: torch.Tensor = self.layers["head"](embedding)
        return logits, embedding


def _pool(x: torch.Tensor) -> torch.Tensor:
    return x.mean((2, 3))


def _conv(inputs: int, outputs: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, groups=groups)


def _grouped(outputs: int = 32) -> nn.Module:
    def body(net: Parts, x: torch.Tensor) -> torch.Tensor:
        return _pool(functional.relu(net["b"](functional.relu(net["norm"](net["a"](x))))))

    return _Net(
        body, a=_conv(1, 32, stride=2), norm=nn.BatchNorm2d(32), b=_conv(32, outputs, stride=2, groups=4),
        head=nn.Linear(outputs, 10),
    )  # fmt: skip


def _shuffle() -> nn.Module:
    def body(net: Parts, x: torch.Tensor) -> torch.Tensor:
        kept, changed = functional.relu(net["a"](x)).chunk(2, 1)
        y = torch.cat([kept, functional.relu(net["point"](net["deep"](changed)))], 1)
        rows, channels, height, width = y.shape
        y = y.view(rows, 2, channels // 2, height, width).transpose(1, 2).reshape(rows, channels, height, width)
        return _pool(functional.relu(net["last"](y)))

    return _Net(
        body, a=_conv(1, 32, stride=2), deep=_conv(16, 16, groups=16), point=nn.Conv2d(16, 16, 1),
        last=_conv(32, 32, stride=2), head=nn.Linear(32, 10),
    )  # fmt: skip


def _recurrent(kind: type[nn.RNNBase] = nn.GRU) -> nn.Module:
    def body(net: Parts, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = functional.relu(net["a"](x)).permute(0, 3, 1, 2).flatten(2)
        states: torch.Tensor = net["steps"](y)[0]
        return functional.relu(net["after"](states[:, -1]))

    return _Net(
        body, a=_conv(1, 8, stride=2), steps=kind(64, 16, batch_first=True), after=nn.Linear(16, 1024),
        head=nn.Linear(1024, 10),
    )  # fmt: skip


def _attention() -> nn.Module:
    def body(net: Parts, x: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = net["norm"](net["block"](net["patches"](x).flatten(2).transpose(1, 2)))
        return tokens.mean(1)

    block = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    return _Net(body, patches=nn.Conv2d(1, 32, 4, 4), block=block, norm=nn.LayerNorm(32), head=nn.Linear(32, 10))


def _view() -> nn.Module:
    def body(net: Parts, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = functional.relu(net["wide"](_pool(functional.relu(net["a"](x))))).view(-1, 16, 4, 4)
        return _pool(functional.relu(net["up"](y)))

    return _Net(
        body, a=_conv(1, 16, stride=2), wide=nn.Linear(16, 256), up=nn.ConvTranspose2d(16, 32, 4, 2, 1),
        head=nn.Linear(32, 10),
    )  # fmt: skip


def _norms(norm: nn.Module) -> nn.Module:
    def body(net: Parts, x: torch.Tensor) -> torch.Tensor:
        return _pool(functional.relu(net["b"](functional.relu(net["norm"](net["a"](x))))))

    return _Net(body, a=_conv(1, 32, stride=2), norm=norm, b=_conv(32, 32, stride=2), head=nn.Linear(32, 10))


def _squeezed() -> nn.Module:
    """Logits that are made by a convolution and a mean after it, as SqueezeNet's."""

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.classes = _conv(1, 32, stride=2), nn.Conv2d(32, 16, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = functional.relu(self.a(x))
            return _pool(functional.relu(self.classes(y))), _pool(y)

    return Pooled()


KINDS: dict[str, tuple[Callable[[], nn.Module], set[str], set[str]]] = {
    "grouped": (_grouped, {"layers.a", "layers.b"}, set()),
    "shuffle": (_shuffle, {"layers.last"}, {"layers.a", "layers.point"}),
    "GRU": (_recurrent, {"layers.after"}, {"layers.a"}),
    "LSTM": (lambda: _recurrent(nn.LSTM), {"layers.after"}, {"layers.a"}),
    "attention": (_attention, {"layers.block.linear1"}, {"layers.patches", "layers.block.linear2"}),
    "view": (_view, {"layers.a", "layers.up"}, {"layers.wide"}),
    "group norm": (lambda: _norms(nn.GroupNorm(4, 32)), {"layers.a", "layers.b"}, set()),
    "layer norm": (lambda: _norms(nn.GroupNorm(1, 32)), {"layers.a", "layers.b"}, set()),
    "squeezed": (_squeezed, {"a"}, {"classes"}),
}
"""A network of each kind, the layers that may be narrowed, and those that must be left alone."""
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def small() -> Bench:
    """Return a bench of noise."""
    drawn = np.random.default_rng(0)
    rows = Rows(drawn.standard_normal((32, *SHAPE)).astype(np.float32), np.arange(32) % 10)
    return Bench(train=rows, calibration=rows, search=rows, settings=TrainRecipe(batch=16, augment=0.0))


def _network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return KINDS[kind][0]().eval()


@kinds
def test_every_kind_is_narrowed_where_that_is_right(kind: str) -> None:
    """The layers that may be narrowed are found; the others are left alone by name, with a reason."""
    found = sound_groups(_network(kind), SHAPE)
    _, free, left = KINDS[kind]
    assert {layer for group in found.groups for layer in group.layers} == free
    assert {layer for layers in found.left_alone for layer in layers} >= left
    assert all(found.left_alone.values())
    assert all(layer in found.reasons() for layer in left)


@kinds
def test_every_kind_prunes_runs_loads_and_exports(small: Bench, kind: str) -> None:
    """A pruned network answers at two batches, from its weights alone and from its exported file, all the same."""
    applied = steps.apply(_network(kind), small, QUICK)
    network, again = applied.network.eval(), fit(_network(kind), applied.network.state_dict())
    session = onnxruntime.InferenceSession(export_onnx(copy.deepcopy(network), *SHAPE))
    assert applied.notes["macs_after"] <= 0.8 * applied.notes["macs_before"]
    assert KINDS[kind][2] <= set(applied.notes.get("left_alone", "").replace(":", ",").replace(" ", "").split(","))
    for rows in (1, 5):
        x = small.search.inputs[:rows]
        with torch.no_grad():
            wanted = network(torch.from_numpy(x))[0].numpy()
            np.testing.assert_allclose(again(torch.from_numpy(x))[0].numpy(), wanted, atol=1e-5)
        np.testing.assert_allclose(session.run(["logits"], {"input": x})[0], wanted, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grouped", "attention", "view"])
def test_every_kind_exports_to_tflite(small: Bench, kind: str) -> None:
    """The TFLite file of a pruned network answers as the network."""
    interpreters = pytest.importorskip("ai_edge_litert.interpreter")
    from compressor.export.tflite import export_tflite  # noqa: PLC0415 - the extra tflite

    network = steps.apply(_network(kind), small, QUICK).network.eval()
    row = small.search.inputs[:1]
    interpreter = interpreters.Interpreter(model_content=export_tflite(network, *SHAPE))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], row.transpose(0, 2, 3, 1))
    interpreter.invoke()
    answers = {one["name"]: interpreter.get_tensor(one["index"]) for one in interpreter.get_output_details()}
    with torch.no_grad():
        np.testing.assert_allclose(answers["logits"], network(torch.from_numpy(row))[0].numpy(), atol=1e-4)


@pytest.mark.parametrize("kind", ["grouped", "group norm"])
def test_whole_groups_go_and_the_others_stay_as_they_were(kind: str) -> None:
    """Without the groups whose outputs nobody reads, the outputs are exactly those of before."""
    network = _network(kind)
    group = next(group for group in sound_groups(network, SHAPE).groups if group.block == 8)
    assert len(group.blocks) == 4
    reader = network.get_parameter("layers.head.weight" if kind == "grouped" else "layers.b.weight")
    with torch.no_grad():
        reader[:, list(group.blocks[1])] = 0
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    before = network(x)[0]
    narrowed = narrow(network, SHAPE, {group.root: group.blocks[1]})
    layer = narrowed.get_submodule("layers.b" if kind == "grouped" else "layers.norm")
    assert (layer.groups if isinstance(layer, nn.Conv2d) else layer.num_groups) == 3
    assert torch.allclose(before, narrowed(x)[0], atol=1e-5)


def test_part_of_a_group_is_never_removed() -> None:
    """Half of a convolution's group can't go: the message has the size of its groups."""
    group = sound_groups(_grouped(), SHAPE).groups[0]
    with pytest.raises(PruneError, match="whole groups of 8"):
        narrow(_grouped(), SHAPE, {group.root: group.blocks[0][:4]})


def test_a_network_of_which_nothing_can_be_pruned_is_a_named_error(small: Bench) -> None:
    """The error names each layer and why; ``allow_unchanged`` accepts it."""
    with pytest.raises(StepDidNothingError, match=r"layers.a.*layers.b, a Conv2d with 32 inputs and 16 outputs in 4"):
        steps.apply(_grouped(16), small, QUICK)
    applied = steps.apply(_grouped(16), small, replace(QUICK, allow_unchanged=True))
    assert "layers.b" in applied.notes["left_alone"]


@pytest.mark.parametrize(("kind", "said"), [(nn.GRU, "steps: GRU"), (nn.LSTM, "steps: LSTM")])
def test_a_recurrent_layer_without_others_is_named(kind: type[nn.RNNBase], said: str, small: Bench) -> None:
    """It is never narrowed; without a layer that feeds it, no group of channels speaks of it."""

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = kind(SHAPE[0] * SHAPE[2], 16, batch_first=True)
            self.head = nn.Linear(16, 10)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            last = self.steps(x.permute(0, 2, 1, 3).flatten(2))[0][:, -1]
            return self.head(last), last

    with pytest.raises(StepDidNothingError, match=said):
        steps.apply(Rows(), small, QUICK)


def test_a_share_out_of_reach_names_what_is_left_alone(small: Bench) -> None:
    """If most of the work is in layers that are left alone, the error says so."""
    with pytest.raises(PruneError, match=r"left alone are .*layers.block.self_attn, a MultiheadAttention"):
        steps.apply(_attention(), small, replace(QUICK, macs_ratio=0.3))


@pytest.mark.parametrize(("ratio", "said"), [(0.5, "layers.last (8 of 32)"), (0.9, None)])
def test_a_layer_that_bears_all_the_pruning_is_named(ratio: float, said: str | None, small: Bench) -> None:
    """Behind a channel shuffle only the last layer can be narrowed: ten classes from eight features lose accuracy."""
    applied = steps.apply(_shuffle(), small, replace(QUICK, macs_ratio=ratio))
    assert applied.notes.get("bears_the_rest") == said


def test_macs_of_attention_and_recurrent_layers_are_counted() -> None:
    """As by hand: four projections, then queries with keys and values; three gates of a GRU for each step."""
    assert layer_macs(_attention(), *SHAPE)["layers.block.self_attn"] == 16 * 4 * 32 * 32 + 2 * 16 * 16 * 32
    assert layer_macs(_attention(), *SHAPE)["layers.block.linear1"] == 16 * 32 * 64
    assert layer_macs(_recurrent(), *SHAPE)["layers.steps"] == 8 * 3 * 16 * (64 + 16)
    assert layer_macs(_view(), *SHAPE)["layers.up"] == 16 * 4 * 4 * 32 * 16


class _Moved(nn.Module):
    """Moves its channels by a reshape that fits any even number: it runs without some of them, but wrongly."""

    def __init__(self, *, halves: bool = False) -> None:
        super().__init__()
        self.halves = halves
        self.a, self.b, self.head = _conv(1, 32, stride=2), _conv(16 if halves else 32, 16), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = functional.relu(self.a(x))
        rows, channels, height, width = y.shape
        if self.halves:
            first, second = y.chunk(2, 1)
            y = first - second
        else:
            y = y.view(rows, 2, channels // 2, height, width).transpose(1, 2).reshape(rows, channels, height, width)
        y = _pool(functional.relu(self.b(y)))
        return self.head(y), y


@pytest.mark.parametrize(("halves", "why"), [(False, "get mixed up"), (True, "can't be told")])
def test_channels_that_would_get_mixed_up_are_found_by_their_outputs(*, halves: bool, why: str) -> None:
    """A network that runs without some channels, but not rightly, keeps them; it stays as it was."""
    network = _Moved(halves=halves)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = sound_groups(network, SHAPE)
    assert [group.root for group in found.groups] == ["b"]
    assert why in found.left_alone["a",]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert network.training
    assert type(network.a) is nn.Conv2d
