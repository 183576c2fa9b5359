"""Checks that each gradient is summed over devices once, the largest before the first blocks' backward pass."""

from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from deconvnet_jax.models import DeconvNet, FCN8s
from deconvnet_jax.training import AXIS_NAME, batch_layout, create_state, init_variables, make_optimizer, train_step
from deconvnet_jax.training import early_sums as module
from deconvnet_jax.training.early_sums import large_layers
from tests.training.test_step import OPTIMIZER, SMALL, global_batch, largest_difference, run

NARROW = {"num_classes": 4, "width": 1 / 32, "fc_features": 64}
DECONVNET, FCN = DeconvNet(**NARROW), FCN8s(**NARROW)


def params_of(net):
    return jax.eval_shape(partial(init_variables, net), 0)["params"]


def test_the_large_layers_are_those_of_the_full_network():
    for net, full in ((DECONVNET, DeconvNet(21)), (FCN, FCN8s())):
        names = [name for name in ("fc6", "fc7", "fc6-deconv") if name in params_of(full)]
        assert sorted(large_layers(params_of(full), ())) == sorted(names)
        assert set(names) - {"fc7"} <= set(large_layers(params_of(net), ()))
    assert large_layers(params_of(DeconvNet(21)), ["fc6"]) == ["fc7"]


def test_layers_before_halfway_are_never_among_them():
    params = params_of(DeconvNet(4, width=1 / 1024, fc_features=1, fc_window=1))  # one channel everywhere
    sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(layer)) for name, layer in params.items()}
    assert sizes["conv1_1"] > module.LARGE * sum(sizes.values())
    assert "conv1_1" not in large_layers(params, ())


def equations(jaxpr, inside=()):
    """Yields every equation of a program with the names of the primitives around it."""
    for equation in jaxpr.eqns:
        yield equation, inside
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner, (*inside, equation.primitive.name))


def traced(net, devices, layout, freeze=(), dtype="float32"):
    """Returns the step's program on one of several devices, and its parameters and running statistics."""
    variables = jax.eval_shape(partial(init_variables, net), 0)
    optimizer = make_optimizer({**OPTIMIZER, "freeze": freeze}, variables["params"])
    state = jax.eval_shape(lambda v: create_state(v, optimizer), variables)
    size = layout.micro_batches * layout.groups
    batch = {
        "image": jax.ShapeDtypeStruct((size, 224, 224, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((size, 224, 224), jnp.uint8),
    }
    options = {"net": net, "optimizer": optimizer, "axis_name": AXIS_NAME, "layout": layout, "freeze": freeze}
    step = partial(train_step, all_reduce_dtype=jnp.dtype(dtype), **options)
    return jax.make_jaxpr(step, axis_env=[(AXIS_NAME, devices)])(state, batch).jaxpr, variables


@pytest.mark.usefixtures("shallow_here")
@pytest.mark.parametrize(
    ("net", "micro_batch", "freeze", "dtype"),
    [
        (DECONVNET, 0, (), "float32"),
        (DECONVNET, 0, ("fc6", "conv1_"), "float32"),
        (DECONVNET.clone(remat=True), 2, (), "bfloat16"),
        (FCN, 2, (), "bfloat16"),
    ],
)
def test_each_gradient_is_summed_over_devices_once(net, micro_batch, freeze, dtype):
    """Groups are summed first, micro-batches after the loop; metrics and statistics are summed once too."""
    layout = batch_layout(16, 4, micro_batch, bn_group=1 if micro_batch else 2)
    assert (layout.groups, layout.micro_batches) == (2, 2 if micro_batch else 1)
    jaxpr, variables = traced(net, 4, layout, freeze, dtype)
    psums = [(each, around) for each, around in equations(jaxpr) if each.primitive.name.startswith("psum")]
    assert not [around for _, around in psums if "scan" in around]
    summed = [variable.aval for each, _ in psums for variable in each.invars]
    found = Counter((aval.shape, aval.dtype.name) for aval in summed)
    statistics = jax.tree.leaves(variables.get("batch_stats", {}))
    expected = [(leaf.shape, dtype) for leaf in jax.tree.leaves(variables["params"])]
    expected += [(leaf.shape, "float32") for leaf in statistics] + [((), "float32")] * 4
    assert found == Counter(expected)


def reads(equation, variables):
    """Returns whether an equation reads one of the variables."""
    return any(read is variable for read in equation.invars for variable in variables)


@pytest.mark.parametrize("net", [DECONVNET, FCN])
def test_the_backward_pass_of_the_first_blocks_waits_for_the_sums(net):
    jaxpr, variables = traced(net, 4, batch_layout(16, 4, bn_group=2))
    of_step = [each for each, around in equations(jaxpr) if not around]
    sums = [variable for each in of_step if each.primitive.name.startswith("psum") for variable in each.outvars]
    (wait,) = (each for each in of_step if each.primitive.name == "optimization_barrier" and reads(each, sums))
    shapes = [variable.aval.shape for variable in wait.outvars]
    kernels = {variables["params"][name]["kernel"].shape for name in large_layers(variables["params"], ())}
    assert kernels <= set(shapes)
    assert any(len(shape) == 5 for shape in shapes)  # the gradient of block 3's input, [groups, N, H, W, C]


def test_the_last_micro_batch_waits_for_the_others():
    """Otherwise XLA keeps the activations of two micro-batches at once."""
    jaxpr, _ = traced(FCN, 4, batch_layout(8, 4, 1))
    barriers = [each for each, _ in equations(jaxpr) if each.primitive.name == "optimization_barrier"]
    kinds = [{variable.aval.dtype.name for variable in each.invars} for each in barriers]
    # One barrier joins the crops, uint8, and the sums of the earlier micro-batches, float32.
    assert {"uint8", "float32"} in [kind - {"int32"} for kind in kinds]


@pytest.mark.usefixtures("shallow_here")
@pytest.mark.parametrize("net", [DECONVNET, FCN])
def test_one_device_sums_and_waits_for_nothing(net, monkeypatch):
    layout = batch_layout(4, 1, 2)
    jaxpr, _ = traced(net, 1, layout)
    assert not [each for each, _ in equations(jaxpr) if each.primitive.name.startswith("psum")]
    monkeypatch.setattr(module, "LARGE", 2.0)  # no layer is large
    assert str(traced(net, 1, layout)[0]) == str(jaxpr)


CASES = {
    "micro-batches, groups, frozen": (
        2,
        DeconvNet(**SMALL),
        {"layout": batch_layout(8, 2, 2, 1), "freeze": ("conv1_",)},
    ),
    "FCN-8s": (2, FCN8s(num_classes=4, width=1 / 32, fc_features=16), {"layout": batch_layout(4, 2, 1)}),
    "bfloat16": (4, DeconvNet(**SMALL), {"all_reduce_dtype": jnp.bfloat16}),
    "groups over devices, remat": (2, DeconvNet(**SMALL, remat=True), {"layout": batch_layout(8, 2, 2, bn_group=4)}),
    "as Caffe": (2, DeconvNet(**SMALL), {"layout": batch_layout(8, 2, 2), "caffe_gradients": True}),
}


@pytest.mark.parametrize(
    "case", [*list(CASES)[:2], *(pytest.param(case, marks=pytest.mark.slow) for case in list(CASES)[2:])]
)
def test_the_update_is_that_of_sums_at_the_end(monkeypatch, shallow_here, case):
    devices, net, options = CASES[case]
    batch = global_batch(np.random.default_rng(3), 4 if isinstance(net, FCN8s) else 8)
    early, early_metrics = run(batch, devices, net=net, patched=True, **options)
    monkeypatch.setattr(module, "LARGE", 2.0)  # no layer is large
    late, late_metrics = run(batch, devices, net=net, patched=True, **options)
    assert largest_difference(early.variables, late.variables) < 1e-6
    assert largest_difference(early.opt_state, late.opt_state) < 1e-6
    assert largest_difference(early_metrics, late_metrics) < 1e-6
