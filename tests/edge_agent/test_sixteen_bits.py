"""Grey pictures of 16 bits keep their levels from the file to the model."""

import io
import struct
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from edge_agent.errors import ImageError
from edge_agent.inference.preprocess import (
    cropped,
    decode_image,
    fitted,
    reduction,
    resize_pixels,
    to_batch,
    upright_size,
)
from edge_agent.pictures.sixteen_bits import found_in, seen, to_bytes, to_levels
from wire.manifest import RESAMPLES, RESIZES, Preprocessing

KELVIN = Preprocessing(
    width=8, height=6, colour="grey", bits=16, scale=0.01, mean=(300.0,), std=(10.0,), orientation="exif",
    decode="reduced",
)  # fmt: skip
"""A thermal camera that writes hundredths of a kelvin."""
TURNED = {
    1: lambda image: image, 2: lambda image: image[:, ::-1], 3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1], 5: lambda image: image.T, 6: lambda image: np.rot90(image, 1),
    7: lambda image: image[::-1, ::-1].T, 8: lambda image: np.rot90(image, -1),
}  # fmt: skip


def levels(height: int = 6, width: int = 8, seed: int = 0) -> np.ndarray:
    """Return levels around 300 K, uint16 (height, width)."""
    return np.random.default_rng(seed).integers(29000, 31000, (height, width)).astype(np.uint16)


def file_of(image: np.ndarray, kind: str = "PNG", orientation: int = 1, **options: object) -> bytes:
    """Return ``image`` as a file."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    tagged = {"tiffinfo": {0x0112: orientation}} if kind == "TIFF" else {"exif": exif}
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, kind, **tagged, **options)
    return buffer.getvalue()


def big_endian(image: np.ndarray) -> bytes:
    """Return ``image`` as a TIFF with the high byte first. Source: TIFF 6.0, section 2."""
    height, width = image.shape
    data, count = image.astype(">u2").tobytes(), 9
    tags = [(256, width), (257, height), (258, 16), (259, 1), (262, 1), (273, 8 + 2 + count * 12 + 4), (277, 1),
            (278, height), (279, len(data))]  # fmt: skip
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags)
    return b"MM" + struct.pack(">HI", 42, 8) + struct.pack(">H", count) + entries + struct.pack(">I", 0) + data


@pytest.mark.parametrize("top", [65535, 31000, 3])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_the_levels_are_those_of_the_file(kind: str, top: int) -> None:
    """From 0 to 65535, and of few levels: not stretched, not clipped."""
    image = np.random.default_rng(1).integers(0, top, (7, 9), endpoint=True).astype(np.uint16)
    decoded = decode_image(file_of(image, kind), KELVIN)
    assert (decoded.dtype, decoded.shape) == (np.uint8, (7, 9, 2))
    assert np.array_equal(to_levels(decoded), image)
    assert np.array_equal(to_bytes(image), decoded)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_reads_the_compressions_of_tiff(compression: str) -> None:
    """As cameras and ImageJ write them."""
    assert np.array_equal(to_levels(decode_image(file_of(levels(), "TIFF", compression=compression), KELVIN)), levels())


def test_reads_a_tiff_with_the_high_byte_first() -> None:
    """The levels are the same on every machine."""
    assert np.array_equal(to_levels(decode_image(big_endian(levels()), KELVIN)), levels())


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", list(TURNED))
def test_turns_them_upright_by_their_tag_or_not(orientation: int, kind: str) -> None:
    """PIL turns a TIFF by itself, and a PNG not: both come as the recipe says."""
    upright = levels(4, 7)
    data = file_of(TURNED[orientation](upright), kind, orientation)
    assert np.array_equal(to_levels(decode_image(data, KELVIN)), upright)
    stored = replace(KELVIN, orientation="stored")
    assert np.array_equal(to_levels(decode_image(data, stored)), TURNED[orientation](upright))
    assert upright_size(data, KELVIN) == (7, 4)
    assert upright_size(data, stored) == TURNED[orientation](upright).shape[::-1]


def test_the_input_is_in_the_unit_of_the_scale() -> None:
    """(level * scale - mean) / std: 315 K is 1.5 deviations above 300 K."""
    image = np.full((6, 8), 31500, np.uint16)
    batch = to_batch([to_bytes(image), to_bytes(levels())], KELVIN)
    assert (batch.dtype, batch.shape) == (np.float32, (2, 1, 6, 8))
    assert np.allclose(batch[0], 1.5, atol=1e-5)
    assert np.allclose(batch[1, 0], (levels() * 0.01 - 300) / 10, atol=1e-5)
    assert to_batch([], KELVIN).shape == (0, 1, 6, 8)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("resample", RESAMPLES)
def test_resizing_is_that_of_8_bits_in_finer_steps(resample: str, resize: str) -> None:
    """The same geometry and filters: levels of 257 times those of a grey picture differ by less than one of its."""
    small = np.random.default_rng(2).integers(0, 256, (19, 23), dtype=np.uint8)
    pre = replace(KELVIN, resize=resize, resample=resample, fill=257 * 7 if resize == "letterbox" else 0)
    deep = to_levels(fitted(to_bytes(small.astype(np.uint16) * 257), pre))
    flat = replace(pre, bits=8, fill=7 if resize == "letterbox" else 0)
    plain = fitted(np.repeat(small[..., None], 3, axis=2), flat)[..., 0]
    assert np.abs(deep / 257 - plain).max() <= 1.01  # of two rounded passes


def test_bicubic_does_not_wrap_at_the_ends() -> None:
    """Its overshoot beyond 0 and 65535 is cut off."""
    image = np.zeros((12, 16), np.uint16)
    image[:, 8:] = 65535
    found = to_levels(fitted(to_bytes(image), replace(KELVIN, resample="bicubic", width=9, height=7)))
    assert (np.diff(found.astype(int), axis=1) >= 0).all()
    assert (found[:, [0, 3]] == 0).all()
    assert (found[:, [5, -1]] == 65535).all()


def test_they_are_not_reduced_while_they_are_decoded() -> None:
    """Nor is room for a reduced one reckoned with: they are decoded whole."""
    assert (reduction(640, 512, KELVIN), reduction(640, 512, replace(KELVIN, bits=8))) == (1, 8)
    assert decode_image(file_of(levels(64, 80)), KELVIN).shape == (64, 80, 2)


def test_the_monitor_sees_eight_standard_deviations() -> None:
    """Black at 260 K, white at 340 K, so that a scene of few degrees still has contrast."""
    ramp = np.array([[0, 26000, 30000, 34000, 65535]], np.uint16)
    assert seen(to_bytes(ramp), KELVIN)[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    assert resize_pixels(to_bytes(levels()), KELVIN).shape == (6, 8, 3)
    assert np.ptp(resize_pixels(to_bytes(levels()), KELVIN)) > 40


@pytest.mark.parametrize(
    ("image", "kind", "said"),
    [
        (np.zeros((4, 4), np.uint8), "PNG", "a grey image of 16 bits, got mode 'L' in a PNG: save it as"),
        (np.zeros((4, 4, 3), np.uint8), "TIFF", "got mode 'RGB' in a TIFF"),
        (np.zeros((4, 4), np.float32), "TIFF", "got mode 'F' in a TIFF"),
        (np.zeros((4, 4), np.int32), "TIFF", "got mode 'I' in a TIFF"),
        (np.zeros((4, 4), np.uint8), "JPEG", r"Expected an intact image \(PNG, TIFF\)"),
        (np.zeros((4, 4), np.uint16), "PPM", r"Expected an intact image \(PNG, TIFF\)"),
    ],
)
def test_refuses_what_has_no_levels_of_16_bits(image: np.ndarray, kind: str, said: str) -> None:
    """By name: 8 bits are not stretched, floats and signed numbers are no levels, PIL scales a PGM."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    with pytest.raises(ImageError, match=said):
        decode_image(buffer.getvalue(), KELVIN)


def test_refuses_pages_and_a_transparent_level() -> None:
    """A manifest with decode = "full" takes the first page."""
    buffer = io.BytesIO()
    pages = [Image.fromarray(levels(seed=seed)) for seed in (0, 1)]
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    with pytest.raises(ImageError, match="Expected a still image, got a file of several pages"):
        decode_image(buffer.getvalue(), KELVIN)
    assert np.array_equal(to_levels(decode_image(buffer.getvalue(), replace(KELVIN, decode="full"))), levels())
    with pytest.raises(ImageError, match="one with a transparent level"):
        decode_image(file_of(levels(), transparency=29000), KELVIN)


def test_a_recipe_for_8_bits_still_refuses_them() -> None:
    """And says which key reads them; a TIFF is no format of its own there."""
    with pytest.raises(ImageError, match=r"8 bits a channel, got mode 'I;16'.* or give its recipe bits = 16"):
        decode_image(file_of(levels()))
    with pytest.raises(ImageError, match="of no known format"):
        decode_image(file_of(levels(), "TIFF"))


@pytest.mark.filterwarnings("error")  # PIL warns about broken tags, which nobody could read
def test_random_damage_never_raises_anything_else() -> None:
    """300 files with random bytes changed or cut decode, or give an ImageError."""
    rng = np.random.default_rng(0)
    whole = [file_of(levels(16, 16)), file_of(levels(16, 16), "TIFF"), big_endian(levels(16, 16)),
             file_of(levels(16, 16), "TIFF", compression="tiff_lzw")]  # fmt: skip
    for index in range(300):
        data = bytearray(whole[index % len(whole)])
        for position in rng.integers(0, len(data), 8):
            data[position] = rng.integers(0, 256)
        try:
            decoded = decode_image(bytes(data[: rng.integers(1, len(data) + 1) if index % 2 else None]), KELVIN)
        except ImageError:
            continue
        assert decoded.shape[2] == 2


def test_a_part_of_one_keeps_its_levels() -> None:
    """A camera's region is cut out in 16 bits, and resized in 16 bits."""
    image = levels(20, 30)
    for kind in ("PNG", "TIFF"):
        part = cropped(file_of(image, kind), (0.5, 0.5, 0.5, 0.5), ())
        assert np.array_equal(to_levels(decode_image(part, KELVIN)), image[10:, 15:])
        assert to_levels(decode_image(cropped(file_of(image, kind), (), (15, 10)), KELVIN)).shape == (10, 15)
    assert found_in(part)
    assert not found_in(b"garbage")


@pytest.mark.parametrize("array", [levels(), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4, 2), np.uint8)])
def test_refuses_arrays_that_are_no_pictures_of_16_bits(array: np.ndarray) -> None:
    """The error shows type and shape."""
    with pytest.raises(ImageError, match=r"16 bits as uint8 \(H, W, 2\), got"):
        to_batch([array], KELVIN)
