"""Pictures side by side under titles, a legend of classes, and the panel that shows one result."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deconvnet_jax.array_checks import check_is_array
from deconvnet_jax.errors import InputError
from deconvnet_jax.labels import IGNORE, IGNORE_16, is_ignored
from deconvnet_jax.visualization.fonts import drawable, font_of_size
from deconvnet_jax.visualization.overlay import check_pair, overlay
from deconvnet_jax.visualization.palettes import hatched, painted
from deconvnet_jax.visualization.segment_names import class_name

Color = tuple[int, int, int]
Swatch = Callable[[int], np.ndarray]  # side in pixels -> uint8 RGB [side, side, 3]

PAPER, INK, FRAME = (255, 255, 255), (32, 32, 32), (128, 128, 128)
PHOTOGRAPH = 176  # Grey that stands for the photograph in legends.
GAP = 8  # Pixels between pictures, and around all of them.
# Limits of a picture's longer side in a panel: thumbnails grow to fit titles, photographs shrink to fit screens.
MIN_SIDE, MAX_SIDE = 240, 640
MIN_LEGEND_HEIGHT = 160


def result_panel(
    image: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    truth: np.ndarray | None = None,
    *,
    names: bool = False,
    palette: str = "voc",
) -> np.ndarray:
    """Returns a panel of one result: image, ground truth (if given), prediction, overlay and a legend of classes.

    Pictures are scaled so that their longer side is between 240 and 640 pixels.

    Args:
      image: uint8 RGB [H, W, 3].
      labels: prediction, uint8 [H, W], class ids; uint16 for more than 255 classes.
      class_names: names in the order of the ids.
      truth: ground truth, uint8 [H, W], class ids and 255 for ignored; or uint16, 65535 for ignored. None leaves it
        out.
      names: write the names of the classes on the segments of the overlay that are large enough.
      palette: the colours of the classes, "voc" or "colour_blind" (`palettes.painted`).

    Returns:
      uint8 RGB [H', W', 3].

    Raises:
      InputError: if an array has another shape or dtype, the sizes differ, an id has no name, or there is no such
        palette.

    Example:
      >>> import numpy as np
      >>> from PIL import Image
      >>> from deconvnet_jax.visualization import result_panel
      >>> image, labels = np.zeros((240, 320, 3), np.uint8), np.ones((240, 320), np.uint8)
      >>> Image.fromarray(result_panel(image, labels, ["background", "cat"])).save("panel.png")
    """
    maps = [labels] if truth is None else [truth, labels]
    for label_map in maps:
        check_pair(image, label_map)
    if any(label_map.dtype != labels.dtype for label_map in maps):
        maps = [_as_uint16(label_map) for label_map in maps]
    ids = np.unique(np.concatenate([np.unique(label_map) for label_map in maps]))
    image, *maps = _displayed(image, maps)
    key = class_legend(ids, class_names, max(image.shape[0], MIN_LEGEND_HEIGHT), palette=palette)
    font = _font(image.shape[0])
    drawn = overlay(image, maps[-1], class_names=class_names if names else None, palette=palette)
    pictures = [image, *(painted(label_map, palette) for label_map in maps), drawn]
    titles = ["image", "prediction", "overlay"] if truth is None else ["image", "ground truth", "prediction", "overlay"]
    return _arrange([*pictures, key], [*titles, ""], font)


def side_by_side(images: Sequence[np.ndarray], titles: Sequence[str]) -> np.ndarray:
    """Returns pictures in a row on white paper, each under its title.

    No picture is resized; shorter ones are aligned at the top.

    Args:
      images: uint8 RGB [H_i, W_i, 3], at least one.
      titles: one text per picture, which may be empty.

    Returns:
      uint8 RGB [H', W', 3].

    Raises:
      InputError: if there is no picture, the numbers differ, or a picture is not a uint8 RGB array.

    Example:
      >>> import numpy as np
      >>> from PIL import Image
      >>> from deconvnet_jax.visualization import side_by_side
      >>> black, white = np.zeros((60, 80, 3), np.uint8), np.full((60, 80, 3), 255, np.uint8)
      >>> Image.fromarray(side_by_side([black, white], ["before", "after"])).save("row.png")
    """
    if not images or len(images) != len(titles):
        raise InputError(f"got {len(images)} pictures and {len(titles)} titles; expected at least one, one title each")
    for title, image in zip(titles, images, strict=True):
        check_is_array(f"picture '{title}'", image)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InputError(f"picture '{title}' is {image.dtype} {list(image.shape)}; expected uint8 RGB [H, W, 3]")
    return _arrange(images, titles, _font(max(image.shape[0] for image in images)))


def class_legend(
    ids: Iterable[int],
    class_names: Sequence[str],
    height: int,
    *,
    palette: str = "voc",
    over_photograph: bool = False,
) -> np.ndarray:
    """Returns a legend of class ids in their colours; see `legend`.

    Args:
      ids: class ids. 255 and 65535 are shown as "(ignored)" unless they are class ids.
      class_names: names in the order of the ids.
      height: wanted height of the picture in pixels.
      palette: the colours of the classes, "voc" or "colour_blind".
      over_photograph: True for pictures that show the photograph itself at background and ignored pixels: background is
        then grey, and ignored pixels are grey and hatched as in `contact_sheet`. False shows their colours.

    Returns:
      uint8 RGB [H', W', 3].

    Raises:
      InputError: if an id has no name, or there is no such palette.

    Example:
      >>> from deconvnet_jax.visualization import class_legend
      >>> from PIL import Image
      >>> Image.fromarray(class_legend([0, 1, 255], ["background", "cat"], height=160)).save("legend.png")
    """
    numbers = [int(i) for i in ids]
    names = [drawable(class_name(i, class_names), i) for i in numbers]
    swatches = [_swatch(i, i >= len(class_names), palette, over_photograph) for i in numbers]
    return _legend(names, swatches, height)


def legend(names: Sequence[str], colors: Sequence[Color], height: int) -> np.ndarray:
    """Returns a picture of names beside squares of their colours, in as many columns as the height requires.

    Args:
      names: at least one.
      colors: RGB colours 0..255, one per name.
      height: wanted height in pixels. The picture is as high as its rows, which exceed `height` only if not even one
        row fits.

    Returns:
      uint8 RGB [H', W', 3].

    Raises:
      InputError: if there is no name, or the numbers differ.
    """
    if not names or len(names) != len(colors):
        raise InputError(f"got {len(names)} names and {len(colors)} colours; expected at least one, one colour each")
    return _legend(names, [partial(_plain, color) for color in colors], height)


def _plain(color: Color, side: int) -> np.ndarray:
    return np.full((side, side, 3), color, np.uint8)


def _legend(names: Sequence[str], swatches: Sequence[Swatch], height: int) -> np.ndarray:
    font = _font(height)
    line = _line_height(font)
    rows = min(len(names), max(1, height // line))
    entries = list(zip(names, swatches, strict=True))
    columns = [entries[i : i + rows] for i in range(0, len(entries), rows)]
    return np.concatenate([_legend_column(column, rows * line, font) for column in columns], axis=1)


def _legend_column(entries: Sequence[tuple[str, Swatch]], height: int, font: ImageFont.FreeTypeFont) -> np.ndarray:
    line = _line_height(font)
    side = round(0.6 * line)
    width = side + 2 * GAP + max(_text_width(name, font) for name, _ in entries)
    picture = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(picture)
    for row, (name, swatch) in enumerate(entries):
        middle = row * line + line // 2
        top = middle - side // 2
        picture.paste(Image.fromarray(swatch(side)), (0, top))
        draw.rectangle((0, top, side - 1, top + side - 1), outline=FRAME)
        draw.text((side + GAP, middle), name, fill=INK, font=font, anchor="lm")
    return np.asarray(picture)


def _arrange(images: Sequence[np.ndarray], titles: Sequence[str], font: ImageFont.FreeTypeFont) -> np.ndarray:
    height = max(image.shape[0] for image in images)
    columns = [_titled(image, title, height, font) for image, title in zip(images, titles, strict=True)]
    gap = np.full((columns[0].shape[0], GAP, 3), PAPER, np.uint8)
    row = [part for column in columns for part in (gap, column)]
    return np.pad(np.concatenate([*row, gap], axis=1), ((0, GAP), (0, 0), (0, 0)), constant_values=PAPER[0])


def _titled(image: np.ndarray, title: str, height: int, font: ImageFont.FreeTypeFont) -> np.ndarray:
    """Returns the picture below its title, on paper wide enough for both and as high as all pictures."""
    top = _line_height(font)
    width = max(image.shape[1], _text_width(title, font))
    paper = Image.new("RGB", (width, top + height), PAPER)
    ImageDraw.Draw(paper).text((width / 2, top / 2), title, fill=INK, font=font, anchor="mm")
    paper.paste(Image.fromarray(np.ascontiguousarray(image)), ((width - image.shape[1]) // 2, top))
    return np.asarray(paper)


def _displayed(image: np.ndarray, maps: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns the image and the label maps at the size in which a panel shows them."""
    side = max(image.shape[:2])
    scale = np.clip(side, MIN_SIDE, MAX_SIDE) / side
    if scale == 1:
        return [image, *maps]
    height, width = (max(1, round(scale * length)) for length in image.shape[:2])
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(image, (width, height), interpolation=smooth)
    return [resized, *(cv2.resize(m, (width, height), interpolation=cv2.INTER_NEAREST_EXACT) for m in maps)]


def _as_uint16(labels: np.ndarray) -> np.ndarray:
    return np.where(is_ignored(labels), np.uint16(IGNORE_16), labels.astype(np.uint16))


def _swatch(class_id: int, ignored: bool, palette: str, over_photograph: bool) -> Swatch:
    """Returns a function from a side to the square of a class, as the class looks in the pictures."""

    def square(side: int) -> np.ndarray:
        labels = np.full((side, side), class_id, np.uint8 if ignored and class_id == IGNORE else np.uint16)
        if over_photograph and (ignored or class_id == 0):
            return hatched(np.full((side, side, 3), PHOTOGRAPH, np.uint8), is_ignored(labels))
        return painted(labels, palette)

    return square


def _font(height: int) -> ImageFont.FreeTypeFont:
    """Returns a font that is readable beside pictures of this height."""
    return font_of_size(int(np.clip(height // 26, 13, 28)))


def _line_height(font: ImageFont.FreeTypeFont) -> int:
    ascent, descent = font.getmetrics()
    return ascent + descent + GAP // 2


def _text_width(text: str, font: ImageFont.FreeTypeFont) -> int:
    return int(np.ceil(font.getlength(text))) + 2
