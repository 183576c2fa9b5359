"""Trains a network: loss, optimizer, the pmapped step, the loop, checkpoints, re-estimated running statistics.

`train` runs all of it. To call the parts yourself, start with `make_step` or with `train_step` and `data_parallel`.
"""

from deconvnet_jax.labels import IGNORE as IGNORE_LABEL
from deconvnet_jax.training.averages import update_averages
from deconvnet_jax.training.calibration import calibrate_batch_norm
from deconvnet_jax.training.checkpoints import add_metrics, restore_newest, save_checkpoint
from deconvnet_jax.training.interruption import Preempted
from deconvnet_jax.training.loop import Evaluation, make_step, train
from deconvnet_jax.training.loss import balanced_class_weights, class_weights_of, segmentation_loss
from deconvnet_jax.training.metric_writer import METRICS_FILE, metric_lines
from deconvnet_jax.training.optimizer import OPTIMIZERS, SCHEDULES, make_optimizer, make_schedule
from deconvnet_jax.training.parallel import (
    AXIS_NAME,
    BatchLayout,
    PrefetchedBatches,
    batch_layout,
    batch_shapes,
    compile_parallel,
    data_parallel,
    local_batch_size,
    place_batch,
    replicated_shapes,
)
from deconvnet_jax.training.state import TrainState, create_state, init_variables
from deconvnet_jax.training.step import train_step
from deconvnet_jax.training.workdir import claim_workdir, flatten, locked_workdir

__all__ = [
    "AXIS_NAME",
    "IGNORE_LABEL",
    "METRICS_FILE",
    "OPTIMIZERS",
    "SCHEDULES",
    "BatchLayout",
    "Evaluation",
    "Preempted",
    "PrefetchedBatches",
    "TrainState",
    "add_metrics",
    "balanced_class_weights",
    "batch_layout",
    "batch_shapes",
    "calibrate_batch_norm",
    "claim_workdir",
    "class_weights_of",
    "compile_parallel",
    "create_state",
    "data_parallel",
    "flatten",
    "init_variables",
    "local_batch_size",
    "locked_workdir",
    "make_optimizer",
    "make_schedule",
    "make_step",
    "metric_lines",
    "place_batch",
    "replicated_shapes",
    "restore_newest",
    "save_checkpoint",
    "segmentation_loss",
    "train",
    "train_step",
    "update_averages",
]
