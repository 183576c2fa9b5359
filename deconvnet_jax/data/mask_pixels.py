"""Turns masks that are pictures into class ids: by numbers, by colours, or by black and white."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deconvnet_jax.data.mask_classes import NUMBERS, ClassTable
from deconvnet_jax.data.voc_writer import DrawnMasks, check_object_count, number_objects
from deconvnet_jax.errors import InputError, counted
from deconvnet_jax.images import largest_number, open_image, pixel_numbers
from deconvnet_jax.labels import IGNORE, IGNORE_16

LOSSY = ("JPEG", "MPO", "WEBP")
_BORDER = 0xE0E0C0  # colour of VOC's id 255
_UNKNOWN, _CLEAR = 256, 257  # marks of pixels without a class and of transparent pixels
_SHOWN = 8  # numbers or colours that a message names
NO_OBJECTS = " or leave out all object numbers with --noobjects"  # remedy for images with too many objects


class Pixels(NamedTuple):
    """Content of a mask.

    Attributes:
      path: the file.
      values: numbers, or colours as 0xRRGGBB, int64 [H, W].
      is_color: whether `values` are colours.
      palette: colours of the numbers of an indexed picture as 0xRRGGBB, int64 [n]; None for other pictures.
      clear: which pixels are fully transparent, bool [H, W]; None if none is.
      most: largest number that a pixel of a grey picture of this depth can hold: 1, 3, 15, 255 or 65,535.
      is_rgb: whether the picture is stored with colour channels, even if it shows only greys.
    """

    path: Path
    values: np.ndarray
    is_color: bool
    palette: np.ndarray | None
    clear: np.ndarray | None
    most: int = 255
    is_rgb: bool = False


def read_pixels(path: Path) -> Pixels:
    """Reads a mask as it is stored.

    Grey pictures, also those stored as RGB, and indexed pictures give numbers. Other pictures give colours.

    Raises:
      InputError: if the file is damaged, of a lossy format, or partly transparent.
    """
    with open_image(path) as image:
        if image.format in LOSSY or str(image.info.get("compression", "")) in ("jpeg", "tiff_jpeg", "webp"):
            raise InputError(
                f"{path} is a mask in {image.format}, which is lossy: it changes numbers and colours at all edges; "
                "export the masks again as PNG"
            )
        if image.mode in ("P", "L", "1") or image.mode.startswith("I"):
            palette = np.array(image.getpalette("RGB"), np.int64).reshape(-1, 3) if image.mode == "P" else None
            most = largest_number(image)
            numbers = pixel_numbers(image).astype(np.int64)
            return Pixels(path, numbers, False, None if palette is None else _packed(palette), None, most)
        if image.mode not in ("RGB", "RGBA", "LA"):
            raise InputError(f"{path} has the colour mode {image.mode}; save it as an RGB or indexed PNG")
        if any(";16" in str(tile.args) for tile in getattr(image, "tile", ())):
            raise InputError(f"{path} has more than 8 bits per channel; save it with 8 bits")
        rgba, is_rgb = np.array(image.convert("RGBA")), image.mode != "LA"
    alpha = rgba[..., 3]
    half = int(((alpha > 0) & (alpha < 255)).sum())
    if half:
        raise InputError(
            f"{path} has {counted(half, 'pixel')} that are partly transparent, as antialiased edges are; export the "
            "masks without antialiasing and transparency"
        )
    clear = alpha == 0
    is_color = bool((rgba[..., :1] != rgba[..., 1:3])[~clear].any())
    values = _packed(rgba[..., :3].astype(np.int64)) if is_color else rgba[..., 0].astype(np.int64)
    return Pixels(path, values, is_color, None, clear if clear.any() else None, is_rgb=is_rgb)


def _packed(colors: np.ndarray) -> np.ndarray:
    return colors[..., 0] << 16 | colors[..., 1] << 8 | colors[..., 2]


def _color_text(packed: int) -> str:
    return f"({packed >> 16}, {packed >> 8 & 255}, {packed & 255})"


class PixelReader:
    """Reads masks as class ids, and remembers what could make the result wrong."""

    def __init__(self, table: ClassTable, by_color: bool, unknown: str, check_palettes: bool):
        """Starts without any mask.

        Args:
          table: the classes.
          by_color: whether colours mark the classes; otherwise numbers do.
          unknown: what happens to pixels that the table does not name: "error", "ignore" (255) or "background" (0, or
            255 if background is ignored).
          check_palettes: refuse masks whose palettes have different colours for the same number.
        """
        self._table, self._by_color, self._unknown = table, by_color, unknown
        self._first: dict[int, tuple[int, Path]] | None = {} if check_palettes and not by_color else None
        if by_color:
            marks = {red << 16 | green << 8 | blue: i for (red, green, blue), i in table.colors.items()}
        else:
            marks = {IGNORE: IGNORE, IGNORE_16: IGNORE, **table.values}
        # A look-up of every possible value is several times faster than `np.unique`.
        self._class_ids = np.full(NUMBERS, _UNKNOWN, np.uint16)
        self._class_ids[list(marks)] = list(marks.values())

    def read(self, path: Path) -> np.ndarray:
        """Returns the class ids of a mask.

        Args:
          path: the file.

        Returns:
          uint8 [H, W]; 255 marks ignored pixels.

        Raises:
          InputError: if the mask is not usable, or has pixels that the table does not name and `unknown` is "error".
        """
        pixels = read_pixels(path)
        values = self._values(pixels)
        if values.min() < 0 or values.max() >= NUMBERS:
            raise InputError(f"{path} holds numbers from {values.min()} to {values.max()}; expected class ids")
        ids = self._class_ids[values]
        if pixels.clear is not None:
            ids[pixels.clear] = _CLEAR
        without = ids >= _UNKNOWN
        if self._unknown == "error" and without.any():
            raise InputError(self._message(path, Counter(values[ids == _UNKNOWN].tolist()), int((ids == _CLEAR).sum())))
        ids[without] = self._table.background if self._unknown == "background" else IGNORE
        return ids.astype(np.uint8)

    def _values(self, pixels: Pixels) -> np.ndarray:
        """Returns the numbers or colours that the table is asked for, int64 [H, W]."""
        values = pixels.values
        if self._by_color and pixels.palette is not None:
            if values.max(initial=0) >= len(pixels.palette):
                raise InputError(f"{pixels.path} holds numbers without a colour in its palette; save it again as RGB")
            values = pixels.palette[values]
        elif self._by_color and not pixels.is_color:
            if values.max(initial=0) > 255:
                raise InputError(
                    f"{pixels.path} holds 16-bit numbers up to {values.max()}, but {self._table.where} names colours; "
                    "give the numbers with --names=ID=NAME,..."
                )
            values = values * 0x010101
        elif not self._by_color and pixels.is_color:
            raise InputError(
                f"{pixels.path} holds the colours {_listed(_colors(pixels), len(np.unique(values)))}, but "
                f"{self._table.where} names no colours; give --classes=FILE with a line name,r,g,b for each class"
            )
        if self._first is not None and pixels.palette is not None:
            self._check_palette(pixels, self._first)
        return values

    def _check_palette(self, pixels: Pixels, first: dict[int, tuple[int, Path]]) -> None:
        palette = pixels.palette if pixels.palette is not None else np.zeros(0, np.int64)
        for number in np.unique(pixels.values).tolist():
            if number >= len(palette):
                continue
            color, where = first.setdefault(number, (int(palette[number]), pixels.path))
            if color != palette[number]:
                raise InputError(
                    f"the number {number} has the colour {_color_text(int(palette[number]))} in the palette of "
                    f"{pixels.path}, but {_color_text(color)} in {where}; give --classes=FILE with lines name,r,g,b if "
                    "the colours count, or --kind=ids if the numbers do"
                )

    def _message(self, path: Path, unknown: Counter[int], clear: int) -> str:
        """Returns what is wrong with a mask that has pixels without a class."""
        backing = " or background" if self._table.has_background else ""
        remedy = f"--unknown=ignore{backing} takes them as 255{' or 0' if backing else ''}"
        if not unknown:
            return f"{path} has {counted(clear, 'transparent pixel')} without a class; {remedy}"
        value = max(unknown, key=lambda value: unknown[value])
        more = f" and {counted(len(unknown) - 1, 'other')}" if len(unknown) > 1 else ""
        if self._by_color:
            what, fix = f"the colour {_color_text(value)}", "add it there"
            if value >> 16 == value >> 8 & 255 == value & 255 and len(self._table.colors) > value & 255 > 0:
                fix = "give --kind=ids if the masks hold line numbers of that table, add the colour there"
        else:
            what, fix = f"the number {value}", f"expected {_listed([str(mark) for mark in self._table.values])}: add it"
        return (
            f"{path} has {what} at {counted(unknown[value], 'pixel')}{more}, which {self._table.where} does not name; "
            f"{fix}, or {remedy}"
        )


class BinaryReader:
    """Reads black-and-white masks of one class."""

    def __init__(self, threshold: int | None):
        """Starts without any mask.

        Args:
          threshold: grey value from which a pixel belongs to the class, of 0 to 255 for every depth of the pictures.
            None accepts only black and white, or 0 and 1.
        """
        self._threshold = threshold
        self._white: dict[int, Path] = {}

    def read(self, path: Path) -> np.ndarray:
        """Returns the class ids of a mask.

        Args:
          path: the file.

        Returns:
          0 and 1, uint8 [H, W].

        Raises:
          InputError: if the mask holds colours, transparent pixels, other numbers than two, or numbers that are no grey
            values although there is a threshold.
        """
        pixels = read_pixels(path)
        if pixels.is_color:
            shown = _listed(_colors(pixels))
            raise InputError(f"{path} holds the colours {shown}; --binary expects black and white: omit it")
        if pixels.clear is not None:
            raise InputError(
                f"{path} has {counted(int(pixels.clear.sum()), 'transparent pixel')}; --binary expects black and "
                "white: export the masks without transparency"
            )
        values = pixels.values
        if pixels.palette is not None:  # The colours of an indexed picture count: 1 may be white or black.
            values = _grey_of_palette(pixels)
        if self._threshold is not None:
            return _from_threshold(pixels, values, self._threshold)
        found = np.unique(values).tolist()
        white = next((value for value in found if value), 0)
        if not set(found) <= {0, white} or white not in (0, 1, 255, pixels.most):
            raise InputError(
                f"{path} holds {counted(len(found), 'number')}: {_listed([str(value) for value in found])}; --binary "
                "expects 0 and 255: give --threshold=128 if these are antialiased edges, otherwise omit --binary"
            )
        if white in (1, 255) and (white != pixels.most or white == 255):  # The white of another depth is no doubt.
            self._white.setdefault(white, path)
        if len(self._white) > 1:
            raise InputError(
                f"{self._white[1]} holds 0 and 1, but {self._white[255]} holds 0 and 255; export all masks with 0 and "
                "255"
            )
        return (values > 0).astype(np.uint8)


def _from_threshold(pixels: Pixels, values: np.ndarray, threshold: int) -> np.ndarray:
    """Returns which pixels have a grey value from a threshold, 0 or 1, uint8 [H, W].

    Args:
      pixels: the mask.
      values: its numbers, int64 [H, W].
      threshold: grey value, 1 to 255, to which other depths than 8 bits are converted.

    Raises:
      InputError: if the numbers are far too small for grey values of this depth, such as 0 and 1.
    """
    top = int(values.max(initial=0))
    found = 255 * values >= threshold * pixels.most
    if 0 < 255 * top <= pixels.most and not found.any():
        raise InputError(
            f"{pixels.path} holds numbers up to {top}, where white is {pixels.most}, so nothing reaches "
            f"--threshold={threshold}; export all masks with white as {pixels.most}, or omit --threshold if every mask "
            "holds two numbers"
        )
    return found.astype(np.uint8)


def _grey_of_palette(pixels: Pixels) -> np.ndarray:
    """Returns the grey values that an indexed picture shows, or its numbers if its palette has colours, [H, W]."""
    palette = pixels.palette if pixels.palette is not None else np.zeros(0, np.int64)
    grey = palette & 255
    used = np.unique(pixels.values)
    if used.max(initial=0) >= len(palette) or (grey[used] * 0x010101 != palette[used]).any():
        return pixels.values
    return grey[pixels.values]


def what_masks_hold(paths: Sequence[Path], progress: Callable[[int, int], None] | None = None) -> str:
    """Returns what masks hold and which flag says what it means, for an error message.

    Args:
      paths: the masks.
      progress: function that is called with the number of masks done and of all masks.

    Raises:
      InputError: if a mask is not usable.
    """
    numbers: Counter[int] = Counter()
    colors: Counter[int] = Counter()
    for i, path in enumerate(paths):
        pixels = read_pixels(path)
        found = dict(zip(*(array.tolist() for array in np.unique(pixels.values, return_counts=True)), strict=True))
        (colors if pixels.is_color else numbers).update(found)
        if progress:
            progress(i + 1, len(paths))
    if colors:
        colors.update({value * 0x010101: count for value, count in numbers.items() if value < 256})
        shown = _listed([_color_text(color) for color, _ in colors.most_common(_SHOWN)], len(colors))
        return f"the masks hold the colours {shown}; give --classes=FILE with a line name,r,g,b for each class"
    found = sorted(numbers)
    shown = _listed([str(number) for number in found])
    if any(set(found) <= {0, white} for white in (1, 255, IGNORE_16)) and found != [0]:
        only = " and ".join(map(str, found))
        return f"the masks hold only {only}; give --binary=NAME if they mark one class on a background"
    if len(found) > 64 and set(found) <= set(range(256)):
        return (
            f"the masks hold {len(found)} numbers: {shown}; give --binary=NAME --threshold=128 if they are antialiased "
            "black and white, or export class ids"
        )
    names = ",".join(f"{number}=NAME" for number in found if number not in (IGNORE, IGNORE_16))
    names = names if len(found) <= _SHOWN else "0=NAME,1=NAME,..."
    return f"the masks hold the numbers {shown}; give their classes with --names={names}, or with --classes=FILE"


def _colors(pixels: Pixels) -> list[str]:
    found = Counter(dict(zip(*(array.tolist() for array in np.unique(pixels.values, return_counts=True)), strict=True)))
    return [_color_text(color) for color, _ in found.most_common(_SHOWN)]


def _listed(texts: Sequence[str], number: int | None = None) -> str:
    number = len(texts) if number is None else number
    return ", ".join(texts[:_SHOWN]) + (f", ... ({number} in all)" if number > len(texts[:_SHOWN]) else "")


def read_objects(path: Path, label: np.ndarray, background: int = 0) -> DrawnMasks:
    """Returns the masks of an image whose objects another picture marks, as CVAT's SegmentationObject does.

    In a picture stored as RGB every colour is an object, except black and VOC's colour of ignored pixels. In an indexed
    or grey picture every number is one, except 0 and 255.

    Args:
      path: the picture of the objects.
      label: class ids, uint8 [H, W].
      background: class id of the background: 0, or 255 if it is ignored or no class.

    Returns:
      The masks; an object has the class of most of its pixels, and none where the class is the background or 255.

    Raises:
      InputError: if the picture is not usable, has another size, or shows more than 254 objects.
    """
    pixels = read_pixels(path)
    if pixels.values.shape != label.shape:
        height, width = pixels.values.shape
        raise InputError(
            f"{path} is {width}x{height} pixels, but the mask of the classes is {label.shape[1]}x{label.shape[0]}; "
            "export both again"
        )
    nothing = (0, _BORDER) if pixels.is_rgb else (0, IGNORE)
    values = np.where((label == background) | (label == IGNORE) | np.isin(pixels.values, nothing), 0, pixels.values)
    found, first, canvas = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(np.where(found == 0, -1, first))  # Objects are numbered in the order of their first pixels.
    numbers = np.argsort(order) + int(0 not in found)
    count = int(numbers.max())
    check_object_count(count, str(path), NO_OBJECTS)  # The table of votes below would be huge for a photograph.
    canvas = numbers[canvas].reshape(label.shape)
    votes = np.bincount((canvas * (IGNORE + 1) + label).ravel(), minlength=(count + 1) * (IGNORE + 1))
    class_ids = votes.reshape(count + 1, IGNORE + 1)[1:].argmax(axis=1)
    canvas[label == IGNORE] = count + 1
    drawn = number_objects(canvas, [*class_ids, IGNORE], str(path), NO_OBJECTS, background)
    drawn.instances[canvas == 0] = 0  # These pixels have a class and belong to no object.
    return drawn._replace(label=label)
