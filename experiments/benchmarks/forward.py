"""Measures the forward pass in images per second, and compares it with the same network in PyTorch.

    python -m experiments.benchmark forward [--batch_size=N] [--width=W] [--quick] [--json=FILE]

The network is DeconvNet at 224x224 with 21 classes; on both sides batch normalisation is folded into the convolutions.
Input: float32 images that are on the device. Output: scores that stay there. Batches: 2 and 8 images on a CPU, 8 and 64
on an accelerator, or N. All is float32; on a GPU both sides multiply in TF32. PyTorch runs in inference mode with
channels_last, and with torch.compile on a GPU if that works.

Both sides must give the same scores. Rounds alternate between them, because the speed of a machine drifts; the ratio is
that of each round. --quick makes shorter rounds.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deconvnet_jax.models import DeconvNet, Variables, compiler_options, count_parameters, fold_batch_norm

from . import harness
from .harness import OURS, THEIRS, Contender, Numbers, Table
from .network import SIZE, check_width, gflop, make_net, make_variables

BATCH_SIZES = {"cpu": (2, 8), "accelerator": (8, 64)}
# Largest root mean square of the difference of scores, as a share of the scores' standard deviation. Random weights
# amplify rounding.
SCORES_DIFFER = 0.05


def run(batch_size: int | None, width: float, quick: bool = False) -> Numbers:
    """Measures the forward pass.

    Args:
      batch_size: images per batch; None measures the default batches of the platform.
      width: factor on the channels of all layers, above 0 and at most 1.
      quick: True makes shorter rounds.

    Returns:
      The numbers for `tables`, one JSON object.

    Raises:
      InputError: for a width out of range.
      RuntimeError: if the two sides give different scores.
    """
    check_width(width)
    setting = harness.setting()
    net = make_net("float32", width)
    variables = make_variables(net)
    sizes = (batch_size,) if batch_size else BATCH_SIZES["cpu" if jax.default_backend() == "cpu" else "accelerator"]
    compare = bool(setting["alternative"])
    return {
        **setting,
        "width": width,
        "batch_norm": "folded on both sides",
        "gflop_per_image": gflop(net),
        "rates": harness.measure_rates("float32"),
        "results": {str(size): measure(net, variables, size, compare, quick) for size in sizes},
    }


def measure(net: DeconvNet, variables: Variables, batch_size: int, compare: bool, quick: bool) -> Numbers:
    """Measures one batch size.

    Args:
      net: this project's network.
      variables: its weights, with batch normalisation that is not folded.
      batch_size: images per batch.
      compare: True measures PyTorch too.
      quick: True makes shorter rounds.

    Returns:
      The result of `harness.compare`.

    Raises:
      RuntimeError: if the two sides give different scores.
    """
    images = np.random.default_rng(0).uniform(-120, 140, (batch_size, SIZE, SIZE, 3)).astype(np.float32)
    contenders: dict[str, Contender[Any]] = {OURS: ours(net, variables, images)}
    if compare:
        contenders[THEIRS] = theirs(variables, images)
        check_scores(*(contender.step() for contender in contenders.values()))
    return harness.compare(contenders, batch_size, quick)


def ours(net: DeconvNet, variables: Variables, images: np.ndarray) -> Contender[jax.Array]:
    """Returns this project's side, on one device.

    Args:
      net: the network.
      variables: its weights; their batch normalisation is folded here.
      images: float32 BGR [N, S, S, 3], less the mean.

    Returns:
      A contender whose step computes scores float32 [N, S, S, K].
    """
    net, folded = fold_batch_norm(net, variables)
    program = jax.jit(net.apply, compiler_options=compiler_options(jax.default_backend()))
    step = partial(program, jax.device_put(folded), jnp.asarray(images))
    return Contender(step, lambda scores: float(scores[0, 0, 0, 0]), count_parameters(folded))


def theirs(variables: Variables, images: np.ndarray) -> Contender[Any]:
    """Returns PyTorch's side.

    Args:
      variables: weights of this project's network, which PyTorch's gets too.
      images: float32 BGR [N, S, S, 3], less the mean.

    Returns:
      A contender whose step computes scores float32 [N, K, S, S].
    """
    import torch

    from . import reference

    x = torch.from_numpy(images).to(reference.device()).permute(0, 3, 1, 2)  # in channels_last memory format
    score, parameters, mode = reference.forward_pass(variables, x)
    return Contender(lambda: score(x), lambda scores: float(scores[0, 0, 0, 0]), parameters, mode)


def check_scores(mine: jax.Array, other: Any) -> None:
    """Checks that both sides compute the same scores.

    Args:
      mine: this project's scores, float32 [N, S, S, K].
      other: PyTorch's scores, a float32 tensor [N, K, S, S].

    Raises:
      RuntimeError: if they differ by more than SCORES_DIFFER.
    """
    first, second = np.asarray(mine, np.float64), other.cpu().numpy().transpose(0, 2, 3, 1)
    error = np.sqrt(np.mean((first - second) ** 2)) / first.std()
    if not error < SCORES_DIFFER:
        raise RuntimeError(
            f"the two sides do not compute the same: scores differ by {error:.3g} of their standard deviation"
        )


def tables(numbers: Numbers) -> list[Table]:
    """Returns one table with a row for each side and batch size, from the numbers of `run`."""
    rows = []
    for batch_size, result in numbers["results"].items():
        label = f"{batch_size} images"
        rows += harness.rate_rows(label, result, numbers["gflop_per_image"], numbers["rates"]["flops"])
    title = harness.title("Forward pass of DeconvNet, float32", numbers)
    columns, *rows = ([*row[:4], *row[5:]] for row in (harness.RATE_COLUMNS, *rows))  # without memory
    return [Table(title, columns, rows)]
