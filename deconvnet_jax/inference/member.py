"""Describes the networks of a `Segmenter`: each with its variables and the size of its input."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn

from deconvnet_jax.data import VOC_CLASSES
from deconvnet_jax.errors import InputError
from deconvnet_jax.models import DeconvNet, FCN8s, Variables
from deconvnet_jax.short_repr import short_repr
from deconvnet_jax.weights import load_checkpoint, network_from_caffe

DECONVNET_INPUT_SIZE = 224  # pixels
FCN8S_INPUT_SIZE = 500  # pixels; all images of VOC fit into it (original: cache_FCN8s_results.m)


class Member(NamedTuple):
    """One network of an ensemble.

    Attributes:
      net: a module with `apply(variables, images, train=False) -> logits` that takes and returns the same arrays as
        `models.DeconvNet`.
      variables: the variables of `net`.
      input_size: the side S of the network's input, in pixels.
    """

    net: nn.Module
    variables: Variables
    input_size: int

    __repr__ = short_repr

    @classmethod
    def from_loaded(cls, net: nn.Module, variables: Variables, info: Mapping[str, Any]) -> "Member":
        """Returns a loaded network with the input size that it was trained with.

        Args:
          net: the network, from `weights.load_checkpoint` or `weights.network_from_caffe`.
          variables: its variables.
          info: its description.

        Raises:
          InputError: if the running statistics of its batch normalisation are not known.
        """
        if info.get("batch_statistics") == "unknown":
            raise InputError(
                "this network has no running statistics for batch normalisation: it was trained in Caffe, which keeps "
                "none, or is untrained. Estimate them: python -m experiments.calibrate_bn --checkpoint=... --output=..."
            )
        trained = info.get("config", {}).get("data", {})
        return cls(net, variables, trained.get("crop_size", default_input_size(net)))


def default_input_size(net: nn.Module) -> int:
    """Returns the side of the input in pixels: a DeconvNet's smallest, 500 for FCN-8s, 224 for other networks."""
    if isinstance(net, FCN8s):
        return FCN8S_INPUT_SIZE
    return net.min_input_size if isinstance(net, DeconvNet) else DECONVNET_INPUT_SIZE


def default_class_names(count: int) -> tuple[str, ...]:
    """Returns VOC's class names if there are 21 classes, otherwise "class 0", "class 1", ..."""
    return VOC_CLASSES if count == len(VOC_CLASSES) else tuple(f"class {i}" for i in range(count))


def load_partner(path: str, class_names: tuple[str, ...]) -> Member:
    """Returns the second network of an ensemble.

    Args:
      path: a checkpoint or a caffemodel.
      class_names: the classes of the first network.

    Raises:
      InputError: if it cannot be loaded, or a checkpoint has other classes.
    """
    location = Path(path).expanduser()
    if location.is_file():
        return Member.from_loaded(*network_from_caffe(location))
    net, variables, info = load_checkpoint(location, None)
    partner, names = Member.from_loaded(net, variables, info), tuple(info["class_names"])
    if names != class_names:
        raise InputError(
            f"inference.ensemble_checkpoint={path} has other classes ({', '.join(names[:4])}, ...) than this network "
            f"({', '.join(class_names[:4])}, ...); choose one that was trained on the same classes"
        )
    return partner
