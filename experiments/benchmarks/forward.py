"""Images per second of the forward pass alone: this project, and the same network in PyTorch on the same machine.

    python -m experiments.benchmark forward [--batch_size=N] [--width=W] [--quick] [--json=FILE]

DeconvNet at 224x224 with 21 classes, batch normalisation folded into the convolutions on both sides, from float32
images that are on the device already to scores that stay there; 2 and 8 images at once on a CPU, 8 and 64 otherwise,
or N. float32; on a GPU products are TF32 on both sides. PyTorch in inference mode, channels_last, compiled on a GPU if
that works. Both sides must give the same scores. Rounds alternate; the ratio is that of each round; --quick makes
them shorter.
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
SCORES_DIFFER = 0.05  # of their own variation, at most: root mean squares; random weights make much of rounding


def run(batch_size: int | None, width: float, quick: bool = False) -> Numbers:
    """Measures the forward pass; the arguments are the flags of the command.

    Raises:
      InputError: for a width out of range.
      RuntimeError: if the two sides do not agree.
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
    """Returns the numbers of both sides, or of ours alone."""
    images = np.random.default_rng(0).uniform(-120, 140, (batch_size, SIZE, SIZE, 3)).astype(np.float32)
    contenders: dict[str, Contender[Any]] = {OURS: ours(net, variables, images)}
    if compare:
        contenders[THEIRS] = theirs(variables, images)
        check_scores(*(contender.step() for contender in contenders.values()))
    return harness.compare(contenders, batch_size, quick)


def ours(net: DeconvNet, variables: Variables, images: np.ndarray) -> Contender[jax.Array]:
    """Returns this project's network on one device; a step computes scores [N, S, S, K]."""
    net, folded = fold_batch_norm(net, variables)
    program = jax.jit(net.apply, compiler_options=compiler_options(jax.default_backend()))
    step = partial(program, jax.device_put(folded), jnp.asarray(images))
    return Contender(step, lambda scores: float(scores[0, 0, 0, 0]), count_parameters(folded))


def theirs(variables: Variables, images: np.ndarray) -> Contender[Any]:
    """Returns the same in PyTorch; a step computes scores [N, K, S, S]."""
    import torch

    from . import reference

    x = torch.from_numpy(images).to(reference.device()).permute(0, 3, 1, 2)  # channels_last already
    score, parameters, mode = reference.forward_pass(variables, x)
    return Contender(lambda: score(x), lambda scores: float(scores[0, 0, 0, 0]), parameters, mode)


def check_scores(mine: jax.Array, other: Any) -> None:
    """Raises RuntimeError unless both sides compute the same; `other`: a tensor of PyTorch's."""
    first, second = np.asarray(mine, np.float64), other.cpu().numpy().transpose(0, 2, 3, 1)
    error = np.sqrt(np.mean((first - second) ** 2)) / first.std()
    if not error < SCORES_DIFFER:
        raise RuntimeError(f"the two sides do not compute the same: scores differ by {error:.3g} of their deviation")


def tables(numbers: Numbers) -> list[Table]:
    """Returns a row for each side and number of images."""
    rows = []
    for batch_size, result in numbers["results"].items():
        label = f"{batch_size} images"
        rows += harness.rate_rows(label, result, numbers["gflop_per_image"], numbers["rates"]["flops"])
    title = harness.title("Forward pass of DeconvNet, float32", numbers)
    columns, *rows = ([*row[:4], *row[5:]] for row in (harness.RATE_COLUMNS, *rows))  # memory was not measured
    return [Table(title, columns, rows)]
