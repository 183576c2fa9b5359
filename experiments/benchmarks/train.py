"""Measures training steps in images per second, and compares them with the same network in PyTorch.

    python -m experiments.benchmark train [--batch_size=N] [--width=W] [--dtype=bfloat16] [--quick] [--json=FILE]

A step is the forward and backward pass of DeconvNet at 224x224 with 21 classes and the momentum update, on one device.
Input: uint8 images and labels that are on the device. Both sides start with the same weights and use the same learning
rates and weight decay. This project also computes what a training logs: accuracy, three norms, and a check for values
that are not finite.

On a CPU steps are measured in float32, unless --dtype says otherwise. On a GPU they are measured in bfloat16 and in
float32, where both sides multiply in TF32; PyTorch runs with torch.compile if that works. Rounds alternate between the
two sides, because the speed of a machine drifts; the ratio is that of each round. Without PyTorch there is no ratio. On
a CPU the peak memory of each side is measured in a separate process; --quick leaves it out.
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

# On accelerators two networks and their activations share the memory. bfloat16 comes first, because a backend reports
# the peak memory since the program started, and float32 needs more.
BATCH_SIZE = {"cpu": 2, "accelerator": 32}
DTYPES = {"cpu": ("float32",), "accelerator": ("bfloat16", "float32")}


def run(batch_size: int | None, width: float, dtype: str | None = None, quick: bool = False) -> Numbers:
    """Measures training steps.

    Args:
      batch_size: images per step; None: 2 on a CPU, otherwise 32.
      width: factor on the channels of all layers, above 0 and at most 1.
      dtype: of the computation, "float32" or "bfloat16"; None: float32 on a CPU, otherwise both.
      quick: True makes shorter rounds.

    Returns:
      The numbers for `tables`, one JSON object.

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
        # The backward pass has two products for each product of the forward pass.
        "gflop_per_image": 3 * gflop(make_net("float32", width)),
        "rates": {dtype: harness.measure_rates(dtype) for dtype in dtypes},
        "results": {dtype: measure(names, batch_size, width, dtype, quick) for dtype in dtypes},
    }


def measure(names: Sequence[str], batch_size: int, width: float, dtype: str, quick: bool) -> Numbers:
    """Measures one dtype.

    Args:
      names: OURS, and THEIRS if PyTorch is to be measured.
      batch_size: images per step.
      width: factor on the channels of all layers.
      dtype: of the computation.
      quick: True makes shorter rounds and, on a CPU, leaves out peak memory.

    Returns:
      The result of `harness.compare`.
    """
    gc.collect()  # Frees the networks of the previous measurement, which may refer to themselves.
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
    """Returns one side of the comparison.

    Args:
      name: OURS or THEIRS.
      variables: initial values.
      batch: "image" uint8 RGB [B, S, S, 3] and "label" uint8 [B, S, S], on the host.
      dtype: of the computation.
      width: factor on the channels of all layers, that of `variables`.
    """
    if name == OURS:
        return ours(make_net(dtype, width), variables, batch, jax.devices()[:1])
    from . import reference

    return reference.training(variables, batch, dtype)


def peak_alone(name: str, batch_size: int, width: float, dtype: str) -> int | None:
    """Measures the peak memory of a new process that trains one side only.

    Args:
      name: OURS or THEIRS.
      batch_size: images per step.
      width: factor on the channels of all layers.
      dtype: of the computation.

    Returns:
      Bytes; None if the system does not report them or the process failed. The reason of a failure is printed.
    """
    try:
        return harness.result_of(harness.start_process(peak_of_steps, name, batch_size, width, dtype))
    except RuntimeError as error:
        print(f"the peak memory of {name} was not measured: {error}", file=sys.stderr)
        return None


def peak_of_steps(name: str, batch_size: int, width: float, dtype: str) -> int | None:
    """Measures the peak memory of this process during training steps, on a CPU.

    Args:
      name: OURS or THEIRS.
      batch_size: images per step.
      width: factor on the channels of all layers.
      dtype: of the computation.

    Returns:
      Bytes; None if the system does not report them.
    """
    side = contender(name, make_variables(make_net(dtype, width)), make_batch(batch_size), dtype, width)
    gc.collect()
    harness.timed(side, 1)
    return harness.peak_during(lambda: harness.timed(side, 2))[1]


def ours(
    net: DeconvNet, variables: Variables, batch: dict[str, np.ndarray], devices: Sequence[jax.Device]
) -> Contender[jax.Array]:
    """Returns this project's training step.

    Args:
      net: the network.
      variables: initial values.
      batch: "image" uint8 RGB [B, S, S, 3] and "label" uint8 [B, S, S], on the host.
      devices: they share the batch.
    """
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
    """Returns what a training on some devices consists of.

    Args:
      net: the network.
      variables: initial values.
      devices: they share each batch.

    Returns:
      The update, a function from a state and a placed batch to the new state and metrics; and the initial state.
    """
    optimizer = make_optimizer(optimizer_settings(), variables["params"])
    update = data_parallel(partial(train_step, axis_name=AXIS_NAME, net=net, optimizer=optimizer), devices)
    return update, create_state(variables, optimizer)


def tables(numbers: Numbers) -> list[Table]:
    """Returns one table with a row for each side and dtype, from the numbers of `run`."""
    rows = []
    for dtype, result in numbers["results"].items():
        rows += harness.rate_rows(dtype, result, numbers["gflop_per_image"], numbers["rates"][dtype]["flops"])
    title = harness.title(f"Training steps of {numbers['batch_size']} images", numbers)
    return [Table(title, harness.RATE_COLUMNS, rows)]
