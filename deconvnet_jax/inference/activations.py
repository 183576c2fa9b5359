"""The decoder's maps of an input, from 14x14 to 224x224 (paper, section 3.4 and figure 4)."""

from functools import lru_cache
from typing import Any, cast

import chex
import flax.linen as nn
import jax
from jax import Array

from deconvnet_jax.models import DeconvNet, Variables, batch_norm_name, compiler_options
from deconvnet_jax.models.deconvnet import DECODER_WIDTHS
from deconvnet_jax.ops import max_unpool


def decoder_activations(net: DeconvNet, variables: Variables, windows: Array) -> dict[str, Array]:
    """Returns the maps after the last deconvolution of every block, and after every unpooling but the first.

    Args:
      net: the network.
      variables: of it.
      windows: float32 BGR [N, S, S, 3] minus mean (`crop_windows`).

    Returns:
      "deconv5_3" [N, S/16, S/16, C5], "unpool4" [N, S/8, S/8, C5], "deconv4_3", "unpool3", "deconv3_3", "unpool2",
      "deconv2_2", "unpool1", "deconv1_2" [N, S, S, C1], after their ReLUs, in this order; then "scores" [N, S, S, K].
    """
    chex.assert_rank(windows, 4)
    maps = _program(cast(nn.Module, net), net.batch_norm)(variables, windows)
    names = [f"deconv{block}_{len(widths)}" for block, widths in DECODER_WIDTHS.items()]
    unpooled = [f"unpool{block}" for block in list(DECODER_WIDTHS)[1:]]
    between = [name for pair in zip(names[:-1], unpooled, strict=True) for name in pair]
    return {name: maps[name] for name in (*between, names[-1], "scores")}  # a jitted function sorts names


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
