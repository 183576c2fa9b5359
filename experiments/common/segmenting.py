"""From a checkpoint and the command line to a Segmenter, the proposals that a file holds, and results."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import ml_collections
import numpy as np

from deconvnet_jax import data
from deconvnet_jax.data import Example
from deconvnet_jax.images import Examples
from deconvnet_jax.inference import InferenceSettings, Result, Segmenter
from deconvnet_jax.models import Network, Variables

from ..configs import settings


def segmenter_of(
    loaded: tuple[Network, Variables, dict[str, Any]],
    config: ml_collections.ConfigDict | None,
    changes: dict[str, Any],
) -> Segmenter:
    """The Segmenter of a checkpoint.

    Args:
      loaded: from `weights.load_checkpoint`.
      config: whose section "inference" counts; None: that of the checkpoint, and without one the paper's.
      changes: keys of the config that were given on the command line, with their values.

    Raises:
      InputError: for settings that cannot be used.
    """
    chosen: dict[str, Any] = {}
    if config is not None:
        settings.check_config(config)
        chosen = config.inference.to_dict()
    chosen |= {key.removeprefix("inference."): v for key, v in changes.items() if key.startswith("inference.")}
    segmenter = Segmenter.from_loaded(*loaded, **chosen)
    path = segmenter.settings.proposals_path
    if path is not None and path.is_dir() and "enlarge" not in chosen:
        return segmenter.changed(enlarge=1.0)  # the original's boxes are enlarged already
    return segmenter


def boxes_from_file(
    settings: InferenceSettings, names: Sequence[str], sizes: Sequence[tuple[int, int]]
) -> list[np.ndarray] | None:
    """The proposals of images, where the settings name a file of them; None where they are found.

    Args:
      settings: of the Segmenter.
      names: of the images.
      sizes: their heights and widths.

    Raises:
      InputError: if the file is not usable, or has no boxes for one of the images.
    """
    if not settings.uses_proposals or settings.proposals_path is None:
        return None
    return data.read_proposals(settings.proposals_path, names, sizes)


def results(
    segmenter: Segmenter,
    source: Examples | data.UnlabelledSplit,
    share: Sequence[int],
    boxes: Sequence[np.ndarray] | None = None,
) -> Iterator[tuple[int, Example | data.Photograph, Result]]:
    """Segments some images of a split; they are read a few ahead.

    Args:
      segmenter: that segments them.
      source: the images.
      share: the numbers of those to segment.
      boxes: their proposals, where they are not to be found.

    Returns:
      Number, example and result of each, in their order.
    """
    waiting: deque[tuple[int, Example | data.Photograph]] = deque()

    def images() -> Iterator[np.ndarray]:
        for index in share:
            example = source[index]
            waiting.append((index, example))
            yield example.image

    for result in segmenter.segment(images(), boxes):
        yield *waiting.popleft(), result
