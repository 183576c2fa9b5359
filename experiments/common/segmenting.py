"""Makes a Segmenter from a checkpoint and the command line, and segments images of a split."""

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
    """Makes the Segmenter of a checkpoint with the settings of the command line.

    Args:
      loaded: Network, variables and description, from `weights.load_checkpoint`.
      config: Config whose section `inference` says how to segment. None: the config in the checkpoint, or the paper's
        settings if it has none.
      changes: Settings that --config.KEY=VALUE gives; those of the section `inference` are used.

    Returns:
      The Segmenter. Proposals from a folder of the original are enlarged only if `inference.enlarge` is given.

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
        return segmenter.changed(enlarge=1.0)  # The boxes of the original are enlarged already.
    return segmenter


def boxes_from_file(
    settings: InferenceSettings, names: Sequence[str], sizes: Sequence[tuple[int, int]]
) -> list[np.ndarray] | None:
    """Reads the proposals of images if the settings name a file of them.

    Args:
      settings: Settings of the Segmenter.
      names: Names of the images.
      sizes: Heights and widths of the images in pixels.

    Returns:
      Boxes [n, 4] of every image, as x0, y0, x1, y1 in pixels; None if the settings need no file.

    Raises:
      InputError: if the file cannot be used, or has no boxes for one of the images.
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
    """Segments some images of a split. Images are read ahead of the one that is segmented.

    Args:
      segmenter: The Segmenter.
      source: The images.
      share: Indices of the images to segment.
      boxes: Proposals of these images; None: the Segmenter finds them.

    Yields:
      Index, example and result of each image, in the order of `share`.
    """
    waiting: deque[tuple[int, Example | data.Photograph]] = deque()

    def images() -> Iterator[np.ndarray]:
        for index in share:
            example = source[index]
            waiting.append((index, example))
            yield example.image

    for result in segmenter.segment(images(), boxes):
        yield *waiting.popleft(), result
