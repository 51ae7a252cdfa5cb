"""From encoded bytes to the input tensor; numpy and PIL only.

Decides how an image becomes numbers, on the device and in the compressor alike: convert to the
manifest's colour, resize (PIL, bilinear with antialiasing), scale, subtract the mean, divide by
the standard deviation. Limits are checked before anything is decoded. Deliberately knows no
runtime and no files.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from edge_agent.errors import ImageError
from wire.manifest import Preprocessing

Pixels: TypeAlias = "NDArray[np.uint8]"
Tensor: TypeAlias = "NDArray[np.float32]"

MAX_IMAGE_BYTES = 32 * 1024 * 1024
MAX_IMAGE_PIXELS = 32 * 1024 * 1024
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM")
_CHANNELS = 3
_COLOURS = {"grey": "L", "rgb": "RGB"}
_RESAMPLES = {"bilinear": Image.Resampling.BILINEAR, "nearest": Image.Resampling.NEAREST}
# Per layout: the order of the axes (height, width, channel), and how a value per channel is spread over them.
_LAYOUTS = {"NCHW": ((2, 0, 1), (-1, 1, 1)), "NHWC": ((0, 1, 2), (1, 1, -1))}

ImageFile.LOAD_TRUNCATED_IMAGES = False


def decode_image(data: bytes, *, limit_bytes: int = MAX_IMAGE_BYTES, limit_pixels: int = MAX_IMAGE_PIXELS) -> Pixels:
    """Return the image in ``data`` as uint8, (H, W, 3), RGB.

    Raises:
        ImageError: If it is too large, cut off, of no format in ``FORMATS``, or of more than 8 bits a channel.
    """
    if len(data) > limit_bytes:
        message = f"Expected an image of at most {limit_bytes} bytes, got {len(data)}"
        raise ImageError(message)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_pixels(image, limit_pixels)
        _check_depth(image)
        return np.asarray(image.convert("RGB"))
    except ImageError:
        raise
    except Exception as error:  # PIL's decoders raise whatever broken bytes lead them to
        message = f"Expected an intact image ({', '.join(FORMATS)}), got {len(data)} bytes: {_reason(error)}"
        raise ImageError(message) from error


def _check_pixels(image: Image.Image, limit_pixels: int) -> None:
    width, height = image.size
    if width * height > limit_pixels or width * height == 0:
        message = f"Expected an image of 1 to {limit_pixels} pixels, got {width}x{height}"
        raise ImageError(message)


def _check_depth(image: Image.Image) -> None:
    """Refuse what PIL would clip: of 16 bits a channel nearly all is 255 then."""
    if image.mode == "F" or image.mode.startswith("I"):
        message = f"Expected an image of 8 bits a channel, got mode {image.mode!r}: scale it to 0..255 and save it anew"
        raise ImageError(message)


def _reason(error: Exception) -> str:
    return "of no known format" if isinstance(error, UnidentifiedImageError) else str(error)[:120]


def resize_pixels(image: Pixels, pre: Preprocessing) -> Pixels:
    """Return ``image`` as the monitor sees it: RGB at the model's input size, uint8 (height, width, 3).

    Raises:
        ImageError: If ``image`` is not uint8, (H, W, 3).
    """
    _check_image(image)
    if image.shape[:2] == (pre.height, pre.width):
        return image
    return np.asarray(Image.fromarray(image).resize((pre.width, pre.height), _resample(pre)))


def to_tensor(image: Pixels, pre: Preprocessing) -> Tensor:
    """Return one image as the model's input: float32, (1, C, H, W), or (1, H, W, C) when so laid out.

    Raises:
        ImageError: If ``image`` is not uint8, (H, W, 3), or ``pre`` names an unknown colour, resample or layout.
    """
    return to_batch([image], pre)


def to_batch(images: Sequence[Pixels], pre: Preprocessing) -> Tensor:
    """Return N images as the model's input: float32, (N, C, H, W), or (N, H, W, C) when so laid out.

    Raises:
        ImageError: If an image is not uint8, (H, W, 3), or ``pre`` names an unknown colour, resample or layout.
    """
    if pre.layout not in _LAYOUTS:
        message = f"Expected a layout of {', '.join(_LAYOUTS)}, got {pre.layout!r}"
        raise ImageError(message)
    channels = 1 if pre.colour == "grey" else _CHANNELS
    factor, offset = _affine(pre.scale, pre.mean, pre.std, channels)
    order, broadcast = _LAYOUTS[pre.layout]
    shape = (pre.height, pre.width, channels)
    pixels = np.empty((len(images), *(shape[axis] for axis in order)), np.uint8)
    for index, image in enumerate(images):
        pixels[index] = _fitted(image, pre).reshape(shape).transpose(order)
    batch = pixels * factor.reshape(broadcast)  # uint8 x float32 is float32 in one pass
    batch += offset.reshape(broadcast)
    return batch


@lru_cache(maxsize=8)
def _affine(scale: float, mean: tuple[float, ...], std: tuple[float, ...], channels: int) -> tuple[Tensor, Tensor]:
    """Return ``factor`` and ``offset``, float32 (channels,): ``x * scale``, minus ``mean``, by ``std``, in one step.

    Raises:
        ImageError: If ``mean`` or ``std`` has another number of values than 0, 1 or ``channels``, or a std is 0.
    """
    means, deviations = _per_channel(mean, 0.0, channels), _per_channel(std, 1.0, channels)
    if not np.all(deviations > 0):
        message = f"Expected standard deviations above 0, got {std}"
        raise ImageError(message)
    return (scale / deviations).astype(np.float32), (-means / deviations).astype(np.float32)


def _per_channel(values: tuple[float, ...], default: float, channels: int) -> NDArray[np.float64]:
    if len(values) not in {0, 1, channels}:
        message = f"Expected 0, 1 or {channels} values per channel, got {len(values)}"
        raise ImageError(message)
    return np.broadcast_to(np.asarray(values or (default,), np.float64), (channels,))


def _fitted(image: Pixels, pre: Preprocessing) -> Pixels:
    _check_image(image)
    mode = _COLOURS.get(pre.colour)
    if mode is None:
        message = f"Expected a colour of {sorted(_COLOURS)}, got {pre.colour!r}"
        raise ImageError(message)
    same_size = image.shape[:2] == (pre.height, pre.width)
    if same_size and mode == "RGB":
        return image
    picture = Image.fromarray(image)
    if mode != "RGB":
        picture = picture.convert(mode)
    return np.asarray(picture if same_size else picture.resize((pre.width, pre.height), _resample(pre)))


def _resample(pre: Preprocessing) -> Image.Resampling:
    if pre.resample not in _RESAMPLES:
        message = f"Expected a resample of {sorted(_RESAMPLES)}, got {pre.resample!r}"
        raise ImageError(message)
    return _RESAMPLES[pre.resample]


def _check_image(image: Pixels) -> None:
    if image.dtype != np.uint8 or image.ndim != _CHANNELS or image.shape[2] != _CHANNELS or 0 in image.shape:
        message = f"Expected an image of uint8 (H, W, 3), got {image.dtype} {image.shape}"
        raise ImageError(message)
