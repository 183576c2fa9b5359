"""Compiles the training step and the proposal batch of a config for devices that this machine does not have."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from json import dumps
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import SingleDeviceSharding
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import write_text
from deconvnet_jax.inference import Canvas, DeviceImage, Scorer, empty_canvas, settings_from
from deconvnet_jax.inference.devices import BUCKET
from deconvnet_jax.models import Variables, compiler_options, network_from_config
from deconvnet_jax.terminal import live_display
from deconvnet_jax.training import (
    batch_layout,
    batch_shapes,
    class_weights_of,
    compile_parallel,
    create_state,
    init_variables,
    make_step,
    replicated_shapes,
)

from ..common.checks import check_combinations
from ..common.output import output_file
from ..compiled import report, topologies
from ..compiled.largest_batch import find_largest
from ..configs import settings

CLASSES = 21  # VOC's number of classes, for configs that take the number from the data
IMAGE_SIDE = 2 * BUCKET  # pixels; every photograph of VOC is padded to this size


class DoesNotFitError(InputError):
    """Error for a program that XLA refuses because it needs more memory than the device has."""


def run_and_write(config: ml_collections.ConfigDict, topology: str, find_batch: bool, json: Path | None) -> None:
    """Compiles for a topology, prints the report and writes it to a file.

    Args:
      config: Config of the training.
      topology: Accelerators, such as "h100:8" or "v5e:4x4".
      find_batch: Whether to find the largest batch that fits.
      json: The file; None: nothing is written.

    Raises:
      InputError: as `run`, and if the step does not fit. The report is then printed and written nevertheless.
    """
    file = json and output_file(json, "--json")
    found = run(config, topology, find_batch)
    if file:
        write_text(file, dumps(found) + "\n")
    if not found["step"]["memory"]["fits"]:
        raise InputError(report.does_not_fit(found))


def run(config: ml_collections.ConfigDict, topology: str, find_batch: bool = False) -> dict[str, Any]:
    """Compiles the training step and the proposal batch of a config for a topology, and prints the report.

    Args:
      config: Config of the training.
      topology: Accelerators, such as "h100:8" or "v5e:4x4".
      find_batch: Whether to compile further batches, to find the largest that fits.

    Returns:
      The report, as JSON values.

    Raises:
      InputError: for settings or a topology that cannot be used, or if XLA refuses the step as too large.
    """
    jax.config.update("jax_platforms", "cpu")  # The accelerators of this machine are not used.
    config = settings.checked(config)
    check_combinations(config)
    config.model.num_classes = config.model.num_classes or CLASSES
    devices = topologies.describe(topology)
    batch_layout(config.batch_size, len(devices), config.micro_batch, config.bn_group)
    if find_batch:
        config.batch_size = len(devices) * largest_batch(config, topology, devices)
    compiled, seconds = compile_step(config, topology, devices, config.batch_size)
    windows = compile_proposal_batch(config, topology, devices[0])
    found = {
        **report.setting(config, topology, devices),
        "largest_batch_per_device": config.batch_size // len(devices) if find_batch else None,
        "compile_seconds": seconds,
        "step": report.of_step(compiled, config, topology, devices),
        "proposal_batch": report.of_proposal_batch(windows, config, topology),
    }
    report.show(found)
    return found


def compile_step(
    config: ml_collections.ConfigDict, topology: str, devices: Sequence[jax.Device], batch_size: int
) -> tuple[jax.stages.Compiled, float]:
    """Compiles the training step of a config.

    Args:
      config: A checked config with a number of classes.
      topology: Name of the topology, for the progress line.
      devices: Its devices, from `topologies.describe`.
      batch_size: Crops per step, over all devices.

    Returns:
      The compiled step, and the seconds that the compilation took.

    Raises:
      DoesNotFitError: if XLA refuses the step as too large.
    """
    net = network_from_config(config.model.to_dict())
    variables = jax.eval_shape(partial(init_variables, net), config.seed)
    changed = {**config.to_dict(), "batch_size": batch_size}
    weights = class_weights_of(
        changed, lambda: np.arange(1, config.model.num_classes + 1)
    )  # Any pixel counts give the same program.
    step, optimizer = make_step(changed, net, variables["params"], len(devices), weights)
    state = jax.eval_shape(partial(create_state, optimizer=optimizer, averaged=bool(config.ema_decay)), variables)
    shape = (len(devices), batch_size // len(devices), config.data.crop_size, config.data.crop_size)
    batch = {"image": jax.ShapeDtypeStruct((*shape, 3), jnp.uint8), "label": jax.ShapeDtypeStruct(shape, jnp.uint8)}
    begin = time.perf_counter()
    with _compiling(f"training step of {batch_size} images for {topology}"):
        compiled = compile_parallel(step, replicated_shapes(state, devices), batch_shapes(batch, devices), devices)
    return compiled, time.perf_counter() - begin


def compile_proposal_batch(config: ml_collections.ConfigDict, topology: str, device: jax.Device) -> jax.stages.Compiled:
    """Compiles `Scorer.fold`, with the settings of a config, for one device and a photograph of VOC's size.

    Args:
      config: A checked config with a number of classes.
      topology: Name of the topology, for the progress line.
      device: One of its devices.

    Returns:
      The compiled function, which cannot run on this machine.
    """
    net, inference = network_from_config(config.model.to_dict()), settings_from(config.inference.to_dict())

    def fold(variables: Variables, *batch: Any) -> list[Canvas]:
        return Scorer(net, variables, net.num_classes, config.data.crop_size, inference).fold(*batch)

    count = inference.batch_size

    def image() -> DeviceImage:
        return DeviceImage(jnp.zeros((IMAGE_SIDE, IMAGE_SIDE, 3), jnp.uint8), jnp.zeros(2, jnp.int32))

    arguments = (
        jax.eval_shape(partial(init_variables, net), config.seed),
        [jax.eval_shape(image)],
        [jax.ShapeDtypeStruct((count, 4), jnp.float32)],
        [jax.ShapeDtypeStruct((count,), jnp.bool_)],
        [jax.eval_shape(partial(empty_canvas, IMAGE_SIDE, IMAGE_SIDE, net.num_classes, inference.aggregation))],
    )
    sharding = SingleDeviceSharding(device)
    arguments = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), arguments)
    with _compiling(f"proposal batch of {count} windows for {topology}"):
        lowered = jax.jit(fold, donate_argnums=4).lower(*arguments)
        return lowered.compile(compiler_options={**compiler_options(device.platform)})


@contextmanager
def _compiling(what: str) -> Iterator[None]:
    """Shows the seconds that a compilation has taken. XLA's refusal becomes an error of one line."""
    columns = (SpinnerColumn(), TextColumn("compiling the {task.description}"), TimeElapsedColumn())
    try:
        with live_display(*columns) as progress:
            progress.add_task(what, total=None)
            yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise DoesNotFitError(f"the {what} does not fit: {report.shortage(str(error))}") from error


def largest_batch(config: ml_collections.ConfigDict, topology: str, devices: Sequence[jax.Device]) -> int:
    """Returns the largest batch per device whose step fits into the memory.

    Args:
      config: A checked config with a number of classes.
      topology: Name of the topology.
      devices: Its devices.

    Raises:
      InputError: if no batch fits, or `config.micro_batch` is set: memory is then the same for every batch.
    """
    if config.micro_batch:
        raise InputError(f"--find_batch: config.micro_batch={config.micro_batch} bounds the memory; leave it out")
    accelerator = topologies.accelerator_of(topology)

    def valid(images: int) -> bool:
        try:
            batch_layout(images * len(devices), len(devices), 0, config.bn_group)
        except InputError:
            return False
        return True

    def needed(images: int) -> float | None:
        try:
            compiled, _ = compile_step(config, topology, devices, images * len(devices))
        except DoesNotFitError:
            return None
        return report.memory(compiled, accelerator, ())["total_bytes"]

    found = find_largest(config.batch_size // len(devices), valid, needed, accelerator.memory)
    if not found:
        raise InputError(f"--topology={topology}: not even the smallest batch fits; choose devices with more memory")
    return found
