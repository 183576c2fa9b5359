"""Loads networks from checkpoints for prediction and fine-tuning, and saves imported networks.

The variables and the run's description are verified while they are read. `training.checkpoints` writes and reads the
whole training state.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax import Array

from deconvnet_jax.checkpoint_places import checkpoint_directory, finished_steps, has_checkpoint
from deconvnet_jax.errors import InputError, one_line
from deconvnet_jax.files import as_path, user_path
from deconvnet_jax.models import DeconvNet, Network, Variables, config_from_network, network_from_config
from deconvnet_jax.weights.checkpoint_folder import (
    AVERAGES,
    BEST_METRIC,
    RECORD,
    StoredStep,
    finish_saving,
    open_checkpoints,
    read_metrics,
    writing,
)
from deconvnet_jax.weights.integrity import integrity_record

# Largest input side in pixels that a description may ask for. Tables of bilinear weights grow with it during tracing.
_LARGEST_INPUT = 4096
_STATISTICS = (None, "folded", "unknown")  # allowed values of "batch_statistics" in a description


def check_vacant(directory: str | Path) -> None:
    """Raises InputError if a folder holds checkpoints, or a folder `checkpoints` that does."""
    if any(has_checkpoint(folder) for folder in (as_path(directory), as_path(directory) / "checkpoints")):
        raise InputError(f"{directory} already holds a checkpoint; name another folder, or delete this one")


def save_network(directory: str | Path, net: Network, variables: Variables, info: dict[str, Any]) -> None:
    """Saves a network as step 0 of a new folder of checkpoints, and waits until it is written.

    Use it for networks from elsewhere, for example from a caffemodel. `load_checkpoint` reads the result.

    Args:
      directory: the folder to write; it may exist but must hold no checkpoint.
      net: the module; its fields become the section "model" of the stored config.
      variables: {"params", "batch_stats"} of the network; {"params"} if it has no batch normalisation.
      info: the description: "class_names", one text per class; optionally "batch_statistics", "folded" or "unknown"
        (see `network_from_caffe`), and "config" with sections other than "model", which is replaced.

    Raises:
      InputError: if the folder already holds a checkpoint or cannot be written.

    Example:
      >>> from deconvnet_jax.labels import VOC_CLASSES
      >>> from deconvnet_jax.weights import load_checkpoint, network_from_caffe, save_network
      >>> net, variables, statistics = network_from_caffe("DeconvNet_trainval_inference.caffemodel")
      >>> save_network("runs/imported", net, variables, {"class_names": list(VOC_CLASSES), **statistics})
      >>> load_checkpoint("runs/imported")[0] == net
      True
    """
    check_vacant(directory)
    info = {**info, "config": {**info.get("config", {}), "model": config_from_network(net)}}
    variables = jax.device_get(variables)  # In a program of several processes, Orbax refuses arrays on one device.
    with open_checkpoints(directory) as manager:
        args = ocp.args.Composite(
            variables=ocp.args.StandardSave(variables),
            info=ocp.args.JsonSave(info),
            **{RECORD: ocp.args.JsonSave(integrity_record({"variables": variables}, {"info": info}))},
        )
        writing(manager, lambda: manager.save(0, args=args))
        finish_saving(manager)


def load_checkpoint(
    path: str | Path, step: int | None = None, averages: bool = True
) -> tuple[Network, Variables, dict[str, Any]]:
    """Loads the network of a training run or an imported network, for prediction.

    Args:
      path: the run's folder, or its folder `checkpoints`; may be gs://BUCKET/NAME.
      step: the step to load. None for the step with the best `mean_iou`, or the newest one if none was evaluated.
      averages: what to load of a run with `config.ema_decay`: True the moving averages of the variables, which its
        evaluations used, False the variables themselves. Other checkpoints hold no averages.

    Returns:
      The module; its variables, arrays on this process's first device; and the description of the run: "config"
      (dictionary), "class_names" (list of texts) and "step" (int). Imported networks also have "batch_statistics":
      "folded" if they are part of scale and shift, or "unknown" if they must be re-estimated before prediction.
      Averages have "averaged" (True).

    Raises:
      InputError: if there is no checkpoint or no such step, the folder is no checkpoint of this project, a file is
        damaged, or `averages` is False for a network that was made from averages.

    Example:
      >>> from deconvnet_jax import load_checkpoint
      >>> net, variables, info = load_checkpoint("runs/demo")
      >>> info["class_names"]
      ['background', 'disc', 'square']
      >>> type(net).__name__, net.num_classes, sorted(variables)
      ('DeconvNet', 3, ['batch_stats', 'params'])
    """
    directory = checkpoint_directory(user_path(path, "the checkpoint's folder", in_bucket=True))
    step = _choose_step(directory, step)
    folder = directory / str(step)
    if not (folder / "info").exists():
        raise InputError(f"{folder} is not a checkpoint of this project (it has no 'info'); give another folder")
    with _read_or_damaged(folder, "description"):
        stored = StoredStep(folder)
        info = stored.json("info")
    try:
        net, shapes = _described_network(info)
    except Exception as error:  # Flax and JAX raise many types of exceptions for a nonsensical description.
        raise InputError(
            f"{folder} is not a checkpoint of this project ({one_line(error)}); give another folder"
        ) from error
    if info.get("averaged") and not averages:
        raise InputError(
            f"{folder} holds the averages of the weights only; leave out --noaverages (averages=False), or name the "
            "run's folder"
        )
    chosen = AVERAGES if averages and stored.has(AVERAGES) else "variables"
    with _read_or_damaged(folder, "variables"):
        variables = stored.arrays(chosen, shapes)
    averaged = {"averaged": True} if chosen == AVERAGES else {}
    return net, variables, {**info, **averaged, "step": step}


@contextlib.contextmanager
def _read_or_damaged(folder: Path, what: str) -> Iterator[None]:
    """Turns exceptions that the block raises for damaged files into an InputError.

    Args:
      folder: the folder of the step.
      what: what is read, for the error message.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
            raise  # The files are intact; the device has too little memory.
        raise InputError(
            f"the {what} in {folder} cannot be read ({one_line(error)}); "
            "the files are damaged or of another version: use another step"
        ) from error


def newest_description(directory: str | Path) -> dict[str, Any] | None:
    """Returns the description in the newest step whose description can be read.

    Args:
      directory: a folder of checkpoints.

    Returns:
      The description as `load_checkpoint` returns it, without "step"; None if no step has a readable one.
    """
    directory = as_path(directory)
    for step in reversed(finished_steps(directory)):
        try:
            info = StoredStep(directory / str(step)).json("info")
            if isinstance(info["config"], dict):
                return info
        except Exception:  # Damage raises many types of exceptions; `training.restore_newest` reports it.
            continue
    return None


def _described_network(info: Any) -> tuple[Network, Variables]:
    """Returns the network of a description, and the shapes of its variables without allocating them.

    Raises:
      ValueError: if an entry that is read later is missing or has the wrong type.
      Exception: of many types, if the section "model" makes no network.
    """
    if not isinstance(info, dict) or not isinstance(info.get("config"), dict):
        raise ValueError("its description has no config")
    config = info["config"]
    for section in ("model", "data", "inference"):
        if not isinstance(config.get(section, {}), dict):
            raise ValueError(f"config.{section} is {config[section]!r}")
    net = network_from_config(config["model"])
    names, size = info["class_names"], config.get("data", {}).get("crop_size", 1)
    if not isinstance(names, list) or len(names) != net.num_classes or not all(isinstance(n, str) for n in names):
        raise ValueError(f"class_names is no list of {net.num_classes} names")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"config.data.crop_size is {size!r}")
    if info.get("batch_statistics") not in _STATISTICS:
        raise ValueError(f"batch_statistics is {info['batch_statistics']!r}")
    if net.min_input_size > _LARGEST_INPUT:
        raise ValueError(f"the network's smallest image has {net.min_input_size} pixels per side")
    images = jax.ShapeDtypeStruct((1, net.min_input_size, net.min_input_size, 3), "float32")
    return net, jax.eval_shape(net.init, jax.random.key(0), images)


def init_from_checkpoint(
    path: str | Path,
    net: Network,
    variables: Variables,
    class_names: Sequence[str],
    step: int | None = None,
) -> tuple[Variables, bool]:
    """Returns initial variables for training that starts from the network of a checkpoint.

    All layers are taken from the checkpoint. Score layers are taken only if the classes are the same.

    Args:
      path: the checkpoint's folder, as for `load_checkpoint`.
      net: the network to train.
      variables: the initialised variables of `net`; they are not changed.
      class_names: the classes of the training data, in the order of their ids.
      step: the step to load, as for `load_checkpoint`.

    Returns:
      New variables, and whether the score layers were taken. False means that the classes differ and the score layers
      are those of `variables`.

    Raises:
      InputError: if the checkpoint cannot be read, its network has another kind or other shapes, or its batch
        normalisation is folded, so that it cannot be trained.

    Example:
      >>> from deconvnet_jax.training import init_variables
      >>> from deconvnet_jax.weights import init_from_checkpoint, load_checkpoint
      >>> net = load_checkpoint("runs/demo")[0]
      >>> start, same_classes = init_from_checkpoint(
      ...     "runs/demo", net, init_variables(net, seed=1), class_names=["background", "leaf", "stem"]
      ... )
      >>> same_classes  # The score layer is the freshly initialised one.
      False
    """
    loaded_net, loaded, info = load_checkpoint(path, step)
    if type(loaded_net) is not type(net):
        raise InputError(
            f"--config.init_from={path} holds a network of the kind {type(loaded_net).__name__}, but the config trains "
            f"a {type(net).__name__}; give a checkpoint of that kind"
        )
    if info.get("batch_statistics") == "folded":
        raise InputError(
            f"{path} is for inference only: its batch normalisation is folded; start from a trained network "
            "(the authors' stage_2_train_result.caffemodel)"
        )
    if set(loaded) != set(variables):
        has = "batch_stats" in loaded
        which = (
            "with batch normalisation, but the config's network has none"
            if has
            else "without batch normalisation, but the config's network has it"
        )
        raise InputError(f"--config.init_from={path} holds a network {which}; give --config.model.batch_norm={has}")
    if isinstance(net, DeconvNet) and loaded_net.bn_epsilon != net.bn_epsilon:
        raise InputError(
            f"--config.init_from={path} has bn_epsilon {loaded_net.bn_epsilon}, but the config has {net.bn_epsilon}; "
            f"give --config.model.bn_epsilon={loaded_net.bn_epsilon}"
        )
    same_classes = list(info["class_names"]) == list(class_names)
    result = {}
    for collection, layers in variables.items():
        result[collection] = {
            name: layer if _scores(name) and not same_classes else _fitting(loaded, collection, name, layer, path)
            for name, layer in layers.items()
        }
    return result, same_classes


def _scores(layer: str) -> bool:
    """Returns whether a layer has one channel per class, such as seg-score-voc, or score-fr and upsample of FCN-8s."""
    return "score" in layer or layer == "upsample"


def _fitting(
    loaded: Variables, collection: str, name: str, layer: dict[str, Array], path: str | Path
) -> dict[str, Array]:
    """Returns a layer of the checkpoint; raises InputError unless it has the shapes of `layer`."""
    theirs = loaded[collection].get(name, {})
    for part, leaf in layer.items():
        found = theirs[part].shape if part in theirs else None
        if found != leaf.shape:
            raise InputError(
                f"--config.init_from={path}: {part} of layer '{name}' has the shape {found}, but the config's network "
                f"needs {leaf.shape}; give the --config.model.* of that checkpoint"
            )
    return theirs


def _choose_step(directory: Path, step: int | None) -> int:
    """Returns the given step, or the one with the best score; of equal or missing scores the newest."""
    steps = finished_steps(directory)
    if step is not None:
        if step not in steps:
            raise InputError(f"no step {step} in {directory}; expected one of {', '.join(map(str, steps))}")
        return step
    scores = {each: (read_metrics(directory / str(each)) or {}).get(BEST_METRIC, -1.0) for each in steps}
    return max(steps, key=lambda each: (scores[each], each))
