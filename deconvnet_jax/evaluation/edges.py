"""Scores of an edge map against the boundaries that people drew."""

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np

from deconvnet_jax.array_checks import check_arrays

TOLERANCE = 0.0075  # Fraction of the image's diagonal, as in BSDS500's benchmark.
THRESHOLDS = np.arange(1, 34) / 34


class EdgeScores(NamedTuple):
    """Scores of the edge maps of a set of images, fractions 0..1.

    Attributes:
      ods: F-measure at the one threshold that is best for all images together (optimal data set scale).
      ois: F-measure with the best threshold of each image (optimal image scale).
      threshold: the threshold of `ods`.
      precision: precision at that threshold.
      recall: recall at that threshold.
    """

    ods: float
    ois: float
    threshold: float
    precision: float
    recall: float


def edge_scores(pairs: Iterable[tuple[np.ndarray, np.ndarray]], thresholds: np.ndarray = THRESHOLDS) -> EdgeScores:
    """Returns the scores of thinned edge maps against the boundaries of several annotators.

    Precision is the share of predicted pixels with an annotated pixel within 0.75 % of the image's diagonal. Recall is
    the share of annotated pixels with a predicted pixel as near; each counts as often as people drew it. BSDS500's own
    benchmark matches pixels one to one and with each annotator separately, which merged maps do not allow. The measure
    here is more lenient by a few hundredths.

    Args:
      pairs: two arrays per image, both float [H, W] in 0..1: the thinned edge map (`ops.thin_edges`), and the share of
        people who drew a boundary at each pixel.
      thresholds: thresholds of the edge map to try, float [T], ascending.

    Returns:
      The scores of the set; 0 where nothing is predicted, drawn or right.

    Raises:
      InputError: if an array does not hold numbers [H, W], or the sizes of a pair differ.
    """
    counts = np.array([_counts(edges, share, thresholds) for edges, share in pairs])  # Shape [images, T, 4].
    total = _f_measure(counts.sum(axis=0))
    best = int(total[:, 0].argmax())
    each = np.array([of_image[_f_measure(of_image)[:, 0].argmax()] for of_image in counts])
    return EdgeScores(
        ods=float(total[best, 0]),
        ois=float(_f_measure(each.sum(axis=0)[None])[0, 0]),
        threshold=float(thresholds[best]),
        precision=float(total[best, 1]),
        recall=float(total[best, 2]),
    )


def _counts(edges: np.ndarray, share: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Returns four counts per threshold, [T, 4].

    They are: right predicted pixels, all predicted pixels, found annotated pixels, all annotated pixels.
    """
    check_arrays("edge_scores", edges=(edges, "H W", "number"), share=(share, "H W", "number"))
    radius = TOLERANCE * np.hypot(*edges.shape)
    right = distances_to(share > 0) <= radius
    drawn = share.sum()
    rows = []
    for threshold in thresholds:
        predicted = edges >= threshold
        found = share[distances_to(predicted) <= radius].sum()
        rows.append((np.count_nonzero(predicted & right), np.count_nonzero(predicted), found, drawn))
    return np.array(rows, np.float64)


def distances_to(mask: np.ndarray) -> np.ndarray:
    """Returns the distance in pixels from every pixel to the nearest pixel of a mask.

    Args:
      mask: bool [H, W].

    Returns:
      float32 [H, W]; 0 inside the mask, infinite everywhere if the mask is empty.
    """
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _f_measure(counts: np.ndarray) -> np.ndarray:
    """Returns F-measure, precision and recall from counts [T, 4]; 0 where nothing is predicted, drawn or right."""
    precision = counts[:, 0] / np.maximum(counts[:, 1], 1)
    recall = counts[:, 2] / np.maximum(counts[:, 3], 1e-9)
    return np.stack([2 * precision * recall / np.maximum(precision + recall, 1e-9), precision, recall], axis=1)
