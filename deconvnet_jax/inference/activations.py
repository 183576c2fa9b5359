"""Returns the decoder's activations for an input, from 14x14 to 224x224 (paper, section 3.2.3 and figure 4)."""

from functools import lru_cache
from typing import Any, cast

import flax.linen as nn
import jax
from jax import Array

from deconvnet_jax.array_checks import check_arrays
from deconvnet_jax.models import DeconvNet, Variables, batch_norm_name, compiler_options
from deconvnet_jax.models.deconvnet import DECODER_WIDTHS
from deconvnet_jax.ops import max_unpool


def decoder_activations(net: DeconvNet, variables: Variables, windows: Array) -> dict[str, Array]:
    """Returns the maps after the last deconvolution of every decoder block, and after every unpooling but the first.

    Args:
      net: the network.
      variables: {"params", "batch_stats"} of `net`.
      windows: float32 BGR [N, S, S, 3], 0..255 minus the mean (`crop_windows`, `ops.normalize_images`).

    Returns:
      {name: float [N, side, side, channels]} in the order of computation: "deconv5_3" (side S/16), "unpool4" (S/8),
      "deconv4_3", "unpool3" (S/4), "deconv3_3", "unpool2" (S/2), "deconv2_2", "unpool1" (S), "deconv1_2"; then
      "scores" float32 [N, S, S, K], the logits. Maps of deconvolutions are taken after batch normalisation and ReLU.

    Raises:
      InputError: if the windows have another shape or dtype.

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax.ops import normalize_images
      >>> from deconvnet_jax.weights import load_checkpoint
      >>> net, variables, _ = load_checkpoint("runs/demo")
      >>> windows = normalize_images(np.zeros((1, 32, 32, 3), np.uint8))
      >>> maps = decoder_activations(net, variables, windows)
      >>> [(name, found.shape[1]) for name, found in maps.items()][:3]
      [('deconv5_3', 2), ('unpool4', 4), ('deconv4_3', 4)]
    """
    check_arrays("decoder_activations", windows=(windows, "N S S 3", "normalised"))
    maps = _program(cast(nn.Module, net), net.batch_norm)(variables, windows)
    names = [f"deconv{block}_{len(widths)}" for block, widths in DECODER_WIDTHS.items()]
    unpooled = [f"unpool{block}" for block in list(DECODER_WIDTHS)[1:]]
    between = [name for pair in zip(names[:-1], unpooled, strict=True) for name in pair]
    return {name: maps[name] for name in (*between, names[-1], "scores")}  # jit returns the names sorted


@lru_cache(maxsize=2)
def _program(net: nn.Module, batch_norm: bool) -> jax.stages.Wrapped:
    def run(variables: Variables, windows: Array) -> dict[str, Array]:
        own = variables
        scores, state = net.apply(own, windows, capture_intermediates=True, mutable=["intermediates"])
        kept = cast(dict[str, Any], state["intermediates"])
        maps, last = {}, None
        for block, widths in DECODER_WIDTHS.items():
            if last is not None:
                size = windows.shape[1] >> (block - 1)
                maps[f"unpool{block}"] = max_unpool(last, kept[f"pool{block}_mask"][0], (size, size), window=2)
            layer = f"deconv{block}_{len(widths)}"
            name = batch_norm_name(layer) if batch_norm else layer
            last = maps[layer] = nn.relu(kept[name]["__call__"][0])
        return {**maps, "scores": scores}

    return jax.jit(run, compiler_options=compiler_options(jax.default_backend()))
