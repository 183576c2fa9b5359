"""Edge maps: the direction of edges, and thinning to lines one pixel wide; after pdollar/edges."""

import cv2
import numpy as np

from deconvnet_jax.array_checks import check_arrays, host_array

_BORDER = 5  # Width in pixels of the margin where `thin_edges` fades values to 0.


def edge_normals(edges: np.ndarray) -> np.ndarray:
    """Returns the direction across the edge at every pixel.

    The direction comes from the second derivatives of the smoothed edge map.

    Args:
      edges: edge map, float32 [H, W].

    Returns:
      float32 [H, W] in [0, pi): the angle from the x axis in radians, with y pointing down.

    Raises:
      InputError: if the edge map has another shape or dtype, or is traced by JAX.

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax.ops import edge_normals
      >>> edges = np.zeros((32, 32), np.float32)
      >>> edges[:, 16] = 1  # a vertical line, whose normal points along x
      >>> float(edge_normals(edges)[16, 16])
      0.0
    """
    edges = host_array("edge_normals: edges", edges)
    check_arrays("edge_normals", edges=(edges, "H W", "number"))
    smooth = triangle_blur(edges, 4)
    # Mirrored at the border like the blur; otherwise the border itself would look like an edge.
    x, y = (cv2.Sobel(smooth, cv2.CV_32F, *order, ksize=1, borderType=cv2.BORDER_REFLECT) for order in ((1, 0), (0, 1)))
    xx = cv2.Sobel(x, cv2.CV_32F, 1, 0, ksize=1, borderType=cv2.BORDER_REFLECT)
    xy = cv2.Sobel(y, cv2.CV_32F, 1, 0, ksize=1, borderType=cv2.BORDER_REFLECT)
    yy = cv2.Sobel(y, cv2.CV_32F, 0, 1, ksize=1, borderType=cv2.BORDER_REFLECT)
    # Curvature is largest across a ridge: take the eigenvector of the Hessian with the larger |eigenvalue|.
    angle = 0.5 * np.arctan2(2 * xy, xx - yy)
    along = xx * np.cos(angle) ** 2 + 2 * xy * np.cos(angle) * np.sin(angle) + yy * np.sin(angle) ** 2
    across = xx + yy - along
    angle = np.where(np.abs(across) > np.abs(along), angle + np.pi / 2, angle)
    angle = np.mod(angle, np.pi)
    return np.where(angle < np.pi, angle, 0).astype(np.float32)  # np.mod rounds -1e-9 up to pi.


def thin_edges(edges: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Returns the edge map with only its ridges kept (non-maximum suppression).

    A pixel is kept if neither of its neighbours across the edge is larger in the smoothed map. Values fade to 0 within
    5 pixels of the image border, because the border of a photograph is not an edge of an object.

    Args:
      edges: edge map, float32 [H, W], 0 or higher.
      normals: directions across the edges, float32 [H, W], from `edge_normals`.

    Returns:
      float32 [H, W]: the value of `edges` at kept pixels, reduced near the border, and 0 elsewhere.

    Raises:
      InputError: if an array has another shape or dtype, the sizes differ, or one is traced by JAX.

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax.ops import edge_normals, thin_edges
      >>> edges = np.zeros((32, 32), np.float32)
      >>> edges[:, 15:18] = [0.5, 1, 0.5]  # a vertical line, three pixels wide
      >>> thin_edges(edges, edge_normals(edges))[16, 14:19]
      array([0., 0., 1., 0., 0.], dtype=float32)
    """
    edges, normals = host_array("thin_edges: edges", edges), host_array("thin_edges: normals", normals)
    check_arrays("thin_edges", edges=(edges, "H W", "number"), normals=(normals, "H W", "float"))
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
    """Returns a picture smoothed with a triangle filter along both axes, mirrored at its border.

    Args:
      picture: numbers [H, W], computed as float32.
      radius: the filter falls to 0 at `radius` + 1 pixels from its centre; 0 leaves the picture unchanged.

    Returns:
      float32 [H, W].
    """
    kernel = np.concatenate([np.arange(1, radius + 2), np.arange(radius, 0, -1)]).astype(np.float32)
    kernel /= kernel.sum()
    return cv2.sepFilter2D(np.asarray(picture, np.float32), -1, kernel, kernel, borderType=cv2.BORDER_REFLECT)


def _fade(length: int) -> np.ndarray:
    distance = np.minimum(np.arange(length), np.arange(length)[::-1])
    return np.minimum(distance / _BORDER, 1).astype(np.float32)
