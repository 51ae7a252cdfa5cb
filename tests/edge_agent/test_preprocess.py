"""From encoded bytes to the input tensor."""

import io

import numpy as np
import pytest
from PIL import Image

from edge_agent.errors import ImageError, ImageTooLargeError
from edge_agent.inference.preprocess import (
    MAX_STORED_PIXELS,
    decode_image,
    reduction,
    resize_pixels,
    to_batch,
    to_tensor,
)
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
    """Empty, garbage, truncated and unsupported files raise one error with a code."""
    with pytest.raises(ImageError, match="Expected an intact image") as raised:
        decode_image(data)
    assert raised.value.code == "image_invalid"


def test_refuses_more_than_eight_bits_a_channel() -> None:
    """PIL clips 16 bits to 255: a thermal picture would silently be white on device and build host."""
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
    pre = Preprocessing(width=1, height=1, colour="rgb", mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))
    tensor = to_tensor(image, pre)
    assert (tensor.shape, tensor.dtype) == ((1, 3, 1, 1), np.float32)
    assert np.allclose(tensor.ravel(), [-0.1, (128 / 255 - 0.2) / 2, 0.7 / 4], atol=1e-6)


def test_a_batch_is_its_images_one_by_one() -> None:
    """Batch and single images have the same bits, grey and colour, resized or not."""
    images = list(np.random.default_rng(1).integers(0, 256, (5, 20, 30, 3), dtype=np.uint8))
    for pre in (
        Preprocessing(width=16, height=12, colour="grey"),
        Preprocessing(width=30, height=20, colour="rgb", layout="NHWC"),
    ):
        batch = to_batch(images, pre)
        assert np.array_equal(batch, np.concatenate([to_tensor(image, pre) for image in images]))
        assert batch.shape == ((5, 1, 12, 16) if pre.colour == "grey" else (5, 20, 30, 3))


def test_the_monitor_sees_colour_at_the_models_size() -> None:
    """Pixels for the monitor keep three channels even for a grey model; nothing is copied at equal size."""
    image = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert resize_pixels(image, Preprocessing(width=8, height=9, colour="grey")).shape == (9, 8, 3)
    assert resize_pixels(image, Preprocessing(width=30, height=20, colour="grey")) is image


@pytest.mark.parametrize(
    "pre",
    [
        Preprocessing(width=4, height=4, colour="cmyk"),
        Preprocessing(width=4, height=4, resample="magic"),
        Preprocessing(width=4, height=4, layout="CHWN"),
        Preprocessing(width=4, height=4, std=(0.0,)),
        Preprocessing(width=4, height=4, mean=(1.0, 2.0)),
    ],
)
def test_refuses_preprocessing_it_does_not_know(pre: Preprocessing) -> None:
    """The error names an unknown colour, resample or layout, a zero std, or a wrong number of means."""
    with pytest.raises(ImageError, match="Expected"):
        to_tensor(np.zeros((5, 5, 3), np.uint8), pre)


def test_refuses_arrays_that_are_no_images() -> None:
    """The error shows the floats or the missing channels."""
    with pytest.raises(ImageError, match=r"uint8 \(H, W, 3\), got float64 \(5, 5\)"):
        to_tensor(np.zeros((5, 5)), Preprocessing(width=4, height=4))


UPRIGHT = Preprocessing(width=8, height=8, orientation="exif")
REDUCED = Preprocessing(width=32, height=32, orientation="exif", decode="reduced")
STORED_AS = {  # how a camera that is held so stores an upright picture; Source: Exif 2.32, table 6
    1: lambda image: image, 2: lambda image: image[:, ::-1], 3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1], 5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, 1), 7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image, -1),
}  # fmt: skip


def _tagged(image: np.ndarray, orientation: int, kind: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, kind, exif=exif, quality=95, lossless=True)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", list(STORED_AS))
def test_turns_a_picture_upright_by_its_tag(orientation: int, kind: str) -> None:
    """All eight orientations give the pixels of the upright picture; with a manifest without the field, none does."""
    upright = np.zeros((24, 40, 3), np.uint8)
    upright[:8, :8], upright[:8, 32:], upright[16:, :8] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    data = _tagged(STORED_AS[orientation](upright), orientation, kind)
    assert decode_image(data, UPRIGHT).shape == (24, 40, 3)
    assert np.abs(decode_image(data, UPRIGHT).astype(int) - upright)[4::8, 4::8].max() < 30
    assert decode_image(data).shape == ((40, 24, 3) if orientation >= 5 else (24, 40, 3))
    if orientation != 1:
        assert np.abs(decode_image(data).astype(int) - np.resize(upright, decode_image(data).shape)).max() > 200


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_can_not_be_meant_is_none(orientation: int) -> None:
    """Viewers show the picture as it is stored."""
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    assert np.array_equal(decode_image(_tagged(image, orientation), UPRIGHT), image)


def test_broken_exif_leaves_the_picture_as_it_is_stored() -> None:
    """The pixels are intact; random bytes instead of the tags are no reason to refuse them."""
    image = np.full((8, 8, 3), 90, np.uint8)
    data = bytearray(_tagged(image, 6, "JPEG"))
    place = data.index(b"Exif")
    for index in range(6, 30):
        data[place + index] = 0xFF
        assert decode_image(bytes(data), UPRIGHT).shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("size", "by"),
    [((127, 127), 1), ((128, 128), 2), ((128, 127), 1), ((255, 9999), 2), ((256, 256), 4), ((511, 600), 4),
     ((512, 512), 8), ((9999, 9999), 8), ((63, 63), 1)],
)  # fmt: skip
def test_the_reduction_follows_from_the_sizes_alone(size: tuple[int, int], by: int) -> None:
    """At least twice the input's 32 pixels stay on both sides; without the word nothing is reduced."""
    assert reduction(*size, REDUCED) == by
    assert reduction(*size, UPRIGHT) == 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP"])
@pytest.mark.parametrize("size", [(600, 521), (521, 600), (300, 260)])
def test_a_reduced_picture_is_the_whole_one_at_a_fraction(kind: str, size: tuple[int, int]) -> None:
    """Of any format and odd sizes: the mean of its blocks, so that the model's input differs by little."""
    small = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC))
    data = _encoded(image, kind)
    reduced, by = decode_image(data, REDUCED), reduction(*size, REDUCED)
    assert reduced.shape[:2] == (-(-size[1] // by), -(-size[0] // by))
    whole = resize_pixels(decode_image(data), REDUCED).astype(int)
    assert np.abs(resize_pixels(reduced, REDUCED) - whole).mean() < 3


def test_a_sideways_picture_is_reduced_by_its_upright_size() -> None:
    """Width and height change places before the scale is chosen, of a JPEG as of a PNG."""
    pre = Preprocessing(width=20, height=80, orientation="exif", decode="reduced")
    image = np.zeros((160, 640, 3), np.uint8)
    assert {decode_image(_tagged(image, 6, kind), pre).shape for kind in ("PNG", "JPEG")} == {(160, 40, 3)}


@pytest.mark.parametrize("size", [(32000, 32000), (65500, 65500)])
def test_a_picture_of_a_gigapixel_is_refused_by_its_header(size: tuple[int, int]) -> None:
    """Before a byte of it is decoded, reduced or not."""
    data = bytearray(_encoded(np.zeros((64, 64, 3), np.uint8), "JPEG"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = size[1].to_bytes(2, "big") + size[0].to_bytes(2, "big")
    for pre in (REDUCED, UPRIGHT):
        with pytest.raises(ImageTooLargeError, match=f"at most {MAX_STORED_PIXELS} pixels|1 to {MAX_STORED_PIXELS}"):
            decode_image(bytes(data), pre)


def test_what_does_not_fit_the_memory_is_refused_by_its_header() -> None:
    """Just enough room and one byte less; a progressive JPEG needs its coefficients at any scale."""
    buffer = io.BytesIO()
    Image.new("RGB", (2000, 1500)).save(buffer, "JPEG", progressive=True)
    needed = {_encoded(np.zeros((1500, 2000, 3), np.uint8)): 3_000_000 * 4 + 3_000_000 // 64 * 6,
              buffer.getvalue(): 3_000_000 * 3 + 250 * 188 * 10}  # fmt: skip
    for data, room in needed.items():
        assert decode_image(data, REDUCED, room_bytes=lambda room=room: room).shape == (188, 250, 3)
        with pytest.raises(ImageTooLargeError, match="2000x1500 pixels, which take"):
            decode_image(data, REDUCED, room_bytes=lambda room=room: room - 1)


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_transparent_pixels_are_refused_and_opaque_ones_are_not() -> None:
    """The person who labelled the picture did not see the pixels below; a manifest without the field accepts it."""
    rgba = Image.new("RGBA", (8, 8), (200, 10, 10, 255))
    assert decode_image(_saved(rgba, "PNG"), REDUCED)[0, 0].tolist() == [200, 10, 10]
    rgba.putpixel((3, 3), (0, 0, 0, 0))
    indexed = _saved(Image.new("P", (8, 8)), "PNG", transparency=0)
    for data in (_saved(rgba, "PNG"), _saved(rgba, "WEBP", lossless=True), indexed):
        with pytest.raises(ImageError, match="Expected an opaque image, got transparent pixels"):
            decode_image(data, REDUCED)
        assert decode_image(data).shape == (8, 8, 3)


def test_an_animation_is_refused_by_name() -> None:
    """Its first frame is one of many; a manifest without the field accepts it."""
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (10, 200)]
    for kind in ("PNG", "WEBP"):
        data = _saved(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        with pytest.raises(ImageError, match="Expected a still image, got an animation of 2 frames"):
            decode_image(data, REDUCED)
        assert decode_image(data).shape == (8, 8, 3)


@pytest.mark.parametrize("pre", [Preprocessing(), REDUCED])
def test_palette_grey_with_alpha_and_cmyk_give_the_colours_that_were_meant(pre: Preprocessing) -> None:
    """Each becomes RGB by its own rule; one bit a pixel is black or white."""
    red = Image.new("RGB", (16, 16), (250, 20, 30))
    assert decode_image(_saved(red.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"), pre)[0, 0, 0] > 240
    assert np.abs(decode_image(_saved(red.convert("CMYK"), "JPEG"), pre)[8, 8] - np.array([250, 20, 30])).max() < 12
    assert decode_image(_saved(Image.new("LA", (4, 4), (77, 255)), "PNG"), pre)[0, 0].tolist() == [77, 77, 77]
    assert decode_image(_saved(Image.new("1", (4, 4), 1), "PNG"), pre)[0, 0].tolist() == [255, 255, 255]


def test_a_colour_profile_and_gamma_change_nothing() -> None:
    """Device and build host both ignore them, as documented."""
    from PIL import ImageCms  # noqa: PLC0415 - only this test needs a profile

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    image = Image.new("RGB", (4, 4), (10, 100, 200))
    assert decode_image(_saved(image, "PNG", icc_profile=profile), REDUCED)[0, 0].tolist() == [10, 100, 200]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GIF89a\x01\x00", "a GIF: save the frame that is meant as PNG"),
        (b"II*\x00\x08", "a TIFF: save it as PNG"),
        (b"\0\0\0\x18ftypheic", "a HEIC: save it as JPEG"),
        (b"\0\0\0\x1cftypavif", "an AVIF: save it as PNG or JPEG"),
        (b"%PDF-1.7", "a PDF: save its picture as PNG or JPEG"),
        (b"no picture", "of no known format"),
    ],
)
def test_a_picture_of_another_format_is_named_with_what_to_do(data: bytes, said: str) -> None:
    """Whatever its file is called; the formats that are read are named before it."""
    with pytest.raises(ImageError, match=rf"\(PNG, JPEG, BMP, WEBP, PPM\), got \d+ bytes: .*{said}$"):
        decode_image(data)
