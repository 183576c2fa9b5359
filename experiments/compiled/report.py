"""Makes the report of `experiments.compile`, as JSON values and as text."""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import jax
import ml_collections
from rich.table import Table

from deconvnet_jax.models import layer_names, network_from_config
from deconvnet_jax.terminal import console

from .hardware import Accelerator, all_reduce_seconds
from .schedule import Rates, read_schedule, step_seconds
from .topologies import accelerator_of

SETTINGS = ("batch_size", "micro_batch", "bn_group", "remat", "all_reduce_dtype")
SHOWN = 12  # exchanges that the text shows; the JSON has all


def setting(config: ml_collections.ConfigDict, topology: str, devices: Sequence[jax.Device]) -> dict[str, Any]:
    """Returns the settings that were compiled and the accelerators that they were compiled for.

    Args:
      config: of the experiment.
      topology: of the accelerators, such as "h100:8".
      devices: of this topology.
    """
    accelerator = accelerator_of(topology)
    return {
        "topology": topology,
        "devices": len(devices),
        "device_kind": devices[0].device_kind,
        "jax": jax.__version__,
        "config": {
            **{key: config[key] for key in SETTINGS},
            "dtype": config.model.dtype,
            "width": config.model.width,
            "crop_size": config.data.crop_size,
        },
        "batch_per_device": config.batch_size // len(devices),
        "peak_flops_per_second": accelerator.peak[config.model.dtype],
        "memory_bytes_per_second": accelerator.bandwidth,
    }


def of_step(
    compiled: jax.stages.Compiled, config: ml_collections.ConfigDict, topology: str, devices: Sequence[jax.Device]
) -> dict[str, Any]:
    """Returns the report of a compiled training step. Bytes and operations are those of one device.

    Args:
      compiled: the step, a function of state and batch.
      config: of the experiment.
      topology: of the accelerators.
      devices: of this topology.

    Returns:
      The fields of `Schedule`, and "memory", "flops_per_image", "bytes_per_image", "xla_bytes_accessed" (XLA's own
      count), "exchange_seconds" (all exchanges) and "waiting_seconds" (the part for which the step waits).
    """
    accelerator, images = accelerator_of(topology), config.batch_size // len(devices)
    arguments = compiled.args_info[0]  # state and batch
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(arguments)]
    schedule = read_schedule(
        compiled.as_text() or "",
        Rates(accelerator.peak[config.model.dtype], accelerator.bandwidth),
        layer_names(network_from_config(config.model.to_dict())),
        [path.removeprefix("0/") for path in paths],
    )
    duration = partial(all_reduce_seconds, levels=accelerator.levels(len(devices)))
    seconds = step_seconds(schedule.collectives, schedule.bound_seconds, 1.0, duration)
    return {
        "memory": memory(compiled, accelerator, arguments[0]),
        "flops_per_image": schedule.flops / images,
        "bytes_per_image": schedule.num_bytes / images,
        "xla_bytes_accessed": (compiled.cost_analysis() or {}).get("bytes accessed"),
        **asdict(schedule),
        "exchange_seconds": sum(one.times * duration(one.num_bytes) for one in schedule.collectives),
        "waiting_seconds": seconds - schedule.bound_seconds,
    }


def of_proposal_batch(
    compiled: jax.stages.Compiled, config: ml_collections.ConfigDict, topology: str
) -> dict[str, Any]:
    """Returns the report of the compiled program for a batch of proposals.

    Args:
      compiled: the program, a function whose first argument is the network's variables.
      config: of the experiment.
      topology: of the accelerators.
    """
    accelerator, windows = accelerator_of(topology), config.inference.batch_size
    schedule = read_schedule(
        compiled.as_text() or "", Rates(accelerator.peak[config.model.dtype], accelerator.bandwidth)
    )
    return {
        "windows": windows,
        "memory": memory(compiled, accelerator, compiled.args_info[0][0]),
        "flops_per_window": schedule.flops / windows,
        "bytes_per_window": schedule.num_bytes / windows,
        **{key: getattr(schedule, key) for key in ("arithmetic_seconds", "memory_seconds", "bound_seconds")},
    }


def memory(compiled: jax.stages.Compiled, accelerator: Accelerator, state: Any) -> dict[str, Any]:
    """Returns the memory that a program needs on one device.

    Args:
      compiled: the program.
      accelerator: that it is compiled for.
      state: tree of those arguments that stay in memory between calls, or of their shapes.

    Returns:
      "state_bytes", "temporary_bytes", "total_bytes", "usable_bytes" (of the accelerator), "share" (total of usable)
      and "fits".
    """
    stats: Any = compiled.memory_analysis()  # The compilers for these topologies all have it.
    total = (
        stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        - stats.alias_size_in_bytes
        + stats.temp_size_in_bytes
        + stats.generated_code_size_in_bytes
    )
    return {
        "state_bytes": sum(leaf.dtype.itemsize * math.prod(leaf.shape) for leaf in jax.tree.leaves(state)),
        "temporary_bytes": stats.temp_size_in_bytes,
        "total_bytes": total,
        "usable_bytes": accelerator.memory,
        "share": total / accelerator.memory,
        "fits": total <= accelerator.memory,
    }


def show(found: dict[str, Any]) -> None:
    """Prints a report to stdout as text."""
    show_line = partial(console(width=118).print, soft_wrap=True)
    step, windows, needed = found["step"], found["proposal_batch"], found["step"]["memory"]
    each, config = found["batch_per_device"], found["config"]
    show_line(
        f"Training step on {found['devices']} x {found['device_kind']} ({found['topology']}), JAX {found['jax']}\n"
        f"  batch             {config['batch_size']} images, {each} per device, {config['dtype']}\n"
        f"  memory per device {_gb(needed['state_bytes'])} state, {_gb(needed['temporary_bytes'])} activations and "
        f"gradients, {_gb(needed['total_bytes'])} in total: {needed['share']:.0%} of {_gb(needed['usable_bytes'])}\n"
        f"  per image         {step['flops_per_image'] / 1e9:.1f} GFLOP, {_gb(step['bytes_per_image'])} moved\n"
        f"  time of a step    at least {_ms(step['bound_seconds'])} without all-reduces (arithmetic at the peak "
        f"{_ms(step['arithmetic_seconds'])}, memory traffic {_ms(step['memory_seconds'])})\n"
        f"  all-reduces       {_gb(step['exchanged_bytes'])} per step, {_ms(step['exchange_seconds'])}; "
        f"{step['early_share']:.0%} of the bytes start before the last tenth of the backward pass; the step waits "
        f"{_ms(step['waiting_seconds'])}"
    )
    show_line(_exchanges(step))
    show_line(_largest(step))
    show_line(
        f"Proposal batch of {windows['windows']} windows on one device: {_gb(windows['memory']['total_bytes'])}, "
        f"{windows['flops_per_window'] / 1e9:.1f} GFLOP and {_gb(windows['bytes_per_window'])} moved per window, at "
        f"least {_ms(windows['bound_seconds'])}"
    )
    if found["largest_batch_per_device"]:
        show_line(f"Largest batch per device that fits: {found['largest_batch_per_device']}")
    if needed["fits"]:
        show_line(f"Fits: {each} images per device need {needed['share']:.0%} of the memory")


def does_not_fit(found: dict[str, Any]) -> str:
    """Returns the message for a step that needs more memory than a device has."""
    needed = found["step"]["memory"]
    return (
        f"config.batch_size={found['config']['batch_size']} needs {_gb(needed['total_bytes'])} on each "
        f"device of {found['topology']}, which has {_gb(needed['usable_bytes'])} for a program; lower it, or give "
        "--find_batch"
    )


def shortage(message: str) -> str:
    """Returns XLA's message about too little memory, reduced to needed and available amounts or to its first line."""
    amounts = re.findall(r"[\d.]+[KMGT]i?B?\b", message)
    return f"XLA needs {amounts[0]} and a device has {amounts[1]}" if len(amounts) > 1 else message.splitlines()[0]


def _exchanges(step: dict[str, Any]) -> Table:
    """Returns a table of the exchanges that send the most bytes, in the order of their starts."""
    shown = sorted(step["collectives"], key=lambda one: -one["num_bytes"] * one["times"])[:SHOWN]
    title = f"Exchanges between devices ({len(shown)} largest of {len(step['collectives'])})"
    table = Table(
        "kind", "MB", "asynchronous", "starts after", "GFLOP until its end", "in the backward pass", title=title
    )
    for one in sorted(shown, key=lambda one: one["start_seconds"]):
        table.add_row(
            one["kind"] + (f" x{one['times']}" if one["times"] > 1 else ""),
            f"{one['num_bytes'] / 1e6:,.1f}",
            "yes" if one["asynchronous"] else "no",
            f"{one['start_product']} of {step['backward_products']}",
            f"{one['flops_between'] / 1e9:,.0f}",
            "yes" if one["before_backward_end"] else "no",
        )
    return table


def _largest(step: dict[str, Any]) -> Table:
    table = Table("MB moved", "instruction", "layer", title="Instructions that move the most bytes")
    for one in step["largest"]:
        table.add_row(f"{one['bytes'] / 1e6:,.0f}", one["name"], one["layer"])
    return table


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.3g} GB"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"
