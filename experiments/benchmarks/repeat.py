"""Whether two runs of the same training are equal bit for bit: 20 steps from the same weights on the same crops.

    python -m experiments.benchmark repeat [--batch_size=N] [--width=W] [--dtype=bfloat16] [--json=FILE]
    XLA_FLAGS=--xla_gpu_deterministic_ops=true python -m experiments.benchmark repeat

Two processes run at the same time on one device, each of which compiles its own step, as two runs on two days do; they
keep no compiled programs. Compared are the losses of all steps and a hash of all parameters and batch statistics after
the last one. Steps are those of `train`: 2 crops on a CPU, 8 otherwise, or N; float32 on a CPU, bfloat16 otherwise.
XLA_FLAGS holds for both.
"""

import hashlib
import json
import os
import subprocess
import sys
from typing import Any

import jax
import numpy as np
from rich.console import Console

from deconvnet_jax.training import place_batch
from experiments.benchmarks.train import check_width, make_batch, make_net, make_variables, start_training

STEPS = 20
RUNS = 2
BATCH_SIZES = {"cpu": 2}
BATCH_SIZE = 8
DTYPES = {"cpu": "float32"}


def run(batch_size: int | None, width: float, dtype: str | None) -> dict[str, Any]:
    """Trains in two processes and prints a line; returns the comparison.

    Args:
      batch_size: images a step; None: 2 on a CPU, 8 otherwise.
      width: multiplies the width of all layers; 1 is the original.
      dtype: of the computation, float32 or bfloat16; None: float32 on a CPU, bfloat16 otherwise.

    Raises:
      InputError: for a width out of range.
      RuntimeError: if a run fails.
    """
    check_width(width)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # three processes share the memory
    device = jax.devices()[0]
    batch_size = batch_size or BATCH_SIZES.get(device.platform, BATCH_SIZE)
    dtype = dtype or DTYPES.get(device.platform, "bfloat16")
    code = f"from experiments.benchmarks import repeat; repeat.print_run({batch_size}, {width!r}, {dtype!r})"
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    runs = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(RUNS)
    ]
    outputs = [process.communicate()[0] for process in runs]
    if any(process.returncode for process in runs):
        raise RuntimeError("a run failed; its error is above")
    first, second = (json.loads(output.splitlines()[-1]) for output in outputs)
    pairs = zip(first["losses"], second["losses"], strict=True)
    numbers = {
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
    word = "equal bit for bit" if numbers["equal"] else "NOT equal"
    flags = numbers["xla_flags"] or "no XLA_FLAGS"
    text = f"Two runs of {STEPS} steps of {batch_size} images, {dtype}, {flags}: {word}; {numbers['device']}"
    Console(stderr=True, width=110).print(text, soft_wrap=True)
    return numbers


def print_run(batch_size: int, width: float, dtype: str) -> None:
    """Trains; prints one JSON object with the loss of every step and the hash of the variables."""
    net, devices = make_net(dtype, width), jax.devices()[:1]
    update, state = start_training(net, make_variables(net), devices)
    batch = place_batch(make_batch(batch_size), devices)
    losses = []
    for _ in range(STEPS):
        state, metrics = update(state, batch)
        losses.append(float(metrics["loss"]))
    print(json.dumps({"losses": losses, "hash": hash_of(state.variables)}))


def hash_of(tree: Any) -> str:
    """SHA-256 of the bytes of all arrays of a tree, in the tree's order."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        digest.update(np.ascontiguousarray(jax.device_get(leaf)).view(np.uint8))
    return digest.hexdigest()
