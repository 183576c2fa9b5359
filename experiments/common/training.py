"""A training from its settings to its last scores, stage by stage, and the calibration of what it trained."""

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import chex
import jax
import ml_collections
import numpy as np

from deconvnet_jax.data import (
    DatasetSplit,
    Example,
    Windows,
    class_pixels,
    crop_window,
    image_box,
    open_split,
    repeat_rare,
)
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import as_path, in_bucket, local_copy, user_path
from deconvnet_jax.models import (
    DeconvNet,
    Network,
    compiler_options,
    count_parameters,
    network_from_config,
)
from deconvnet_jax.ops import normalize_images
from deconvnet_jax.processes import first_process_first, say
from deconvnet_jax.training import (
    Evaluation,
    balanced_class_weights,
    calibrate_batch_norm,
    claim_workdir,
    init_variables,
    local_batch_size,
    locked_workdir,
    train,
)
from deconvnet_jax.weights import (
    has_checkpoint,
    init_from_checkpoint,
    keep_vgg16_features,
    load_checkpoint,
    load_vgg16,
    save_network,
)
from experiments.common import cli, dataset, evaluation
from experiments.common.checks import check_settings, likely_mistakes, warn_of_common_images
from experiments.configs import settings

FEATURE_IMAGES = 32  # images over which VGG-16's features are measured


def run(config: ml_collections.ConfigDict, workdir: str | Path, accept_changes: bool = False) -> dict[str, float]:
    """Trains as the config says, stage 1 first if it has one; returns the scores of the last evaluation.

    Raises:
      InputError: for settings, data or a folder that cannot be used, and for a training that diverges.
      Preempted: after SIGTERM or SIGINT, when the last step is saved.
    """
    settings.check_config(config)
    workdir = user_path(workdir, "--workdir", in_bucket=True)
    use_compilation_cache(config, workdir)
    with locked_workdir(workdir):
        return run_stages(config, workdir, accept_changes)


def run_stages(config: ml_collections.ConfigDict, workdir: Path, accept_changes: bool = False) -> dict[str, float]:
    """Trains stage 1, if the config has one, and what follows it; returns the scores of the last evaluation."""
    if "stage1" not in config:
        return run_stage(config, workdir, accept_changes)
    config = config.copy_and_resolve_references()
    first = config.stage1
    with config.unlocked():
        del config.stage1
    check_settings(config)
    open_data(dataset.resolve_data(config))  # what stage 2 lacks is said now, not when stage 1 is done
    with locked_workdir(workdir / "stage1"):
        run_stage(first, workdir / "stage1", accept_changes)
    config.init_from, config.init_from_step = str(workdir / "stage1"), first.num_steps
    config.init.vgg16, config.init.keep_features = None, False  # stage 1's
    return run_stage(config, workdir, accept_changes)


def run_stage(config: ml_collections.ConfigDict, workdir: Path, accept_changes: bool = False) -> dict[str, float]:
    """Trains one stage; returns the scores of the last evaluation."""
    per_process = check_settings(config)
    if has_checkpoint(workdir):
        raise InputError(
            f"--workdir={workdir} holds a network that was not trained there; name another folder, and start from this "
            f"one: --config.init_from={workdir}"
        )
    config = dataset.resolve_data(config)
    class_names = dataset.class_names(config)
    train_source, eval_source, windows = open_data(config)
    batches = dataset.batches_of(config, train_source, windows, per_process)
    net = network_from_config(config.model.to_dict())
    if has_checkpoint(workdir / "checkpoints"):  # the run goes on; what it started from may be gone
        variables = init_variables(net, config.seed)
    else:
        variables = initial_variables(net, config, train_source, class_names)
    folder = claim_workdir(workdir, config.to_dict(), accept_changes)
    say(
        f"{count_parameters(variables):,} parameters, {len(class_names)} classes, {len(train_source)} training images, "
        f"{window_counts(config, windows)}, {jax.device_count()} {jax.devices()[0].platform} device(s); "
        f"writing to {folder}"
    )
    for warning in likely_mistakes(config, train_source, class_names):
        say(f"warning: {warning}")
    splits = (config.data.train_split, config.data.eval_split)
    warn_of_common_images(train_source, np.unique(windows.images).tolist(), eval_source, *splits)
    evaluate = evaluation.evaluator(net, class_names, eval_source, config)
    with closing(batches):
        scores = train(
            config.to_dict(),
            folder,
            net=net,
            variables=jax.device_get(variables),
            batches=batches,
            info={"config": config.to_dict(), "class_names": list(class_names)},
            evaluate=evaluate,
            class_weights=class_weights(config, train_source),
        )
    return calibrated_scores(config, folder, evaluate) or scores


def use_compilation_cache(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Keeps compiled programs in a folder, so that a run that goes on starts at once.

    On a CPU only where asked for: programs that can be kept are slower there (`ops.onednn`).
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    if config.compilation_cache or jax.default_backend() != "cpu":
        folder = user_path(config.compilation_cache or workdir / "compiled", "config.compilation_cache", in_bucket=True)
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
        if in_bucket(folder):
            jax.config.update("jax_persistent_cache_enable_xla_caches", "none")  # XLA's own are for local files


def open_data(config: ml_collections.ConfigDict) -> tuple[DatasetSplit, DatasetSplit, Windows]:
    """Images to train on, images to evaluate, and what is cut out of the former.

    Raises:
      InputError: for data that cannot be used.
    """
    builder = first_process_first(lambda: dataset.open_dataset(config))
    train_source = open_split(builder, config.data.train_split)
    eval_source = open_split(builder, config.data.eval_split)
    return train_source, eval_source, dataset.windows_of(config, builder, train_source)


def calibrated_scores(
    config: ml_collections.ConfigDict, folder: Path, evaluate: Callable[[chex.ArrayTree], Evaluation]
) -> dict[str, float]:
    """Measures batch statistics of the last step anew and scores the result, if the config says so and it is not done.

    Returns:
      The scores; empty if nothing was done.
    """
    target = folder / "calibrated"
    if not config.calibrate.batches or has_checkpoint(target):
        return {}
    net, variables, info = load_checkpoint(folder, config.num_steps)
    measured = {
        "batches": config.calibrate.batches,
        "batch_size": over_devices(config.calibrate.batch_size),
    }
    variables = measure(net, variables, config, **measured)
    kept = {key: value for key, value in info.items() if key != "step"}
    save_network(target, net, variables, {**kept, "calibrated": measured})
    scores = {name: value for name, value in evaluate(variables).scores.items() if "/" not in name}
    found = "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
    say(f"statistics measured over {config.calibrate.batches} batches: {found}; {target}")
    return scores


def window_counts(config: ml_collections.ConfigDict, windows: Windows) -> str:
    """The number of windows an epoch has, for the line that a run begins with."""
    count = len(windows.images)
    if not config.data.balance:
        return f"{count:,} windows"
    repeated = repeat_rare(windows, config.data.balance, config.seed)
    return f"{len(repeated.images):,} windows ({count:,} before those of rare classes are repeated)"


def class_weights(config: ml_collections.ConfigDict, source: Sequence[Example]) -> np.ndarray | None:
    """Weights of the classes in the loss; None if all pixels count alike."""
    if not config.class_balance:
        return None
    return balanced_class_weights(class_pixels(source, config.model.num_classes), config.class_balance)


def initial_variables(
    net: Network, config: ml_collections.ConfigDict, source: Sequence[Example], class_names: Sequence[str]
) -> chex.ArrayTree:
    """What `config.init_from` or `config.init` asks for; the same in every process."""
    variables = init_variables(net, config.seed)
    if config.init_from:
        return _continued(net, config, variables, class_names)
    if not config.init.vgg16:
        return variables
    if config.init.keep_features and not (isinstance(net, DeconvNet) and net.batch_norm):
        raise InputError("config.init.keep_features is about batch normalisation, which this network does not have")
    fresh, variables = variables, load_vgg16(local_copy(as_path(config.init.vgg16)), variables)
    if variables["params"]["fc6"] is fresh["params"]["fc6"]:
        say(f"fc6 and fc7 start anew: {config.init.vgg16} does not have them in this network's size")
    if not config.init.keep_features:
        return variables
    images = [source[i].image for i in range(min(FEATURE_IMAGES, len(source)))]
    crops = [crop_window(image, None, image_box(*image.shape[:2]), config.data.crop_size)[0] for image in images]
    keep = jax.jit(
        keep_vgg16_features, static_argnames="epsilon", compiler_options=compiler_options(jax.default_backend())
    )
    return keep(variables, normalize_images(np.stack(crops)), epsilon=net.bn_epsilon)


def _continued(
    net: Network, config: ml_collections.ConfigDict, variables: chex.ArrayTree, class_names: Sequence[str]
) -> chex.ArrayTree:
    for key, value in config.init.items():
        if value:
            raise InputError(f"--config.init_from and --config.init.{key} exclude each other: leave one out")
    variables, same_classes = init_from_checkpoint(config.init_from, net, variables, class_names, config.init_from_step)
    scores = "" if same_classes else "; it was trained on other classes: the score layer starts anew"
    say(f"starting from {config.init_from}{scores}")
    return variables


def over_devices(batch_size: int) -> int:
    """The batch size rounded up to a multiple of the devices: the original's 28 crops are 32 on 8 of them.

    Raises:
      InputError: for a single crop.
    """
    if batch_size < 2:
        raise InputError("batch_size=1: the values of fc6 and fc7 have no variance in a single crop; give 2 or more")
    devices = jax.device_count()
    return -(-batch_size // devices) * devices


def measure(
    net: DeconvNet, variables: chex.ArrayTree, config: ml_collections.ConfigDict, batches: int, batch_size: int
) -> chex.ArrayTree:
    """The variables with statistics of the config's training crops; `batch_size` is a multiple of the devices."""
    per_process = local_batch_size(batch_size)
    builder = dataset.open_dataset(config)
    source = open_split(builder, config.data.train_split)
    crops = dataset.batches_of(config, source, dataset.windows_of(config, builder, source), per_process)
    with closing(crops), cli.ProgressBar("measuring") as bar:
        return calibrate_batch_norm(net, variables, crops, batches, bar.update)
