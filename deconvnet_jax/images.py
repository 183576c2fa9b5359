"""Reads and writes photographs and masks, and checks image files from untrusted sources before it decodes them.

Pillow guesses the format of a file by its content. It knows about sixty formats, among them PostScript, for which it
starts Ghostscript. This module tries only those in `FORMATS`. It checks the size, the kind and, for PNG, the checksums
before it decodes pixels, and reports damage in one line.
"""

import contextlib
import os
import re
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from deconvnet_jax.errors import InputError, one_line
from deconvnet_jax.file_kinds import picture_kind
from deconvnet_jax.files import not_written, whole_file
from deconvnet_jax.short_repr import short_repr

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # JPEG includes MPO, several JPEGs in a phone's file.
READ = "JPEG, PNG, BMP, GIF, WebP, TIFF and PPM"
MAX_PIXELS = 178_956_970  # pixels per image; Pillow takes a larger image for a decompression bomb
MAX_PHOTOGRAPH = 50_000_000  # pixels per photograph to segment: scores of 21 classes take 84 bytes per pixel

# The largest possible number of pixels per byte of a file. Deflate compresses a byte with 8 pixels at most 1032 times;
# a JPEG needs at least one bit per block of 64 pixels. The other formats have no such limit.
_PIXELS_PER_BYTE = {"PNG": 8 * 1032, "JPEG": 512, "MPO": 512, "PPM": 8}
_COLOR_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "La", "CMYK", "YCbCr", "HSV")
_ORIENTATION, _SUBFILE, _DNG_VERSION = 0x0112, 254, 50706  # tags of EXIF and TIFF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Example(NamedTuple):
    """Annotated photograph.

    Attributes:
      name: name of the photograph in the list of its split.
      image: uint8 RGB [H, W, 3].
      label: class ids, uint8 [H, W]; 255 marks ignored pixels.
      instances: object numbers, uint8 [H, W]; 0 is background, 255 marks ignored pixels. None without object masks.
    """

    name: str
    image: np.ndarray
    label: np.ndarray
    instances: np.ndarray | None

    __repr__ = short_repr


class Examples(Protocol):
    """Sequence of annotated photographs with random access, such as a list or `data.DatasetSplit`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


def image_digests(source: Any, masks: bool = False) -> list[str] | None:
    """Returns a digest of each image of a source, which two sources can be compared by.

    Args:
      source: `Examples`, for example a `data.DatasetSplit`.
      masks: include the masks in the digests.

    Returns:
      One text per image, from `data.DatasetSplit.digest`; None if the source has no such method.
    """
    digest = getattr(source, "digest", None)
    return [digest(i, masks) for i in range(len(source))] if digest else None


def read_image(
    file: str | Path | IO[bytes],
    *,
    max_pixels: int = MAX_PIXELS,
    larger: str = "cut it into tiles, and its mask into the same ones",
    upright: bool = False,
) -> np.ndarray:
    """Reads an image as RGB.

    Grey and CMYK images are converted. Transparent parts are shown on white, as image viewers do.

    Args:
      file: file name, or an open binary file.
      max_pixels: the largest number of pixels; a larger image is refused before it is decoded.
      larger: advice for the error message about an image that is too large.
      upright: turn the image by its EXIF orientation; the default leaves it as it is stored.

    Returns:
      uint8 RGB [H, W, 3].

    Raises:
      InputError: if the file is not one complete image in one of `FORMATS`, has more than `max_pixels` pixels, or more
        than 8 bits per channel.
    """
    with open_image(file, max_pixels, larger) as image:
        return rgb_pixels(image, str(file), upright)


def rgb_pixels(image: Image.Image, name: str, upright: bool) -> np.ndarray:
    """Returns the pixels of an opened image as RGB, with transparent parts on white.

    Args:
      image: the Pillow image.
      name: the image's name in error messages.
      upright: turn the image by its EXIF orientation.

    Returns:
      uint8 RGB [H, W, 3].

    Raises:
      InputError: if the image has more than 8 bits per channel, or a colour mode that has no RGB values.
    """
    if image.mode[0] in "IF" or any(re.search("I;16|;16[BLNRS]|;32", args) for args in _tile_arguments(image)):
        raise InputError(f"{name} has more than 8 bits per channel; save it as an 8-bit image")
    if image.mode not in _COLOR_MODES:
        raise InputError(f"{name} has the colour mode {image.mode}; save it as an RGB image")
    image.load()
    turn = _TURNS.get(_orientation(image)) if upright else None
    turned = image.transpose(turn) if turn is not None else image
    if turned.has_transparency_data:
        # Pillow cannot convert premultiplied grey directly.
        opaque = (turned.convert("LA") if turned.mode == "La" else turned).convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque)
    return np.array(turned.convert("RGB"))


def read_photograph(path: str | Path, max_pixels: int = MAX_PHOTOGRAPH) -> np.ndarray:
    """Reads a photograph to segment, and turns it upright by its EXIF orientation.

    Args:
      path: the file.
      max_pixels: the largest number of pixels; a larger photograph is refused before it is decoded.

    Returns:
      uint8 RGB [H, W, 3].

    Raises:
      InputError: if the file is not one complete image in one of `FORMATS`, has more than `max_pixels` pixels, or more
        than 8 bits per channel.

    Example:
      >>> from deconvnet_jax.images import read_photograph
      >>> image = read_photograph("photo.jpg")
      >>> image.dtype, image.ndim, image.shape[2]
      (dtype('uint8'), 3, 3)
    """
    larger = "reduce it, or raise --max_pixels"
    return read_image(path, max_pixels=max_pixels, larger=larger, upright=True)


def read_mask(file: str | Path | IO[bytes]) -> np.ndarray:
    """Reads the numbers that the pixels of an indexed or greyscale PNG hold, not their colours.

    Args:
      file: file name, or an open binary file. A 16-bit PNG is accepted if all its numbers are at most 255.

    Returns:
      Class ids or object numbers, uint8 [H, W].

    Raises:
      InputError: if the file is damaged, a colour image, no PNG, or holds numbers above 255.
    """
    with open_image(file) as image:
        deep = image.format == "PNG" and image.mode in ("I", "I;16", "I;16B")
        if image.format != "PNG" or not (deep or image.mode in ("P", "L", "1")):
            raise InputError(
                f"{file} is a mask in {image.format}, mode {image.mode}; expected an indexed or 8-bit greyscale "
                "PNG: save class ids, not colours"
            )
        ids = pixel_numbers(image)
    if ids.max() > 255:
        raise InputError(
            f"{file} is a 16-bit mask with numbers up to {ids.max()}; expected class ids in 8 bits, 255 for ignored "
            "pixels: Image.fromarray(ids.astype(np.uint8)).save(...)"
        )
    return ids.astype(np.uint8)


def pixel_numbers(image: Image.Image) -> np.ndarray:
    """Returns the numbers that the pixels of an indexed or greyscale image hold, as they are stored.

    Args:
      image: opened image of mode P, L, 1, or 16-bit grey.

    Returns:
      Integers [H, W].
    """
    stretch = _stretch(image)
    numbers = np.array(image)
    return (numbers.astype(np.uint8) if numbers.dtype == bool else numbers) // stretch


def largest_number(image: Image.Image) -> int:
    """Returns the largest number that a pixel of an indexed or greyscale image can hold: 1, 3, 15, 255 or 65,535.

    Args:
      image: opened image, as for `pixel_numbers`, before its pixels are read.
    """
    if image.mode == "1":
        return 1
    return 65_535 if image.mode.startswith("I") else 255 // _stretch(image)


def check_mask_size(
    file: str | Path | IO[bytes], mask: np.ndarray, image: np.ndarray, remedy: str = "get the data again"
) -> None:
    """Raises InputError unless a mask has the size of its photograph.

    Args:
      file: the mask's file, named in the error message.
      mask: class ids or object numbers, [H, W].
      image: the photograph, [H, W, 3].
      remedy: advice for the end of the error message.

    Raises:
      InputError: if height or width differ.
    """
    if mask.shape != image.shape[:2]:
        raise InputError(
            f"{file} is {mask.shape[1]}x{mask.shape[0]} pixels, but its image is {image.shape[1]}x{image.shape[0]}; "
            f"{remedy}"
        )


def check_mask_ids(
    file: str | Path | IO[bytes], mask: np.ndarray, num_classes: int, remedy: str = "get the data again"
) -> None:
    """Raises InputError unless a class mask holds only class ids, and 255 for ignored pixels.

    Args:
      file: the mask's file, named in the error message.
      mask: class ids, uint8 [H, W].
      num_classes: the number of classes; their ids are 0 to num_classes - 1.
      remedy: advice for the end of the error message.

    Raises:
      InputError: if the mask holds another id.
    """
    ids = np.unique(mask)
    unknown = ids[(ids >= num_classes) & (ids != np.iinfo(np.uint8).max)]
    if len(unknown):
        raise InputError(
            f"{file} has unknown class ids {', '.join(map(str, unknown[:9]))}; expected 0 to {num_classes - 1} and "
            f"255 for ignored pixels: {remedy}"
        )


def image_size(file: str | Path | IO[bytes]) -> tuple[int, int]:
    """Returns the height and the width of an image as it is stored, without decoding pixels.

    Raises:
      InputError: if the file is not an image in one of `FORMATS`.
    """
    with open_image(file) as image:
        return image.height, image.width


def image_orientation(file: str | Path | IO[bytes]) -> int:
    """Returns the EXIF orientation of an image, 1 (upright) to 8; 1 if there is none or it cannot be read.

    Raises:
      InputError: if the file is not an image in one of `FORMATS`.
    """
    with open_image(file) as image:
        number = _orientation(image)
        return number if number in _TURNS else 1


def save_picture(path: Path, picture: np.ndarray) -> None:
    """Writes a picture, whole or not at all.

    Args:
      path: the file, which is replaced if it exists. Its suffix sets the format (.png, .jpg, ...). Missing folders
        are made.
      picture: uint8 RGB [H, W, 3].

    Raises:
      InputError: if the file cannot be written.
    """
    with not_written(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"quality": 92, "subsampling": 0} if path.suffix.lower() in (".jpg", ".jpeg") else {}
    with whole_file(path) as temporary:
        Image.fromarray(picture).save(temporary, **options)


def check_image(image: np.ndarray) -> None:
    """Raises InputError unless an image is valid input for a segmenter.

    Args:
      image: must be a NumPy array, uint8 RGB [H, W, 3], with at least one pixel.

    Raises:
      InputError: for another type, shape or dtype, or an empty array.
    """
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3:
        got = f"an array of shape {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(
            f"expected a colour image [height, width, 3], got {got}; convert grey or transparent pictures with "
            "deconvnet_jax.inference.as_photograph"
        )
    if image.dtype != np.uint8:
        raise InputError(
            f"expected uint8 values 0 to 255, got {image.dtype}; "
            "convert values from 0 to 1 with (image * 255).round().astype(np.uint8)"
        )
    if not image.size:
        raise InputError(f"the image has the shape {list(image.shape)}; expected at least one pixel")


@contextlib.contextmanager
def open_image(
    file: str | Path | IO[bytes], max_pixels: int = MAX_PIXELS, larger: str = "cut it into tiles"
) -> Iterator[Image.Image]:
    """Opens an image in one of `FORMATS` after checking it, without decoding its pixels.

    Args:
      file: file name, or an open binary file.
      max_pixels: the largest number of pixels; a larger image is refused.
      larger: advice for the error message about an image that is too large.

    Yields:
      The Pillow image.

    Raises:
      InputError: if the file cannot be read, is of another kind, damaged, too large, or has several frames. Any error
        of the block, for example while it decodes pixels, is raised as InputError too.
    """
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(Path(file).open("rb")) if isinstance(file, str | os.PathLike) else file
        except (OSError, ValueError) as error:
            raise InputError(f"{file} cannot be read ({_reason(error)}); correct that or remove it") from error
        try:
            image = stack.enter_context(_identified(stream, max_pixels))
            _check_size(image, stream, max_pixels, larger, file)
            _check_frames(image, file)
            if image.format == "PNG":  # Pillow would decode pixels whose checksum is wrong.
                image.verify()
                image = stack.enter_context(_identified(stream, max_pixels))
            yield image
        except InputError:
            raise
        except (Image.DecompressionBombError, MemoryError) as error:
            raise InputError(f"{file} has too many pixels; {max_pixels:,} are allowed: {larger}") from error
        except Exception as error:  # Pillow raises many types of exceptions for damaged files.
            kind = picture_kind(stream) if isinstance(error, UnidentifiedImageError) else None
            if kind:
                raise InputError(f"{file} is {kind}; expected an image in {READ}: export it as one") from error
            raise InputError(f"{file} is not a complete image file ({_reason(error)}); replace or remove it") from error


def _identified(stream: IO[bytes], max_pixels: int) -> Image.Image:
    """Returns the opened image, of which Pillow has read the header."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # Another library may have set it, which would accept truncated images.
    # Pillow refuses images of twice this limit. That must not happen below `max_pixels`.
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, -(-max_pixels // 2))
    with _no_warnings():  # Pillow warns of odd EXIF data, and of sizes that `_check_size` checks anyway.
        return Image.open(stream, formats=FORMATS)


_WARNINGS = threading.Lock()


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """Ignores warnings, in one thread at a time, because warning filters apply to the whole process."""
    with _WARNINGS, warnings.catch_warnings(action="ignore"):
        yield


def _check_size(
    image: Image.Image, stream: IO[bytes], max_pixels: int, larger: str, file: str | Path | IO[bytes]
) -> None:
    pixels = image.width * image.height
    if not pixels:
        raise InputError(f"{file} has no pixels; replace or remove it")
    if pixels > max_pixels:
        raise InputError(
            f"{file} has too many pixels ({image.width}x{image.height}); {max_pixels:,} are allowed: {larger}"
        )
    position = stream.tell()
    size = stream.seek(0, os.SEEK_END)
    stream.seek(position)
    if pixels > size * _PIXELS_PER_BYTE.get(image.format or "", pixels):
        raise EOFError(f"{size} bytes are too few for {image.width}x{image.height} pixels")


def _check_frames(image: Image.Image, file: str | Path | IO[bytes]) -> None:
    """Raises InputError for animations, several pages, and camera raw files, whose first page is a thumbnail."""
    several = image.format not in ("MPO", "TIFF") and getattr(image, "is_animated", False)
    if isinstance(image, TiffImageFile):
        if image.tag_v2.get(_SUBFILE, 0) & 1 or _DNG_VERSION in image.tag_v2:
            raise InputError(f"{file} is a camera's raw file; expected an image in {READ}: export it as one")
        with contextlib.suppress(EOFError):
            image.seek(1)
            # The flags 1 and 4 mark a smaller copy of the first page and its transparency, which are no further pages.
            several = not image.tag_v2.get(_SUBFILE, 0) & 5
        image.seek(0)
    if several:
        raise InputError(f"{file} has several frames or pages; save the one you need as a separate image")


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation as stored; 1 (upright) if there is none or it cannot be read."""
    with contextlib.suppress(Exception), _no_warnings():
        return int(image.getexif().get(_ORIENTATION, 1))
    return 1


def _stretch(image: Image.Image) -> int:
    """Returns the factor by which Pillow multiplies ids: it stretches 2-bit and 4-bit greys to 0..255."""
    return {"L;2": 85, "L;4": 17}.get(next(iter(_tile_arguments(image)), ""), 1)


def _tile_arguments(image: Image.Image) -> set[str]:
    """Returns the arguments of Pillow's decoders for the parts of an image, such as the bits per channel, as texts."""
    return {str(tile.args) for tile in image.tile} if isinstance(image, ImageFile.ImageFile) else set()


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"it is not {READ.replace(' and ', ' or ')}, or its header is damaged"
    return one_line(error, 120)
