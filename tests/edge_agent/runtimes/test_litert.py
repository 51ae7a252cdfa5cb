"""LiteRT only: parity with torch, the integer contract, unsupported operators, invalid files."""

import random
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import pytest
import torch

from edge_agent import runtimes
from edge_agent.errors import InputShapeError, RuntimeLoadError, RuntimeSeamError
from edge_agent.runtimes._base import quantize
from wire.manifest import Manifest, TensorSpec

INPUT = TensorSpec(name="image", shape=(-1, 6, 6, 2), layout="NHWC")
MANIFEST = Manifest(
    model="m", version=1, runtime="litert", artifact="model.tflite", inputs=(INPUT,),
    outputs=(TensorSpec(name="logits", shape=(-1, 3)), TensorSpec(name="embedding", shape=(-1, 4))),
)  # fmt: skip
IMAGES = np.random.default_rng(1).normal(size=(5, 6, 6, 2)).astype(np.float32)


class Converted(Protocol):
    """The values of the fixture ``converted`` of conftest.py."""

    network: torch.nn.Module
    float32: bytes
    int8: bytes
    int16: bytes


def _torch(network: torch.nn.Module) -> list[np.ndarray]:
    with torch.no_grad():
        return [output.numpy() for output in network(torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy()))]


def _integer(artifact: bytes) -> Manifest:
    """Return the manifest of a quantized model, with the model's own scales and zero points."""
    interpreter_module = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = interpreter_module.Interpreter(model_content=artifact)
    details = [*interpreter.get_input_details(), *interpreter.get_output_details()]
    specs = [
        replace(spec, dtype=np.dtype(found["dtype"]).name, scale=found["quantization"][0],
                zero_point=found["quantization"][1])
        for spec, found in zip([INPUT, *MANIFEST.outputs], details, strict=True)
    ]  # fmt: skip
    return replace(MANIFEST, inputs=(specs[0],), outputs=tuple(specs[1:]))


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_agrees_with_torch(converted: Converted, threads: int) -> None:
    """Within 1e-5 for five rows at once, with one thread and with two."""
    got = runtimes.load(MANIFEST, converted.float32, threads=threads).run(IMAGES)
    for ours, theirs in zip(got, _torch(converted.network), strict=True):
        assert ours.dtype == np.float32
        assert np.abs(ours - theirs).max() <= 1e-5


def test_one_row_and_many_and_none_give_the_same(converted: Converted) -> None:
    """Rows run one by one are exactly equal; no rows have empty outputs; strides of the caller don't matter."""
    runtime = runtimes.load(MANIFEST, converted.float32)
    logits, embedding = runtime.run(IMAGES)
    rows = [runtime.run(IMAGES[index : index + 1]) for index in range(5)]
    assert np.array_equal(np.concatenate([row[0] for row in rows]), logits)
    assert np.array_equal(np.concatenate([row[1] for row in rows]), embedding)
    assert [output.shape for output in runtime.run(IMAGES[:0])] == [(0, 3), (0, 4)]
    strided = np.asfortranarray(IMAGES)
    assert np.array_equal(runtime.run(strided[:1])[0], logits[:1])


@pytest.mark.slow
def test_answers_with_axes_of_one_are_rows_of_values(convert: Callable[..., bytes], converted: Converted) -> None:
    """A classifier that ends in a convolution gives (1, 1, 1, 3): the manifest says (N, 3), and so does the answer."""

    class Deep(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = converted.network

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits, embedding = self.network(x)
            return logits.reshape(-1, 1, 1, 3), embedding

    import litert_torch  # noqa: PLC0415 - optional; the fixture skips without it

    model = convert(litert_torch.to_channel_last_io(Deep().eval(), args=[0]), (1, 6, 6, 2))
    got = runtimes.load(MANIFEST, model).run(IMAGES)
    assert [one.shape for one in got] == [(5, 3), (5, 4)]
    assert np.abs(got[0] - _torch(converted.network)[0]).max() <= 1e-5


@pytest.mark.slow
def test_a_model_of_another_fixed_batch_serves_any(convert: Callable[..., bytes], converted: Converted) -> None:
    """A model converted for two rows runs one, two and five; the last piece is filled up."""
    class_ = type(converted.network)
    artifact = convert(class_(), (2, 2, 6, 6))
    runtime = runtimes.load(replace(MANIFEST, inputs=(TensorSpec(name="image", shape=(-1, 2, 6, 6)),)), artifact)
    expected = _torch(converted.network)[0]
    for count in (1, 2, 5):
        got = runtime.run(np.ascontiguousarray(IMAGES[:count].transpose(0, 3, 1, 2)))[0]
        assert np.abs(got - expected[:count]).max() <= 1e-5


def test_outputs_are_the_callers_own(converted: Converted) -> None:
    """A later run does not change the outputs of an earlier one."""
    runtime = runtimes.load(MANIFEST, converted.float32)
    first = runtime.run(IMAGES[:1])[0]
    kept = first.copy()
    runtime.run(IMAGES[1:2])
    assert np.array_equal(first, kept)


def test_outputs_are_found_by_name_then_by_order(converted: Converted) -> None:
    """The signature's and the tensors' names win over the order; half of them known is refused."""
    by_order = runtimes.load(MANIFEST, converted.float32).run(IMAGES)
    for names in (("output_1", "output_0"), ("serving_default_output_1_output", "serving_default_output_0_output")):
        outputs = (TensorSpec(name=names[0], shape=(-1, 4)), TensorSpec(name=names[1], shape=(-1, 3)))
        by_name = runtimes.load(replace(MANIFEST, outputs=outputs), converted.float32).run(IMAGES)
        assert np.array_equal(by_name[0], by_order[1])
        assert np.array_equal(by_name[1], by_order[0])
    mixed = (TensorSpec(name="output_0", shape=(-1, 3)), TensorSpec(name="embedding", shape=(-1, 4)))
    with pytest.raises(RuntimeLoadError, match=r"\['embedding'\] can't be guessed"):
        runtimes.load(replace(MANIFEST, outputs=mixed), converted.float32)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"inputs": (replace(INPUT, shape=(-1, 2, 6, 6)),)}, "Expected input"),
        ({"inputs": (replace(INPUT, dtype="int8", scale=0.1),)}, "Expected input"),
        ({"inputs": (replace(INPUT, scale=0.1),)}, "Expected scale"), ({"inputs": ()}, "Expected one input"),
        ({"outputs": (TensorSpec(name="logits", shape=(-1, 4)),)}, "Expected output"),
        ({"outputs": (TensorSpec(name="logits", shape=(-1, 3), dtype="int8"),)}, "Expected output"),
        ({"outputs": (*MANIFEST.outputs, TensorSpec(name="more", shape=(-1, 1)))}, "Expected the outputs"),
        ({"session_options": {"session.x": "1"}}, "Expected no session options"),
    ],
)  # fmt: skip
def test_refuses_a_model_that_is_not_its_manifests(converted: Converted, change: dict[str, Any], text: str) -> None:
    """Wrong shapes, types, scales, numbers of outputs and options are reported when the model is loaded."""
    with pytest.raises(RuntimeLoadError, match=text):
        runtimes.load(replace(MANIFEST, **change), converted.float32)


@pytest.mark.parametrize("kind", ["int8", "int16"])
def test_an_integer_model_takes_and_gives_real_numbers(converted: Converted, kind: str) -> None:
    """float32 inputs and the integers for them give the same outputs, near torch's."""
    artifact = getattr(converted, kind)
    manifest = _integer(artifact)
    assert manifest.inputs[0].dtype == kind
    runtime = runtimes.load(manifest, artifact)
    got = runtime.run(IMAGES)
    same = runtime.run(quantize(IMAGES, manifest.inputs[0]))
    for ours, twin, theirs in zip(got, same, _torch(converted.network), strict=True):
        assert ours.dtype == np.float32
        assert np.array_equal(ours, twin)
        assert np.abs(ours - theirs).max() <= 0.02


def test_scales_that_are_not_the_models_are_refused(converted: Converted) -> None:
    """1e-5 off is refused, 1e-7 is not; an input without a scale too; an output's may be left out."""
    manifest = _integer(converted.int8)
    spec, out = manifest.inputs[0], manifest.outputs[0]
    bad = [replace(spec, scale=spec.scale * (1 + 1e-5)), replace(spec, zero_point=spec.zero_point + 1)]
    for changed in (*bad, replace(spec, scale=0.0), replace(spec, scale=0.0, zero_point=0)):
        with pytest.raises(RuntimeLoadError, match="Expected scale and zero point"):
            runtimes.load(replace(manifest, inputs=(changed,)), converted.int8)
    with pytest.raises(RuntimeLoadError, match="Expected scale and zero point"):
        runtimes.load(replace(manifest, outputs=(replace(out, zero_point=3),)), converted.int8)
    near = replace(manifest, inputs=(replace(spec, scale=spec.scale * (1 + 1e-7)),))
    silent = replace(near, outputs=tuple(replace(one, scale=0.0, zero_point=0) for one in manifest.outputs))
    expected = runtimes.load(manifest, converted.int8).run(IMAGES)[0]
    assert np.allclose(runtimes.load(silent, converted.int8).run(IMAGES)[0], expected, atol=out.scale)


def test_a_closed_runtime_and_a_wrong_batch_say_so(converted: Converted) -> None:
    """Both are errors of the seam, in an integer model too."""
    runtime = runtimes.load(_integer(converted.int8), converted.int8)
    with pytest.raises(InputShapeError, match=r"as int8 or float32 \(-1, 6, 6, 2\), got float64"):
        runtime.run(IMAGES.astype(np.float64))
    runtime.close()
    runtime.close()
    with pytest.raises(RuntimeSeamError, match="got a closed one"):
        runtime.run(IMAGES)


@pytest.mark.parametrize(
    ("operator", "text"),
    [
        ({"customCode": b"acme::Warp.v2"}, "got the custom operator 'acme::Warp.v2': export it"),
        ({"customCode": b"FlexErf"}, "got the custom operator 'FlexErf': export it"),
        ({"version": 99}, "got CONV_2D version 99: update ai-edge-litert"),
        ({"builtinCode": 5000}, "got number 5000: update ai-edge-litert"),
    ],
)
def test_a_foreign_operator_is_named(converted: Converted, operator: dict[str, Any], text: str) -> None:
    """For a custom, TensorFlow, too new or unknown operator the error names it and the next step."""
    tools = pytest.importorskip("ai_edge_litert.tools.flatbuffer_utils")
    model = tools.read_model_from_bytearray(bytearray(converted.float32))
    custom = {"builtinCode": 32, "deprecatedBuiltinCode": 32} if "customCode" in operator else {}
    for name, value in {**custom, **operator}.items():
        setattr(model.operatorCodes[0], name, value)
    with pytest.raises(RuntimeLoadError, match=re.escape(text)):
        runtimes.load(MANIFEST, bytes(tools.convert_object_to_bytearray(model)))


def test_a_shape_that_would_fill_the_memory_is_refused_before_it_is_allocated(converted: Converted) -> None:
    """One wrong number in an inner tensor's shape requests gigabytes; the tensor is named."""
    tools = pytest.importorskip("ai_edge_litert.tools.flatbuffer_utils")
    model = tools.read_model_from_bytearray(bytearray(converted.float32))
    graph = model.subgraphs[0]
    inner = graph.tensors[graph.operators[0].outputs[0]]
    inner.shape = [1, 6, 6, 1 << 28]
    with pytest.raises(RuntimeLoadError, match=r"at most 268435456 bytes, got \[1, 6, 6, 268435456\]"):
        runtimes.load(MANIFEST, bytes(tools.convert_object_to_bytearray(model)))


@pytest.mark.parametrize("artifact", [b"", b"TFL3", b"garbage garbage", b"\x1c\0\0\0TFL3", b"\xff\xff\xff\xffTFL3" * 9])
def test_refuses_bytes_that_are_no_model(artifact: bytes) -> None:
    """Empty, garbage and headers without a body are one coded error."""
    with pytest.raises(RuntimeLoadError, match="Expected a TFLite model") as raised:
        runtimes.load(MANIFEST, artifact)
    assert raised.value.code == "bundle_invalid"


def test_a_cut_file_is_refused_at_any_length(converted: Converted) -> None:
    """No length opens, none ends the process."""
    for size in range(8, len(converted.float32), 97):
        with pytest.raises(RuntimeLoadError, match="Expected a TFLite model"):
            runtimes.load(MANIFEST, converted.float32[:size])


def test_flipped_bits_never_end_the_process(converted: Converted) -> None:
    """Each of 200 garbled files is refused or runs: changed weights are for digests and golden vectors to find."""
    source = random.Random(0)  # noqa: S311 - a seeded fault, no secret
    outcomes = set()
    for _ in range(200):
        data = bytearray(converted.float32)
        for _ in range(source.choice([1, 4, 16])):
            data[source.randrange(8, len(data))] ^= 1 << source.randrange(8)
        outcomes.add(_outcome(bytes(data)))
    assert outcomes == {"refused", "ran"}


def _outcome(artifact: bytes) -> str:
    try:
        runtimes.load(MANIFEST, artifact).run(IMAGES[:1])
    except RuntimeSeamError:
        return "refused"
    return "ran"
