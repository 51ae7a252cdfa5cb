"""A manifest is checked for the facts that every reader relies on."""

from dataclasses import replace

import pytest

from wire.canonical import canonical_bytes
from wire.codec import encode, parse_json
from wire.errors import ManifestError
from wire.manifest import MAX_MANIFEST_BYTES, Manifest, Preprocessing, TensorSpec, read_manifest
from wire.tuf_target import TargetCustom, target_path

GOOD = Manifest(
    model="digits",
    version=1,
    artifact_sha256="aa",
    inputs=(TensorSpec(name="image"),),
    outputs=(TensorSpec(name="logits"),),
    preprocessing=Preprocessing(width=8, height=8),
    files={"model.onnx": "aa"},
)


def test_reads_back_what_was_written() -> None:
    """Encoding and reading are inverse."""
    assert read_manifest(encode(GOOD)) == GOOD


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 2},
        {"model": ""},
        {"version": 0},
        {"inputs": ()},
        {"outputs": ()},
        {"artifact_sha256": "bb"},
        {"files": {}},
        {"preprocessing": Preprocessing(width=0, height=8)},
        {"preprocessing": Preprocessing(width=8, height=100_000)},
    ],
)
def test_refuses_a_manifest_that_contradicts_itself(changes: dict[str, object]) -> None:
    """Each check has its own sentence and the same code."""
    with pytest.raises(ManifestError, match="Expected") as caught:
        read_manifest(encode(replace(GOOD, **changes)))
    assert caught.value.code == "manifest_invalid"


DECODING = Preprocessing(width=8, height=8, orientation="exif", decode="reduced")


def test_a_manifest_that_does_not_say_how_images_are_decoded_means_as_before() -> None:
    """Bundles already out: the tag ignored, at full size, schema 1."""
    read = read_manifest(encode(GOOD)).preprocessing
    assert (read.orientation, read.decode, read.schema) == ("stored", "full", 1)
    told = parse_json(encode(GOOD))
    told["preprocessing"] |= {"orientation": "stored", "decode": "full"}
    assert read_manifest(canonical_bytes(told)) == read_manifest(encode(GOOD))


@pytest.mark.parametrize(("orientation", "decode"), [("exif", "full"), ("stored", "reduced"), ("exif", "reduced")])
def test_a_manifest_that_says_how_images_are_decoded_is_refused_by_readers_that_would_ignore_it(
    orientation: str, decode: str
) -> None:
    """It is of schema 2, and one that claims to be of schema 1 contradicts itself."""
    told = replace(
        GOOD, schema=2, preprocessing=Preprocessing(width=8, height=8, orientation=orientation, decode=decode)
    )
    assert read_manifest(encode(told)) == told
    with pytest.raises(ManifestError, match="Expected manifest schema 2, got 1"):
        read_manifest(encode(replace(told, schema=1)))


def test_a_manifest_that_names_a_task_is_refused_by_readers_that_would_answer_otherwise() -> None:
    """It has schema 3, however its images are decoded; without a task none is written."""
    for preprocessing in (GOOD.preprocessing, DECODING):
        told = replace(GOOD, schema=3, task="tags", preprocessing=preprocessing)
        assert read_manifest(encode(told)) == told
        for schema in (1, 2):
            with pytest.raises(ManifestError, match=f"Expected manifest schema 3, got {schema}"):
                read_manifest(encode(replace(told, schema=schema)))
    assert b'"task"' not in encode(GOOD)


def test_a_manifest_that_smooths_is_refused_by_readers_that_would_answer_for_single_inputs() -> None:
    """It has schema 4, also with a task; without a smoother nothing is written."""
    for told in (GOOD, replace(GOOD, task="tags")):
        smooth = replace(told, schema=4, smoothing="mean", smoothing_options={"window": 5.0})
        assert read_manifest(encode(smooth)) == smooth
        for schema in (1, 2, 3):
            with pytest.raises(ManifestError, match=f"Expected manifest schema 4, got {schema}"):
                read_manifest(encode(replace(smooth, schema=schema)))
    assert b"smoothing" not in encode(GOOD)


@pytest.mark.parametrize("told", [{"orientation": "upside_down"}, {"decode": "half"}])
def test_refuses_a_decoding_that_it_does_not_know(told: dict[str, str]) -> None:
    """The error states that the value is of a later version; it is never guessed."""
    with pytest.raises(ManifestError, match="update the agent"):
        read_manifest(encode(replace(GOOD, schema=2, preprocessing=replace(DECODING, **told))))


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("preprocessing", {"decode": None}),
        ("preprocessing", {"front_end": 3}),
        ("preprocessing", {"front_end_options": {"side": "24"}}),
        ("outputs", [{"name": "logits", "mean": [True]}]),
        ("outputs", [{"name": "logits", "spread": ["x"]}]),
        ("values", "heat"),
    ],
)
def test_refuses_what_the_model_means_in_another_type(place: str, told: object) -> None:
    """An option that is not a number was once ignored, and the device would have answered from another input."""
    document = parse_json(encode(GOOD))
    document[place] = document[place] | told if isinstance(told, dict) else told
    with pytest.raises(ManifestError, match=r"Expected a manifest, got: Expected .* as "):
        read_manifest(canonical_bytes(document))


def test_refuses_an_oversize_manifest() -> None:
    """A manifest is small."""
    with pytest.raises(ManifestError):
        read_manifest(encode(replace(GOOD, lineage={"x": "y" * MAX_MANIFEST_BYTES})))


def test_names_the_release_and_the_target_path() -> None:
    """Release and TUF path have one form."""
    assert GOOD.release == "digits-1"
    assert target_path("digits", 1, "gateway") == "digits-1/gateway.tfb"
    assert TargetCustom().security_floor == 0


def test_a_regression_says_its_values_and_their_unit() -> None:
    """Names, mean and spread are JSON that older readers ignore."""
    spec = TensorSpec(name="logits", mean=(20, 1.5), spread=(2.0, 0.5))
    read = read_manifest(encode(replace(GOOD, outputs=(spec,), values=("heat", "load"))))
    assert read.values == ("heat", "load")
    assert (read.outputs[0].mean, read.outputs[0].spread) == ((20.0, 1.5), (2.0, 0.5))
    assert (GOOD.values, GOOD.outputs[0].mean) == ((), ())
