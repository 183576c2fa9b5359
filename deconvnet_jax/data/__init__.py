"""Data in the VOC layout: reading, the TFDS data set, crops, the training pipeline, and the embedded scenes.

What needs TFDS or Grain is imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from deconvnet_jax.data.augment import center_crop, random_crop, random_mirror
from deconvnet_jax.data.scenes import SCENE_CLASSES, draw_scene, write_scenes
from deconvnet_jax.data.voc_layout import VOC_CLASSES, Example, class_names, read_class_names, read_example, split_names
from deconvnet_jax.data.windows import crop_window, enlarge, image_box, instance_boxes, keep_class, square

if TYPE_CHECKING:
    from deconvnet_jax.data.pipeline import class_pixels, training_batches, training_windows
    from deconvnet_jax.data.voc_builder import open_split, prepare_voc_layout

__all__ = [
    "SCENE_CLASSES",
    "VOC_CLASSES",
    "Example",
    "center_crop",
    "class_names",
    "class_pixels",
    "crop_window",
    "draw_scene",
    "enlarge",
    "image_box",
    "instance_boxes",
    "keep_class",
    "open_split",
    "prepare_voc_layout",
    "random_crop",
    "random_mirror",
    "read_class_names",
    "read_example",
    "split_names",
    "square",
    "training_batches",
    "training_windows",
    "write_scenes",
]

_LAZY = {
    "class_pixels": "pipeline",
    "open_split": "voc_builder",
    "prepare_voc_layout": "voc_builder",
    "training_batches": "pipeline",
    "training_windows": "pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
