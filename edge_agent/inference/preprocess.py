"""From encoded bytes to the input tensor; numpy and PIL only.

Decides how an image becomes numbers, on the device and in the compressor alike: decode, rotate and reduce according to
the manifest, convert to its colour, resize (``resizing``), scale, subtract the mean, divide by the standard deviation.
Limits are checked in the header, before anything is decoded. Deliberately uses no runtime and no
files. A colour profile (ICC) and a PNG's gamma are not applied, neither on the device nor on the build host.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from edge_agent.errors import ImageError, ImageTooLargeError
from edge_agent.pictures import sixteen_bits
from edge_agent.pictures.resizing import placed, resized
from wire.manifest import BITS, COLOURS, Preprocessing

Pixels: TypeAlias = "NDArray[np.uint8]"
Tensor: TypeAlias = "NDArray[np.float32]"
_T = TypeVar("_T")

MAX_IMAGE_BYTES = 32 * 1024 * 1024
MAX_IMAGE_PIXELS = 32 * 1024 * 1024
"""Limit for an image in memory during decoding: for a reduced JPEG, after the reduction."""
MAX_STORED_PIXELS = 128 * 1024 * 1024
"""Limit for an image's stated size: reading a gigapixel takes a small device longer than a heartbeat."""
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM")
_CHANNELS = 3
# Per layout: the order of the axes (height, width, channel), and how per-channel values broadcast over them.
_LAYOUTS = {"NCHW": ((2, 0, 1), (-1, 1, 1)), "NHWC": ((0, 1, 2), (1, 1, -1))}

_PLAIN = Preprocessing()
_REDUCTIONS = (8, 4, 2)  # supported by JPEG decoders, which leave out frequencies
_OVERSAMPLING = 2
"""A reduced image has at least this many times the input's pixels per side, so that resizing still filters."""
_ORIENTATION = 0x0112  # Source: Exif 2.32, table 4
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_SIDEWAYS = 5  # from here on, width and height are exchanged
_UNDONE = {6: 8, 8: 6}  # the turn that takes one back; all others take themselves back
_DEEP = Preprocessing(bits=BITS[1], colour="grey")
_HELD_BYTES = 4  # per pixel, in PIL's memory
_ARRAY_BYTES = 6  # per pixel, while it is copied into an array
_SMALL_BYTES = 8 * 1024 * 1024  # below it, free memory is not checked
_OPAQUE = 255

ImageFile.LOAD_TRUNCATED_IMAGES = False


def decode_image(
    data: bytes,
    pre: Preprocessing = _PLAIN,
    *,
    limit_bytes: int = MAX_IMAGE_BYTES,
    limit_pixels: int = MAX_IMAGE_PIXELS,
    room_bytes: Callable[[], int] | None = None,
) -> Pixels:
    """Return the image in ``data`` as uint8, (H, W, 3), RGB, rotated and reduced according to ``pre``.

    With 16 ``bits`` its levels as two bytes, uint8 (H, W, 2), as in ``sixteen_bits``; such an image is never reduced.

    Args:
        data: An encoded image.
        pre: Its ``orientation``, ``decode``, and the size that determines the reduction.
        limit_bytes: Limit of ``data``.
        limit_pixels: Limit of the image in memory during decoding.
        room_bytes: Returns the memory available for decoding; called only for large images.

    Raises:
        ImageTooLargeError: If it has more bytes or pixels than allowed, or needs more memory than available.
        ImageError: If it is truncated, in no format of ``FORMATS``, or has another number of bits per channel; and
            with ``decode = "reduced"``, if it has transparent pixels or several frames.
    """

    def pixels(image: Image.Image) -> Pixels:
        if pre.deep:
            return _upright_levels(image, pre)
        return np.asarray(_upright_and_reduced(image, pre))

    return _checked(data, pixels, pre, limit_bytes=limit_bytes, limit_pixels=limit_pixels, room_bytes=room_bytes)


def _checked(
    data: bytes,
    decode: Callable[[Image.Image], _T],
    pre: Preprocessing,
    *,
    limit_bytes: int = MAX_IMAGE_BYTES,
    limit_pixels: int = MAX_IMAGE_PIXELS,
    room_bytes: Callable[[], int] | None,
) -> _T:
    """Return what ``decode`` makes of the opened image, once its header is within the limits."""
    if len(data) > limit_bytes:
        message = f"Expected an image of at most {limit_bytes} bytes, got {len(data)}"
        raise ImageTooLargeError(message)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PIL, about broken tags: what can't be decoded is an error below
            image = _opened(data, formats_of(pre))
            _check_depth(image, pre)
            _check_size(image, MAX_STORED_PIXELS)
            stored = image.size
            by = 1 if _draft(image, pre) else reduction(*stored, pre)
            _check_size(image, limit_pixels)
            _check_room(image, stored, by, room_bytes)
            return decode(image)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageTooLargeError("Expected an image that fits the memory, got none left while decoding it") from error
    except Exception as error:  # PIL's decoders raise various errors on broken bytes
        message = (
            f"Expected an intact image ({', '.join(formats_of(pre))}), got {len(data)} bytes: {_reason(error, data)}"
        )
        raise ImageError(message) from error


def cropped(data: bytes, region: Sequence[float], resize: Sequence[int]) -> bytes:
    """Return a part of the encoded image in ``data`` as PNG; only the first frame of an animation.

    Args:
        data: An encoded image.
        region: x, y, width and height as ratios of the image as stored, before its Exif orientation; () for all.
        resize: Width and height in pixels; () for those of the region.

    Raises:
        ImageTooLargeError: If it has more bytes or pixels than allowed, or needs more memory than available.
        ImageError: If it is truncated, in no format of ``FORMATS`` nor, with 16 bits, of those that keep them.
    """

    def part_of(image: Image.Image) -> bytes:
        width, height = image.size
        x, y, wide, high = region or (0, 0, 1, 1)
        left, top = min(round(x * width), width - 1), min(round(y * height), height - 1)
        box = (left, top, max(left + 1, round((x + wide) * width)), max(top + 1, round((y + high) * height)))
        see_through = "A" in image.getbands() or "transparency" in image.info
        part = image.crop(box)
        if deep:
            levels = np.asarray(part, np.uint16)
            levels = resized(levels, Preprocessing(width=resize[0], height=resize[1])) if resize else levels
            part = Image.fromarray(levels)
        else:
            part = part.convert("RGBA" if see_through else "L" if image.mode == "L" else "RGB")
        if resize and not deep:
            part = part.resize((resize[0], resize[1]), Image.Resampling.BILINEAR)
        exif = Image.Exif()
        exif[_ORIENTATION] = _orientation(image)
        out = io.BytesIO()
        part.save(out, "PNG", compress_level=1, exif=exif)
        return out.getvalue()

    deep = sixteen_bits.found_in(data)
    return _checked(data, part_of, _DEEP if deep else _PLAIN, room_bytes=None)


def upright_size(data: bytes, pre: Preprocessing = _PLAIN) -> tuple[int, int]:
    """Return width and height of the image in ``data`` in pixels, rotated according to ``pre`` but not reduced.

    Raises:
        ImageTooLargeError: If it states more pixels than allowed.
        ImageError: If it is in no format of ``FORMATS``.
    """
    try:
        image = _opened(data, formats_of(pre))
        _check_size(image, MAX_STORED_PIXELS)
    except ImageError:
        raise
    except Exception as error:  # PIL's parsers raise various errors on broken bytes
        message = f"Expected an image ({', '.join(formats_of(pre))}), got {len(data)} bytes: {_reason(error, data)}"
        raise ImageError(message) from error
    width, height = image.size
    return (height, width) if _turn(image, pre) >= _SIDEWAYS else (width, height)


def reduction(width: int, height: int, pre: Preprocessing) -> int:
    """Return the factor by which an upright image of ``width`` x ``height`` is reduced during decoding: 1, 2, 4 or 8.

    Depends only on these sizes and the input's, so that device and build host agree on every machine.

    Raises:
        ImageError: If it is too long for a centre crop.
    """
    if pre.decode != "reduced" or pre.width <= 0 or pre.height <= 0 or pre.deep:
        return 1
    place = placed(width, height, pre)
    wide, high = width // (_OVERSAMPLING * place.width), height // (_OVERSAMPLING * place.height)
    return next((by for by in _REDUCTIONS if wide >= by and high >= by), 1)


def formats_of(pre: Preprocessing) -> tuple[str, ...]:
    """Return the formats, by PIL's names, of the images that are read for ``pre``."""
    return sixteen_bits.FORMATS if pre.deep else FORMATS


def _opened(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above, and about large images: their sizes are checked
        try:
            return Image.open(io.BytesIO(data), formats=formats)
        except Image.DecompressionBombError as error:
            raise ImageTooLargeError(
                f"Expected an image of at most {MAX_STORED_PIXELS} pixels, got: {error}"
            ) from error


def _check_size(image: Image.Image, limit_pixels: int) -> None:
    width, height = image.size
    if width * height > limit_pixels or width * height == 0:
        message = f"Expected an image of 1 to {limit_pixels} pixels, got {width}x{height}"
        raise ImageTooLargeError(message)


def _check_room(image: Image.Image, stored: tuple[int, int], by: int, room_bytes: Callable[[], int] | None) -> None:
    """Reject what would need more memory than available, by the sizes in the header; ``by``: reduction in decoding."""
    if room_bytes is None:
        return
    pixels = image.size[0] * image.size[1]
    needed = pixels * (_HELD_BYTES * (1 if image.mode == "RGB" else 2)) + pixels // by**2 * _ARRAY_BYTES
    needed += _coefficients_bytes(image, stored)
    if needed <= _SMALL_BYTES:
        return
    room = room_bytes()
    if needed > room:
        got = f"{stored[0]}x{stored[1]} pixels, which take {needed} to decode"
        raise ImageTooLargeError(f"Expected an image that fits {room} bytes of memory, got {got}: send smaller ones")


def _coefficients_bytes(image: Image.Image, stored: tuple[int, int]) -> int:
    """Return the memory of the decoder of a progressive JPEG: all coefficients, 2 bytes each, at any reduction.

    Source: ITU-T T.81, G.1.2: each scan contains a part of every block's coefficients.
    """
    layers: Sequence[tuple[int, int, int, int]] = getattr(image, "layer", ())
    if not ("progression" in image.info or "progressive" in image.info) or not layers:
        return 0
    most = max(across for _, across, _, _ in layers) * max(down for _, _, down, _ in layers)
    cells: int = sum(across * down for _, across, down, _ in layers)
    return 2 * stored[0] * stored[1] * cells // most


def _orientation(image: Image.Image) -> int:
    """Return the Exif orientation, 1 to 8; 1 if the image has none or an invalid one, as in image viewers."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - PIL's parser raises various errors on broken tags; the pixels may be intact
        return 1
    return found if isinstance(found, int) and 1 <= found <= max(_TURNS) else 1


def _turn(image: Image.Image, pre: Preprocessing) -> int:
    """Return the orientation by which the decoded pixels must still be turned; PIL turns a TIFF itself."""
    found = _orientation(image)
    if image.format == "TIFF":
        return 1 if pre.orientation == "exif" else _UNDONE.get(found, found)
    return found if pre.orientation == "exif" else 1


def _draft(image: Image.Image, pre: Preprocessing) -> bool:
    """Let a JPEG decoder reduce the image itself, in a fraction of time and memory; return whether it is a JPEG."""
    if image.format not in {"JPEG", "MPO"}:
        return False
    width, height = image.size
    turn = _turn(image, pre)
    upright = (height, width) if turn >= _SIDEWAYS else (width, height)
    by = reduction(*upright, pre)
    if by > 1:
        image.draft(image.mode, (width // by, height // by))
    return True


def _upright_and_reduced(image: Image.Image, pre: Preprocessing) -> Image.Image:
    drafted = image.format in {"JPEG", "MPO"}
    exact, opaque = pre.decode == "reduced", True
    if exact:
        _check_still(image)
    turn = _turn(image, pre)
    if exact and ("A" in image.getbands() or "transparency" in image.info):
        low, _ = image.convert("RGBA").getchannel("A").getextrema()
        opaque = float(low if isinstance(low, int | float) else low[0]) >= _OPAQUE
    if not opaque:
        raise ImageError("Expected an opaque image, got transparent pixels: put it on its background and save it anew")
    found = image if image.mode == "RGB" else image.convert("RGB")
    found.load()
    if turn in _TURNS:
        found = found.transpose(_TURNS[turn])
    by = 1 if drafted else reduction(*found.size, pre)
    return found.reduce(by) if by > 1 else found


def _upright_levels(image: Image.Image, pre: Preprocessing) -> Pixels:
    if pre.decode == "reduced":
        _check_still(image)
        if "transparency" in image.info:
            raise ImageError("Expected an opaque image, got one with a transparent level: save it without")
    turn = _turn(image, pre)  # read before a TIFF is decoded, which removes its tag
    levels = sixteen_bits.read_levels(image)
    if turn in _TURNS:
        levels = np.asarray(Image.fromarray(levels).transpose(_TURNS[turn]), np.uint16)
    return sixteen_bits.to_bytes(levels)


def _check_still(image: Image.Image) -> None:
    if image.format == "TIFF" and getattr(image, "is_animated", False):  # to count them would read millions of pages
        raise ImageError("Expected a still image, got a file of several pages: save one")
    if image.format in {"PNG", "WEBP"} and getattr(image, "n_frames", 1) > 1:
        raise ImageError(
            f"Expected a still image, got an animation of {getattr(image, 'n_frames', 1)} frames: save one"
        )


def _check_depth(image: Image.Image, pre: Preprocessing) -> None:
    """Reject what PIL would clip: with 16 bits per channel nearly all values would be 255."""
    if pre.deep:
        sixteen_bits.check_mode(image)
    elif image.mode == "F" or image.mode.startswith("I"):
        message = f"Expected an image of 8 bits a channel, got mode {image.mode!r}: scale it to 0..255 and save it anew"
        raise ImageError(f"{message}, or give its recipe bits = 16")


_FOREIGN = (
    (0, b"GIF8", "a GIF: save the frame that is meant as PNG"),
    (0, b"II*\0", "a TIFF: save it as PNG"),
    (0, b"MM\0*", "a TIFF: save it as PNG"),
    (4, b"ftyphei", "a HEIC: save it as JPEG"),
    (4, b"ftypmif1", "a HEIC: save it as JPEG"),
    (4, b"ftypavif", "an AVIF: save it as PNG or JPEG"),
    (0, b"%PDF", "a PDF: save its picture as PNG or JPEG"),
    (0, b"<svg", "an SVG: draw it as PNG"),
)
"""First bytes of files that people take for pictures, at their place, with what to do.

Source: the file signatures of the formats' specifications (GIF89a, TIFF 6.0, ISO/IEC 23008-12, AV1 Image File Format).
"""


def _reason(error: Exception, data: bytes) -> str:
    if not isinstance(error, UnidentifiedImageError):
        return str(error)[:120]
    known = next((text for at, mark, text in _FOREIGN if data[at : at + len(mark)] == mark), "")
    return f"of no known format{f', {known}' if known else ''}"


def resize_pixels(image: Pixels, pre: Preprocessing) -> Pixels:
    """Return ``image`` for the drift monitor: RGB at the model's input size, uint8 (height, width, 3).

    One of 16 bits is resized first, and then shown in 8 bits as ``sixteen_bits.seen`` does.

    Raises:
        ImageError: If ``image`` is not as ``decode_image`` returns it, or is too long for a centre crop.
    """
    if pre.deep:
        return sixteen_bits.seen(fitted(image, pre), pre)
    _check_image(image)
    return resized(image, pre)


def to_tensor(image: Pixels, pre: Preprocessing) -> Tensor:
    """Return one image as the model's input: float32, (1, C, H, W), or (1, H, W, C) in that layout.

    Raises:
        ImageError: If ``image`` is not as ``decode_image`` returns it, or ``pre`` names an unknown colour, resample or
            layout.
    """
    return to_batch([image], pre)


def to_batch(images: Sequence[Pixels], pre: Preprocessing) -> Tensor:
    """Return N images as the model's input: float32, (N, C, H, W), or (N, H, W, C) in that layout.

    Raises:
        ImageError: If an image is not as ``decode_image`` returns it, or ``pre`` names an unknown colour, resample or
            layout.
    """
    return from_fitted((fitted(image, pre) for image in images), len(images), pre)


def fitted(image: Pixels, pre: Preprocessing) -> Pixels:
    """Return ``image`` in the input's colours and size, but in the levels of an image: uint8 (height, width, C).

    With 16 bits, C is 2: the bytes of a level.

    Raises:
        ImageError: If ``image`` is not as ``decode_image`` returns it, or is too long for a centre crop, or ``pre``
            names an unknown colour, resample or resize.
    """
    if pre.deep:
        return sixteen_bits.to_bytes(resized(sixteen_bits.to_levels(image), pre))
    _check_image(image)
    if pre.colour not in COLOURS:
        message = f"Expected a colour of {sorted(COLOURS)}, got {pre.colour!r}"
        raise ImageError(message)
    if pre.colour == "grey":
        return resized(Image.fromarray(image).convert("L"), pre)[..., None]
    picture = resized(image, pre)
    return picture[..., ::-1] if pre.colour == "bgr" else picture


def from_fitted(images: Iterable[Pixels], count: int, pre: Preprocessing) -> Tensor:
    """Return ``count`` images, each as ``fitted`` returns it, as the model's input: float32, as in ``to_batch``.

    Raises:
        ImageError: If an image has another shape, or ``pre`` has an unknown layout or numbers that don't fit it.
    """
    if pre.layout not in _LAYOUTS:
        message = f"Expected a layout of {', '.join(_LAYOUTS)}, got {pre.layout!r}"
        raise ImageError(message)
    factor, offset = _affine(pre.scale, pre.mean, pre.std, pre.channels)
    order, broadcast = _LAYOUTS[pre.layout]
    shape = (pre.height, pre.width, pre.channels)
    pixels = np.empty((count, *(shape[axis] for axis in order)), np.uint16 if pre.deep else np.uint8)
    for index, given in enumerate(images):
        image = sixteen_bits.to_levels(given)[..., None] if pre.deep else given
        if image.dtype != pixels.dtype or image.shape != shape:
            message = f"Expected pixels of {pixels.dtype} {shape}, got {image.dtype} {image.shape}"
            raise ImageError(message)
        pixels[index] = image.transpose(order)
    batch = pixels * factor.reshape(broadcast)  # uint8 or uint16 x float32 is float32 in one pass
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


def _check_image(image: Pixels) -> None:
    if image.dtype != np.uint8 or image.ndim != _CHANNELS or image.shape[2] != _CHANNELS or 0 in image.shape:
        message = f"Expected an image of uint8 (H, W, 3), got {image.dtype} {image.shape}"
        raise ImageError(message)
