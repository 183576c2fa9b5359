"""Turns what users have as a photograph into uint8 RGB: a file, a Pillow image, or an array of any library."""

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias, TypeGuard, cast

import cv2
import numpy as np
from PIL import Image

from deconvnet_jax.errors import InputError, one_line
from deconvnet_jax.files import no_file, user_path
from deconvnet_jax.images import MAX_PHOTOGRAPH, read_image, rgb_pixels


class ArrayLike(Protocol):
    """Array of any library that NumPy can read, such as a JAX array or a PyTorch tensor on the CPU."""

    def __array__(self) -> np.ndarray: ...


ImageLike: TypeAlias = str | os.PathLike[str] | IO[bytes] | Image.Image | np.ndarray | ArrayLike

_NO_PHOTOGRAPH = "{} is no photograph; expected a path, a Pillow image or an array: {}"


def is_image_like(value: object) -> TypeGuard[ImageLike]:
    """Returns whether a value is a single photograph, which may still be unusable, and not several of them."""
    single = str | bytes | os.PathLike | Image.Image
    return isinstance(value, single) or any(hasattr(value, name) for name in ("__array__", "read"))


def check_several(images: object) -> None:
    """Checks that a value can be iterated over for photographs. An array may hold several; a path or its rows do not.

    Args:
      images: what was given instead of a list of photographs.

    Raises:
      InputError: if it is a single photograph, or cannot be iterated over.
    """
    if is_image_like(images) and getattr(images, "ndim", 3) in (2, 3):
        raise InputError(
            f"a single {type(images).__name__} instead of several photographs; give a list: segment([image])"
        )
    if not isinstance(images, Iterable):
        raise InputError(_NO_PHOTOGRAPH.format(type(images).__name__, "give one of these"))


def as_photograph(image: ImageLike) -> np.ndarray:
    """Returns a photograph as uint8 RGB.

    Files and Pillow images are turned upright by their EXIF orientation. Grey images get three equal channels.
    Transparent parts are shown on white. Values are never scaled, so floats and 16-bit integers are refused. Arrays in
    BGR, as from `cv2.imread`, cannot be recognised: convert them with `image[..., ::-1]`.

    Args:
      image: the path of a file; an open binary file; a Pillow image; or an array of NumPy, JAX or PyTorch (on the CPU):
        uint8 [H, W], [H, W, 1], RGB [H, W, 3] or RGBA [H, W, 4].

    Returns:
      uint8 RGB [H, W, 3]. An array of this kind is returned itself, not a copy.

    Raises:
      InputError: if the file cannot be read or has more than 50 million pixels, an array has another shape or dtype, or
        the value is no photograph.

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax.photographs import as_photograph
      >>> as_photograph("photo.jpg").shape, as_photograph(np.zeros((60, 80), np.uint8)).shape
      ((60, 80, 3), (60, 80, 3))
    """
    if isinstance(image, str | os.PathLike):
        return _from_file(user_path(image, "image"))
    if isinstance(image, Image.Image):
        try:
            return rgb_pixels(image, "the Pillow image", upright=True)
        except InputError:
            raise
        except Exception as error:  # Pillow reads the file only now, and raises many types of exceptions.
            raise InputError(f"the Pillow image cannot be read ({one_line(error)}); open or make it again") from error
    if hasattr(image, "__array__"):
        return _from_array(image)
    if hasattr(image, "read"):
        return _from_file(cast("IO[bytes]", image))
    remedy = "give io.BytesIO(...) for the bytes of a file" if isinstance(image, bytes) else "give one of these"
    raise InputError(_NO_PHOTOGRAPH.format(type(image).__name__, remedy))


def reduced_to(image: np.ndarray, max_side: int) -> np.ndarray:
    """Returns an image whose longer side has at most this number of pixels.

    Args:
      image: uint8 RGB [H, W, 3].
      max_side: the limit, in pixels.

    Returns:
      uint8 RGB [H', W', 3]; `image` itself if it is small enough.
    """
    height, width = image.shape[:2]
    factor = min(1.0, max_side / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA) if factor < 1 else image


def _from_file(file: Path | IO[bytes]) -> np.ndarray:
    if isinstance(file, Path):
        if file.is_dir():
            raise InputError(f'{file} is a folder; give its files, such as sorted(Path("{file}").glob("*.jpg"))')
        if not file.exists():
            raise InputError(no_file(file, "image"))
    elif isinstance(file, io.TextIOBase):
        raise InputError('the file is open in text mode; open it in binary mode: open(path, "rb")')
    larger = "reduce it, or give images.read_photograph(path, max_pixels=...)"
    return read_image(file, max_pixels=MAX_PHOTOGRAPH, larger=larger, upright=True)


def _from_array(given: Any) -> np.ndarray:
    """Returns the pixels of an array of any library."""
    try:
        array = np.asarray(given)
    except Exception as error:  # Each library has its own: for tensors on a GPU, with gradients, deleted arrays ...
        raise InputError(
            f"NumPy cannot read the {type(given).__name__} ({one_line(error)}); copy it to a NumPy array first"
        ) from error
    shape = list(array.shape)
    if array.ndim == 4:
        raise InputError(f"the array {shape} holds several images; give them as a list: list(images)")
    channels = (1, 3, 4)
    is_image = array.ndim == 2 or (array.ndim == 3 and shape[2] in channels)
    if array.ndim == 3 and not is_image and shape[0] in channels and shape[0] < min(shape[1:]):
        raise InputError(
            f"the array {shape} has its channels first; expected [height, width, channels]: give "
            "np.moveaxis(np.asarray(image), 0, -1)"
        )
    if not is_image:
        raise InputError(f"the array {shape} is no image; expected [height, width] or [height, width, 1, 3 or 4]")
    if array.dtype != np.uint8:
        raise InputError(f"expected uint8 values 0 to 255, got {array.dtype}; {_conversion(given, array)}")
    if not array.size:
        raise InputError(f"the image has the shape {shape}; expected at least one pixel")
    if shape[2:] == [4]:
        return rgb_pixels(Image.fromarray(array), "the array", upright=False)
    return array if shape[2:] == [3] else np.repeat(array.reshape(*shape[:2], 1), 3, axis=2)


def _conversion(given: Any, array: np.ndarray) -> str:
    """Returns how to convert an image of another dtype: by its range, which only the user can confirm."""
    if array.dtype == bool or array.dtype.kind not in "iuf" or not array.size:
        return "give the pixels of a photograph"
    low, high = float(np.min(array)), float(np.max(array))
    if not np.isfinite([low, high]).all():
        return "it has values that are infinite or NaN: give the photograph as it was read"
    if low < 0:
        return "it has negative values: give the photograph as it was before normalisation"
    image = "image" if isinstance(given, np.ndarray) else "np.asarray(image)"  # A tensor has no `astype`.
    if high <= 1 and array.dtype.kind == "f":
        return f"convert values from 0 to 1 with ({image} * 255).round().astype(np.uint8)"
    if high == 1:
        return "it has the values 0 and 1 only, like a mask: give the pixels of a photograph"
    if high <= np.iinfo(np.uint8).max:
        return f"convert values from 0 to 255 with {image}.round().astype(np.uint8)"
    return f"its largest value is {high:g}: scale it to 0 to 255, and convert with .round().astype(np.uint8)"
