"""Tests that objects with arrays print shapes instead of values: no object fills the screen."""

import importlib
import inspect
import re
from dataclasses import is_dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deconvnet_jax
from deconvnet_jax.inference import InferenceSettings, Member
from deconvnet_jax.models import DeconvNet
from deconvnet_jax.short_repr import described, short_repr
from deconvnet_jax.training import init_variables

FOLDERS = [path.parent.name for path in Path(*deconvnet_jax.__path__).glob("*/__init__.py")]
PACKAGES = ["deconvnet_jax", *(f"deconvnet_jax.{name}" for name in FOLDERS)]
HOLDS_ARRAYS = re.compile("ndarray|Array|Variables|OptState")


def public_records():
    """Yields the public named tuples and dataclasses with fields of arrays."""
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            found = getattr(module, name)
            if inspect.isclass(found) and (is_dataclass(found) or hasattr(found, "_fields")):
                annotations = {k: v for base in found.__mro__ for k, v in getattr(base, "__annotations__", {}).items()}
                if any(HOLDS_ARRAYS.search(str(kind)) for kind in annotations.values() if "Callable" not in str(kind)):
                    yield found


def test_every_public_record_with_arrays_has_a_short_text():
    records = set(public_records())
    assert len(records) > 10
    for record in records:
        assert "deconvnet_jax" in record.__repr__.__code__.co_filename, record


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((3, 4), np.uint8), "uint8 [3, 4]"),
        (jnp.zeros((), jnp.int32), "int32 []"),
        (jax.ShapeDtypeStruct((2,), "float32"), "float32 [2]"),
        ([np.zeros(2), np.zeros(3, bool)], "[float64 [2], bool [3]]"),
        ([np.zeros(1000, np.uint8)] * 9, "list: 9 arrays, 9.0 kB"),
        ({"a": np.zeros(2, np.uint8)}, "{a}: 1 array, 2 bytes"),
        (None, "None"),
        ("x", "'x'"),
        ({}, "{}"),
        (InferenceSettings, "<class 'deconvnet_jax.inference.settings.InferenceSettings'>"),
    ],
)
def test_values(value, text):
    assert described(value) == text


def test_long_values_are_shortened():
    assert len(described([f"folder/image_{i}.jpg" for i in range(10_000)])) < 300
    assert len(described("x" * 10_000)) < 100


def test_a_network_fits_on_a_line():
    net = DeconvNet(num_classes=3, width=1 / 32, fc_features=8, fc_window=1)
    shapes = jax.eval_shape(lambda: init_variables(net, 0))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    shown = repr(Member(net, variables, 32))
    assert "variables={batch_stats, params}: " in shown or "variables={params, batch_stats}: " in shown
    assert shown.endswith("176 arrays, 122.2 kB, input_size=32)"), shown
    assert len(shown) < 200
    assert "\n" not in shown


def test_only_fields_are_shown():
    assert short_repr(Member(None, {}, 32)) == "Member(net=None, variables={}, input_size=32)"
