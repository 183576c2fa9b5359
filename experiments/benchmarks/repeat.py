"""Checks whether two runs of the same training are equal bit for bit: 20 steps from the same weights on the same crops.

    python -m experiments.benchmark repeat [--batch_size=N] [--width=W] [--dtype=bfloat16] [--json=FILE]
    XLA_FLAGS=--xla_gpu_deterministic_ops=true python -m experiments.benchmark repeat

Two processes run at the same time on one device. Each compiles its own step, like two runs on different days, and no
compiled program is kept. The benchmark compares the losses of all steps, and after the last step a hash of all
parameters and batch statistics. The steps are those of `train`: 2 crops in float32 on a CPU, otherwise 8 crops in
bfloat16, unless flags say otherwise. Both processes use XLA_FLAGS.
"""

import hashlib
import os

import chex
import jax
import numpy as np

from deconvnet_jax.training import place_batch

from . import harness
from .harness import Numbers, Table
from .network import check_width, make_batch, make_net, make_variables
from .train import start_training

STEPS = 20
RUNS = 2


def run(batch_size: int | None, width: float, dtype: str | None) -> Numbers:
    """Trains in two processes and compares the results.

    Args:
      batch_size: crops per step; None: 2 on a CPU, otherwise 8.
      width: factor on the channels of all layers, above 0 and at most 1.
      dtype: of the computation, "float32" or "bfloat16"; None: float32 on a CPU, otherwise bfloat16.

    Returns:
      The numbers for `tables`, one JSON object.

    Raises:
      InputError: for a width out of range.
      RuntimeError: if a run fails.
    """
    check_width(width)
    device = harness.shared_device()
    on_cpu = device.platform == "cpu"
    batch_size = batch_size or (2 if on_cpu else 8)
    dtype = dtype or ("float32" if on_cpu else "bfloat16")
    uncached = {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    processes = [harness.start_process(train, batch_size, width, dtype, **uncached) for _ in range(RUNS)]
    first, second = [harness.result_of(process) for process in processes]
    pairs = zip(first["losses"], second["losses"], strict=True)
    return {
        "device": device.device_kind,
        "batch_size": batch_size,
        "width": width,
        "dtype": dtype,
        "steps": STEPS,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "equal": first["hash"] == second["hash"],
        "first_step_that_differs": next((i for i, (a, b) in enumerate(pairs, start=1) if repr(a) != repr(b)), None),
        "losses": [first["losses"], second["losses"]],
        "hashes": [first["hash"], second["hash"]],
    }


def train(batch_size: int, width: float, dtype: str) -> Numbers:
    """Trains STEPS steps in this process.

    Args:
      batch_size: crops per step.
      width: factor on the channels of all layers.
      dtype: of the computation.

    Returns:
      "losses" of all steps, and "hash" of the variables after the last one.
    """
    net, devices = make_net(dtype, width), jax.devices()[:1]
    update, state = start_training(net, make_variables(net), devices)
    batch = place_batch(make_batch(batch_size), devices)
    losses = []
    for _ in range(STEPS):
        state, metrics = update(state, batch)
        losses.append(float(metrics["loss"]))
    return {"losses": losses, "hash": hash_of(state.variables)}


def hash_of(tree: chex.ArrayTree) -> str:
    """Returns the SHA-256 of the bytes of all arrays of a tree, in the tree's order, as hexadecimal digits."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def verdict(numbers: Numbers) -> str:
    """Returns in words whether the runs are equal, and otherwise the first step at which they differ."""
    if numbers["equal"]:
        return "equal bit for bit"
    first = numbers["first_step_that_differs"]
    return f"NOT equal: {f'losses differ from step {first} on' if first else 'losses are equal, variables are not'}"


def tables(numbers: Numbers) -> list[Table]:
    """Returns one table with one row: the setting and whether the runs are equal."""
    title = f"Two runs of {numbers['steps']} steps of {numbers['batch_size']} images; {numbers['device']}"
    row = [numbers["xla_flags"] or "default", numbers["dtype"], verdict(numbers)]
    return [Table(title, ("XLA_FLAGS", "dtype", "the runs are"), [row])]
