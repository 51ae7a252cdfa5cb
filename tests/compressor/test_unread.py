"""A key that is not read, because of the rest of the recipe, is refused."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor import formats, plugins, steps
from compressor.errors import CompressorError, QuantizeError, RecipeError
from compressor.formats import KEYS
from compressor.gates.evidence import GateRecipe
from compressor.quantize import quantize, reads, schemes
from compressor.recipe import preflight
from compressor.recipe.model import DataRecipe, ModelRecipe, TargetRecipe, TrainRecipe
from compressor.recipe.read import parse_recipe
from compressor.steps.quantize import Settings
from compressor.tflite.quantizing import READS, SCHEMES

MINIMAL = '[model]\nname = "m"\n'
CHECKPOINT = MINIMAL + 'checkpoint = "w.pt"\n'
ONNX = MINIMAL + 'onnx = "m.onnx"\n'
LITERT = '[targets.pi]\nruntime = "litert"\n'
NUMBERS = MINIMAL + '[data]\nlabel = "number"\n'


def step(name: str, **settings: object) -> str:
    """Return a table of ``[[compress]]``."""
    texts = {key: str(value).lower() if isinstance(value, bool) else repr(value) for key, value in settings.items()}
    lines = [f"{key} = {value}" for key, value in texts.items()]
    return "\n".join(["[[compress]]", f'step = "{name}"', *lines, ""])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ONNX + "[train]\nepochs = 3\n", "no epochs in [train] with [model] onnx, which is not trained"),
        (ONNX + "[train]\nbatch = 3\n", "no batch in [train]"),
        (ONNX + 'network = "ds_cnn"\n', "no network in [model] with [model] onnx"),
        (MINIMAL + 'tflite = "m"\n' + LITERT + "[train]\nepochs = 3\n", "no epochs in [train] with [model] tflite"),
        (CHECKPOINT + "[train]\nbatch = 8\n", "no batch in [train] with [model] checkpoint"),
        (CHECKPOINT + "[train]\nepochs = 8\n" + step("qat"), "no epochs in [train] with [model] checkpoint"),
        (CHECKPOINT + "[train]\nema = 0.9\n" + step("qat"), "no ema in [train] with [model] checkpoint"),
        (CHECKPOINT + "[train]\nbatch = 8\n" + step("equalize"), "no batch in [train] with [model] checkpoint"),
        (NUMBERS + "[train]\nlabel_smoothing = 0.1\n", "no label_smoothing in [train] of a regression"),
        (NUMBERS + step("distill", temperature=2.0), "no temperature in [[compress]] distill of a regression"),
        (MINIMAL + step("distill", temperature=2.0, weight=0.0), "no temperature in [[compress]] distill with weight"),
        (MINIMAL + step("sparsify", pattern="2:4", sparsity=0.6), "no sparsity in [[compress]] sparsify with pattern"),
        (MINIMAL + step("prune", latency_ratio=0.5, macs_ratio=0.4), "no macs_ratio in [[compress]] prune with"),
        (MINIMAL + step("equalize", bias_correction=False, reduce_range=True), "no reduce_range in [[compress]] equal"),
        (MINIMAL + step("quantize", percentile=99.0), "no percentile in [[compress]] quantize with calibration"),
        (MINIMAL + LITERT + 'format = "ort"\n', "no format in [targets.pi] of runtime 'litert'"),
        (MINIMAL + "[gates]\nsize_bytes = {max = 9, confidence = 0.9}\n", "no confidence in [gates] size_bytes"),
        (MINIMAL + "[data]\nresize_to = 99\n", "no resize_to in [data] with resize = 'stretch', but only with 'centre"),
        (MINIMAL + '[data]\nresize = "centre_crop"\nfill = 9\n', "no fill in [data] with resize = 'centre_crop', but"),
    ],
)
def test_a_key_without_use_is_named(text: str, said: str) -> None:
    """With its table and the setting that makes it useless."""
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text.encode())
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        ONNX + "[train]\nseed = 3\n", ONNX + "[train]\nepochs = 12\n", CHECKPOINT + 'network = "ds_cnn"\n',
        CHECKPOINT + "[train]\nema = 0.9\n" + step("qat") + step("fine_tune"),
        CHECKPOINT + "[train]\nbatch = 8\n" + step("qat"), CHECKPOINT + "[train]\nfine_tune_epochs = 3\n",
        MINIMAL + "[train]\nlabel_smoothing = 0.1\n", MINIMAL + step("sparsify", sparsity=0.6),
        MINIMAL + step("prune", macs_ratio=0.4), MINIMAL + step("equalize", reduce_range=True),
        MINIMAL + step("quantize", percentile=99.0, calibration="percentile"),
        MINIMAL + step("quantize", percentile=99.0, rescue=0.01),
        MINIMAL + "[gates]\naccuracy_drop = {max = 0.01, confidence = 0.9}\n",
    ],
)  # fmt: skip
def test_a_key_of_use_is_not_refused(text: str) -> None:
    """The other side of each: the default, or the setting that makes it useful."""
    parse_recipe(text.encode())


@dataclasses.dataclass
class Recording:
    """Settings that note which of their keys are read."""

    settings: Settings
    seen: set[str]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the key has
        """Return the value of the key ``name``."""
        self.seen.add(name)
        return getattr(self.settings, name)


@pytest.mark.parametrize("scheme", schemes())
def test_a_scheme_reads_what_it_says(scheme: str) -> None:
    """Run on a small model with settings that record which keys are read."""
    batches = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    settings = Settings(scheme=scheme, calibration="percentile", float_layers_auto=1)
    recording = Recording(settings, set())
    found = plugins.resolve("compressor.quantize", scheme, "quantize", known=schemes())
    try:
        found(linear(), lambda: iter([batches]), recording)
    except CompressorError:
        assert scheme == "static_int8_16"
    assert recording.seen & set(KEYS) == reads(scheme)


def linear(*, biased: bool = True) -> bytes:
    """Return ``y = x w + b`` twice, float32 (N, 4) to (N, 4); or without ``b``."""
    import onnx  # noqa: PLC0415 - only here
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415 - only here

    weights = [numpy_helper.from_array(np.random.default_rng(n).random((4, 4), np.float32), f"w{n}") for n in (0, 1)]
    weights += [numpy_helper.from_array(np.ones(4, np.float32), f"b{n}") for n in (0, 1)]
    nodes = [
        helper.make_node("Gemm", ["x", "w0", "b0"][: 2 + biased], ["h"], "one"),
        helper.make_node("Gemm", ["h", "w1", "b1"][: 2 + biased], ["y"], "two"),
    ]
    edges = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", edges[:1], edges[1:], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    data: bytes = made.SerializeToString()
    return data


@pytest.mark.parametrize(
    ("settings", "runtimes", "key"),
    [
        ({"scheme": "float16", "float_layers": ("a",)}, ("onnx",), "float_layers"),
        ({"scheme": "float16", "float_layers": ("a",)}, ("litert",), ""),
        ({"scheme": "float16", "float_layers": ("a",)}, ("litert", "onnx"), ""),
        ({"scheme": "weight_int8", "calibration": "mse"}, ("onnx", "litert"), "calibration"),
        ({"scheme": "weight_int8", "calibration": "mse", "rescue": 0.1}, ("onnx",), ""),
        ({"integer_io": True}, ("onnx",), "integer_io"),
        ({"integer_io": True}, ("litert",), ""),
        ({"scheme": "mine.py:scheme", "integer_io": True}, ("onnx",), ""),
    ],
)
def test_settings_of_another_scheme_are_refused_before_the_run(
    tmp_path: Path, settings: Mapping[str, Any], runtimes: tuple[str, ...], key: str
) -> None:
    """Read on one of the step's targets is enough; a person's own scheme may read anything."""
    assert formats.unread(Settings(**settings), runtimes) == ((key,) if key else ())
    if key and runtimes == ("onnx",):
        recipe = dataclasses.replace(parse_recipe(MINIMAL.encode()), compress=(Settings(**settings),))
        with pytest.raises(RecipeError, match=f"no {key} in .* on onnx"):
            preflight.check(recipe, tmp_path)


def test_every_scheme_of_tflite_says_what_it_reads() -> None:
    """As its quantizer has them, and ``none``."""
    assert set(READS) == {*SCHEMES, "none"}


def test_every_key_of_a_recipe_is_read_somewhere() -> None:
    """As an attribute, in a module that is not the reader's; a new key without a reader fails here."""
    package = Path(steps.__file__).parents[1]
    readers = [path for path in package.rglob("*.py") if path.name not in {"recipe_checks.py", "unread.py"}]
    trees = [ast.parse(path.read_text()) for path in readers]
    found = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    tables = [ModelRecipe, DataRecipe, TrainRecipe, TargetRecipe, GateRecipe]
    tables += [steps.module(name).Settings for name in steps.names()]
    keys = {field.name for table in tables for field in dataclasses.fields(table)}
    assert keys - found <= {"allow_unchanged"}  # read by name, of every step


def test_a_bias_correction_without_a_bias_is_refused() -> None:
    """It would have no effect; onnxruntime's own error does not help."""
    batches = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    with pytest.raises(QuantizeError, match="bias of its own for bias_correction"):
        quantize(linear(biased=False), lambda: iter([batches]), Settings(bias_correction=True))


def test_constants_without_an_onnx_file_are_refused() -> None:
    """Nothing would read them."""
    text = '[model]\nname = "m"\nconstants = {gain = 1, thresholds = [0.1, 2]}\n'
    with pytest.raises(RecipeError, match="Expected no constants in \\[model\\] without an ONNX file"):
        parse_recipe(text.encode())
    read = parse_recipe(text.replace("constants", 'onnx = "m.onnx"\nconstants').encode())
    assert read.model.constants == {"gain": 1.0, "thresholds": (0.1, 2.0)}
