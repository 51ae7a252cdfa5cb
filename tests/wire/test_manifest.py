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


@pytest.mark.parametrize(
    ("told", "schema"),
    [
        ({"orientation": "upside_down"}, 2), ({"decode": "half"}, 2), ({"colour": "cmyk"}, 5),
        ({"resample": "magic"}, 5), ({"resize": "magic"}, 5), ({"bits": 12}, 5),
    ],
)  # fmt: skip
def test_refuses_a_preprocessing_that_it_does_not_know(told: dict[str, object], schema: int) -> None:
    """The error states that the value is of a later version; it is never guessed."""
    name, value = next(iter(told.items()))
    with pytest.raises(ManifestError, match=f"with {name} of .*, got {value!r}: update the agent"):
        read_manifest(encode(replace(GOOD, schema=schema, preprocessing=replace(DECODING, **told))))


@pytest.mark.parametrize(
    "told",
    [{"resize": "centre_crop"}, {"resize": "centre_crop", "resize_to": 9}, {"resize": "letterbox"},
     {"resize": "letterbox", "fill": 114}, {"antialias": False}, {"colour": "bgr"}, {"resample": "bicubic"},
     {"resample": "box"}, {"resample": "lanczos"}, {"bits": 16, "colour": "grey"}],
)  # fmt: skip
def test_a_manifest_that_resizes_otherwise_is_refused_by_readers_that_would_stretch(told: dict[str, object]) -> None:
    """It has schema 5, also with a task and smoothing; such a reader expects the schema that follows from the rest."""
    for preprocessing in (GOOD.preprocessing, DECODING):
        for other in (GOOD, replace(GOOD, task="tags"), replace(GOOD, smoothing="mean")):
            new = replace(other, schema=5, preprocessing=replace(preprocessing, **told))
            assert read_manifest(encode(new)) == new
            for schema in (1, 2, 3, 4):
                with pytest.raises(ManifestError, match=f"Expected manifest schema 5, got {schema}"):
                    read_manifest(encode(replace(new, schema=schema)))


def test_numbers_per_channel_and_another_scale_are_known_to_every_reader() -> None:
    """Schema 1 has always had lists and a scale; the later fields are not written at their defaults."""
    told = Preprocessing(width=8, height=8, scale=1.0, mean=(123.675, 116.28, 103.53), std=(58.4, 57.1, 57.4))
    read = read_manifest(encode(replace(GOOD, preprocessing=told)))
    assert (read.schema, read.preprocessing) == (1, told)
    assert not {"resize", "resize_to", "fill", "antialias", "bits"} & set(parse_json(encode(GOOD))["preprocessing"])


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"mean": (1.0, 2.0)}, "a mean of 0, 1 or 3 values per channel, got 2"),
        ({"colour": "grey", "std": (1.0, 1.0, 1.0)}, "a std of 0, 1 or 1 values per channel, got 3"),
        ({"std": (0.5, 0.0, 0.5)}, "standard deviations above 0, got"),
        ({"scale": 0.0}, "a scale above 0, got 0.0"),
        ({"resize": "centre_crop", "resize_to": 7}, "resize_to of 8 to 4096 pixels with resize = 'centre_crop', got 7"),
        ({"resize_to": 9}, "resize = 'centre_crop', got 9 with 'stretch'"),
        ({"fill": 1}, "a fill of 0 to 0 with resize = 'stretch', got 1"),
        ({"resize": "letterbox", "fill": 256}, "a fill of 0 to 255 with resize = 'letterbox', got 256"),
        ({"antialias": False, "resample": "box"}, "antialias = false only with resample = 'bilinear', got 'box'"),
        ({"bits": 16}, "16 bits in grey and without a front end, got 'rgb'"),
        ({"bits": 16, "colour": "grey", "front_end": "mfcc"}, "without a front end, got 'grey' 'mfcc'"),
    ],
)
def test_refuses_numbers_that_no_reader_could_compute_with(told: dict[str, object], said: str) -> None:
    """Before anything is installed: a device would find them with its first picture."""
    bad = replace(GOOD.preprocessing, **told)
    with pytest.raises(ManifestError) as caught:
        read_manifest(encode(replace(GOOD, schema=bad.schema, preprocessing=bad)))
    assert said in str(caught.value)


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
