"""Trains a DeconvNet.

    python -m experiments.voc_train --config=experiments/configs/NAME.py --workdir=DIR [--config.key=value ...]

The data is any folder in the VOC layout (`--config.data.voc_root`). The run's folder gets config.json, checkpoints/,
metrics.jsonl, tensorboard/ and pictures/; the same command continues a run that was interrupted.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import chex
import jax
import ml_collections
import numpy as np
from absl import flags
from ml_collections import config_flags

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
from deconvnet_jax.evaluation import confusion_matrix, segmentation_scores
from deconvnet_jax.inference import MAX_SIDE, MIN_SIDE, Segmenter
from deconvnet_jax.models import DeconvNet, check_input_size, compiler_options, count_parameters, network_from_config
from deconvnet_jax.ops import normalize_images
from deconvnet_jax.training import (
    AXIS_NAME,
    Evaluation,
    balanced_class_weights,
    claim_workdir,
    init_variables,
    local_batch_size,
    train,
)
from deconvnet_jax.visualization import result_panel
from deconvnet_jax.weights import has_checkpoint, init_from_checkpoint, keep_vgg16_features, load_vgg16
from experiments import cli, dataset

PICTURES = 4  # images that every evaluation draws
FEATURE_IMAGES = 32  # images over which VGG-16's features are measured


def define_flags() -> None:
    """The command line. Not on import: two programs with a flag of the same name could not be imported together."""
    config_flags.DEFINE_config_file("config", None, "a file in experiments/configs")
    flags.DEFINE_string("workdir", None, "folder of the run")
    flags.mark_flags_as_required(["config", "workdir"])


def main(argv: Sequence[str]) -> None:
    """Runs one training."""
    cli.no_arguments(argv)
    run(flags.FLAGS.config, flags.FLAGS.workdir)


def run(config: ml_collections.ConfigDict, workdir: str) -> dict[str, float]:
    """Trains as the config says; returns the scores of the last evaluation."""
    per_process = local_batch_size(config.batch_size)
    check_numbers(config)
    check_crop_size(config)
    if has_checkpoint(workdir):
        raise InputError(
            f"--workdir={workdir} holds a network that was not trained there; name another folder, and start from this "
            f"one: --config.init_from={workdir}"
        )
    config = dataset.resolve_data(config)
    builder = dataset.open_dataset(config)
    class_names = dataset.class_names(config)
    train_source = open_split(builder, config.data.train_split)
    eval_source = open_split(builder, config.data.eval_split)
    check_evaluation(config, eval_source)
    windows = dataset.windows_of(config, builder, train_source)
    batches = dataset.batches_of(config, train_source, windows, per_process)
    net = network_from_config(config.model.to_dict())
    net = net.clone(bn_axis_name=AXIS_NAME if config.cross_device_bn else None)
    if has_checkpoint(Path(workdir) / "checkpoints"):  # the run goes on; what it started from may be gone
        variables = init_variables(net, config.seed)
    else:
        variables = initial_variables(net, config, train_source, class_names)
    folder = claim_workdir(workdir, config.to_dict())
    print(
        f"{count_parameters(variables):,} parameters, {len(class_names)} classes, {len(train_source)} training images, "
        f"{window_counts(config, windows)}, {jax.device_count()} {jax.devices()[0].platform} device(s); writing to "
        f"{folder}",
        file=sys.stderr,
    )
    with closing(batches):
        return train(
            config.to_dict(),
            folder,
            net=net,
            variables=variables,
            batches=batches,
            info={"config": config.to_dict(), "class_names": list(class_names)},
            evaluate=evaluator(network_from_config(config.model.to_dict()), class_names, eval_source, config),
            class_weights=class_weights(config, train_source),
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
    net: DeconvNet, config: ml_collections.ConfigDict, source: Sequence[Example], class_names: Sequence[str]
) -> chex.ArrayTree:
    """What `config.init_from` or `config.init` asks for; the same in every process."""
    variables = init_variables(net, config.seed)
    if config.init_from:
        return _continued(net, config, variables, class_names)
    if not config.init.vgg16:
        return variables
    fresh, variables = variables, load_vgg16(config.init.vgg16, variables)
    if variables["params"]["fc6"] is fresh["params"]["fc6"]:
        print(f"fc6 and fc7 start anew: {config.init.vgg16} does not have them in this network's size", file=sys.stderr)
    if not config.init.keep_features:
        return variables
    images = [source[i].image for i in range(min(FEATURE_IMAGES, len(source)))]
    crops = [crop_window(image, None, image_box(*image.shape[:2]), config.data.crop_size)[0] for image in images]
    keep = jax.jit(keep_vgg16_features, static_argnames="epsilon", compiler_options=compiler_options())
    return keep(variables, normalize_images(np.stack(crops)), epsilon=net.bn_epsilon)


def _continued(
    net: DeconvNet, config: ml_collections.ConfigDict, variables: chex.ArrayTree, class_names: Sequence[str]
) -> chex.ArrayTree:
    for key, value in config.init.items():
        if value:
            raise InputError(f"--config.init_from and --config.init.{key} exclude each other: leave one out")
    variables, same_classes = init_from_checkpoint(config.init_from, net, variables, class_names)
    scores = "" if same_classes else "; it was trained on other classes: the score layer starts anew"
    print(f"starting from {config.init_from}{scores}", file=sys.stderr)
    return variables


def check_numbers(config: ml_collections.ConfigDict) -> None:
    """Raises InputError for settings of the loop that are out of range; before any work."""
    least = {"seed": 0, "num_steps": 1, "log_every": 1, "eval_every": 0, "eval_images": 0, "checkpoint_every": 0}
    for key, value in least.items():
        if config[key] < value:
            raise InputError(f"config.{key}={config[key]}: expected at least {value}")


def check_evaluation(config: ml_collections.ConfigDict, source: DatasetSplit) -> None:
    """Raises InputError for images that cannot be predicted; rather now than after the first steps."""
    for i in range(_evaluated(config, source)):
        height, width = source.size(i)
        if not MIN_SIDE <= min(height, width) <= max(height, width) <= MAX_SIDE:
            raise InputError(
                f"image '{source.name(i)}' of the split '{config.data.eval_split}' is {width}x{height} pixels; "
                f"expected sides of {MIN_SIDE} to {MAX_SIDE}: take it out of the split"
            )


def _evaluated(config: ml_collections.ConfigDict, source: Sequence[Example]) -> int:
    return min(config.eval_images or len(source), len(source)) if config.eval_every else 0


def check_crop_size(config: ml_collections.ConfigDict) -> None:
    """Raises InputError unless the network takes the crops; before any work on the data."""
    size = config.data.crop_size
    try:
        check_input_size(size, size, config.model.fc_window)
    except InputError as error:
        raise InputError(
            f"config.data.crop_size={size} with config.model.fc_window={config.model.fc_window}: {error}"
        ) from error


def evaluator(
    net: DeconvNet, class_names: Sequence[str], source: Sequence, config: ml_collections.ConfigDict
) -> Callable[[chex.ArrayTree], Evaluation]:
    """Scores a network on (the first `eval_images` of) a split at the images' own resolution, with a picture."""
    count = _evaluated(config, source)

    def evaluate(variables: chex.ArrayTree) -> Evaluation:
        segmenter = Segmenter(net, variables, tuple(class_names), input_size=config.data.crop_size)
        matrix = np.zeros((len(class_names), len(class_names)), np.int64)
        pictures = {}
        for i in range(count):
            example = source[i]
            labels = segmenter(example.image).labels
            matrix += confusion_matrix(example.label, labels, len(class_names))
            if i < PICTURES:
                pictures[f"image{i}"] = result_panel(example.image, labels, class_names, truth=example.label)
        scores = segmentation_scores(matrix, class_names)
        return Evaluation({name: scores[name] for name in ("mean_iou", "pixel_accuracy")}, pictures)

    return evaluate


if __name__ == "__main__":
    define_flags()
    cli.run(main)
