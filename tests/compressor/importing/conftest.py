"""Small networks of the kinds that people export, with random weights, and their ONNX files."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

Exported = Callable[..., bytes]
SHAPE = (1, 12, 12)


class Padded(nn.Module):
    """Uneven pads before a convolution and a pool, and TensorFlow's SAME."""

    def __init__(self) -> None:
        """Make two convolutions."""
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(1, 8, 3, stride=2), nn.Conv2d(8, 12, 3), nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        x = functional.relu(self.a(functional.pad(x, (0, 1, 0, 1))))
        x = functional.max_pool2d(functional.pad(x, (0, 1, 1, 0)), 2, stride=1)
        return self.head(functional.relu6(self.b(functional.pad(x, (1, 1, 1, 1)))).mean((2, 3)))


class Residual(nn.Module):
    """ResNet-like, with norms, that an export in training mode keeps."""

    def __init__(self, activation: Callable[[], nn.Module] = nn.ReLU) -> None:
        """Make a stem, a block and a head."""
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), activation())
        self.block = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), activation(), nn.Conv2d(8, 8, 3, padding=1)
        )
        self.last, self.head = activation(), nn.Linear(8, 5)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        x = self.stem(x)
        x = functional.max_pool2d(self.last(x + self.block(x)), 2)
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


def depthwise() -> nn.Module:
    """Return a DS-CNN-like network whose head is a convolution with a softmax."""
    return nn.Sequential(
        nn.Conv2d(1, 8, (4, 3), stride=2, padding=(1, 1)), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.ReLU6(), nn.Dropout(0.2),
        nn.AvgPool2d(3, stride=2, padding=1), nn.Conv2d(16, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softmax(1),
    )  # fmt: skip


class Shuffle(nn.Module):
    """A ShuffleNet block: two halves, a channel shuffle by a reshape of five axes."""

    def __init__(self) -> None:
        """Make the two halves."""
        super().__init__()
        self.stem, self.part = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        left, right = self.stem(x).chunk(2, 1)
        x = torch.cat([left, functional.relu(self.part(right))], 1)
        size, channels, height, width = x.shape
        x = (
            x.view(size, 2, channels // 2, height, width)
            .transpose(1, 2)
            .contiguous()
            .view(size, channels, height, width)
        )
        return self.head(x.mean([2, 3]))


class Transformer(nn.Module):
    """A tiny vision transformer: patches, a class token, positions, attention, GELU, layer norms."""

    def __init__(self) -> None:
        """Make one block of two heads, 16 wide."""
        super().__init__()
        self.patches = nn.Conv2d(1, 16, 4, stride=4)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 10, 16) * 0.1)
        self.first, self.second = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp, self.head = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        size, steps, width = x.shape
        q, k, v = self.qkv(self.first(x)).reshape(size, steps, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        weights = ((q @ k.transpose(-2, -1)) * (width // 2) ** -0.5).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(size, steps, width))
        return self.head((x + self.mlp(self.second(x)))[:, 0])


class Masked(nn.Module):
    """Attention with a constant causal mask."""

    def __init__(self) -> None:
        """Make the projections."""
        super().__init__()
        self.q, self.k, self.v, self.head = (nn.Linear(12, 12) for _ in range(4))
        self.register_buffer("mask", torch.triu(torch.full((12, 12), -60.0), 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return 12 logits of 12 steps."""
        x = x[:, 0]
        scores = self.q(x) @ self.k(x).transpose(1, 2) / 12**0.5 + self.mask
        return self.head((scores.softmax(-1) @ self.v(x))[:, -1])


class Recurrent(nn.Module):
    """A convolution, then a recurrent layer over the columns."""

    def __init__(self, kind: type[nn.RNNBase], *, both: bool = False) -> None:
        """Make a layer of ``kind``, in one direction or ``both``."""
        super().__init__()
        self.conv, self.layer = nn.Conv2d(1, 4, 3, padding=1), kind(48, 6, batch_first=True, bidirectional=both)
        self.head = nn.Linear(12 if both else 6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        x = functional.relu(self.conv(x)).permute(0, 3, 1, 2).flatten(2)
        steps = self.layer(x)[0]
        return self.head(steps.mean(1) if self.layer.bidirectional else steps[:, -1])


class Shared(nn.Module):
    """One convolution that runs twice."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.stem, self.twice, self.head = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.head(self.twice(torch.relu(self.twice(torch.relu(self.stem(x))))).mean((2, 3)))


class Decoder(nn.Module):
    """Resizes, transposed convolutions, group and instance norms, slices, PReLU."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.down, self.norm = nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.GroupNorm(2, 8)
        self.up, self.instance = (
            nn.ConvTranspose2d(8, 8, 4, stride=2, padding=1, groups=2),
            nn.InstanceNorm2d(8, affine=True),
        )
        self.prelu, self.head = nn.PReLU(8), nn.Linear(8, 5)
        for norm in (self.norm, self.instance):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        x = functional.leaky_relu(self.norm(self.down(x)))
        wide = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        smooth = functional.interpolate(x, size=(12, 12), mode="bilinear", align_corners=False)
        x = self.prelu(self.instance(self.up(x))) + wide + smooth
        return self.head(x[:, :, 1:-1, ::2].amax((2, 3)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "padded": Padded,
    "residual": Residual,
    "hard_swish": lambda: Residual(nn.Hardswish),
    "silu": lambda: Residual(nn.SiLU),
    "mish": lambda: Residual(nn.Mish),
    "depthwise": depthwise,
    "shuffle": Shuffle,
    "transformer": Transformer,
    "masked": Masked,
    "gru": lambda: Recurrent(nn.GRU),
    "lstm": lambda: Recurrent(nn.LSTM, both=True),
    "rnn": lambda: Recurrent(nn.RNN),
    "shared": Shared,
    "decoder": Decoder,
}


def export(network: nn.Module, opset: int = 17, *, norms: bool = False, batch: bool = True) -> bytes:
    """Return ``network`` as ONNX; ``norms``: keep batch norms; ``batch``: open."""
    buffer = io.BytesIO()
    mode = torch.onnx.TrainingMode.PRESERVE if norms else torch.onnx.TrainingMode.EVAL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(), (torch.zeros(1, *SHAPE),), buffer, dynamo=False, opset_version=opset, training=mode,
            do_constant_folding=not norms, input_names=["image"], output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}} if batch else None,
        )  # fmt: skip
    return buffer.getvalue()


@pytest.fixture(scope="session")
def exported() -> Exported:
    """Return what makes a network by name and returns its ONNX file; the same call gives the same bytes."""
    kept: dict[tuple[object, ...], bytes] = {}

    def make(name: str, opset: int = 17, *, norms: bool = False, batch: bool = True) -> bytes:
        key = (name, opset, norms, batch)
        if key not in kept:
            torch.manual_seed(7)
            kept[key] = export(NETWORKS[name](), opset, norms=norms, batch=batch)
        return kept[key]

    return make


@pytest.fixture
def file() -> Callable[..., bytes]:
    """Return what makes an ONNX file of nodes: its input is ``x``, its output ``y``."""

    def make(
        nodes: list[onnx.NodeProto], weights: dict[str, object] | None = None,
        shape: tuple[object, ...] = ("N", 2, 6, 6), opset: int = 17,
    ) -> bytes:  # fmt: skip
        held = [onnx.numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
        given = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)
        domains = {node.domain for node in nodes} - {""}
        graph = onnx.helper.make_graph(nodes, "graph", [given], [onnx.helper.make_empty_tensor_value_info("y")], held)
        graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        imports = [onnx.helper.make_opsetid("", opset), *(onnx.helper.make_opsetid(one, 1) for one in domains)]
        model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)
        model = onnx.shape_inference.infer_shapes(model)
        kind = model.graph.output[0].type.tensor_type
        kind.shape.SetInParent()  # required, also where nothing is known
        return bytes(model.SerializeToString())

    return make
