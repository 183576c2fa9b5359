"""How well an edge map finds the boundaries that people drew."""

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np

TOLERANCE = 0.0075  # of the image's diagonal (BSDS500's benchmark)
THRESHOLDS = np.arange(1, 34) / 34


class EdgeScores(NamedTuple):
    """Attributes:
    ods: F-measure at the threshold that is best for all images together.
    ois: the same with the best threshold of each image.
    threshold: the one of `ods`.
    precision: at that threshold.
    recall: at that threshold.
    """

    ods: float
    ois: float
    threshold: float
    precision: float
    recall: float


def edge_scores(pairs: Iterable[tuple[np.ndarray, np.ndarray]], thresholds: np.ndarray = THRESHOLDS) -> EdgeScores:
    """Scores thinned edge maps against the boundaries of several annotators.

    Precision is the share of predicted pixels with an annotated one within 0.75 % of the image's diagonal; recall the
    share of annotated pixels, each counted as often as people drew it, with a predicted one as near. BSDS500's own
    benchmark matches pixels one to one and with every person's map apart, which merged maps do not allow: this is the
    more lenient measure of the two, by a few hundredths.

    Args:
      pairs: of each image the edge map, float [H, W] in 0..1, thinned (`ops.edge_maps.thin_edges`), and the share of
        people who drew a boundary, float [H, W] in 0..1.
      thresholds: of the edge map, [T], ascending.
    """
    counts = np.array([_counts(edges, share, thresholds) for edges, share in pairs])  # [images, T, 4]
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
    """At every threshold: predicted pixels that are right, all; annotated pixels that are found, all; [T, 4]."""
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
    """Of every pixel to the nearest one of a bool mask [H, W]: float32 [H, W], in pixels; infinite without any."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _f_measure(counts: np.ndarray) -> np.ndarray:
    """F, precision and recall from counts [T, 4]; 0 where nothing is predicted, drawn or right."""
    precision = counts[:, 0] / np.maximum(counts[:, 1], 1)
    recall = counts[:, 2] / np.maximum(counts[:, 3], 1e-9)
    return np.stack([2 * precision * recall / np.maximum(precision + recall, 1e-9), precision, recall], axis=1)
