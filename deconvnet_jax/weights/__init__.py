"""Weights into Flax variables: from caffemodels, VGG-16 in several forms, and the project's own checkpoints."""

from deconvnet_jax.weights.caffemodel import CaffemodelError, load_caffemodel
from deconvnet_jax.weights.checkpoint import load_checkpoint, open_checkpoints, restore_training, save_checkpoint
from deconvnet_jax.weights.deconvnet import deconvnet_from_caffe
from deconvnet_jax.weights.fcn8s import fcn8s_from_caffe
from deconvnet_jax.weights.vgg16 import keep_vgg16_features, load_vgg16

__all__ = [
    "CaffemodelError",
    "deconvnet_from_caffe",
    "fcn8s_from_caffe",
    "keep_vgg16_features",
    "load_caffemodel",
    "load_checkpoint",
    "load_vgg16",
    "open_checkpoints",
    "restore_training",
    "save_checkpoint",
]
