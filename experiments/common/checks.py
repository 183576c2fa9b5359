"""Checks settings and memory before a training starts, and warns of likely mistakes."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from deconvnet_jax.data import DatasetSplit
from deconvnet_jax.errors import InputError
from deconvnet_jax.inference import settings_from
from deconvnet_jax.models import (
    Variables,
    check_input_size,
    count_parameters,
    network_from_config,
)
from deconvnet_jax.processes import say
from deconvnet_jax.training import (
    OPTIMIZERS,
    SCHEDULES,
    batch_layout,
    init_variables,
    local_batch_size,
    make_optimizer,
    make_schedule,
)
from deconvnet_jax.training.trackers import check_tracker

GIB = 2**30
FIRST_CHANNELS = 64  # channels of conv1_1, whose output has the height and width of the crop
PARAMETER_BYTES = 4  # bytes per parameter, float32; each moment of the optimizer and each average takes the same
PIXEL_BYTES = 4  # bytes per pixel of a crop on the host: RGB and mask
BACKGROUND = ("background", "void", "unlabelled", "unlabeled", "other", "none")  # usual names of class 0
USUAL_RATES = (1e-6, 1.0)
HIGH_FOR_ADAMW = 0.01  # AdamW's steps do not shrink with the gradient, so it diverges at rates that suit SGD
_SAME_DATA = ("dataset", "voc_root")


def check_settings(config: ml_collections.ConfigDict) -> None:
    """Checks that the settings of a training fit each other and this machine.

    Args:
      config: A config whose settings are each in range (`settings.checked`).

    Raises:
      InputError: if settings exclude each other, or need more memory, another number of devices, or a package that is
        not installed.
    """
    check_combinations(config)
    check_tracker(config.tracker)
    batch_layout(config.batch_size, jax.device_count(), config.micro_batch, config.bn_group)
    make_optimizer(config.optimizer.to_dict(), _shapes(config)["params"])  # It checks the names of layers.
    check_memory(config)


def check_combinations(config: ml_collections.ConfigDict) -> None:
    """Checks that settings which are each in range do not exclude each other. The machine does not matter.

    Args:
      config: A config whose settings are each in range (`settings.checked`).

    Raises:
      InputError: for the first combination that cannot be used.
    """
    model, optimizer = config.model, config.optimizer
    of_scores = SCHEDULES[optimizer.schedule].of_scores
    if of_scores and not config.eval_every:
        raise InputError(
            f"config.optimizer.schedule={optimizer.schedule} needs evaluations: give --config.eval_every=STEPS"
        )
    if of_scores and optimizer.drop_factor == 1:
        raise InputError("config.optimizer.drop_factor=1 never lowers the learning rate; give a number below 1")
    _check_warmup(config)
    make_schedule(optimizer.to_dict())
    settings_from(config.inference.to_dict())
    size = config.data.crop_size
    if config.data.resize_size < size:
        raise InputError(
            f"config.data.resize_size={config.data.resize_size}: smaller than config.data.crop_size={size}; give "
            f"{size} or more"
        )
    useless = {"calibrate.batches": config.calibrate.batches, "bn_group": config.bn_group}
    where = ""
    if model.get("architecture") == "fcn8s":
        useless["remat"], where = config.remat, "to an FCN-8s"
    elif not model.get("batch_norm", True):
        where = "without batch normalisation"
    for key, value in useless.items():
        if where and value:
            raise InputError(f"config.{key}={value} has no effect {where}; leave it out")
    if "fc_window" in model:  # An FCN-8s does not have it and takes crops of any size.
        try:
            check_input_size(size, size, model.fc_window)
        except InputError as error:
            raise InputError(
                f"config.data.crop_size={size} with config.model.fc_window={model.fc_window}: {error}"
            ) from error


def _check_warmup(config: ml_collections.ConfigDict) -> None:
    """Raises InputError for a warm-up that does not fit a training whose schedule ends with it."""
    optimizer, steps, warmup = config.optimizer, config.num_steps, config.optimizer.warmup_steps
    ends_with_training = SCHEDULES[optimizer.schedule].has_end and optimizer.decay_steps == steps
    if ends_with_training and steps <= warmup:
        raise InputError(
            f"config.num_steps={steps}, the end of the learning rate's schedule too, must be above "
            f"config.optimizer.warmup_steps={warmup}; give --config.optimizer.warmup_steps={steps // 10}"
        )


def likely_mistakes(config: ml_collections.ConfigDict, class_names: Sequence[str]) -> Iterator[str]:
    """Yields a warning for every setting of a training that is valid but usually a mistake.

    Args:
      config: The checked config of the training.
      class_names: Names of the classes in the order of their ids.

    Yields:
      One line per warning, without the word "warning".
    """
    if config.model.width == 1 and not (config.init.vgg16 or config.init_from):
        yield (
            "the encoder starts from random weights; the paper starts from VGG-16 trained on ImageNet: "
            "give --config.init.vgg16=FILE (docs/weights.md)"
        )
    rate, (low, high) = config.optimizer.learning_rate, USUAL_RATES
    if not low <= rate <= high:
        yield (
            f"config.optimizer.learning_rate={rate:g} is unusual: the loss here is a mean over pixels, not a sum as in "
            "FCN's code; the paper's rate is 0.01"
        )
    yield from _mistaken_rates(config)
    yield from likely_mistakes_of_windows(config, class_names)


def likely_mistakes_of_windows(config: ml_collections.ConfigDict, class_names: Sequence[str]) -> Iterator[str]:
    """Yields a warning if windows are cut around objects, but the data has no background.

    Args:
      config: The checked config of the training.
      class_names: Names of the classes in the order of their ids.

    Yields:
      One line per warning, without the word "warning".
    """
    if _needs_background(config) and class_names[0].strip("_ ").lower() not in BACKGROUND:
        yield (
            f"'{class_names[0]}' has the id 0, which counts as background: no window is cut around it, and "
            "data.label_mode=instance labels all pixels around an object with it; for a data set without background "
            "give --config.data.windows=\"('image',)\" --config.data.label_mode=all"
        )


def _mistaken_rates(config: ml_collections.ConfigDict) -> Iterator[str]:
    """Yields a warning for a learning rate that is too high for AdamW, or does not fit the number of steps."""
    optimizer, steps = config.optimizer, config.num_steps
    if optimizer.name == "adamw" and optimizer.learning_rate >= HIGH_FOR_ADAMW:
        yield (
            f"config.optimizer.learning_rate={optimizer.learning_rate:g} is for SGD, AdamW usually diverges with it: "
            "give --config.optimizer.learning_rate=0.001 or less"
        )
    if optimizer.warmup_steps >= steps:
        yield (
            f"config.optimizer.warmup_steps={optimizer.warmup_steps}: the training ends at step {steps}, in the "
            "warm-up; give fewer"
        )
    ends = SCHEDULES[optimizer.schedule].has_end
    for name in ("decay_steps", "end_factor"):
        if not ends and optimizer[name]:
            yield (
                f"config.optimizer.{name}={optimizer[name]} has no effect with "
                f"config.optimizer.schedule={optimizer.schedule}; give the schedule poly or cosine"
            )
    if ends and optimizer.decay_steps > steps:
        yield (
            f"config.optimizer.decay_steps={optimizer.decay_steps}: the training ends at step {steps}, before the "
            f"learning rate does; give --config.optimizer.decay_steps={steps}"
        )
    if ends and optimizer.decay_steps < steps and not optimizer.end_factor:
        yield (
            f"config.optimizer.decay_steps={optimizer.decay_steps}: the learning rate is 0 from there to the last step "
            f"{steps}; give --config.optimizer.decay_steps={steps}, or an end_factor above 0"
        )


def _needs_background(config: ml_collections.ConfigDict) -> bool:
    """Returns whether training cuts windows around objects. Pixels of id 0 never are an object."""
    return not config.data.window_list and set(config.data.windows) != {"image"}


def device_memory() -> int:
    """Returns the bytes of memory of one of this process's devices; for a CPU, those of the machine."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or host_memory()


def host_memory() -> int:
    """Returns the bytes of memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_memory(config: ml_collections.ConfigDict) -> None:
    """Checks lower bounds of the memory that a training needs. A training that passes may still be too large.

    The bounds are those of the network's state, of the output of the first layer and of one batch of crops.

    Args:
      config: A config whose settings are each in range (`settings.checked`).

    Raises:
      InputError: if one of them does not fit into the device or the host.
    """
    model, side = config.model, config.data.crop_size
    parameters = count_parameters(_shapes(config))
    moments, averages = OPTIMIZERS[config.optimizer.name].moments, int(config.ema_decay > 0)
    _check(
        f"config.model.width={model.width:g} with config.model.fc_features={model.fc_features}: {parameters:,} "
        f"parameters{' with averages' if averages else ''} and their {'momentum' if moments == 1 else 'moments'} need",
        parameters * PARAMETER_BYTES * (1 + moments + averages),
        device_memory(),
        "lower them",
    )
    share = config.batch_size // jax.device_count()
    at_once = min(config.micro_batch or share, share)
    _check(
        f"config.data.crop_size={side} with {at_once} crops per device at once: the output of the first layer needs",
        int(at_once * side**2 * FIRST_CHANNELS * model.width) * jnp.dtype(model.dtype).itemsize,
        device_memory(),
        "lower config.data.crop_size, or give a smaller config.micro_batch",
    )
    _check(
        f"config.batch_size={config.batch_size} with config.data.crop_size={side}: the crops of one step need",
        local_batch_size(config.batch_size) * side**2 * PIXEL_BYTES,
        host_memory(),
        "lower config.batch_size",
    )


def _shapes(config: ml_collections.ConfigDict) -> Variables:
    """Returns the shapes of the network's variables, with 2 classes if their number is not known yet."""
    net = network_from_config({**config.model.to_dict(), "num_classes": config.model.num_classes or 2})
    return jax.eval_shape(partial(init_variables, net), 0)


def _check(what: str, needed: int, there: int, remedy: str) -> None:
    if needed > there:
        raise InputError(f"{what} {needed / GIB:,.1f} GiB, but there are {there / GIB:,.1f} GiB; {remedy}")


def warn_of_common_images(
    trained: DatasetSplit, indices: Iterable[int], scored: DatasetSplit, train_split: str, eval_split: str
) -> None:
    """Prints a warning if images are in both splits, also under different names.

    Reads the file of every image, which takes about 0.5 seconds per thousand photographs of VOC's size.

    Args:
      trained: Images of the training split.
      indices: Indices of the images in `trained` that the network is trained on.
      scored: Images of the evaluation split.
      train_split: Name of the training split.
      eval_split: Name of the evaluation split.
    """
    known = {trained.digest(index): index for index in indices}
    common = {index: known[digest] for index in range(len(scored)) if (digest := scored.digest(index)) in known}
    if not common:
        return
    pairs = [(scored.name(index), trained.name(same)) for index, same in list(common.items())[:2]]
    shown = " and ".join(f"'{name}'" if name == other else f"'{name}' (there '{other}')" for name, other in pairs)
    say(
        f"warning: {len(common)} of the {len(scored)} images of the split '{eval_split}' are training images, too "
        f"(split '{train_split}'), for example {shown}; their scores are too high: remove them from one of the lists"
    )


def training_split(trained_with: Mapping[str, Any], config: ml_collections.ConfigDict) -> str | None:
    """Returns the training split of a checkpoint, if the config names the same data.

    Args:
      trained_with: The config in the checkpoint.
      config: The config that names the data to score on, with absolute paths.

    Returns:
      The name of the split. None if the checkpoint was trained on other data, on a list of windows or on unknown data.
    """
    data = trained_with.get("data") or {}
    if data.get("window_list") or any(data.get(key) != config.data[key] for key in _SAME_DATA):
        return None
    return data.get("train_split")
