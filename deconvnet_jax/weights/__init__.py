"""Weights into Flax variables: from caffemodels, VGG-16 in several forms, and the project's own checkpoints."""

from deconvnet_jax.weights.caffemodel import CaffemodelError, load_caffemodel
from deconvnet_jax.weights.checkpoint import (
    check_vacant,
    first_line,
    has_checkpoint,
    init_from_checkpoint,
    load_checkpoint,
    on_this_device,
    open_checkpoints,
    save_network,
)
from deconvnet_jax.weights.deconvnet import deconvnet_from_caffe
from deconvnet_jax.weights.fcn8s import fcn8s_from_caffe
from deconvnet_jax.weights.from_caffe import network_from_caffe
from deconvnet_jax.weights.vgg16 import keep_vgg16_features, load_vgg16

__all__ = [
    "CaffemodelError",
    "check_vacant",
    "deconvnet_from_caffe",
    "fcn8s_from_caffe",
    "first_line",
    "has_checkpoint",
    "init_from_checkpoint",
    "keep_vgg16_features",
    "load_caffemodel",
    "load_checkpoint",
    "load_vgg16",
    "network_from_caffe",
    "on_this_device",
    "open_checkpoints",
    "save_network",
]
