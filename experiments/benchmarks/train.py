"""Images a second of a training step: this project, and the same network in PyTorch on the same machine.

    python -m experiments.benchmark train [--batch_size=N] [--width=W] [--dtype=bfloat16] [--quick] [--json=FILE]

A step is the forward and backward pass of DeconvNet at 224x224 with 21 classes and the momentum update, from uint8
images and labels that are on the device already. Both sides begin with the same weights and have the same learning
rates and decay; ours also computes what a training logs (accuracy, three norms, a check for values that are no
numbers). Rounds alternate between the two, because a machine's speed drifts; the ratio is that of each round. CPU:
float32, unless bfloat16 is asked for. GPU: bfloat16 and float32, whose products are TF32 on both sides; PyTorch is
compiled there if that works. One device, without PyTorch no ratio. On a CPU the most memory is that of a process of
its own for either side; --quick leaves it out.
"""

import ast
import gc
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from deconvnet_jax.errors import InputError
from deconvnet_jax.models import DeconvNet, batch_norm_name, count_parameters, layer_names
from deconvnet_jax.models.deconvnet import DECODER_WIDTHS, ENCODER_WIDTHS, STRIDE
from deconvnet_jax.ops.preprocess import MEAN_BGR
from deconvnet_jax.training import (
    AXIS_NAME,
    TrainState,
    create_state,
    data_parallel,
    make_optimizer,
    place_batch,
    train_step,
)
from experiments.benchmarks import machine
from experiments.configs import default

SIZE, CLASSES, FC_FEATURES = 224, 21, 4096
ROUNDS = 5
SECONDS, QUICK_SECONDS = 4.0, 0.5  # of every measurement, at least one step
WARM = 2  # steps before it: compilation, the choice of algorithms
BATCH_SIZES = {"cpu": 2}
BATCH_SIZE = 32  # on accelerators; two networks with their activations share the memory
# bfloat16 first: a backend tells the most memory used since the program began, and float32 needs more.
DTYPES = {"cpu": ("float32",)}
ACCELERATOR_DTYPES = ("bfloat16", "float32")
OURS, THEIRS = "deconvnet_jax", "PyTorch"


class LayerCost(NamedTuple):
    """A layer with its batch normalisation: number of parameters, multiply-adds of a forward pass of one image."""

    name: str
    parameters: int
    macs: int


@dataclass(frozen=True)
class Contender:
    """A training under measurement.

    Attributes:
      step: starts one update; returns its loss, which may still be computed.
      wait: waits for that; returns the loss as a number.
      parameters: of the network.
      peak_bytes: the most device memory used so far; None where the backend does not tell.
      mode: how it is run.
    """

    step: Callable[[], Any]
    wait: Callable[[Any], float]
    parameters: int
    peak_bytes: Callable[[], int | None]
    mode: str


def run(batch_size: int | None, width: float, dtype: str | None = None, quick: bool = False) -> dict[str, Any]:
    """Measures and prints a table; returns its numbers.

    Args:
      batch_size: images a step; None: 2 on a CPU, 32 otherwise.
      width: multiplies the width of all layers; 1 is the original.
      dtype: of the computation, float32 or bfloat16; None: float32 on a CPU, both otherwise.
      quick: shorter rounds, and no measurement of a process's memory.

    Raises:
      InputError: for a width out of range.
    """
    check_width(width)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory of the same GPU
    device = jax.devices()[0]
    batch_size = batch_size or BATCH_SIZES.get(device.platform, BATCH_SIZE)
    torch, reason = find_torch(device.platform)
    dtypes = (dtype,) if dtype else DTYPES.get(device.platform, ACCELERATOR_DTYPES)
    macs = sum(layer.macs for layer in layer_costs(make_net("float32", width)))
    numbers = {
        "device": device.device_kind,
        "cores": len(os.sched_getaffinity(0)),
        "batch_size": batch_size,
        "width": width,
        "gflop_per_image": 3 * 2 * macs / 1e9,  # the backward pass is two products for each of the forward pass
        "alternative": f"PyTorch {torch.__version__}" if torch else None,
        "no_alternative": reason,
        "rates": {dtype: machine.measure_rates(dtype)._asdict() for dtype in dtypes},
        "results": {dtype: measure(torch, device, dtype, batch_size, width, quick) for dtype in dtypes},
    }
    print_table(numbers)
    return numbers


def check_width(width: float) -> None:
    """Raises InputError for a width that no network has."""
    if not 0 < width <= 1:
        raise InputError(f"--width={width:g}: expected more than 0 and at most 1, the original's width")


def layer_costs(net: DeconvNet, size: int = SIZE) -> list[LayerCost]:
    """The cost of every layer for images [size, size], in the order of the forward pass."""
    params = jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))[
        "params"
    ]

    def cost(name: str) -> LayerCost:
        block = re.match(r"(?:de)?conv(\d)_", name)
        side = size // STRIDE - net.fc_window + 1 if "fc" in name else size // 2 ** (int(block[1]) - 1 if block else 0)
        leaves = jax.tree.leaves({part: params[part] for part in (name, batch_norm_name(name))})  # the last has none
        return LayerCost(name, sum(leaf.size for leaf in leaves), params[name]["kernel"].size * side**2)

    return [cost(name) for name in layer_names(net) if "kernel" in params[name]]


def make_net(dtype: str, width: float) -> DeconvNet:
    """DeconvNet for 21 classes with all layers `width` times as wide."""
    return DeconvNet(CLASSES, width=width, fc_features=max(1, round(FC_FEATURES * width)), dtype=jnp.dtype(dtype))


def make_batch(batch_size: int, size: int = SIZE) -> dict[str, np.ndarray]:
    """Noise: "image" uint8 [B, size, size, 3] RGB and "label" uint8 [B, size, size], 5 % of it ignored."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, (batch_size, size, size), np.uint8)
    labels[rng.random(labels.shape) < 0.05] = 255
    return {"image": rng.integers(0, 256, (batch_size, size, size, 3), np.uint8), "label": labels}


def make_variables(net: DeconvNet) -> chex.ArrayTree:
    """Random weights on the host, drawn by NumPy: for a measurement, `init_variables` takes long to compile."""
    rng = np.random.default_rng(0)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key == "kernel":
            return rng.standard_normal(leaf.shape, np.float32) * np.float32(np.sqrt(2 / np.prod(leaf.shape[:-1])))
        return np.full(leaf.shape, path[-1].key in ("scale", "var"), np.float32)

    images = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(net.init, jax.random.key(0), images))


def find_torch(platform: str) -> tuple[Any, str | None]:
    """PyTorch, or None and why not, if it cannot use the device that JAX uses."""
    try:
        import torch
    except ImportError:
        return None, "PyTorch is not installed: pip install -r tests/requirements-reference.txt"
    if platform == "cpu" or (platform == "gpu" and torch.cuda.is_available()):
        return torch, None
    return None, f"this PyTorch cannot use the device that JAX uses ({platform})"


def measure(torch: Any, device: jax.Device, dtype: str, batch_size: int, width: float, quick: bool) -> dict[str, Any]:
    """The numbers of both sides, or of ours alone without PyTorch."""
    gc.collect()  # networks of the measurement before this one, if they refer to themselves
    net, batch = make_net(dtype, width), make_batch(batch_size)
    variables = make_variables(net)
    contenders = {OURS: ours(net, variables, batch, [device])}
    if torch:
        contenders[THEIRS] = theirs(torch, variables, batch, dtype, "cpu" if device.platform == "cpu" else "cuda")
    result = summary(contenders, *compare(contenders, quick), batch_size)
    if device.platform == "cpu" and not quick:
        del contenders, variables
        gc.collect()
        result["peak_bytes"] = {name: peak_alone(name, batch_size, width, dtype) for name in result["peak_bytes"]}
    return result


def peak_alone(name: str, batch_size: int, width: float, dtype: str) -> int | None:
    """The most memory of a process that trains one side alone, while it makes steps; None where nobody tells."""
    arguments = f"{name!r}, {batch_size}, {width!r}, {dtype!r}"
    code = f"from experiments.benchmarks import train; print(train.peak_of_steps({arguments}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        print(f"the memory of {name} was not measured: {(done.stderr.splitlines() or ['killed'])[-1]}", file=sys.stderr)
        return None
    return ast.literal_eval(done.stdout.splitlines()[-1])


def peak_of_steps(name: str, batch_size: int, width: float, dtype: str) -> int | None:
    """The same of this process, on the CPU."""
    variables, batch = make_variables(make_net(dtype, width)), make_batch(batch_size)
    if name == OURS:
        contender = ours(make_net(dtype, width), variables, batch, jax.devices()[:1])
    else:
        contender = theirs(find_torch("cpu")[0], variables, batch, dtype, "cpu")
    del variables
    gc.collect()
    timed(contender, 1)
    machine.forget_peak()
    timed(contender, 2)
    return machine.process_peak()


def ours(
    net: DeconvNet, variables: chex.ArrayTree, batch: dict[str, np.ndarray], devices: Sequence[jax.Device]
) -> Contender:
    """This project's step on these devices, which share the batch."""
    update, state = start_training(net, variables, devices)
    placed = place_batch(batch, devices)

    def step() -> jax.Array:
        nonlocal state
        state, metrics = update(state, placed)
        return metrics["loss"]

    def peak_bytes() -> int | None:
        return (devices[0].memory_stats() or {}).get("peak_bytes_in_use")

    return Contender(step, lambda loss: float(jax.device_get(loss)), count_parameters(variables), peak_bytes, "jit")


def start_training(
    net: DeconvNet, variables: chex.ArrayTree, devices: Sequence[jax.Device]
) -> tuple[Callable[[TrainState, Any], tuple[TrainState, Any]], TrainState]:
    """The update on these devices, of a state and a placed batch, and the first state."""
    optimizer = make_optimizer(optimizer_settings(), variables["params"])
    update = data_parallel(partial(train_step, axis_name=AXIS_NAME, net=net, optimizer=optimizer), devices)
    return update, create_state(variables, optimizer)


def optimizer_settings() -> dict[str, Any]:
    """The paper's, at a constant learning rate."""
    return {**default.get_config().optimizer.to_dict(), "drops": ()}


def theirs(torch: Any, variables: chex.ArrayTree, batch: dict[str, np.ndarray], dtype: str, device: str) -> Contender:
    """The same step in PyTorch: channels_last, cuDNN's benchmark, autocast for bfloat16."""
    on_gpu = device == "cuda"
    if on_gpu:
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")  # TF32, as XLA's default
        torch.backends.cudnn.allow_tf32 = True
        torch.cuda.reset_peak_memory_stats()
    network = torch_network(torch, variables).to(device, memory_format=torch.channels_last)
    images, labels = (torch.from_numpy(batch[key]).to(device) for key in ("image", "label"))
    labels, mean = labels.long(), torch.tensor(MEAN_BGR, device=device)[:, None, None]
    optimizer = torch_optimizer(torch, network)

    def loss_of(network: Any) -> Any:
        x = images.permute(0, 3, 1, 2)[:, [2, 1, 0]].float() - mean
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = network(x.contiguous(memory_format=torch.channels_last))
        return torch.nn.functional.cross_entropy(logits.float(), labels, ignore_index=255)

    forward, mode = compiled(torch, network, lambda fast: loss_of(fast).backward()) if on_gpu else (network, "eager")

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(forward)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def wait(loss: Any) -> float:
        if on_gpu:
            torch.cuda.synchronize()
        return float(loss)

    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Contender(step, wait, parameters, torch.cuda.max_memory_allocated if on_gpu else lambda: None, mode)


def compiled(torch: Any, network: Any, trial: Callable[[Any], Any]) -> tuple[Any, str]:
    """The network compiled, if that works here, and how it is run."""
    try:
        fast = torch.compile(network)
        trial(fast)
    except Exception as error:  # Triton, a compiler or an operation is missing: many kinds
        return network, f"eager; torch.compile fails: {str(error).strip().splitlines()[0][:80]}"
    return fast, "torch.compile"


def torch_network(torch: Any, variables: chex.ArrayTree) -> Any:
    """DeconvNet as PyTorch's own modules, with our layers' names and these weights."""
    nn, params = torch.nn, variables["params"]

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            names = [name for name in params if "kernel" in params[name]]
            self.layers = nn.ModuleDict({name: torch_layer(torch, name, params[name]) for name in names})
            norms = {name: params[batch_norm_name(name)] for name in names if batch_norm_name(name) != name}
            self.norms = nn.ModuleDict({name: torch_batch_norm(torch, norm) for name, norm in norms.items()})
            self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

        def apply_layer(self, name: str, x: Any) -> Any:
            return nn.functional.relu(self.norms[name](self.layers[name](x)))

        def forward(self, x: Any) -> Any:
            switches = {}
            for block, widths in ENCODER_WIDTHS.items():
                for i in range(1, len(widths) + 1):
                    x = self.apply_layer(f"conv{block}_{i}", x)
                x, switches[block] = self.pool(x)
            for name in ("fc6", "fc7", "fc6-deconv"):
                x = self.apply_layer(name, x)
            for block, widths in DECODER_WIDTHS.items():
                x = self.unpool(x, switches[block])
                for i in range(1, len(widths) + 1):
                    x = self.apply_layer(f"deconv{block}_{i}", x)
            return self.layers["seg-score-voc"](x)

    return Network()


def torch_layer(torch: Any, name: str, layer: dict[str, np.ndarray]) -> Any:
    """A Conv2d from our kernel [h, w, in, out]; fc6-deconv, which enlarges its map, is a ConvTranspose2d.

    The other deconvolutions are convolutions here as they are in ours: as ConvTranspose2d they take PyTorch longer.
    """
    kernel = torch.tensor(layer["kernel"])
    height, width, channels, features = kernel.shape
    if name == "fc6-deconv":
        module = torch.nn.ConvTranspose2d(channels, features, (height, width))
        kernel = kernel.permute(2, 3, 0, 1).flip(2, 3)
    else:
        module = torch.nn.Conv2d(channels, features, (height, width), padding=1 if height == 3 else 0)
        kernel = kernel.permute(3, 2, 0, 1)
    module.load_state_dict({"weight": kernel, "bias": torch.tensor(layer["bias"])})
    return module


def torch_batch_norm(torch: Any, layer: dict[str, np.ndarray]) -> Any:
    """A BatchNorm2d with our epsilon and momentum, which PyTorch counts from the other end."""
    net = DeconvNet(CLASSES)
    module = torch.nn.BatchNorm2d(len(layer["scale"]), eps=net.bn_epsilon, momentum=1 - net.bn_momentum)
    values = {"weight": torch.tensor(layer["scale"]), "bias": torch.tensor(layer["bias"])}
    module.load_state_dict(values, strict=False)  # running statistics begin alike
    return module


def torch_optimizer(torch: Any, network: Any) -> Any:
    """SGD with the groups of our optimizer (`make_optimizer`)."""
    settings = optimizer_settings()
    rate, decay = settings["learning_rate"], settings["weight_decay"]
    weights = [layer.weight for layer in network.layers.values()]
    biases = [layer.bias for layer in network.layers.values()]
    groups = [
        {"params": weights, "lr": rate, "weight_decay": decay},
        {"params": biases, "lr": rate * settings["bias_rate"], "weight_decay": 0.0},
        {"params": network.norms.parameters(), "lr": rate, "weight_decay": decay if settings["decay_bn"] else 0.0},
    ]
    return torch.optim.SGD(groups, momentum=settings["momentum"], fused=True)


def compare(contenders: dict[str, Contender], quick: bool = False) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds a step of each in every round, one after the other, and the loss of each after all of its steps."""
    counts, least = {}, QUICK_SECONDS if quick else SECONDS
    for name, contender in contenders.items():
        timed(contender, WARM)
        counts[name] = max(1, math.ceil(least / timed(contender, 1)[0]))
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    losses = {}
    for _ in range(ROUNDS):
        for name, contender in contenders.items():
            duration, losses[name] = timed(contender, counts[name])
            seconds[name].append(duration)
    return seconds, losses


def timed(contender: Contender, steps: int) -> tuple[float, float]:
    """Seconds a step, and the last loss."""
    begin = time.perf_counter()
    for _ in range(steps):
        loss = contender.step()
    value = contender.wait(loss)
    return (time.perf_counter() - begin) / steps, value


def summary(
    contenders: dict[str, Contender],
    seconds: dict[str, list[float]],
    losses: dict[str, float],
    batch_size: int,
) -> dict[str, Any]:
    """Medians and ranges over the rounds; "ratio" is ours to theirs in images a second."""
    images = {name: middle([batch_size / s for s in of_name]) for name, of_name in seconds.items()}
    ratio = None
    if THEIRS in seconds:
        ratio = middle([other / mine for mine, other in zip(seconds[OURS], seconds[THEIRS], strict=True)])
    return {
        "images_per_second": images,
        "ratio": ratio,
        "peak_bytes": {name: contender.peak_bytes() for name, contender in contenders.items()},
        "parameters": {name: contender.parameters for name, contender in contenders.items()},
        "mode": {name: contender.mode for name, contender in contenders.items()},
        "loss": losses,
    }


def middle(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def print_table(numbers: dict[str, Any]) -> None:
    """On stderr: stdout is for the JSON."""
    console = Console(stderr=True, width=110)
    machine.print_heading(console, f"Training steps of {numbers['batch_size']} images", numbers)
    table = Table("", "images/s", "TFLOP/s", "of a matrix product's", "peak memory", "times as fast", "run as")
    for dtype, result in numbers["results"].items():
        for name, rate in result["images_per_second"].items():
            flops, peak = rate["median"] * numbers["gflop_per_image"] / 1000, result["peak_bytes"][name]
            share = f"{100e12 * flops / numbers['rates'][dtype]['flops']:.0f} %"
            ratio = "1" if name == THEIRS else spread(result["ratio"]) if result["ratio"] else "-"
            memory = f"{peak / 1e9:.1f} GB" if peak else "not told"
            row = (spread(rate), f"{flops:.3g}", share, memory, ratio, result["mode"][name])
            table.add_row(f"{name}, {dtype}", *row)
    console.print(table)


def spread(values: dict[str, float]) -> str:
    """Median and range as text."""
    return f"{values['median']:.3g} ({values['min']:.3g} to {values['max']:.3g})"
