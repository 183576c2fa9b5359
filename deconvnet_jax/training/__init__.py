"""Training: loss, optimizer, the pmapped step, the loop, calibration of batch normalisation."""

from deconvnet_jax.training.calibration import calibrate_batch_norm
from deconvnet_jax.training.loop import Evaluation, train
from deconvnet_jax.training.loss import IGNORE_LABEL, balanced_class_weights, segmentation_loss
from deconvnet_jax.training.optimizer import make_optimizer, step_schedule
from deconvnet_jax.training.parallel import AXIS_NAME, data_parallel, local_batch_size, place_batch
from deconvnet_jax.training.prefetch import PrefetchedBatches
from deconvnet_jax.training.state import TrainState, create_state, init_variables
from deconvnet_jax.training.step import train_step
from deconvnet_jax.training.workdir import claim_workdir

__all__ = [
    "AXIS_NAME",
    "IGNORE_LABEL",
    "Evaluation",
    "PrefetchedBatches",
    "TrainState",
    "balanced_class_weights",
    "calibrate_batch_norm",
    "claim_workdir",
    "create_state",
    "data_parallel",
    "init_variables",
    "local_batch_size",
    "make_optimizer",
    "place_batch",
    "segmentation_loss",
    "step_schedule",
    "train",
    "train_step",
]
