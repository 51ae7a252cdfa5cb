"""From encoded bytes to the input tensor."""

import io

import numpy as np
import pytest
from PIL import Image

from edge_agent.errors import ImageError
from edge_agent.preprocess import decode_image, resize_pixels, to_batch, to_tensor
from wire.manifest import Preprocessing


def _encoded(image: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def test_decodes_any_mode_to_rgb() -> None:
    """A grey PNG and a colour one both come back as uint8 (H, W, 3)."""
    grey = decode_image(_encoded(np.full((4, 5), 7, np.uint8)))
    assert (grey.shape, grey.dtype, int(grey.max())) == ((4, 5, 3), np.uint8, 7)
    colour = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    assert np.array_equal(decode_image(_encoded(colour)), colour)


@pytest.mark.parametrize(
    "data", [b"", b"garbage", _encoded(np.zeros((40, 40, 3), np.uint8))[:60], b"GIF89a" + b"\0" * 50]
)
def test_refuses_what_is_no_whole_image(data: bytes) -> None:
    """Empty, garbage, cut off and formats we don't take give one coded error."""
    with pytest.raises(ImageError, match="Expected an intact image") as raised:
        decode_image(data)
    assert raised.value.code == "image_invalid"


def test_refuses_more_than_eight_bits_a_channel() -> None:
    """PIL clips 16 bits to 255: a thermal picture would be white on device and build host alike, without a word."""
    with pytest.raises(ImageError, match="8 bits a channel, got mode 'I;16': scale it"):
        decode_image(_encoded(np.linspace(0, 65535, 20).reshape(4, 5).astype(np.uint16)))


def test_random_damage_never_raises_anything_else() -> None:
    """200 images with random bytes changed decode, or give an ImageError."""
    rng = np.random.default_rng(0)
    whole = {kind: _encoded(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8), kind) for kind in ("PNG", "JPEG", "BMP")}
    for index in range(200):
        data = bytearray(list(whole.values())[index % 3])
        for position in rng.integers(0, len(data), 8):
            data[position] = rng.integers(0, 256)
        try:
            assert decode_image(bytes(data), limit_pixels=10_000).dtype == np.uint8
        except ImageError:
            continue


def test_limits_hold_before_anything_is_decoded() -> None:
    """Too many bytes and too many pixels are refused with both numbers."""
    data = _encoded(np.zeros((100, 100, 3), np.uint8))
    with pytest.raises(ImageError, match="at most 10 bytes, got"):
        decode_image(data, limit_bytes=10)
    with pytest.raises(ImageError, match="1 to 9999 pixels, got 100x100"):
        decode_image(data, limit_pixels=9999)


def test_scale_mean_and_std_are_applied_per_channel() -> None:
    """(x * scale - mean) / std, in float32, laid out as NCHW."""
    image = np.array([[[0, 128, 255]]], np.uint8)
    pre = Preprocessing(1, 1, "rgb", mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))
    tensor = to_tensor(image, pre)
    assert (tensor.shape, tensor.dtype) == ((1, 3, 1, 1), np.float32)
    assert np.allclose(tensor.ravel(), [-0.1, (128 / 255 - 0.2) / 2, 0.7 / 4], atol=1e-6)


def test_a_batch_is_its_images_one_by_one() -> None:
    """Batch and single give the same bits, for grey and colour, resized or not."""
    images = list(np.random.default_rng(1).integers(0, 256, (5, 20, 30, 3), dtype=np.uint8))
    for pre in (Preprocessing(16, 12, "grey"), Preprocessing(30, 20, "rgb", layout="NHWC")):
        batch = to_batch(images, pre)
        assert np.array_equal(batch, np.concatenate([to_tensor(image, pre) for image in images]))
        assert batch.shape == ((5, 1, 12, 16) if pre.colour == "grey" else (5, 20, 30, 3))


def test_the_monitor_sees_colour_at_the_models_size() -> None:
    """Pixels for the monitor keep three channels even for a grey model; nothing is copied at equal size."""
    image = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert resize_pixels(image, Preprocessing(8, 9, "grey")).shape == (9, 8, 3)
    assert resize_pixels(image, Preprocessing(30, 20, "grey")) is image


@pytest.mark.parametrize(
    "pre",
    [
        Preprocessing(4, 4, "cmyk"), Preprocessing(4, 4, resample="magic"), Preprocessing(4, 4, layout="CHWN"),
        Preprocessing(4, 4, std=(0.0,)), Preprocessing(4, 4, mean=(1.0, 2.0)),
    ],
)  # fmt: skip
def test_refuses_preprocessing_it_does_not_know(pre: Preprocessing) -> None:
    """An unknown colour, resample or layout, a zero std, or a wrong number of means is said."""
    with pytest.raises(ImageError, match="Expected"):
        to_tensor(np.zeros((5, 5, 3), np.uint8), pre)


def test_refuses_arrays_that_are_no_images() -> None:
    """Floats and missing channels are said with what came."""
    with pytest.raises(ImageError, match=r"uint8 \(H, W, 3\), got float64 \(5, 5\)"):
        to_tensor(np.zeros((5, 5)), Preprocessing(4, 4))
