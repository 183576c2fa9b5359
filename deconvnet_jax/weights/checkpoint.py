"""Networks in Orbax checkpoints: a program that predicts reads the variables and the run's description, verified.

Training writes more into them and reads it back: `training.checkpoints`.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax import Array

from deconvnet_jax.errors import InputError, one_line
from deconvnet_jax.file_kinds import file_kind, wrong_kind
from deconvnet_jax.files import as_path, user_path
from deconvnet_jax.models import DeconvNet, Network, Variables, config_from_network, network_from_config
from deconvnet_jax.weights.checkpoint_folder import (
    BEST_METRIC,
    RECORD,
    StoredStep,
    finish_saving,
    finished_steps,
    open_checkpoints,
    read_metrics,
    writing,
)
from deconvnet_jax.weights.integrity import integrity_record

_LARGEST_INPUT = 4096  # pixels a side; tables of bilinear weights grow with it while a network is traced
_STATISTICS = (None, "folded", "unknown")  # what "batch_statistics" of a description may be


def has_checkpoint(directory: str | Path) -> bool:
    """Returns whether a folder holds a finished step."""
    return bool(finished_steps(as_path(directory)))


def check_vacant(directory: str | Path) -> None:
    """Raises InputError if a folder holds a checkpoint, or a training run's folder of checkpoints."""
    if any(has_checkpoint(folder) for folder in (as_path(directory), as_path(directory) / "checkpoints")):
        raise InputError(f"{directory} holds a checkpoint already; name another folder, or delete it")


def save_network(directory: str | Path, net: Network, variables: Variables, info: dict[str, Any]) -> None:
    """Writes a network that was not trained here as step 0 of a new folder of checkpoints, and waits for it.

    Args:
      directory: where; may exist but must hold no checkpoint.
      net: the module; its description becomes the section "model" of the config.
      variables: of the network.
      info: as for `training.save_checkpoint`; of "config" only other sections than "model" are used.

    Raises:
      InputError: if the folder holds a checkpoint already, is that of a training run, or cannot be written.
    """
    check_vacant(directory)
    info = {**info, "config": {**info.get("config", {}), "model": config_from_network(net)}}
    variables = jax.device_get(variables)  # with several processes, Orbax takes arrays of one device for an error
    with open_checkpoints(directory) as manager:
        args = ocp.args.Composite(
            variables=ocp.args.StandardSave(variables),
            info=ocp.args.JsonSave(info),
            **{RECORD: ocp.args.JsonSave(integrity_record({"variables": variables}, {"info": info}))},
        )
        writing(manager, lambda: manager.save(0, args=args))
        finish_saving(manager)


def load_checkpoint(path: str | Path, step: int | None = None) -> tuple[Network, Variables, dict[str, Any]]:
    """Returns the network of a training run, for prediction.

    Args:
      path: the run's `checkpoints` folder, or the run's folder.
      step: which step; by default the one with the best evaluation, or the newest if none was evaluated.

    Returns:
      The module, its variables, and the run's description: "config" (dict), "class_names" (list), "step" (int), and
      for imported networks "batch_statistics": "folded" if they are part of scale and shift, or "unknown" if they must
      be re-estimated before the network predicts.

    Raises:
      InputError: if there is no checkpoint or no such step, the folder is no checkpoint of ours, or a file is damaged.

    Example:
      >>> from deconvnet_jax import load_checkpoint
      >>> net, variables, info = load_checkpoint("runs/demo")
      >>> info["class_names"]
      ['background', 'disc', 'square']
    """
    directory = _checkpoint_directory(user_path(path, "the checkpoint's folder", in_bucket=True))
    step = _choose_step(directory, step)
    folder = directory / str(step)
    if not (folder / "info").exists():
        raise InputError(f"{folder} is not a checkpoint of this project (it has no item 'info')")
    with _read_or_damaged(folder, "description"):
        stored = StoredStep(folder)
        info = stored.json("info")
    try:
        net, shapes = _described_network(info)
    except Exception as error:  # whatever Flax and JAX make of nonsense
        raise InputError(f"{folder} is not a checkpoint of this project ({one_line(error)})") from error
    with _read_or_damaged(folder, "variables"):
        variables = stored.arrays("variables", shapes)
    return net, variables, {**info, "step": step}


@contextlib.contextmanager
def _read_or_damaged(folder: Path, what: str) -> Iterator[None]:
    """Turns whatever Orbax, TensorStore and JSON make of damaged files into an InputError of one line."""
    try:
        yield
    except Exception as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
            raise  # the files are good, the device's memory does not suffice
        raise InputError(
            f"the {what} in {folder} cannot be read ({one_line(error)}); "
            "the files are damaged or were written by another version: use another step"
        ) from error


def newest_description(directory: str | Path) -> dict[str, Any] | None:
    """Returns the description in the newest step of which it can be read; None without any."""
    directory = as_path(directory)
    for step in reversed(finished_steps(directory)):
        try:
            info = StoredStep(directory / str(step)).json("info")
            if isinstance(info["config"], dict):
                return info
        except Exception:  # whatever Orbax and JSON make of damage; `training.restore_newest` tells of it
            continue
    return None


def _described_network(info: Any) -> tuple[Network, Variables]:
    """Returns the network of a description and the shapes of its variables; takes no memory for them.

    Raises:
      Exception: whatever nonsense leads to; ValueError unless what is read later is there.
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
        raise ValueError(f"the network takes images from {net.min_input_size} pixels a side")
    images = jax.ShapeDtypeStruct((1, net.min_input_size, net.min_input_size, 3), "float32")
    return net, jax.eval_shape(net.init, jax.random.key(0), images)


def init_from_checkpoint(
    path: str | Path,
    net: Network,
    variables: Variables,
    class_names: Sequence[str],
    step: int | None = None,
) -> tuple[Variables, bool]:
    """Initial variables for a training that goes on from another one's network.

    Args:
      path, step: as for `load_checkpoint`.
      net: the network to be trained.
      variables: of it, as initialised.
      class_names: of the data to be trained on.

    Returns:
      New variables, and whether the score layers are the checkpoint's too: with other classes they stay as initialised.

    Raises:
      InputError: if the checkpoint cannot be read, is of another network, or cannot be trained on because its batch
        normalisation is folded.
    """
    loaded_net, loaded, info = load_checkpoint(path, step)
    if type(loaded_net) is not type(net):
        raise InputError(
            f"--config.init_from={path} holds a network of the kind {type(loaded_net).__name__}, the config trains a "
            f"{type(net).__name__}; give a checkpoint of that kind"
        )
    if info.get("batch_statistics") == "folded":
        raise InputError(
            f"{path} is for inference only: its batch normalisation is folded; start from the result of a training "
            "(of the authors' files stage_2_train_result.caffemodel)"
        )
    if set(loaded) != set(variables):
        has = "batch_stats" in loaded
        which = (
            "with batch normalisation, the config's is without"
            if has
            else "without batch normalisation, the config's is with it"
        )
        raise InputError(
            f"--config.init_from={path} holds a network {which}; give --config.model.batch_norm={has} to go on from it"
        )
    if isinstance(net, DeconvNet) and loaded_net.bn_epsilon != net.bn_epsilon:
        raise InputError(
            f"--config.init_from={path} has bn_epsilon {loaded_net.bn_epsilon}, the config {net.bn_epsilon}; give "
            f"--config.model.bn_epsilon={loaded_net.bn_epsilon}"
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
    """Whether a layer has one channel a class: seg-score-voc; score-fr, score2, ..., upsample of FCN-8s."""
    return "score" in layer or layer == "upsample"


def _fitting(
    loaded: Variables, collection: str, name: str, layer: dict[str, Array], path: str | Path
) -> dict[str, Array]:
    theirs = loaded[collection].get(name, {})
    for part, leaf in layer.items():
        found = theirs[part].shape if part in theirs else None
        if found != leaf.shape:
            raise InputError(
                f"--config.init_from={path}: {part} of layer '{name}' has the shape {found}, the config's network "
                f"needs {leaf.shape}; give the config.model.* of that checkpoint"
            )
    return theirs


def _checkpoint_directory(path: Path) -> Path:
    for directory in (path / "checkpoints", path):
        if has_checkpoint(directory):
            return directory
    if path.is_file():
        raise InputError(wrong_kind(path, file_kind(path), "a folder of checkpoints"))
    raise InputError(
        f"no checkpoint in {path}; expected the 'checkpoints' folder of a training run, with one folder per step"
    )


def _choose_step(directory: Path, step: int | None) -> int:
    steps = finished_steps(directory)
    if step is not None:
        if step not in steps:
            raise InputError(f"no step {step} in {directory}; there are {', '.join(map(str, steps))}")
        return step
    scores = {each: (read_metrics(directory / str(each)) or {}).get(BEST_METRIC, -1.0) for each in steps}
    return max(steps, key=lambda each: (scores[each], each))
