"""Object proposals: boxes of an image that are likely to contain an object, best first (paper, section 6.1).

The paper uses the best 50 of about 2,000 Edge Boxes (Zitnick, Dollar; ECCV 2014). Edge Boxes scores a box by the
contours that lie wholly inside it; the contours come from an edge map. This module uses OpenCV's implementation on the
edge map of a small network. The authors' structured forest is licensed for research only, so users must supply it.

The order differs from that of Edge Boxes, whose best boxes are often near-duplicates: here, boxes that resemble a
better one move back.
"""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from deconvnet_jax.errors import InputError, did_you_mean
from deconvnet_jax.files import no_file
from deconvnet_jax.images import check_image
from deconvnet_jax.ops.boxes import rank_varied
from deconvnet_jax.ops.edge_maps import edge_normals, thin_edges

METHODS = ("network", "gradient", "structured_forest", "selective_search", "grid")
EDGE_METHODS = METHODS[:3]
MIN_SIDE = 24  # Pixels; images with a shorter side get a grid instead of Edge Boxes.
GRID_SCALES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18)  # Sides of boxes relative to the sides of the image.
GRID_ASPECTS = (1.0, 0.5, 2.0)
VARIETY = 4.0  # Power of the overlap in `rank_varied`; 2 to 6 were tried on 73 photographs.
PICKS = 200
GRADIENT_SCALES = (1.0, 2.0, 4.0)  # Standard deviations of the smoothing in pixels.
SURROUNDINGS = 16.0  # Standard deviation in pixels of the window for the local mean.
GRADIENT_FLOOR = 1.0  # Added to the local mean, in Lab units, so that flat regions give no edges.


class EdgeBoxes(NamedTuple):
    """Settings of Edge Boxes, equal to those of pdollar/edges and OpenCV except for `max_boxes`.

    Attributes:
      alpha: overlap (IoU) of neighbouring boxes in the search.
      beta: a box is left out if its overlap (IoU) with a better one is larger.
      eta: beta is multiplied by this after every box.
      min_score: boxes with a lower score are left out.
      max_boxes: largest number of boxes (original: 10,000, with little effect on the result). `propose_boxes` reorders
        them.
      max_aspect_ratio: largest ratio of the longer to the shorter side.
      min_box_area: smallest area in pixels.
      gamma: exponent of the affinity between neighbouring contours; with a larger value, contours that change direction
        count less as one.
      kappa: exponent of the box size in the score; with a larger value, large boxes score lower.
    """

    alpha: float = 0.65
    beta: float = 0.75
    eta: float = 1.0
    min_score: float = 0.01
    max_boxes: int = 3000
    max_aspect_ratio: float = 3.0
    min_box_area: float = 1000.0
    gamma: float = 2.0
    kappa: float = 1.5


def propose_boxes(
    image: np.ndarray,
    count: int = 50,
    *,
    method: str = "network",
    settings: EdgeBoxes | None = None,
    forest: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns boxes that are likely to contain an object, best first; the same image always gives the same boxes.

    Args:
      image: uint8 RGB [H, W, 3].
      count: largest number of boxes to return.
      method: "network" runs Edge Boxes on the edge map of the network shipped with this package. "gradient" uses an
        edge map that needs no weights. "structured_forest" uses OpenCV's structured forest and needs `forest`.
        "selective_search" is the fast mode of Uijlings et al. "grid" covers the image with boxes of a few sizes and
        shapes. An image with a side below 24 pixels always gets a grid.
      settings: settings of Edge Boxes; None uses the defaults.
      forest: path of the structured forest's model file (model.yml.gz); None for all other methods.

    Returns:
      boxes float32 [n, 4], x0, y0, x1, y1 in pixels with x1 and y1 exclusive, inside the image, without duplicates; and
      scores float32 [n], falling. 1 <= n <= count. Scores of different methods are not comparable.

    Raises:
      InputError: if the image, count or method is not valid, or OpenCV lacks its contributed modules.

    Example:
      >>> from deconvnet_jax import propose_boxes
      >>> from deconvnet_jax.images import read_photograph
      >>> boxes, scores = propose_boxes(read_photograph("photo.jpg"), count=10)
      >>> boxes.shape[1], len(boxes) == len(scores) <= 10
      (4, True)
    """
    check_method(method, forest)
    check_image(image)
    if count < 1:
        raise InputError(f"count={count}: expected at least 1 box")
    if method == "grid" or min(image.shape[:2]) < MIN_SIDE:
        return _ranked(*_grid(*image.shape[:2]), image.shape, count)
    if method == "selective_search":
        return _ranked(*_selective_search(image), image.shape, count)
    return propose_from_edges(edge_map(image, method, forest), count, settings)


def check_method(method: str, forest: str | None = None) -> None:
    """Raises InputError for an unknown method, and for a structured forest that is missing or not used.

    Args:
      method: one of METHODS.
      forest: the path of an existing file for "structured_forest", None or empty for other methods.
    """
    if method not in METHODS:
        raise InputError(f"method='{method}': expected one of {', '.join(METHODS)}{did_you_mean(method, METHODS)}")
    if (method == "structured_forest") != bool(forest):
        raise InputError(
            f"method='{method}' with forest='{forest or ''}': the structured forest needs its model file "
            "(model.yml.gz), other methods take none"
        )
    if forest and not Path(forest).expanduser().is_file():
        raise InputError(no_file(Path(forest), remedy="expected the model of a structured forest (model.yml.gz)"))


def edge_map(image: np.ndarray, method: str = "network", forest: str | None = None) -> np.ndarray:
    """Returns the edge map of an image.

    Args:
      image: uint8 RGB [H, W, 3].
      method: one of EDGE_METHODS, as in `propose_boxes`.
      forest: path of the structured forest's model file; None for other methods.

    Returns:
      float32 [H, W] in 0..1.

    Raises:
      InputError: if the image has another shape or dtype, the method has no edge map, or the structured forest's file
        is missing or not valid.

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax.proposals import edge_map
      >>> image = np.zeros((60, 80, 3), np.uint8)
      >>> image[20:40, 20:60] = 255
      >>> edge_map(image, method="gradient").shape
      (60, 80)
    """
    check_image(image)
    check_method(method, forest)
    if method == "network":
        from deconvnet_jax.proposals.edge_network import network_edges  # Imports Flax, which only this method needs.

        return network_edges(image)
    if method == "gradient":
        return gradient_edges(image)
    if method not in EDGE_METHODS:
        similar = did_you_mean(method, EDGE_METHODS)
        raise InputError(f"method='{method}' has no edge map; expected one of {', '.join(EDGE_METHODS)}{similar}")
    return _forest(forest).detectEdges(image.astype(np.float32) / 255)


def gradient_edges(image: np.ndarray) -> np.ndarray:
    """Returns how strongly the colour changes at every pixel, at several scales, relative to the surroundings.

    Args:
      image: uint8 RGB [H, W, 3].

    Returns:
      float32 [H, W] in 0..1.
    """
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    strength = np.zeros(image.shape[:2], np.float32)
    for scale in GRADIENT_SCALES:
        smooth = cv2.GaussianBlur(lab, (0, 0), scale)
        x, y = (cv2.Sobel(smooth, cv2.CV_32F, *order, ksize=3, scale=scale / 8) for order in ((1, 0), (0, 1)))
        magnitude = np.sqrt((x * x + y * y).sum(axis=2))
        strength += magnitude / (cv2.GaussianBlur(magnitude, (0, 0), SURROUNDINGS) + GRADIENT_FLOOR)
    return np.minimum(strength / (4 * len(GRADIENT_SCALES)), 1)


def propose_from_edges(
    edges: np.ndarray, count: int, settings: EdgeBoxes | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the boxes of Edge Boxes for an edge map, best first.

    Args:
      edges: edge map, float [H, W] in 0..1, not thinned.
      count: largest number of boxes to return.
      settings: settings of Edge Boxes; None uses the defaults.

    Returns:
      boxes float32 [n, 4] and scores float32 [n], as from `propose_boxes`.

    Raises:
      InputError: if OpenCV lacks its contributed modules.
    """
    height, width = edges.shape
    if min(height, width) < MIN_SIDE:
        return _ranked(*_grid(height, width), edges.shape, count)
    settings = settings or EdgeBoxes()
    edges = np.asarray(edges, np.float32)
    normals = edge_normals(edges)
    finder = _ximgproc().createEdgeBoxes(
        alpha=settings.alpha,
        beta=settings.beta,
        eta=settings.eta,
        minScore=settings.min_score,
        maxBoxes=settings.max_boxes,
        maxAspectRatio=settings.max_aspect_ratio,
        minBoxArea=settings.min_box_area,
        gamma=settings.gamma,
        kappa=settings.kappa,
    )
    boxes, scores = finder.getBoundingBoxes(thin_edges(edges, normals), normals)
    boxes, scores = np.reshape(boxes, (-1, 4)).astype(np.float64), np.ravel(scores)
    boxes[:, 2:] += boxes[:, :2]
    if not len(boxes):  # Nothing was found, so return the whole image as one box.
        boxes, scores = np.array([[0, 0, width, height]]), np.zeros(1)
    return _ranked(boxes, scores, edges.shape, count)


def _ranked(boxes: np.ndarray, scores: np.ndarray, shape: tuple[int, ...], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns boxes clipped to the image, each once, best first, those that resemble a better one moved back."""
    height, width = shape[:2]
    boxes = np.clip(boxes, 0, (width, height, width, height)).astype(np.float32)
    proper = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
    order = proper[np.argsort(-scores[proper], kind="stable")]
    _, first = np.unique(boxes[order], axis=0, return_index=True)
    order = order[np.sort(first)]
    boxes, scores = boxes[order], scores[order]
    order, scores = rank_varied(boxes, scores, VARIETY, PICKS)
    return boxes[order[:count]], scores[:count].astype(np.float32)


def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns boxes of several sizes and shapes, spaced by a third of their side.

    Larger boxes and those near the centre score higher.
    """
    boxes, scores = [], []
    for scale in GRID_SCALES:
        for aspect in GRID_ASPECTS:
            box_width = min(width, scale * np.sqrt(height * width * aspect))
            box_height = min(height, scale * np.sqrt(height * width / aspect))
            for y in np.linspace(0, height - box_height, 1 + int(np.ceil(3 * (height - box_height) / box_height))):
                for x in np.linspace(0, width - box_width, 1 + int(np.ceil(3 * (width - box_width) / box_width))):
                    boxes.append((x, y, x + box_width, y + box_height))
                    offset = np.hypot((x + box_width / 2) / width - 0.5, (y + box_height / 2) / height - 0.5)
                    scores.append(scale * (1 - offset))
    return np.array(boxes), np.array(scores)


def _selective_search(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns boxes that score by how many strategies found them, then by size; OpenCV's own order is random."""
    search = _ximgproc().segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[..., ::-1]))
    search.switchToSelectiveSearchFast()
    cv2.setRNGSeed(0)
    boxes, found = np.unique(np.asarray(search.process()), axis=0, return_counts=True)
    boxes = boxes.astype(np.float64)
    areas = boxes[:, 2] * boxes[:, 3] / image[..., 0].size
    boxes[:, 2:] += boxes[:, :2]
    return boxes, found + np.sqrt(areas)


def _ximgproc() -> Any:  # OpenCV's stubs lack the contributed modules.
    if not hasattr(cv2, "ximgproc"):
        raise InputError(
            "this OpenCV has no Edge Boxes; expected its contributed modules. Run pip uninstall opencv-python "
            "opencv-python-headless, then pip install opencv-contrib-python-headless, or use method='grid'"
        )
    return cv2.ximgproc


@cache
def _forest(path: str | None) -> Any:
    path = str(Path(path or "").expanduser())
    try:
        # OpenCV divides by the number of trees unchecked, and 0 would end the process.
        file = cv2.FileStorage(path, cv2.FILE_STORAGE_READ)
        parts = [
            file.getNode(part).size() for part in ("childs", "featureIds", "thresholds", "edgeBoundaries", "edgeBins")
        ]
        trees = file.getNode("options").getNode("numberOfTrees").real()
        if trees >= 1 and all(parts):
            return _ximgproc().createStructuredEdgeDetection(path)
    except (cv2.error, SystemError):
        pass
    raise InputError(f"{path} is not a structured forest of OpenCV; expected a model.yml.gz")
