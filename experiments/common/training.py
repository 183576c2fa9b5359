"""Runs a training from its settings to its last scores, stage by stage, and re-estimates batch statistics."""

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from deconvnet_jax import data
from deconvnet_jax.errors import InputError, counted
from deconvnet_jax.files import as_path, in_bucket, local_copy, user_path
from deconvnet_jax.images import Examples
from deconvnet_jax.models import DeconvNet, Network, Variables, compiler_options, count_parameters, network_from_config
from deconvnet_jax.ops import normalize_images
from deconvnet_jax.processes import say
from deconvnet_jax.terminal import ProgressBar
from deconvnet_jax.training import (
    Evaluation,
    calibrate_batch_norm,
    claim_workdir,
    class_weights_of,
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

from ..configs import settings
from .checks import check_settings, likely_mistakes, warn_of_common_images
from .dataset import TrainingData, open_training_data
from .evaluation import evaluator
from .named_files import check_training

FEATURE_IMAGES = 32  # number of images over which the statistics of VGG-16's features are computed


def run(config: ml_collections.ConfigDict, workdir: str | Path, accept_changes: bool = False) -> dict[str, float]:
    """Trains as a config says, stage 1 first if it has one.

    Args:
      config: Config of the training.
      workdir: Folder of the run; it may be in a bucket. If it holds an interrupted run with the same settings, the run
        resumes.
      accept_changes: Whether a run may resume with other settings of learning and arithmetic.

    Returns:
      The scores of the last evaluation, such as {"mean_iou": 0.6}; empty without evaluations.

    Raises:
      InputError: for settings, data or a folder that cannot be used, or if the training diverges.
      Preempted: after SIGTERM or SIGINT, when the last step is saved.
    """
    config = settings.checked(config)
    workdir = user_path(workdir, "--workdir", in_bucket=True)
    check_training(config, workdir)
    use_compilation_cache(config, workdir)
    with locked_workdir(workdir):
        return run_stages(config, workdir, accept_changes)


def run_stages(config: ml_collections.ConfigDict, workdir: Path, accept_changes: bool = False) -> dict[str, float]:
    """Trains stage 1, if the config has one, and the stage after it. Settings and data of both are checked before.

    Args:
      config: A checked config (`settings.checked`). Its section `stage1`, if any, is removed.
      workdir: Folder of the run. Stage 1 goes to its subfolder stage1.
      accept_changes: As in `run`.

    Returns:
      The scores of the last evaluation.
    """
    if "stage1" not in config:
        check_stage(config, workdir)
        return run_stage(open_training_data(config, scored=True), workdir, accept_changes)
    first, folder = config.stage1, workdir / "stage1"
    with config.unlocked():
        del config.stage1
    check_stage(config, workdir)
    check_stage(first, folder)
    config.init_from, config.init_from_step = str(folder.absolute()), first.num_steps
    config.init.vgg16, config.init.keep_features = None, False  # they are for stage 1, from which this stage starts
    data_of_last = open_training_data(config, scored=True)
    with locked_workdir(folder):
        run_stage(open_training_data(first, data_of_last, scored=True), folder, accept_changes)
    return run_stage(data_of_last, workdir, accept_changes)


def check_stage(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Checks the settings and the folder of a stage.

    Args:
      config: The checked config of the stage.
      workdir: Folder of the stage.

    Raises:
      InputError: for settings that do not fit, or a folder that holds a network which was not trained there.
    """
    check_settings(config)
    if has_checkpoint(workdir):
        raise InputError(
            f"--workdir={workdir} holds a network that was not trained there; name another folder, and start from this "
            f"one: --config.init_from={workdir}"
        )


def use_compilation_cache(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Keeps compiled programs in a folder, so that a run that resumes starts without compiling.

    JAX_COMPILATION_CACHE_DIR takes precedence. On a CPU nothing is kept unless `config.compilation_cache` is set:
    programs that call oneDNN cannot be kept (`ops.onednn`).

    Args:
      config: Config of the training.
      workdir: Folder of the run. Its subfolder `compiled` is the default.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    if config.compilation_cache or jax.default_backend() != "cpu":
        folder = user_path(config.compilation_cache or workdir / "compiled", "config.compilation_cache", in_bucket=True)
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
        if in_bucket(folder):
            jax.config.update("jax_persistent_cache_enable_xla_caches", "none")  # XLA's own caches need local files.


def run_stage(found: TrainingData, workdir: Path, accept_changes: bool = False) -> dict[str, float]:
    """Trains one stage, or resumes it.

    Args:
      found: Config and data of the stage.
      workdir: Folder of the stage.
      accept_changes: As in `run`.

    Returns:
      The scores of the last evaluation.
    """
    config, class_names = found.config, found.class_names
    batches = found.batches(local_batch_size(config.batch_size))
    net = network_from_config(config.model.to_dict())
    if has_checkpoint(workdir / "checkpoints"):  # the run resumes; the weights that it started from may be gone
        variables = init_variables(net, config.seed)
    else:
        variables = initial_variables(net, config, found.trained, class_names)
    evaluate = evaluator(net, class_names, found.evaluated, config)
    # What can be refused comes before, because a corrected config would be refused as that of another run.
    folder = claim_workdir(workdir, config.to_dict(), accept_changes)
    say(
        f"{count_parameters(variables):,} parameters, {len(class_names)} classes, "
        f"{counted(len(found.trained), 'training image')}, {window_counts(found)}, "
        f"{counted(jax.device_count(), f'{jax.devices()[0].platform} device')}; "
        f"writing to {folder}"
    )
    for warning in likely_mistakes(config, class_names):
        say(f"warning: {warning}")
    splits = (config.data.train_split, config.data.eval_split)
    warn_of_common_images(found.trained, np.unique(found.windows.images).tolist(), found.evaluated, *splits)
    pixels = partial(data.class_pixels, found.trained, config.model.num_classes)
    with closing(batches):
        scores = train(
            config.to_dict(),
            folder,
            net=net,
            variables=jax.device_get(variables),
            batches=batches,
            info={"config": config.to_dict(), "class_names": list(class_names)},
            evaluate=evaluate,
            class_weights=class_weights_of(config.to_dict(), pixels),
        )
    return calibrated_scores(found, folder, evaluate) or scores


def calibrated_scores(
    found: TrainingData, folder: Path, evaluate: Callable[[Variables], Evaluation]
) -> dict[str, float]:
    """Re-estimates the batch statistics of the last step, if the config says so and it is not done yet.

    Args:
      found: Config and data of the stage.
      folder: Folder of the stage. The network goes to its subfolder `calibrated`.
      evaluate: Scores variables.

    Returns:
      The scores with these statistics; empty if nothing was done, or the config has no evaluations.
    """
    config, target = found.config, folder / "calibrated"
    if not config.calibrate.batches or has_checkpoint(target):
        return {}
    net, variables, info = load_checkpoint(folder, config.num_steps)
    assert isinstance(net, DeconvNet)  # `check_combinations` refuses other networks.
    batches, batch_size = config.calibrate.batches, over_devices(config.calibrate.batch_size)
    variables = measure(net, variables, found, batches, batch_size)
    kept = {key: value for key, value in info.items() if key != "step"}
    save_network(target, net, variables, {**kept, "calibrated": {"batches": batches, "batch_size": batch_size}})
    scores = evaluate(variables).scores if config.eval_every else {}
    scores = {name: value for name, value in scores.items() if "/" not in name}
    shown = "".join(f"{name} {value:.3f}  " for name, value in scores.items()).rstrip()
    over = counted(batches, "batch", "batches")
    say(f"batch statistics re-estimated over {over}: {shown + '; ' if shown else ''}{target}")
    return scores


def measure(net: DeconvNet, variables: Variables, found: TrainingData, batches: int, batch_size: int) -> Variables:
    """Re-estimates batch statistics over training crops, with a progress bar.

    Args:
      net: The network.
      variables: Its variables.
      found: Config and data that the crops come from.
      batches: Number of batches.
      batch_size: Crops per batch in all processes, a multiple of the number of devices.

    Returns:
      The variables with these statistics.
    """
    with (
        closing(found.batches(local_batch_size(batch_size))) as crops,
        ProgressBar("re-estimating batch statistics") as bar,
    ):
        return calibrate_batch_norm(net, variables, crops, batches, bar.update)


def over_devices(batch_size: int) -> int:
    """Returns the batch size rounded up to a multiple of the number of devices: 28 crops become 32 on 8 devices.

    Raises:
      InputError: for a batch of one crop.
    """
    if batch_size < 2:
        raise InputError("batch_size=1: the values of fc6 and fc7 have no variance in a single crop; give 2 or more")
    devices = jax.device_count()
    return -(-batch_size // devices) * devices


def window_counts(found: TrainingData) -> str:
    """Returns the number of windows per epoch, for the first line of a run."""
    count, repeated = len(found.windows.images), len(found.repeated.images)
    if not found.config.data.balance:
        return counted(count, "window")
    return f"{counted(repeated, 'window')} ({count:,} before those of rare classes are repeated)"


def initial_variables(
    net: Network, config: ml_collections.ConfigDict, source: Examples, class_names: Sequence[str]
) -> Variables:
    """Returns the variables that a training starts from; they are the same in every process.

    Args:
      net: The network.
      config: Checked config, whose `init_from` or `init` names weights.
      source: Images of the training split, for `config.init.keep_features`.
      class_names: Names of the classes, which decide whether the score layer of `init_from` can be used.

    Raises:
      InputError: for weights that cannot be used, or settings that exclude each other.
    """
    variables = init_variables(net, config.seed)
    if config.init_from:
        return _continued(net, config, variables, class_names)
    if not config.init.vgg16:
        return variables
    normalised = net if isinstance(net, DeconvNet) and net.batch_norm else None
    if config.init.keep_features and not normalised:
        raise InputError(
            "config.init.keep_features=True needs batch normalisation, which this network does not have; leave it out"
        )
    fresh, variables = variables, load_vgg16(local_copy(as_path(config.init.vgg16)), variables)
    if variables["params"]["fc6"] is fresh["params"]["fc6"]:
        say(f"fc6 and fc7 start from random weights: in {config.init.vgg16} they have another size or are missing")
    if normalised and config.init.keep_features:
        return _with_kept_features(normalised, config, variables, source)
    return variables


def _with_kept_features(
    net: DeconvNet, config: ml_collections.ConfigDict, variables: Variables, source: Examples
) -> Variables:
    """Returns the variables with batch normalisation set so that it passes VGG-16's features on."""
    images = [source[i].image for i in range(min(FEATURE_IMAGES, len(source)))]
    size = config.data.crop_size
    crops = [data.crop_window(image, None, data.image_box(*image.shape[:2]), size)[0] for image in images]
    keep = jax.jit(
        keep_vgg16_features, static_argnames="epsilon", compiler_options=compiler_options(jax.default_backend())
    )
    return keep(variables, normalize_images(jnp.asarray(np.stack(crops))), epsilon=net.bn_epsilon)


def _continued(
    net: Network, config: ml_collections.ConfigDict, variables: Variables, class_names: Sequence[str]
) -> Variables:
    for key, value in config.init.items():
        if value:
            raise InputError(f"--config.init_from and --config.init.{key} exclude each other: leave one out")
    variables, same_classes = init_from_checkpoint(config.init_from, net, variables, class_names, config.init_from_step)
    scores = "" if same_classes else "; it was trained on other classes: the score layer starts from random weights"
    say(f"starting from {config.init_from}{scores}")
    return variables
