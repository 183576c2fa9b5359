"""Draws the segmentations of COCO annotations as masks.

pycocotools draws polygons and run lengths, but does not check them: damaged run lengths crash it or leave random
pixels, and points far away or not finite make it allocate memory until it is killed. So they are checked here.
"""

import contextlib
import re
from typing import Any

import numpy as np
import pycocotools.mask

from deconvnet_jax.data.coco_annotations import CocoImage, CocoObject
from deconvnet_jax.data.voc_writer import DrawnMasks, number_objects
from deconvnet_jax.errors import InputError
from deconvnet_jax.labels import IGNORE

coco_mask: Any = pycocotools.mask  # Its type stubs do not allow run lengths as a list of numbers.


def paint(image: CocoImage) -> DrawnMasks:
    """Draws the objects of an image, larger ones first, so that the smaller of two overlapping objects stays visible.

    Of two objects with the same area, the later one stays visible. Crowds become 255 where there is no object.

    Args:
      image: image with its annotations.

    Returns:
      The masks and the class ids of the visible objects. Annotations without a visible pixel get no number.

    Raises:
      InputError: if a segmentation is not usable, or more than 254 objects are visible.
    """
    objects = [item for item in image.objects if not item.crowd]
    runs = [_run_lengths(item, image.height, image.width) for item in objects]
    areas = np.array([coco_mask.area(item) for item in runs], np.int64)
    canvas = np.zeros((image.height, image.width), np.int32)  # Position of the visible object in `objects`, from 1.
    for i in np.argsort(-areas, kind="stable"):
        canvas[coco_mask.decode(runs[i]) == 1] = i + 1
    label, instances, class_ids = number_objects(
        canvas,
        np.array([item.class_id for item in objects], np.uint8),
        f"{image.where}: image '{image.file.stem}'",
        " or choose fewer --categories",
    )
    for item in image.objects:
        if item.crowd:
            covered = coco_mask.decode(_run_lengths(item, image.height, image.width)) == 1
            label[covered & (canvas == 0)] = instances[covered & (canvas == 0)] = IGNORE
    return DrawnMasks(label, instances, class_ids)


def _run_lengths(item: CocoObject, height: int, width: int) -> dict[str, Any]:
    """Returns a segmentation as pycocotools' run lengths.

    Raises:
      InputError: if it does not fit the image.
    """
    found, pixels = item.segmentation, height * width
    if isinstance(found, dict):
        counts = found.get("counts")
        if isinstance(counts, list) and all(type(run) is int and 0 <= run <= pixels for run in counts):
            runs = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
        else:  # The last character of a complete text ends a number.
            is_whole = isinstance(counts, str) and re.fullmatch("[0-o]*[0-O]", counts)
            runs = {"size": [height, width], "counts": counts if is_whole else ""}
        # pycocotools refuses runs that cover too many pixels, but not runs that cover too few.
        if found.get("size") != [height, width] or not _fits(runs, pixels) or _fits(runs, pixels - 1):
            raise InputError(
                f"{item.where} has damaged run lengths {found!r:.80}; expected 'size' [{height}, {width}] and "
                f"'counts', a list of numbers or COCO's text, which add up to the image's {pixels} pixels"
            )
        return runs
    if not isinstance(found, list) or not found:
        raise InputError(
            f"{item.where} has no segmentation; expected polygons or run lengths, because a box or a caption is no mask"
        )
    for points in found:
        if not _is_polygon(points, height, width):
            raise InputError(
                f"{item.where} has a polygon {points!r:.80}; expected a list of polygons, each a list x, y, x, y, ... "
                f"of three or more points in pixels of the {width}x{height} image"
            )
    return coco_mask.merge(coco_mask.frPyObjects(found, height, width))


def _is_polygon(points: Any, height: int, width: int) -> bool:
    """Returns whether `points` is a list x, y, x, y, ... of three or more points in or near the image."""
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
        return False
    sizes = (width, height) * (len(points) // 2)  # Points a little outside the image are common.
    return all(
        type(number) in (int, float) and -size <= number <= 2 * size for number, size in zip(points, sizes, strict=True)
    )


def _fits(runs: dict[str, Any], pixels: int) -> bool:
    """Returns whether pycocotools can draw run lengths on this number of pixels."""
    with contextlib.suppress(ValueError):
        coco_mask.decode({**runs, "size": [1, pixels]})
        return True
    return False
