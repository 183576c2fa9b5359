"""Loads weights into Flax variables from caffemodels, VGG-16 files and the project's own checkpoints."""

from deconvnet_jax.checkpoint_places import has_checkpoint
from deconvnet_jax.weights.caffemodel import CaffemodelError, load_caffemodel
from deconvnet_jax.weights.checkpoint import (
    check_vacant,
    init_from_checkpoint,
    load_checkpoint,
    newest_description,
    save_network,
)
from deconvnet_jax.weights.checkpoint_folder import (
    AVERAGES,
    RECORD,
    Checkpoints,
    StoredStep,
    finish_saving,
    open_checkpoints,
    write_metrics,
    writing,
)
from deconvnet_jax.weights.from_caffe import deconvnet_from_caffe, fcn8s_from_caffe, network_from_caffe
from deconvnet_jax.weights.integrity import integrity_record
from deconvnet_jax.weights.vgg16 import keep_vgg16_features, load_vgg16

__all__ = [
    "AVERAGES",
    "RECORD",
    "CaffemodelError",
    "Checkpoints",
    "StoredStep",
    "check_vacant",
    "deconvnet_from_caffe",
    "fcn8s_from_caffe",
    "finish_saving",
    "has_checkpoint",
    "init_from_checkpoint",
    "integrity_record",
    "keep_vgg16_features",
    "load_caffemodel",
    "load_checkpoint",
    "load_vgg16",
    "network_from_caffe",
    "newest_description",
    "open_checkpoints",
    "save_network",
    "write_metrics",
    "writing",
]
