"""Types and ranges of all settings of an experiment (configs/default.py), and the check of a config against them.

A program checks its config before it reads data or weights, so that a wrong value costs no time.
"""

import re
from typing import Any

import ml_collections

from deconvnet_jax.data import DOWNLOADED
from deconvnet_jax.data.pipeline import LABEL_MODES
from deconvnet_jax.data.training_windows import WINDOWS
from deconvnet_jax.errors import InputError
from deconvnet_jax.inference.settings import KINDS as INFERENCE_KINDS
from deconvnet_jax.models import DECODER_INITS, UNPOOLINGS
from deconvnet_jax.models.network import ARCHITECTURES
from deconvnet_jax.settings import (
    Choice,
    Kind,
    LocalPath,
    Number,
    OrNone,
    Pair,
    Several,
    Switch,
    Text,
    check_values,
    chosen_path,
)
from deconvnet_jax.training import OPTIMIZERS, SCHEDULES, flatten
from deconvnet_jax.training.trackers import NO_TRACKER, TRACKERS

DATASETS = ("voc_layout", *DOWNLOADED)
DTYPES = ("float32", "bfloat16")
_STEP = 2**31 - 1  # steps are counted in int32
_CROPS = 2**20

KINDS: dict[str, Kind] = {
    "seed": Number(0, 2**32 - 1, whole=True),
    "num_steps": Number(1, _STEP, whole=True),
    "batch_size": Number(1, _CROPS, whole=True),
    "micro_batch": Number(0, _CROPS, whole=True),
    "bn_group": Number(0, _CROPS, whole=True),
    "caffe_gradients": Switch(),
    "class_balance": Number(0, 1),
    "remat": Switch(),
    "all_reduce_dtype": Choice(DTYPES),
    "ema_decay": Number(0, 1, below=True),
    "init_from": OrNone(LocalPath(in_bucket=True)),
    "init_from_step": OrNone(Number(0, _STEP, whole=True)),
    "log_every": Number(1, _STEP, whole=True),
    "eval_every": Number(0, _STEP, whole=True),
    "eval_images": Number(0, _STEP, whole=True),
    "checkpoint_every": Number(0, _STEP, whole=True),
    "tracker": Choice((NO_TRACKER, *TRACKERS)),
    "tracker_project": Text(),
    "profile": Number(0, 10_000, whole=True),
    "compilation_cache": OrNone(LocalPath(in_bucket=True)),
    "init.vgg16": OrNone(LocalPath(in_bucket=True)),
    "init.keep_features": Switch(),
    "calibrate.batches": Number(0, 1_000_000, whole=True),
    "calibrate.batch_size": Number(2, _CROPS, whole=True),
    "data.dataset": Choice(DATASETS),
    "data.voc_root": OrNone(LocalPath()),
    "data.data_dir": OrNone(LocalPath(in_bucket=True)),
    "data.train_split": Text(),
    "data.eval_split": Text(),
    "data.windows": Several(Choice(WINDOWS), least=1, distinct=True),
    "data.proposals": OrNone(LocalPath()),
    "data.min_overlap": Number(0, 1, above=True),
    "data.min_window": Number(0, 16_384),
    "data.window_list": OrNone(LocalPath()),
    "data.balance": Number(0, 1),
    "data.label_mode": Choice(LABEL_MODES),
    "data.resize_size": Number(1, 16_384, whole=True),
    "data.crop_size": Number(32, 16_384, whole=True),
    "data.random_crop": Switch(),
    "data.inside_image": Switch(),
    "data.zoom": Pair((Number(0.1, 10), Number(0.1, 10)), ascending=True),
    "data.mirror": Switch(),
    "data.rotation": Number(0, 180),
    "data.brightness": Number(0, 1),
    "data.contrast": Number(0, 1),
    "data.saturation": Number(0, 1),
    "data.hue": Number(0, 0.5),
    "data.cache_mb": Number(0, 2**24, whole=True),
    "data.crops_per_decode": Number(1, 10_000, whole=True),
    "data.read_threads": Number(1, 1_000, whole=True),
    "data.workers": Number(0, 1_000, whole=True),
    "optimizer.name": Choice(tuple(OPTIMIZERS)),
    "optimizer.learning_rate": Number(0, 1_000, above=True),
    "optimizer.schedule": Choice(tuple(SCHEDULES)),
    "optimizer.drops": Several(Number(0, _STEP, whole=True), ascending=True, distinct=True),
    "optimizer.drop_factor": Number(0, 1, above=True),
    "optimizer.plateau_metric": Choice(("pixel_accuracy", "mean_iou")),
    "optimizer.plateau_patience": Number(1, _STEP, whole=True),
    "optimizer.decay_steps": Number(0, _STEP, whole=True),
    "optimizer.power": Number(0, 10, above=True),
    "optimizer.end_factor": Number(0, 1),
    "optimizer.warmup_steps": Number(0, _STEP, whole=True),
    "optimizer.momentum": Number(0, 1, below=True),
    "optimizer.b1": Number(0, 1, below=True),
    "optimizer.b2": Number(0, 1, below=True),
    "optimizer.eps": Number(0, 1, above=True),
    "optimizer.weight_decay": Number(0, 1),
    "optimizer.decay_bn": Switch(),
    "optimizer.bias_rate": Number(0, 1_000),
    "optimizer.rates": Several(Pair((Text(), Number(0, 1_000)))),
    "optimizer.freeze": Several(Text()),
    "model.architecture": Choice(tuple(ARCHITECTURES)),
    "model.num_classes": OrNone(Number(2, 65_535, whole=True)),
    "model.width": Number(0, 64, above=True),
    "model.decoder_width": Number(0, 64, above=True),
    "model.fc_features": Number(1, 2**20, whole=True),
    "model.fc_window": Number(1, 512, whole=True),
    "model.decoder_init": Choice(DECODER_INITS),
    "model.unpooling": Choice(UNPOOLINGS),
    "model.batch_norm": Switch(),
    "model.bn_epsilon": Number(0, 1, above=True),
    "model.bn_momentum": Number(0, 1, below=True),
    "model.dtype": Choice(DTYPES),
    **{f"inference.{name}": kind for name, kind in INFERENCE_KINDS.items()},
}
# Settings of section "model" that only a DeconvNet has. "architecture" is set for an FCN-8s only.
_DECONVNET_ONLY = re.compile(r"model\.(?!num_classes|width|fc_features|dtype|architecture)")


def checked(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Checks a config and returns a copy of it with absolute paths; section "stage1" is treated the same way.

    Raises:
      InputError: for the first setting that is wrong, like `check_config`.
    """
    check_config(config)
    config = config.copy_and_resolve_references()
    for key, value in flatten(config.to_dict()).items():
        path = chosen_path(value, KINDS[key.removeprefix("stage1.")], f"config.{key}")
        if path is not None:
            config.update_from_flattened_dict({key: str(path.absolute())})
    return config


def check_config(config: object) -> None:
    """Checks that a config has all settings, each with the type and range in `KINDS`; section "stage1" too.

    Raises:
      InputError: for the first setting that is missing, unknown, of the wrong type or out of range, and for a `config`
        that is no ConfigDict.
    """
    if not isinstance(config, ml_collections.ConfigDict):
        raise InputError(
            f"get_config() of the config file returned {type(config).__name__}, expected a ConfigDict; let it change "
            "and return experiments.configs.default.get_config()"
        )
    try:
        values = flatten(config.to_dict())
    except (ArithmeticError, TypeError, ValueError) as error:  # from a setting that the config computes from others
        raise InputError(
            f"a setting that the config computes from other settings has no value ({error}); with a *_released config, "
            "give a config.bn_group that divides config.batch_size"
        ) from error
    first = {key.removeprefix("stage1."): value for key, value in values.items() if key.startswith("stage1.")}
    if first:
        _check(first, "config.stage1.")
    _check({key: value for key, value in values.items() if not key.startswith("stage1.")}, "config.")


def _check(values: dict[str, Any], prefix: str) -> None:
    check_values(values, KINDS, prefix)
    other = values.get("model.architecture", "deconvnet") != "deconvnet"
    for key in KINDS:
        unneeded = key == "model.architecture" or (other and _DECONVNET_ONLY.match(key))
        if key not in values and not unneeded:
            raise InputError(
                f"{prefix}{key} is missing; let get_config() change and return experiments.configs.default.get_config()"
            )
