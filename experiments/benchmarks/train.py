"""Images per second of a training step: this project, and the same network in PyTorch on the same machine.

    python -m experiments.benchmark train [--batch_size=N] [--width=W] [--dtype=bfloat16] [--quick] [--json=FILE]

A step is the forward and backward pass of DeconvNet at 224x224 with 21 classes and the momentum update, from uint8
images and labels that are on the device already. Both sides begin with the same weights and have the same learning
rates and decay; ours also computes what a training logs (accuracy, three norms, a check for values that are no
numbers). Rounds alternate between the two, because a machine's speed drifts; the ratio is that of each round. CPU:
float32, unless bfloat16 is asked for. GPU: bfloat16 and float32, whose products are TF32 on both sides; PyTorch is
compiled there if that works. One device, without PyTorch no ratio. On a CPU peak memory is that of a separate process
for either side; --quick leaves it out.
"""

import gc
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from deconvnet_jax.models import DeconvNet, Variables, count_parameters
from deconvnet_jax.training import (
    AXIS_NAME,
    TrainState,
    create_state,
    data_parallel,
    make_optimizer,
    place_batch,
    train_step,
)

from . import harness
from .harness import OURS, THEIRS, Contender, Numbers, Table
from .network import check_width, gflop, make_batch, make_net, make_variables, optimizer_settings

# On accelerators two networks with their activations share the memory. bfloat16 comes first: a backend tells the most
# memory used since the program began, and float32 needs more.
BATCH_SIZE = {"cpu": 2, "accelerator": 32}
DTYPES = {"cpu": ("float32",), "accelerator": ("bfloat16", "float32")}


def run(batch_size: int | None, width: float, dtype: str | None = None, quick: bool = False) -> Numbers:
    """Measures training steps; the arguments are the flags of the command.

    Raises:
      InputError: for a width out of range.
    """
    check_width(width)
    setting = harness.setting()
    kind = "cpu" if jax.default_backend() == "cpu" else "accelerator"
    batch_size = batch_size or BATCH_SIZE[kind]
    dtypes = (dtype,) if dtype else DTYPES[kind]
    names = [OURS, THEIRS] if setting["alternative"] else [OURS]
    return {
        **setting,
        "batch_size": batch_size,
        "width": width,
        "gflop_per_image": 3 * gflop(make_net("float32", width)),  # backward: two products for each of the forward pass
        "rates": {dtype: harness.measure_rates(dtype) for dtype in dtypes},
        "results": {dtype: measure(names, batch_size, width, dtype, quick) for dtype in dtypes},
    }


def measure(names: Sequence[str], batch_size: int, width: float, dtype: str, quick: bool) -> Numbers:
    """Returns the numbers of the contenders with these names."""
    gc.collect()  # networks of the measurement before this one, if they refer to themselves
    variables, batch = make_variables(make_net(dtype, width)), make_batch(batch_size)
    contenders = {name: contender(name, variables, batch, dtype, width) for name in names}
    result = harness.compare(contenders, batch_size, quick)
    if jax.default_backend() == "cpu" and not quick:
        del contenders, variables
        gc.collect()
        result["peak_bytes"] = {name: peak_alone(name, batch_size, width, dtype) for name in names}
    return result


def contender(
    name: str, variables: Variables, batch: dict[str, np.ndarray], dtype: str, width: float
) -> Contender[Any]:
    """Returns one side by its name."""
    if name == OURS:
        return ours(make_net(dtype, width), variables, batch, jax.devices()[:1])
    from . import reference

    return reference.training(variables, batch, dtype)


def peak_alone(name: str, batch_size: int, width: float, dtype: str) -> int | None:
    """Returns the most memory of a process that trains one side alone; None where nobody tells."""
    try:
        return harness.result_of(harness.start_process(peak_of_steps, name, batch_size, width, dtype))
    except RuntimeError as error:
        print(f"the memory of {name} was not measured: {error}", file=sys.stderr)
        return None


def peak_of_steps(name: str, batch_size: int, width: float, dtype: str) -> int | None:
    """Returns the most memory of this process while it makes steps, on the CPU."""
    side = contender(name, make_variables(make_net(dtype, width)), make_batch(batch_size), dtype, width)
    gc.collect()
    harness.timed(side, 1)
    harness.forget_peak()
    harness.timed(side, 2)
    return harness.process_peak()


def ours(
    net: DeconvNet, variables: Variables, batch: dict[str, np.ndarray], devices: Sequence[jax.Device]
) -> Contender[jax.Array]:
    """Returns this project's step on these devices, which share the batch."""
    update, state = start_training(net, variables, devices)
    placed = place_batch(batch, devices)

    def step() -> jax.Array:
        nonlocal state
        state, metrics = update(state, placed)
        return metrics["loss"]

    peak_bytes = partial(harness.device_peak, devices[0])
    return Contender(step, lambda loss: float(jax.device_get(loss)), count_parameters(variables), peak_bytes=peak_bytes)


def start_training(
    net: DeconvNet, variables: Variables, devices: Sequence[jax.Device]
) -> tuple[Callable[[TrainState, Any], tuple[TrainState, Any]], TrainState]:
    """Returns the update on these devices, of a state and a placed batch, and the first state."""
    optimizer = make_optimizer(optimizer_settings(), variables["params"])
    update = data_parallel(partial(train_step, axis_name=AXIS_NAME, net=net, optimizer=optimizer), devices)
    return update, create_state(variables, optimizer)


def tables(numbers: Numbers) -> list[Table]:
    """Returns a row for each side and dtype."""
    rows = []
    for dtype, result in numbers["results"].items():
        rows += harness.rate_rows(dtype, result, numbers["gflop_per_image"], numbers["rates"][dtype]["flops"])
    title = harness.title(f"Training steps of {numbers['batch_size']} images", numbers)
    return [Table(title, harness.RATE_COLUMNS, rows)]
