"""Photographs that a network is trained on and scored on, which makes scores too high."""

from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections

from deconvnet_jax.data import DatasetSplit
from experiments import hosts

_SAME_DATA = ("dataset", "voc_root")


def warn_of_common_images(
    trained: DatasetSplit, indices: Iterable[int], scored: DatasetSplit, train_split: str, eval_split: str
) -> None:
    """Prints a warning with the number of images that are in both splits, also under other names.

    Reads the file of every image: about 0.5 seconds per thousand photographs of VOC's size.

    Args:
      trained: images of the training split.
      indices: of those that are trained on.
      scored: images of the other split.
      train_split: its name.
      eval_split: its name.
    """
    known = {trained.digest(index) for index in indices}
    common = [index for index in range(len(scored)) if scored.digest(index) in known]
    if common:
        hosts.say(
            f"warning: {len(common)} of the {len(scored)} images of the split '{eval_split}' are training images, too "
            f"(split '{train_split}'), for example '{scored.name(common[0])}'; these scores are too high"
        )


def training_split(trained_with: Mapping[str, Any], config: ml_collections.ConfigDict) -> str | None:
    """Returns the training split of a checkpoint if it is one of the config's data; None if that is not known.

    Args:
      trained_with: the config in the checkpoint.
      config: that names the data to score on, its paths absolute.
    """
    data = trained_with.get("data") or {}
    if data.get("window_list") or any(data.get(key) != config.data[key] for key in _SAME_DATA):
        return None
    return data.get("train_split")
