"""Pure functions on arrays: pooling with indices, unpooling, image normalisation, boxes, edge maps, dense CRF.

Functions that need OpenCV are imported on first use.

Some operations have separate forms for CPUs and GPUs. `jax.lax.platform_dependent` chooses one when a program is
lowered. Code that JAX traces must not ask `jax.default_backend()`: it names the machine that traces, but the program
may be compiled or exported for another one.
"""

from typing import TYPE_CHECKING

from deconvnet_jax.lazy import lazy_names
from deconvnet_jax.ops.boxes import box_iou, checked_boxes, rank_varied
from deconvnet_jax.ops.dense_crf import CRF_PRESETS, dense_crf
from deconvnet_jax.ops.pooling import max_pool_with_indices, max_unpool, pool_windows, unpool_windows, window_positions
from deconvnet_jax.ops.preprocess import MEAN_BGR, normalize_images
from deconvnet_jax.ops.sums import channel_sums, sum_of_squares

if TYPE_CHECKING:
    from deconvnet_jax.ops.edge_maps import edge_normals, thin_edges

__all__ = [
    "CRF_PRESETS",
    "MEAN_BGR",
    "box_iou",
    "channel_sums",
    "checked_boxes",
    "dense_crf",
    "edge_normals",
    "max_pool_with_indices",
    "max_unpool",
    "normalize_images",
    "pool_windows",
    "rank_varied",
    "sum_of_squares",
    "thin_edges",
    "unpool_windows",
    "window_positions",
]


_LAZY = {"edge_maps": ("edge_normals", "thin_edges")}

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
