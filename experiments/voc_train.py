"""Trains a network: DeconvNet, or the FCN-8s of the paper's ensemble.

    python -m experiments.voc_train --config=experiments/configs/NAME.py --workdir=DIR [--config.key=value ...]

The run's folder gets config.json, checkpoints/, metrics.jsonl, tensorboard/ and pictures/; the same command continues a
run that was interrupted. On SIGTERM a run saves a checkpoint and ends with status 0, or the one that a scheduler is to
tell from a finished run (--stopped_status=75); on Ctrl-C too, with 130; a second Ctrl-C stops it at once. With
--accept_changes it goes on with other settings of learning and arithmetic than before.

On several hosts the same command is started on each of them, with a folder that all of them see: experiments/hosts.py.
DIR may lie in a bucket of Google Cloud, gs://BUCKET/NAME: docs/launch.md.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import chex
import jax
import ml_collections
import numpy as np
from absl import flags

from deconvnet_jax.data import (
    IGNORE,
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
    check_input_size,
    compiler_options,
    count_parameters,
    network_from_config,
)
from deconvnet_jax.ops import normalize_images
from deconvnet_jax.training import (
    Evaluation,
    Preempted,
    balanced_class_weights,
    batch_layout,
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
from experiments import calibrate_bn, cli, dataset, evaluation, hosts, settings
from experiments.memory import check_memory
from experiments.overlap import warn_of_common_images

FEATURE_IMAGES = 32  # images over which VGG-16's features are measured
LOOKED_AT = 32  # masks that are looked at for likely mistakes
USUAL_RATES = (1e-6, 1.0)


def define_flags() -> None:
    """The command line. Not on import: two programs with a flag of the same name could not be imported together."""
    cli.define_config("a file in experiments/configs")
    cli.define_path("workdir", None, "folder of the run", in_bucket=True)
    flags.DEFINE_boolean("accept_changes", False, "go on with changed settings of learning and arithmetic")
    flags.DEFINE_integer("stopped_status", 0, "exit status after SIGTERM", lower_bound=0, upper_bound=125)
    hosts.define_flags()
    flags.mark_flags_as_required(["config", "workdir"])


def main(argv: Sequence[str]) -> None:
    """Runs one training."""
    cli.no_arguments(argv)
    hosts.initialize(flags.FLAGS)
    try:
        run(flags.FLAGS.config, flags.FLAGS.workdir, flags.FLAGS.accept_changes)
    except Preempted as stop:
        hosts.say(f"asked to stop: step {stop.step} is saved; the same command goes on from there")
        sys.exit(cli.INTERRUPTED if stop.signal == signal.SIGINT else flags.FLAGS.stopped_status)


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
    hosts.say(
        f"{count_parameters(variables):,} parameters, {len(class_names)} classes, {len(train_source)} training images, "
        f"{window_counts(config, windows)}, {jax.device_count()} {jax.devices()[0].platform} device(s); "
        f"writing to {folder}"
    )
    for warning in likely_mistakes(config, train_source, class_names):
        hosts.say(f"warning: {warning}")
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


def open_data(config: ml_collections.ConfigDict) -> tuple[DatasetSplit, DatasetSplit, Windows]:
    """Images to train on, images to evaluate, and what is cut out of the former.

    Raises:
      InputError: for data that cannot be used.
    """
    builder = hosts.first_process_first(lambda: dataset.open_dataset(config))
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
        "batch_size": calibrate_bn.over_devices(config.calibrate.batch_size),
    }
    variables = calibrate_bn.measure(net, variables, config, **measured)
    kept = {key: value for key, value in info.items() if key != "step"}
    save_network(target, net, variables, {**kept, "calibrated": measured})
    scores = {name: value for name, value in evaluate(variables).scores.items() if "/" not in name}
    found = "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
    hosts.say(f"statistics measured over {config.calibrate.batches} batches: {found}; {target}")
    return scores


def check_settings(config: ml_collections.ConfigDict) -> int:
    """The crops of a batch that this process reads.

    Raises:
      InputError: for settings that are out of range or do not fit; before any work.
    """
    check_combinations(config, settings.check_config(config))
    batch_layout(config.batch_size, jax.device_count(), config.micro_batch, config.bn_group)
    check_crop_size(config)
    check_memory(config)
    return local_batch_size(config.batch_size)


def likely_mistakes(
    config: ml_collections.ConfigDict, source: Sequence[Example], class_names: Sequence[str]
) -> Iterator[str]:
    """What is allowed and seldom meant."""
    if config.model.width == 1 and not (config.init.vgg16 or config.init_from):
        yield (
            "the encoder starts from random weights; the paper starts from VGG-16 trained on ImageNet: "
            "--config.init.vgg16=FILE, see the README"
        )
    rate, (low, high) = config.optimizer.learning_rate, USUAL_RATES
    if not low <= rate <= high:
        yield (
            f"config.optimizer.learning_rate={rate:g} is unusual: the loss here is a mean over pixels, not a sum as in "
            "FCN's code; the paper's rate is 0.01"
        )
    looked_at = np.unique(np.linspace(0, len(source) - 1, LOOKED_AT).round().astype(int)).tolist()
    found = set().union(*(np.unique(source[i].label).tolist() for i in looked_at)) - {IGNORE}
    if len(found) < 2:
        seen = f"only '{class_names[found.pop()]}'" if found else "no class at all"
        yield (
            f"{len(looked_at)} masks of the split '{config.data.train_split}' were looked at and show {seen}, which a "
            "network learns to say everywhere; see them: python -m experiments.browse_data"
        )


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
        hosts.say(f"fc6 and fc7 start anew: {config.init.vgg16} does not have them in this network's size")
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
    hosts.say(f"starting from {config.init_from}{scores}")
    return variables


def check_combinations(config: ml_collections.ConfigDict, values: Mapping[str, Any]) -> None:
    """Raises InputError for settings that are each in range and exclude each other; `values` by their whole names."""
    if config.optimizer.schedule == "plateau" and not config.eval_every:
        raise InputError("config.optimizer.schedule=plateau needs evaluations: give --config.eval_every=STEPS")
    if config.optimizer.schedule == "plateau" and config.optimizer.drop_factor == 1:
        raise InputError("config.optimizer.drop_factor=1 never lowers the learning rate; give a number below 1")
    if config.data.resize_size < config.data.crop_size:
        raise InputError(
            f"config.data.resize_size={config.data.resize_size}: smaller than config.data.crop_size="
            f"{config.data.crop_size}; give {config.data.crop_size} or more"
        )
    if config.model.get("architecture") == "fcn8s":
        for key in ("calibrate.batches", "bn_group", "remat"):
            if values[key]:
                raise InputError(f"config.{key}={values[key]}: of no use to an FCN-8s; leave it out")
    if not config.model.get("batch_norm", True):
        for key in ("calibrate.batches", "bn_group"):
            if values[key]:
                raise InputError(f"config.{key}={values[key]}: of no use without batch normalisation; leave it out")


def check_crop_size(config: ml_collections.ConfigDict) -> None:
    """Raises InputError unless the network takes the crops; before any work on the data."""
    size = config.data.crop_size
    if "fc_window" not in config.model:  # an FCN-8s takes any size
        return
    try:
        check_input_size(size, size, config.model.fc_window)
    except InputError as error:
        raise InputError(
            f"config.data.crop_size={size} with config.model.fc_window={config.model.fc_window}: {error}"
        ) from error


if __name__ == "__main__":
    define_flags()
    cli.run(main)
