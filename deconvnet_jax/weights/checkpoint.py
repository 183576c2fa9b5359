"""Networks in Orbax checkpoints: whoever predicts reads the variables and the run's description and nothing else.

Training writes more into them and reads it back: `training.checkpoints`.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import chex
import jax
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint.checkpoint_managers import preservation_policy

from deconvnet_jax.errors import InputError
from deconvnet_jax.models import DeconvNet, Network, config_from_network, network_from_config

BEST_METRIC = "mean_iou"


def open_checkpoints(directory: str | Path) -> ocp.CheckpointManager:
    """A manager that writes to `directory`, keeping the last two steps and the one with the best `mean_iou`."""
    best = preservation_policy.BestN(
        get_metric_fn=lambda metrics: metrics[BEST_METRIC], n=1, keep_checkpoints_without_metrics=False
    )
    options = ocp.CheckpointManagerOptions(
        preservation_policy=preservation_policy.AnyPreservationPolicy([preservation_policy.LatestN(2), best]),
        best_fn=lambda metrics: metrics[BEST_METRIC],
        cleanup_tmp_directories=True,  # what a killed run was writing
    )
    return ocp.CheckpointManager(Path(directory).absolute(), options=options)


def has_checkpoint(directory: str | Path) -> bool:
    """Whether a folder holds a finished step."""
    directory = Path(directory)
    return directory.is_dir() and any(c.name.isdigit() and c.is_dir() for c in directory.iterdir())


def check_vacant(directory: str | Path) -> None:
    """Raises InputError if a folder holds a checkpoint, or a training run's folder of checkpoints."""
    if any(has_checkpoint(folder) for folder in (Path(directory), Path(directory) / "checkpoints")):
        raise InputError(f"{directory} holds a checkpoint already; name another folder, or delete it")


def save_network(directory: str | Path, net: Network, variables: chex.ArrayTree, info: dict[str, Any]) -> None:
    """Writes a network that was not trained here as step 0 of a new folder of checkpoints, and waits for it.

    Args:
      directory: where; may exist but must hold no checkpoint.
      net: the module; its description becomes the section "model" of the config.
      variables: of the network.
      info: as for `training.save_checkpoint`; of "config" only other sections than "model" are used.

    Raises:
      InputError: if the folder holds a checkpoint already, or is that of a training run.
    """
    check_vacant(directory)
    info = {**info, "config": {**info.get("config", {}), "model": config_from_network(net)}}
    variables = jax.device_get(variables)  # with several processes, Orbax takes arrays of one device for an error
    with open_checkpoints(directory) as manager:
        args = ocp.args.Composite(variables=ocp.args.StandardSave(variables), info=ocp.args.JsonSave(info))
        manager.save(0, args=args)


def load_checkpoint(path: str | Path, step: int | None = None) -> tuple[Network, chex.ArrayTree, dict[str, Any]]:
    """The network of a training run, for prediction.

    Args:
      path: the run's `checkpoints` folder, or the run's folder.
      step: which step; by default the one with the best evaluation, or the newest if none was evaluated.

    Returns:
      The module, its variables, and the run's description: "config" (dict), "class_names" (list), "step" (int), and
      for imported networks "batch_statistics": "folded" if they are part of scale and shift, or "unknown" if they must
      be measured before the network predicts.

    Raises:
      InputError: if there is no checkpoint, no such step, or the folder is not one of this project's.
    """
    directory = _checkpoint_directory(Path(path).expanduser())
    options = ocp.CheckpointManagerOptions(read_only=True, best_fn=lambda metrics: metrics[BEST_METRIC])
    with _without_warnings(), ocp.CheckpointManager(directory.absolute(), options=options) as manager:
        step = _choose_step(manager, directory, step)
        try:
            info = manager.restore(step, args=ocp.args.Composite(info=ocp.args.JsonRestore()))["info"]
            net = network_from_config(info["config"]["model"])
            images = jax.ShapeDtypeStruct((1, net.min_input_size, net.min_input_size, 3), "float32")
            shapes = jax.eval_shape(net.init, jax.random.key(0), images)
            _check_description(net, info)
        except (KeyError, ValueError, TypeError, AttributeError, OSError) as error:
            raise InputError(
                f"{directory / str(step)} is not a checkpoint of this project ({first_line(error)})"
            ) from error
        variables = _restore_variables(manager, step, shapes, directory)
    return net, variables, {**info, "step": step}


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Orbax warns of what read_only implies, three lines for every network that is loaded."""
    before = logging.get_verbosity()
    logging.set_verbosity(min(before, logging.ERROR))
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _check_description(net: Network, info: dict[str, Any]) -> None:
    """Raises ValueError unless what is read later is there."""
    names, size = info["class_names"], info["config"].get("data", {}).get("crop_size", 1)
    if not isinstance(names, list) or len(names) != net.num_classes or not all(isinstance(n, str) for n in names):
        raise ValueError(f"class_names is no list of {net.num_classes} names")
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"config.data.crop_size is {size!r}")


def init_from_checkpoint(
    path: str | Path,
    net: Network,
    variables: chex.ArrayTree,
    class_names: Sequence[str],
    step: int | None = None,
) -> tuple[chex.ArrayTree, bool]:
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
    loaded: chex.ArrayTree, collection: str, name: str, layer: chex.ArrayTree, path: str | Path
) -> chex.ArrayTree:
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
    raise InputError(
        f"no checkpoint in {path}; expected the 'checkpoints' folder of a training run, with one folder per step"
    )


def _choose_step(manager: ocp.CheckpointManager, directory: Path, step: int | None) -> int:
    steps = manager.all_steps()
    if step is None:
        best = manager.best_step()
        return manager.latest_step() if best is None else best
    if step not in steps:
        raise InputError(f"no step {step} in {directory}; there are {', '.join(map(str, sorted(steps)))}")
    return step


def _restore_variables(
    manager: ocp.CheckpointManager, step: int, shapes: chex.ArrayTree, directory: Path
) -> chex.ArrayTree:
    args = ocp.args.Composite(variables=ocp.args.StandardRestore(on_this_device(shapes)))
    try:
        _check_shapes(directory / str(step) / "variables", shapes)
        return manager.restore(step, args=args)["variables"]
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise InputError(
            f"the variables in {directory / str(step)} cannot be read ({first_line(error)}); "
            "the files are damaged or were written by another version: use another step"
        ) from error


def _check_shapes(directory: Path, shapes: chex.ArrayTree) -> None:
    """Raises ValueError for the first array that is missing or has another shape; reads no array.

    Orbax would find out too, but from many reads at once, whose other errors it leaves to the garbage collector.
    """
    stored = ocp.StandardCheckpointHandler().metadata(directory.absolute())
    stored = getattr(stored, "tree", stored)
    found = {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(stored)}
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        name = jax.tree_util.keystr(path)
        if found.get(name) != leaf.shape:
            raise ValueError(f"{name} has the shape {found.get(name)}, the config's network needs {leaf.shape}")


def on_this_device(tree: chex.ArrayTree) -> chex.ArrayTree:
    """Shapes and dtypes to restore onto the first local device, whatever devices wrote them."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def first_line(error: BaseException) -> str:
    """What an exception says, for a message of one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
