"""Data sets (folders in the VOC layout, downloads, imports, drawn scenes), their windows and their training crops.

Names that need TFDS or Grain are imported on first use. `DOWNLOADED` lists the data sets that can be downloaded.
"""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from deconvnet_jax.data.colors import adjust_colors, jitter_colors
from deconvnet_jax.data.scenes import SCENE_CLASSES, draw_scene, write_scenes
from deconvnet_jax.data.training_windows import Source, Windows, class_windows, repeat_rare, training_windows
from deconvnet_jax.data.voc_layout import class_names, read_class_names, read_example, split_names
from deconvnet_jax.data.voc_splits import Photograph, UnlabelledSplit, has_no_masks
from deconvnet_jax.data.window_lists import WindowList, listed_windows, read_window_list, write_window_list
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
from deconvnet_jax.errors import InputError, did_you_mean
from deconvnet_jax.images import Example
from deconvnet_jax.labels import IGNORE, VOC_CLASSES
from deconvnet_jax.lazy import lazy_names
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
    from deconvnet_jax.data.mask_files import MaskPairing
    from deconvnet_jax.data.mask_readers import MaskReading
    from deconvnet_jax.data.mask_splits import MaskDivision
    from deconvnet_jax.data.masks import MaskSummary, import_masks
    from deconvnet_jax.data.packing import PackedBuilder
    from deconvnet_jax.data.pipeline import CropSettings, TrainingBatches, training_batches
    from deconvnet_jax.data.records import DatasetSplit, class_pixels, open_split, split_counts, split_parts
    from deconvnet_jax.data.voc2012_builder import prepare_voc2012
    from deconvnet_jax.data.voc_builder import prepare_voc_layout

__all__ = [
    "CAMVID_CLASSES",
    "DOWNLOADED",
    "IGNORE",
    "SCENE_CLASSES",
    "VOC_CLASSES",
    "CropSettings",
    "DatasetSplit",
    "Downloaded",
    "EdgeBoxes",
    "Example",
    "MaskDivision",
    "MaskPairing",
    "MaskReading",
    "MaskSummary",
    "Objects",
    "PackedBuilder",
    "Photograph",
    "Source",
    "TrainingBatches",
    "UnlabelledSplit",
    "WindowList",
    "Windows",
    "adjust_colors",
    "class_names",
    "class_pixels",
    "class_windows",
    "compute_proposals",
    "crop_place",
    "crop_window",
    "downloaded",
    "draw_scene",
    "enlarge",
    "has_no_masks",
    "image_box",
    "import_coco",
    "import_masks",
    "instance_boxes",
    "jitter_colors",
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
    "camvid_builder": ("CAMVID_CLASSES", "prepare_camvid"),
    "coco": ("import_coco",),
    "mask_files": ("MaskPairing",),
    "mask_readers": ("MaskReading",),
    "mask_splits": ("MaskDivision",),
    "masks": ("MaskSummary", "import_masks"),
    "packing": ("PackedBuilder",),
    "pipeline": ("CropSettings", "TrainingBatches", "training_batches"),
    "records": ("DatasetSplit", "class_pixels", "open_split", "split_counts", "split_parts"),
    "voc2012_builder": ("prepare_voc2012",),
    "voc_builder": ("prepare_voc_layout",),
}

# Data sets that are packed from downloaded files, by their name in config.data.dataset and --dataset. The values name
# the attributes of this package with the class names and with the function that packs the files. The programs take
# their choices from this table.
DOWNLOADED = {
    "voc2012": ("VOC_CLASSES", "prepare_voc2012"),
    "camvid": ("CAMVID_CLASSES", "prepare_camvid"),
}


class Downloaded(NamedTuple):
    """Data set that is packed from downloaded files.

    Attributes:
      class_names: class names in the order of their ids.
      prepare: function that takes the folder with the downloaded files, the folder of packed data sets and optionally a
        progress function, and returns the builder. With None as the first folder it opens what was packed before.
    """

    class_names: tuple[str, ...]
    prepare: "Callable[..., PackedBuilder]"


def downloaded(name: str) -> Downloaded:
    """Returns the data set with this name in `DOWNLOADED`.

    Raises:
      InputError: if there is no such name.
    """
    if name not in DOWNLOADED:
        raise InputError(
            f"no downloaded data set '{name}'; expected one of {', '.join(DOWNLOADED)} (deconvnet_jax.data.DOWNLOADED)"
            f"{did_you_mean(name, DOWNLOADED)}"
        )
    package = importlib.import_module(__name__)
    return Downloaded(*(getattr(package, attribute) for attribute in DOWNLOADED[name]))


__getattr__, __dir__ = lazy_names(__name__, _LAZY)
