"""DeconvNet (Noh, Hong, Han; ICCV 2015) in JAX and Flax; README.md is the introduction.

The names below are imported on first use, so `import deconvnet_jax` alone imports neither JAX nor Flax.
"""

from typing import TYPE_CHECKING

from deconvnet_jax.lazy import lazy_names

if TYPE_CHECKING:
    from deconvnet_jax.errors import InputError
    from deconvnet_jax.evaluation import confusion_matrix, segmentation_scores
    from deconvnet_jax.inference import Segmenter
    from deconvnet_jax.models import DeconvNet, FCN8s
    from deconvnet_jax.ops import dense_crf, max_pool_with_indices, max_unpool, normalize_images
    from deconvnet_jax.proposals import propose_boxes
    from deconvnet_jax.training import segmentation_loss
    from deconvnet_jax.weights import load_checkpoint

__version__ = "0.2.0"

__all__ = [
    "DeconvNet",
    "FCN8s",
    "InputError",
    "Segmenter",
    "confusion_matrix",
    "dense_crf",
    "load_checkpoint",
    "max_pool_with_indices",
    "max_unpool",
    "normalize_images",
    "propose_boxes",
    "segmentation_loss",
    "segmentation_scores",
]

_LAZY = {
    "errors": ("InputError",),
    "evaluation": ("confusion_matrix", "segmentation_scores"),
    "inference": ("Segmenter",),
    "models": ("DeconvNet", "FCN8s"),
    "ops": ("dense_crf", "max_pool_with_indices", "max_unpool", "normalize_images"),
    "proposals": ("propose_boxes",),
    "training": ("segmentation_loss",),
    "weights": ("load_checkpoint",),
}

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
