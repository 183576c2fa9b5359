"""Data in the VOC layout: reading, TFDS data sets, proposals, windows, the training pipeline, and the embedded scenes.

What needs TFDS or Grain is imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from deconvnet_jax.data.scenes import SCENE_CLASSES, draw_scene, write_scenes
from deconvnet_jax.data.training_windows import (
    Source,
    WindowList,
    Windows,
    class_windows,
    listed_windows,
    read_window_list,
    repeat_rare,
    training_windows,
    write_window_list,
)
from deconvnet_jax.data.voc_layout import (
    Photograph,
    UnlabelledSplit,
    class_names,
    has_no_masks,
    read_class_names,
    read_example,
    split_names,
)
from deconvnet_jax.data.windows import (
    Objects,
    crop_place,
    crop_window,
    enlarge,
    image_box,
    instance_boxes,
    keep_class,
    number_parts,
    random_mirror,
    square,
)
from deconvnet_jax.images import Example
from deconvnet_jax.labels import IGNORE, VOC_CLASSES
from deconvnet_jax.proposals import (
    EdgeBoxes,
    compute_proposals,
    load_proposals,
    propose_boxes,
    read_proposals,
    write_proposals,
)

if TYPE_CHECKING:
    from deconvnet_jax.data.camvid_builder import CAMVID_CLASSES, prepare_camvid
    from deconvnet_jax.data.coco import import_coco
    from deconvnet_jax.data.pipeline import CropSettings, TrainingBatches, class_pixels, training_batches
    from deconvnet_jax.data.records import DatasetSplit, open_split, split_counts, split_parts
    from deconvnet_jax.data.voc2012_builder import prepare_voc2012
    from deconvnet_jax.data.voc_builder import prepare_voc_layout

__all__ = [
    "CAMVID_CLASSES",
    "IGNORE",
    "SCENE_CLASSES",
    "VOC_CLASSES",
    "CropSettings",
    "DatasetSplit",
    "EdgeBoxes",
    "Example",
    "Objects",
    "Photograph",
    "Source",
    "TrainingBatches",
    "UnlabelledSplit",
    "WindowList",
    "Windows",
    "class_names",
    "class_pixels",
    "class_windows",
    "compute_proposals",
    "crop_place",
    "crop_window",
    "draw_scene",
    "enlarge",
    "has_no_masks",
    "image_box",
    "import_coco",
    "instance_boxes",
    "keep_class",
    "listed_windows",
    "load_proposals",
    "number_parts",
    "open_split",
    "prepare_camvid",
    "prepare_voc2012",
    "prepare_voc_layout",
    "propose_boxes",
    "random_mirror",
    "read_class_names",
    "read_example",
    "read_proposals",
    "read_window_list",
    "repeat_rare",
    "split_counts",
    "split_names",
    "split_parts",
    "square",
    "training_batches",
    "training_windows",
    "write_proposals",
    "write_scenes",
    "write_window_list",
]

_LAZY = {
    "CAMVID_CLASSES": "camvid_builder",
    "prepare_camvid": "camvid_builder",
    "import_coco": "coco",
    "prepare_voc2012": "voc2012_builder",
    "CropSettings": "pipeline",
    "TrainingBatches": "pipeline",
    "class_pixels": "pipeline",
    "DatasetSplit": "records",
    "open_split": "records",
    "split_counts": "records",
    "split_parts": "records",
    "prepare_voc_layout": "voc_builder",
    "training_batches": "pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
