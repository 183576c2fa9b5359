"""Edge maps: which way an edge runs, and lines one pixel wide; after pdollar/edges."""

import cv2
import numpy as np

_BORDER = 5  # pixels along which responses fade: a photograph's own border is no edge of an object


def edge_normals(edges: np.ndarray) -> np.ndarray:
    """The direction across an edge at every pixel, from the second derivatives of the smoothed map.

    Args:
      edges: float32 [H, W].

    Returns:
      float32 [H, W] in [0, pi), radians from the x axis, y pointing down.
    """
    smooth = triangle_blur(edges, 4)
    # Reflected at the border, as the blur is: otherwise the frame of the image has directions of its own.
    x, y = (cv2.Sobel(smooth, cv2.CV_32F, *order, ksize=1, borderType=cv2.BORDER_REFLECT) for order in ((1, 0), (0, 1)))
    xx = cv2.Sobel(x, cv2.CV_32F, 1, 0, ksize=1, borderType=cv2.BORDER_REFLECT)
    xy = cv2.Sobel(y, cv2.CV_32F, 1, 0, ksize=1, borderType=cv2.BORDER_REFLECT)
    yy = cv2.Sobel(y, cv2.CV_32F, 0, 1, ksize=1, borderType=cv2.BORDER_REFLECT)
    # Across a ridge the curvature is largest: the eigenvector of the Hessian with the larger |eigenvalue|.
    angle = 0.5 * np.arctan2(2 * xy, xx - yy)
    along = xx * np.cos(angle) ** 2 + 2 * xy * np.cos(angle) * np.sin(angle) + yy * np.sin(angle) ** 2
    across = xx + yy - along
    angle = np.where(np.abs(across) > np.abs(along), angle + np.pi / 2, angle)
    angle = np.mod(angle, np.pi)
    return np.where(angle < np.pi, angle, 0).astype(np.float32)  # mod rounds -1e-9 to pi


def thin_edges(edges: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Non-maximum suppression: keeps a pixel where no neighbour across the edge is larger.

    Args:
      edges: float32 [H, W], from 0.
      normals: float32 [H, W], from `edge_normals`.

    Returns:
      float32 [H, W]: `edges`, or 0; fading towards the border of the image.
    """
    height, width = edges.shape
    smooth = triangle_blur(edges, 1)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    dx, dy = np.cos(normals), np.sin(normals)
    neighbours = (
        cv2.remap(smooth, x + sign * dx, y + sign * dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for sign in (-1, 1)
    )
    kept = smooth * 1.01 >= np.maximum(*neighbours)
    return np.where(kept, edges, 0).astype(np.float32) * _fade(height)[:, None] * _fade(width)[None]


def triangle_blur(picture: np.ndarray, radius: int) -> np.ndarray:
    """Convolution with a triangle that is 0 at `radius` + 1 pixels from the centre, in both directions."""
    kernel = np.concatenate([np.arange(1, radius + 2), np.arange(radius, 0, -1)]).astype(np.float32)
    kernel /= kernel.sum()
    return cv2.sepFilter2D(np.asarray(picture, np.float32), -1, kernel, kernel, borderType=cv2.BORDER_REFLECT)


def _fade(length: int) -> np.ndarray:
    distance = np.minimum(np.arange(length), np.arange(length)[::-1])
    return np.minimum(distance / _BORDER, 1).astype(np.float32)
