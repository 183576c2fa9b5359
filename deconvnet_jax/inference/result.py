"""The segmentation of one photograph, which can be drawn, saved and summarised."""

import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from deconvnet_jax.errors import InputError, counted
from deconvnet_jax.files import user_path
from deconvnet_jax.images import save_picture
from deconvnet_jax.labels import save_label_png
from deconvnet_jax.short_repr import described
from deconvnet_jax.visualization import overlay
from deconvnet_jax.visualization.segment_names import class_name

if TYPE_CHECKING:
    from typing import Self

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
NOTEBOOK_SIDES = 240, 1024  # pixels: limits of the longer side of a picture in a notebook
_NAMED = 4  # classes in the text of a result


class _Arrays(NamedTuple):
    labels: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray


class Result(_Arrays):
    """The segmentation of one photograph.

    It is a tuple of three arrays, so `labels, scores, boxes = result` works. Jupyter shows it as a picture.

    Attributes:
      labels: uint8 [H, W], the class with the highest score at every pixel; uint16 if there are more than 255 classes.
      scores: float32 [H, W, K], the logits, combined over the windows; after the CRF and for the ensemble of the paper,
        log probabilities. The softmax of the scores gives probabilities.
      boxes: float32 [n, 4], the windows that the network was shown, in the order of the proposals: x0, y0, x1, y1 in
        pixels of the photograph, x1 and y1 exclusive.
      image: the photograph, uint8 RGB [H, W, 3]; the caller's array itself where it had this form. None if the result
        was made without it.
      class_names: K names, in the order of the ids.

    Example:
      >>> from deconvnet_jax import Segmenter
      >>> result = Segmenter.from_checkpoint("runs/demo", mode="whole_image")("photo.jpg")
      >>> sum(result.shares().values())  # {class name: share of the pixels}, largest first
      1.0
      >>> result.save("overlay.jpg")  # the photograph with the classes in colour
      >>> result.save_labels("labels.png")  # class ids, with VOC's palette
    """

    image: np.ndarray | None
    class_names: tuple[str, ...]

    def __new__(
        cls,
        labels: np.ndarray,
        scores: np.ndarray,
        boxes: np.ndarray,
        image: np.ndarray | None = None,
        class_names: Sequence[str] = (),
    ) -> "Self":
        """Makes a result; see the attributes of the class for the arguments."""
        self = super().__new__(cls, labels, scores, boxes)
        self.image, self.class_names = image, tuple(class_names)
        return self

    # NamedTuple's own method would lose the photograph and the names.
    def _replace(self, **changes: Any) -> "Result":  # pyright: ignore[reportIncompatibleMethodOverride]
        """Returns a copy with some attributes changed."""
        return Result(**{**self._asdict(), **vars(self), **changes})

    def shares(self) -> dict[str, float]:
        """Returns the share of the photograph's pixels of each class that occurs, the largest first.

        Returns:
          {class name: share}; the shares add up to 1. Classes of the same name are added up.

        Raises:
          InputError: if the result was made without class names, or with too few.
        """
        self._check_names()
        counts = np.bincount(self.labels.ravel())
        shares: dict[str, float] = {}
        for i in np.argsort(-counts, kind="stable").tolist():
            if counts[i]:
                name = class_name(i, self.class_names)
                shares[name] = shares.get(name, 0.0) + float(counts[i] / self.labels.size)
        return shares

    def overlay(self, *, names: bool = True, palette: str = "voc", alpha: float = 0.6) -> np.ndarray:
        """Returns the photograph with the classes in colour, and their names on large segments.

        Args:
          names: write the names of the classes.
          palette: the colours of the classes, "voc" or "colour_blind" (`visualization.painted`).
          alpha: weight of the class colour, from 0 (only the photograph) to 1 (only the colour).

        Returns:
          uint8 RGB [H, W, 3], in the photograph's size.

        Raises:
          InputError: if the result was made without photograph or class names, or an argument is wrong.
        """
        return self._drawn(1.0, names=names, palette=palette, alpha=alpha)

    def save(self, path: str | os.PathLike[str], **drawing: Any) -> None:
        """Writes the overlay as a picture, whole or not at all; `save_labels` writes the class ids.

        Args:
          path: the file, which is replaced if it exists; its suffix sets the format: .png, .jpg, .webp, .bmp or .tif.
            Missing folders are made.
          **drawing: the arguments of `overlay`.

        Raises:
          InputError: if the suffix is another one, the file cannot be written, or the overlay cannot be drawn.
        """
        file = user_path(path, "path", in_bucket=True)
        if file.suffix.lower() not in SUFFIXES:
            raise InputError(
                f"{file} is no name of a picture; expected one that ends in {', '.join(SUFFIXES)}. For the arrays, use "
                "numpy.savez(path, labels=result.labels, scores=result.scores)"
            )
        save_picture(file, self.overlay(**drawing))

    def save_labels(self, path: str | os.PathLike[str]) -> None:
        """Writes the label map as a PNG whose pixels are class ids, whole or not at all.

        Args:
          path: the file, which is replaced if it exists; it must end in .png. Missing folders are made. Up to 255
            classes have VOC's palette; more become a 16-bit grey image.

        Raises:
          InputError: if the suffix is another one or the file cannot be written.
        """
        save_label_png(user_path(path, "path", in_bucket=True), self.labels)

    def __repr__(self) -> str:
        """Returns shapes and the largest classes on one line."""
        boxes = counted(len(self.boxes), "box", "boxes")
        shown = f"Result(labels={described(self.labels)}, scores={described(self.scores)}, {boxes}"
        try:
            shares = [f"{name} {100 * share:.1f} %" for name, share in self.shares().items()]
        except InputError:  # without names, or with too few
            return f"{shown})"
        more = f" and {len(shares) - _NAMED} more" if len(shares) > _NAMED else ""
        return f"{shown}: {', '.join(shares[:_NAMED])}{more})"

    def _repr_png_(self) -> bytes | None:
        """Returns the overlay for notebooks, at a size for screens; None without a photograph."""
        if self.image is None or not self.class_names:
            return None
        least, most = NOTEBOOK_SIDES
        side = max(self.labels.shape)
        stream = io.BytesIO()
        Image.fromarray(self._drawn(float(np.clip(side, least, most) / side))).save(stream, "PNG")
        return stream.getvalue()

    def _drawn(self, scale: float, *, names: bool = True, palette: str = "voc", alpha: float = 0.6) -> np.ndarray:
        """Returns the overlay of the photograph at another size."""
        if self.image is None:
            raise InputError("this result was made without its photograph; expected Result(..., image=photograph)")
        if names:
            self._check_names()
        image, labels = self.image, self.labels
        if scale != 1:
            height, width = (max(1, round(scale * length)) for length in labels.shape)
            smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            image = cv2.resize(image, (width, height), interpolation=smooth)
            labels = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        return overlay(image, labels, alpha, class_names=self.class_names if names else None, palette=palette)

    def _check_names(self) -> None:
        if not self.class_names:
            raise InputError("this result was made without class names; expected Result(..., class_names=names)")
