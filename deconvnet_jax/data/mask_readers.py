"""Recognises how masks are stored, and reads those of each image as class ids and objects."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deconvnet_jax.data.mask_classes import (
    ClassTable,
    Entry,
    class_table,
    known_table,
    named_entries,
    read_table,
    standard_name,
)
from deconvnet_jax.data.mask_files import Found
from deconvnet_jax.data.mask_pairs import Pair
from deconvnet_jax.data.mask_pixels import NO_OBJECTS, BinaryReader, PixelReader, read_objects, what_masks_hold
from deconvnet_jax.data.mask_shapes import Annotation, Shape, draw, entries_of, left_out_shapes, read_annotation
from deconvnet_jax.data.voc_writer import number_objects
from deconvnet_jax.errors import InputError, did_you_mean
from deconvnet_jax.images import image_orientation
from deconvnet_jax.labels import IGNORE

KINDS = ("ids", "colours", "labelme", "supervisely")
UNKNOWN = ("error", "ignore", "background")
# Class ids and object numbers, uint8 [H, W], and the class ids of the objects, uint8 [n]. Without a mask of objects the
# second is None.
ImageMasks = tuple[np.ndarray, np.ndarray | None, np.ndarray]
_NO_OBJECTS = np.zeros(0, np.uint8)


class MaskReading(NamedTuple):
    """How masks are to be read. Every default stands for "not given".

    Attributes:
      kind: "ids", "colours", "labelme" or "supervisely" if it cannot be recognised.
      classes: file of the classes (`mask_classes.read_table`).
      names: class names in the order of the numbers, or "NUMBER=NAME".
      binary: name of the class that black-and-white masks show.
      threshold: grey value from which a pixel of a black-and-white mask belongs to the class.
      ignore: names of classes whose pixels become 255.
      unknown: what pixels without a class become: "error" refuses them, "ignore" makes them 255, "background" 0.
      objects: whether the numbers of single objects are read, if the files mark them.
    """

    kind: str | None = None
    classes: Path | None = None
    names: Sequence[str] | None = None
    binary: str | None = None
    threshold: int | None = None
    ignore: Sequence[str] = ()
    unknown: str = "error"
    objects: bool = True


class PictureMasks:
    """Masks that are pictures.

    Attributes:
      kind: "ids", "colours" or "binary".
      table: the classes.
    """

    def __init__(self, kind: str, table: ClassTable, reader: PixelReader | BinaryReader, has_objects: bool):
        """Stores how the pictures are read.

        Args:
          kind: "ids", "colours" or "binary".
          table: the classes.
          reader: reader of the class masks.
          has_objects: whether to read masks of objects, which some images have.
        """
        self.kind, self.table = kind, table
        self._reader, self._has_objects = reader, has_objects

    def read(self, pair: Pair, size: tuple[int, int]) -> ImageMasks:
        """Returns the masks of an image.

        Args:
          pair: the image. Without a mask it is background.
          size: height and width of the photograph.

        Returns:
          The masks; None in place of objects if the image has no mask of objects.

        Raises:
          InputError: if a mask is not usable, or has another size.
        """
        if pair.mask is None:
            label = np.full(size, self.table.background, np.uint8)
            return label, label if self._has_objects else None, _NO_OBJECTS
        label = self._reader.read(pair.mask)
        _check_size(pair, label.shape, size)
        if pair.objects is None or not self._has_objects:
            return label, None, _NO_OBJECTS
        return read_objects(pair.objects, label, self.table.background)

    def warnings(self) -> list[str]:
        """Returns no warnings: everything unusual in a picture is an error."""
        return []


class ShapeMasks:
    """Masks that are drawn from the shapes in JSON files.

    Attributes:
      kind: "labelme" or "supervisely".
      table: the classes.
    """

    def __init__(
        self, kind: str, table: ClassTable, annotations: Mapping[Path, Annotation], unknown: str, has_objects: bool
    ):
        """Stores the annotations.

        Args:
          kind: "labelme" or "supervisely".
          table: the classes.
          annotations: annotations by their files.
          unknown: what shapes of other classes become: "error", "ignore" or "background".
          has_objects: whether the objects get numbers.
        """
        self.kind, self.table = kind, table
        self._annotations, self._unknown, self._has_objects = annotations, unknown, has_objects

    def read(self, pair: Pair, size: tuple[int, int]) -> ImageMasks:
        """Returns the masks of an image.

        Args:
          pair: the image. Without an annotation it is background.
          size: height and width of the photograph.

        Raises:
          InputError: if the annotation has another size, a shape cannot be drawn or has an unknown class, or there are
            more than 254 objects.
        """
        canvas, class_ids, background = np.zeros(size, np.int32), [], self.table.background
        if pair.mask is not None:
            annotation = self._annotations[pair.mask]
            _check_size(pair, annotation.size or size, size)
            canvas, class_ids = draw(annotation, size, self._class_id)
        if not self._has_objects:
            return np.array([background, *class_ids], np.uint8)[canvas], None, _NO_OBJECTS
        return number_objects(canvas, class_ids, str(pair.mask), NO_OBJECTS, background)

    def _class_id(self, shape: Shape) -> int:
        name = standard_name(shape.label)
        if name in self.table.class_ids:
            return self.table.class_ids[name]
        if self._unknown == "error":
            raise InputError(
                f"{shape.where} has the class '{shape.label}', which {self.table.where} does not name"
                f"{did_you_mean(name, self.table.class_ids)}; add it there, or --unknown=ignore or background takes "
                "such shapes as 255 or 0"
            )
        return IGNORE if self._unknown == "ignore" else self.table.background

    def warnings(self) -> list[str]:
        """Returns a warning if shapes without an area were left out."""
        return left_out_shapes(self._annotations)


def _check_size(pair: Pair, found: tuple[int, ...], size: tuple[int, int]) -> None:
    """Raises InputError unless a mask has the size of its photograph, each as height and width."""
    if tuple(found) == size:
        return
    remedy = "a mask needs the size of its image: export both again"
    if tuple(found) == size[::-1] and image_orientation(pair.image) >= 5:
        remedy = "its EXIF orientation is not applied: turn the file upright (Pillow: ImageOps.exif_transpose)"
    raise InputError(
        f"{pair.mask} is {found[1]}x{found[0]} pixels, but its image {pair.image} is {size[1]}x{size[0]}; {remedy}"
    )


def reader_of(
    pairs: Sequence[Pair],
    others: Sequence[Found],
    reading: MaskReading,
    progress: Callable[[int, int], None] | None = None,
) -> PictureMasks | ShapeMasks:
    """Returns the reader for the masks of a data set.

    Args:
      pairs: the images with their masks.
      others: further files of the data set, among which are tables of classes.
      reading: what the caller says about the masks.
      progress: function that is called with the number of files looked at and of all files.

    Raises:
      InputError: if the masks cannot be read without a further option, which the message names.
    """
    paths = [pair.mask for pair in pairs if pair.mask is not None]
    shapes = [path for path in paths if path.suffix.lower() == ".json"]
    if shapes and len(shapes) < len(paths):
        picture = next(path for path in paths if path.suffix.lower() != ".json")
        raise InputError(
            f"some masks are pictures ({picture}) and some are JSON ({shapes[0]}); choose with --kind={'|'.join(KINDS)}"
        )
    if reading.threshold is not None and reading.binary is None:
        raise InputError("--threshold needs --binary=NAME, the class of the pixels from this grey value")
    _check_flags(reading)
    if shapes:
        return _shape_masks(shapes, others, reading, progress)
    has_objects = reading.objects and any(pair.objects for pair in pairs)
    if reading.binary is not None:
        table = class_table("--binary", [Entry("background", 0), Entry(reading.binary, 255)])
        return PictureMasks("binary", table, BinaryReader(reading.threshold), has_objects)
    reader = _picture_masks(paths, others, reading, has_objects, progress)
    for flag, instead, needs_background in (
        ("unknown", "ignore", reading.unknown == "background"),
        ("unmatched", "skip", any(pair.mask is None for pair in pairs)),
    ):
        if needs_background and "background" not in reader.table.class_ids:
            raise InputError(
                f"--{flag}=background: {reader.table.where} has no class called background; give --{flag}={instead}"
            )
    return reader


def _check_flags(reading: MaskReading) -> None:
    """Raises InputError if flags exclude each other."""
    given = [f"--{flag}" for flag in ("binary", "classes", "names") if getattr(reading, flag)]
    if reading.binary is not None:
        given += [f"--{flag}" for flag in ("kind", "ignore") if getattr(reading, flag)]
        given += [f"--unknown={reading.unknown}"] if reading.unknown != "error" else []
    if len(given) > 1:
        raise InputError(f"{' and '.join(given[:2])} are both given; give one of them")
    if reading.binary is not None and standard_name(reading.binary) == "background":
        raise InputError(f"--binary={reading.binary}: expected the name of the class that is not background")


def _picture_masks(
    paths: Sequence[Path],
    others: Sequence[Found],
    reading: MaskReading,
    has_objects: bool,
    progress: Callable[[int, int], None] | None,
) -> PictureMasks:
    """Returns the reader for masks of ids or colours."""
    path = reading.classes or (None if reading.names else known_table(others))
    if path is None and not reading.names:
        raise InputError(f"{what_masks_hold(paths, progress)} ({len(paths)} masks, such as {paths[0]})")
    where = str(path) if path else "--names"
    entries = read_table(path) if path else named_entries(reading.names or ())
    by_color = entries[0].color is not None and reading.kind != "ids"
    if reading.kind == "colours" and not by_color:
        raise InputError(f"--kind=colours: {where} names no colours; expected a line name,r,g,b for each class")
    if not by_color:  # The lines of a table of colours count from 0, as CVAT's do for grey masks.
        entries = [
            Entry(entry.name, place if entry.value is None and entry.color else entry.value)
            for place, entry in enumerate(entries)
        ]
    table = class_table(where, entries, reading.ignore)
    reader = PixelReader(table, by_color, reading.unknown, check_palettes=reading.kind is None)
    return PictureMasks("colours" if by_color else "ids", table, reader, has_objects)


def _shape_masks(
    paths: Sequence[Path],
    others: Sequence[Found],
    reading: MaskReading,
    progress: Callable[[int, int], None] | None,
) -> ShapeMasks:
    """Returns the reader for annotations in JSON files."""
    if reading.binary is not None:
        raise InputError(f"--binary reads pictures, but {paths[0]} is an annotation; omit --binary")
    annotations: dict[Path, Annotation] = {}
    for i, path in enumerate(paths):
        annotations[path] = read_annotation(path)
        if progress:
            progress(i + 1, len(paths))
    kinds = {annotation.kind: path for path, annotation in annotations.items()}
    if len(kinds) > 1:
        raise InputError(
            f"the annotations are of {' and '.join(kinds)}, such as {', '.join(map(str, kinds.values()))}; "
            "import them one after the other"
        )
    kind = annotations[paths[0]].kind
    if reading.kind not in (None, kind):
        raise InputError(f"--kind={reading.kind}, but {paths[0]} is an annotation of {kind}; omit --kind")
    if reading.classes or reading.names:
        where = str(reading.classes) if reading.classes else "--names"
        named = read_table(reading.classes) if reading.classes else named_entries(reading.names or ())
        entries = [Entry("background"), *(Entry(entry.name) for entry in named)]
    else:
        where, entries = entries_of(annotations, [file.path for file in others if file.below.name == "meta.json"])
    table = class_table(where, entries, reading.ignore)
    return ShapeMasks(kind, table, annotations, reading.unknown, reading.objects)
