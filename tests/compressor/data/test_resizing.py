"""How a picture is resized to a model's input, against torchvision, torch and PIL."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from compressor.plugins import attribute
from edge_agent.errors import ImageError
from edge_agent.inference.preprocess import fitted, from_fitted, reduction, resize_pixels, to_batch, to_tensor
from edge_agent.pictures.resizing import MAX_ASPECT, placed, resized
from wire.manifest import RESAMPLES, RESIZES, Preprocessing

transforms: Any = attribute("torchvision:transforms")  # imported as a plug-in is: beside a torch for the CPU alone
InterpolationMode = transforms.InterpolationMode
SIZES = [(37, 61), (61, 37), (24, 24), (9, 140), (15, 16), (300, 200), (38, 50)]
"""Heights and widths: larger and smaller than the input, long and tall."""
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CROP = Preprocessing(width=24, height=24, resize="centre_crop", resize_to=32)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return smooth colours with some noise, uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    return np.clip(smooth + rng.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("resample", RESAMPLES)
@pytest.mark.parametrize("size", SIZES)
def test_a_centre_crop_is_torchvisions(size: tuple[int, int], resample: str) -> None:
    """Resize, CenterCrop, ToTensor and Normalize with ImageNet's numbers: the same pixels, and the same input."""
    image, pre = picture(*size), replace(CROP, resample=resample, **IMAGENET)
    steps = [transforms.Resize(32, InterpolationMode(resample)), transforms.CenterCrop(24)]
    cut = transforms.Compose(steps)(Image.fromarray(image))
    assert np.array_equal(fitted(image, pre), np.asarray(cut))
    wanted = transforms.Compose([transforms.ToTensor(), transforms.Normalize(**IMAGENET)])(cut)
    assert np.allclose(to_tensor(image, pre)[0], wanted.numpy(), atol=1e-6)


@pytest.mark.parametrize("resample", RESAMPLES)
@pytest.mark.parametrize("size", SIZES)
def test_stretching_is_torchvisions(size: tuple[int, int], resample: str) -> None:
    """Resize to both sides, in colour and in grey."""
    image, pre = picture(*size), Preprocessing(width=20, height=28, resample=resample)
    step = transforms.Resize((28, 20), InterpolationMode(resample))
    assert np.array_equal(fitted(image, pre), np.asarray(step(Image.fromarray(image))))
    grey = transforms.Compose([transforms.Grayscale(), step])(Image.fromarray(image))
    assert np.array_equal(fitted(image, replace(pre, colour="grey"))[..., 0], np.asarray(grey))


@pytest.mark.parametrize("size", SIZES)
def test_without_resize_to_the_crop_keeps_as_much_as_it_can(size: tuple[int, int]) -> None:
    """One side of the picture is kept whole, the other loses the same on both ends."""
    pre = replace(CROP, width=40, height=20, resize_to=0)
    place = placed(size[1], size[0], pre)
    assert (place.width == 40 and place.height >= 20) or (place.height == 20 and place.width >= 40)
    assert abs(place.width - 40 - 2 * place.left) <= 1
    assert abs(place.height - 20 - 2 * place.top) <= 1
    assert fitted(picture(*size), pre).shape == (20, 40, 3)


@pytest.mark.parametrize("fill", [0, 114])
@pytest.mark.parametrize("size", SIZES)
def test_a_letterbox_holds_the_whole_picture(size: tuple[int, int], fill: int) -> None:
    """As large as fits, in the middle; where a border can't be halved, the larger half is right or below."""
    image, pre = picture(*size), Preprocessing(width=25, height=20, resize="letterbox", fill=fill, resample="bicubic")
    ratio = min(20 / size[0], 25 / size[1])
    wide, high = max(1, round(size[1] * ratio)), max(1, round(size[0] * ratio))
    framed = Image.new("RGB", (25, 20), (fill,) * 3)
    framed.paste(
        Image.fromarray(image).resize((wide, high), Image.Resampling.BICUBIC), ((25 - wide) // 2, (20 - high) // 2)
    )
    assert np.array_equal(fitted(image, pre), np.asarray(framed))
    assert np.array_equal(resize_pixels(image, pre), np.asarray(framed))


@pytest.mark.parametrize("size", SIZES)
def test_without_a_filter_it_is_torchs_interpolation(size: tuple[int, int]) -> None:
    """Bilinear between the four nearest pixels, half-pixel centres, as OpenCV and TensorFlow have it by default."""
    image, pre = picture(*size), Preprocessing(width=20, height=28, antialias=False)
    given = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    want = torch.nn.functional.interpolate(given, (28, 20), mode="bilinear", align_corners=False, antialias=False)
    got = fitted(image, pre).astype(float)
    assert np.abs(got - want[0].permute(1, 2, 0).numpy()).max() <= 0.5 + 1e-4
    grey = np.asarray(Image.fromarray(image).convert("L"))
    assert np.array_equal(fitted(image, replace(pre, colour="grey"))[..., 0], resized(grey, pre))


def test_bgr_is_rgb_in_the_other_order() -> None:
    """The first channel is blue, with the first mean; the monitor still sees red first."""
    image = picture(10, 12)
    pre = Preprocessing(width=8, height=8, colour="bgr", scale=1.0, mean=(103.53, 116.28, 123.675), std=(1.0,))
    plain = to_tensor(image, replace(pre, colour="rgb", mean=()))
    assert np.allclose(to_tensor(image, pre), plain[:, ::-1] - np.array(pre.mean, np.float32).reshape(1, 3, 1, 1))
    assert np.array_equal(resize_pixels(image, pre), resize_pixels(image, replace(pre, colour="rgb")))


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("colour", ["rgb", "bgr", "grey"])
def test_pixels_that_fit_are_not_resized_again(resize: str, colour: str) -> None:
    """Rows of a measurement on a device: from the fitted pixels alone follows the same input."""
    images = [picture(*size) for size in SIZES[:3]]
    for layout in ("NCHW", "NHWC"):
        pre = Preprocessing(width=24, height=20, resize=resize, colour=colour, layout=layout, mean=(0.4,), std=(0.2,))
        rows = [fitted(image, pre) for image in images]
        assert np.array_equal(from_fitted(rows, len(rows), pre), to_batch(images, pre))
    with pytest.raises(ImageError, match=r"Expected pixels of uint8 \(20, 24, .\), got uint8 \(24, 20, .\)"):
        from_fitted([rows[0].transpose(1, 0, 2)], 1, pre)


@pytest.mark.parametrize(("size", "fits"), [((10, 160), True), ((10, 161), False), ((161, 10), False)])
def test_a_picture_too_long_for_a_crop_is_refused(size: tuple[int, int], *, fits: bool) -> None:
    """By its sizes: scaled until the short side fits, it would take more memory than the picture itself."""
    work: list[Callable[[], object]] = [
        lambda: fitted(picture(*size), CROP), lambda: reduction(size[1], size[0], replace(CROP, decode="reduced"))
    ]  # fmt: skip
    for one in work:
        if fits:
            one()
            continue
        with pytest.raises(ImageError, match=f"at most {MAX_ASPECT} to 1 for a centre crop, got {size[1]}x{size[0]}"):
            one()


@pytest.mark.parametrize(
    ("changes", "size", "by"),
    [
        ({}, (256, 256), 4), ({}, (255, 255), 2),  # 32 pixels a side before the crop, and twice as many
        ({"resize_to": 0}, (256, 256), 4), ({"resize_to": 0}, (192, 192), 4), ({"resize_to": 0}, (191, 300), 2),
        ({"resize": "letterbox", "resize_to": 0}, (400, 200), 8),
        ({"resize": "letterbox", "resize_to": 0}, (383, 90), 4),
    ],
)  # fmt: skip
def test_a_reduction_leaves_twice_the_resized_picture(
    changes: dict[str, object], size: tuple[int, int], by: int
) -> None:
    """Not twice the input: a picture that is cropped is larger, one with a border smaller."""
    assert reduction(*size, replace(CROP, decode="reduced", **changes)) == by


@pytest.mark.parametrize("changes", [{"resize": "magic"}, {"resample": "magic"}, {"colour": "magic"}])
def test_refuses_a_resizing_it_does_not_know(changes: dict[str, str]) -> None:
    """The error names what is known."""
    with pytest.raises(ImageError, match=r"Expected a .* of .*, got 'magic'"):
        to_tensor(picture(9, 9), replace(CROP, **changes))
