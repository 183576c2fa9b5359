"""Images a second of the forward pass alone: this project, and the same network in PyTorch on the same machine.

    python -m experiments.benchmark forward [--batch_size=N] [--width=W] [--quick] [--json=FILE]

DeconvNet at 224x224 with 21 classes, batch normalisation folded into the convolutions on both sides, from float32
images that are on the device already to scores that stay there; 2 and 8 images at once on a CPU, 8 and 64 otherwise,
or N. float32; on a GPU products are TF32 on both sides. PyTorch in inference mode, channels_last, compiled on a GPU if
that works. Both sides must give the same scores. Rounds alternate; the ratio is that of each round; --quick makes
them shorter.
"""

import os
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from deconvnet_jax.models import compiler_options, count_parameters, fold_batch_norm
from experiments.benchmarks import machine
from experiments.benchmarks.infer import fused, use_tf32
from experiments.benchmarks.train import (
    OURS,
    SIZE,
    THEIRS,
    Contender,
    check_width,
    compare,
    compiled,
    find_torch,
    layer_costs,
    make_net,
    make_variables,
    spread,
    summary,
    torch_network,
)

BATCH_SIZES = {"cpu": (2, 8)}
ACCELERATOR_BATCH_SIZES = (8, 64)
SCORES_DIFFER = 0.05  # of their own variation, at most: root mean squares; random weights make much of rounding


def run(batch_size: int | None, width: float, quick: bool = False) -> dict[str, Any]:
    """Measures and prints a table; returns its numbers.

    Args:
      batch_size: images at once; None: two sizes, one after the other.
      width: multiplies the width of all layers; 1 is the original.
      quick: shorter rounds.

    Raises:
      InputError: for a width out of range.
      RuntimeError: if the two sides do not agree.
    """
    check_width(width)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory of the same GPU
    device = jax.devices()[0]
    torch, reason = find_torch(device.platform)
    net, variables = make_net("float32", width), make_variables(make_net("float32", width))
    sizes = (batch_size,) if batch_size else BATCH_SIZES.get(device.platform, ACCELERATOR_BATCH_SIZES)
    on_cpu = device.platform == "cpu"
    numbers = {
        "device": device.device_kind,
        "cores": len(os.sched_getaffinity(0)),
        "width": width,
        "batch_norm": "folded on both sides",
        "gflop_per_image": 2 * sum(layer.macs for layer in layer_costs(net)) / 1e9,
        "rates": machine.measure_rates("float32")._asdict(),
        "alternative": f"PyTorch {torch.__version__}" if torch else None,
        "no_alternative": reason,
        "results": {str(size): measure(torch, net, variables, size, on_cpu, quick) for size in sizes},
    }
    print_table(numbers)
    return numbers


def measure(torch: Any, net: Any, variables: Any, batch_size: int, on_cpu: bool, quick: bool) -> dict[str, Any]:
    """The numbers of both sides, or of ours alone without PyTorch."""
    images = np.random.default_rng(0).uniform(-120, 140, (batch_size, SIZE, SIZE, 3)).astype(np.float32)
    contenders = {OURS: ours(net, variables, images)}
    if torch:
        contenders[THEIRS] = theirs(torch, variables, images, "cpu" if on_cpu else "cuda")
        check_scores(*(contender.step() for contender in contenders.values()))
    return summary(contenders, *compare(contenders, quick), batch_size)


def ours(net: Any, variables: Any, images: np.ndarray) -> Contender:
    """This project's network on one device; a step returns scores [n, S, S, K]."""
    net, variables = fold_batch_norm(net, variables)
    program = jax.jit(net.apply, compiler_options=compiler_options(jax.default_backend()))
    step = partial(program, jax.device_put(variables), jnp.asarray(images))
    return Contender(step, lambda scores: float(scores[0, 0, 0, 0]), count_parameters(variables), lambda: None, "jit")


def theirs(torch: Any, variables: Any, images: np.ndarray, device: str) -> Contender:
    """The same in PyTorch; a step returns scores [n, K, S, S]."""
    network = fused(torch, torch_network(torch, variables)).to(device, memory_format=torch.channels_last)
    x = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)  # channels_last already
    parameters = sum(parameter.numel() for parameter in network.parameters())

    def scores(forward: Any) -> Any:
        with torch.inference_mode():
            return forward(x)

    forward, mode = network, "eager"
    if device == "cuda":
        torch.backends.cudnn.benchmark = True
        use_tf32(torch)
        forward, mode = compiled(torch, network, scores)
    return Contender(lambda: scores(forward), lambda scores: float(scores[0, 0, 0, 0]), parameters, lambda: None, mode)


def check_scores(mine: Any, other: Any) -> None:
    """Raises RuntimeError unless both sides compute the same."""
    mine, other = np.asarray(mine, np.float64), other.cpu().numpy().transpose(0, 2, 3, 1)
    error = np.sqrt(np.mean((mine - other) ** 2)) / mine.std()
    if not error < SCORES_DIFFER:
        raise RuntimeError(f"the two sides do not compute the same: scores differ by {error:.3g} of their deviation")


def print_table(numbers: dict[str, Any]) -> None:
    """On stderr: stdout is for the JSON."""
    console = Console(stderr=True, width=110)
    machine.print_heading(console, "Forward pass of DeconvNet, float32", numbers)
    table = Table("", "images/s", "TFLOP/s", "of a matrix product's", "times as fast", "run as")
    for batch_size, result in numbers["results"].items():
        for name, rate in result["images_per_second"].items():
            flops = rate["median"] * numbers["gflop_per_image"] * 1e9
            ratio = "1" if name == THEIRS else spread(result["ratio"]) if result["ratio"] else "-"
            share = f"{100 * flops / numbers['rates']['flops']:.0f} %"
            label = f"{name}, {batch_size} images"
            table.add_row(label, spread(rate), f"{flops / 1e12:.3g}", share, ratio, result["mode"][name])
    console.print(table)
