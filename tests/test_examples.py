"""Runs the examples of all docstrings, as a user would type them.

They run in a temporary folder that holds what a user has after the demo:

- `photo.jpg`, a photograph of 80x60 pixels;
- `scenes/`, two training and two held-out scenes in the VOC layout;
- `DeconvNet_trainval_inference.caffemodel` and `fcn-8s-pascal.caffemodel`, narrow networks of 21 classes in the
  formats of the originals;
- `vgg16.npz`, a VGG-16 with 1/32 of the channels, whose weights are all zero;
- `runs/demo`, the checkpoint of a tiny network with three classes: "background", "disc" and "square".
"""

import doctest
import importlib
from pathlib import Path

import jax
import numpy as np
import pytest
from caffe_networks import random_deconvnet, random_fcn8s
from caffemodel_writer import encode

import deconvnet_jax
from deconvnet_jax import data
from deconvnet_jax.images import save_picture
from deconvnet_jax.models import DeconvNet
from deconvnet_jax.models.deconvnet import ENCODER_WIDTHS
from deconvnet_jax.npz import write_npz
from deconvnet_jax.training import init_variables
from deconvnet_jax.weights import save_network

PACKAGE = Path(deconvnet_jax.__file__).parent
MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text()
]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def zero_vgg16():
    """Returns the arrays of a narrow VGG-16 without dense layers, all zero, under Caffe's names."""
    arrays, channels = {}, 3
    for block, widths in ENCODER_WIDTHS.items():
        for i, width in enumerate((width // 32 for width in widths), start=1):
            arrays[f"conv{block}_{i}/kernel"] = np.zeros((3, 3, channels, width), np.float16)
            arrays[f"conv{block}_{i}/bias"] = np.zeros(width, np.float16)
            channels = width
    return arrays


@pytest.fixture(scope="module")
def after_the_demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    rng = np.random.default_rng(0)
    save_picture(folder / "photo.jpg", rng.integers(0, 256, (60, 80, 3), np.uint8))
    data.write_scenes(folder / "scenes", train=2, val=2, seed=0)
    net = DeconvNet(num_classes=3, width=1 / 32, fc_features=8, fc_window=1, decoder_init="smooth")
    description = {"class_names": ["background", "disc", "square"], "config": {"data": {"crop_size": 32}}}
    caffemodel = encode(random_deconvnet(rng, width=1 / 32, fc=8))
    (folder / "DeconvNet_trainval_inference.caffemodel").write_bytes(caffemodel)
    (folder / "fcn-8s-pascal.caffemodel").write_bytes(encode(random_fcn8s(rng, width=1 / 32, fc=8)))
    write_npz(folder / "vgg16.npz", zero_vgg16())
    save_network(folder / "runs/demo", net, init_variables(net, 0), description)
    return folder


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module(name, after_the_demo, monkeypatch, capsys):
    monkeypatch.chdir(after_the_demo)
    module = importlib.import_module(name)
    with jax.default_device(jax.devices()[0]):
        done = doctest.testmod(module, optionflags=FLAGS)
    assert done.attempted
    assert not done.failed, capsys.readouterr().out
