"""Tests that checkpoints restore exactly what was saved, that parts can be read alone, and that damage is noticed."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deconvnet_jax.checkpoint_places import finished_steps
from deconvnet_jax.errors import InputError
from deconvnet_jax.models import DeconvNet, FCN8s, config_from_network
from deconvnet_jax.training import add_metrics, create_state, init_variables, make_optimizer, save_checkpoint
from deconvnet_jax.weights import (
    checkpoint_folder,
    init_from_checkpoint,
    load_checkpoint,
    open_checkpoints,
    save_network,
)

MODEL = {
    "num_classes": 3,
    "width": 1 / 32,
    "decoder_width": 1.0,
    "fc_features": 8,
    "bn_epsilon": 1e-5,
    "bn_momentum": 0.9,
    "dtype": "float32",
}
INFO = {"config": {"model": MODEL, "seed": 1}, "class_names": ["background", "cat", "dog"]}
OPTIMIZER = {
    "learning_rate": 0.1,
    "schedule": "step",
    "drops": [],
    "drop_factor": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "decay_bn": True,
    "bias_rate": 2.0,
    "rates": (),
    "freeze": [],
}


@pytest.fixture(scope="module")
def state():
    variables = init_variables(DeconvNet(**{**MODEL, "dtype": jnp.float32}), seed=1)
    return create_state(variables, make_optimizer(OPTIMIZER, variables["params"]))


def scaled(state, factor):
    return jax.tree.map(lambda leaf: leaf * jnp.asarray(factor, leaf.dtype), state)


def save(folder, state, steps, info=INFO):
    """Saves the variables, multiplied by the step number, at every step; `steps` maps numbers to mean IoU or None."""
    with open_checkpoints(folder) as manager:
        for step, mean_iou in steps.items():
            now = scaled(state, step)
            save_checkpoint(
                manager,
                step,
                variables=now.variables,
                optimizer=now.opt_state,
                data={"position": step},
                info=info,
            )
            if mean_iou is not None:
                add_metrics(manager, step, {"mean_iou": mean_iou})


def assert_trees_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_best_and_the_last_two_are_kept_and_the_best_is_loaded(tmp_path, state):
    save(tmp_path, state, {1: 0.2, 2: 0.7, 3: None, 4: 0.5, 5: None})
    assert sorted(int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()) == [2, 4, 5]
    net, variables, info = load_checkpoint(tmp_path)
    assert (info["step"], info["class_names"]) == (2, INFO["class_names"])
    assert info["config"] == INFO["config"]
    assert_trees_equal(variables, scaled(state, 2).variables)
    assert net == DeconvNet(**{**MODEL, "dtype": jnp.dtype("float32")})
    assert load_checkpoint(tmp_path, step=5)[2]["step"] == 5


def test_variables_alone_are_enough(tmp_path, state):
    """Evaluation does not read the optimizer state or the data iterator."""
    save(tmp_path / "checkpoints", state, {3: None})
    shutil.rmtree(tmp_path / "checkpoints/3/optimizer")
    shutil.rmtree(tmp_path / "checkpoints/3/data")
    _, variables, info = load_checkpoint(tmp_path)  # The run's folder is accepted too.
    assert info["step"] == 3
    assert_trees_equal(variables, scaled(state, 3).variables)


def test_saving_is_not_disturbed_by_steps_that_reuse_the_memory(tmp_path, state):
    """The next step donates the buffers of the state while the checkpoint is still being written."""
    step = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 3 + 1, tree), donate_argnums=0)
    variables = jax.tree.map(jnp.copy, state.variables)
    expected = jax.device_get(jax.tree.map(np.copy, state.variables))
    with open_checkpoints(tmp_path) as manager:
        save_checkpoint(manager, 1, variables=variables, optimizer=state.opt_state, data={}, info=INFO)
        for _ in range(5):
            variables = step(variables)
    assert_trees_equal(load_checkpoint(tmp_path)[1], expected)


def test_a_half_written_step_is_not_seen(tmp_path, state):
    save(tmp_path, state, {1: None, 2: None})
    shutil.copytree(tmp_path / "2", tmp_path / "3.orbax-checkpoint-tmp-0")
    assert load_checkpoint(tmp_path)[2]["step"] == 2


def test_errors_name_the_folder_and_the_remedy(tmp_path, state):
    with pytest.raises(InputError, match=r"no checkpoint in .*empty; expected the 'checkpoints' folder"):
        load_checkpoint(tmp_path / "empty")
    save(tmp_path, state, {4: None})
    with pytest.raises(InputError, match=r"no step 7 in .*; expected one of 4"):
        load_checkpoint(tmp_path, step=7)
    foreign = tmp_path / "foreign"
    (foreign / "1").mkdir(parents=True)
    with pytest.raises(InputError, match=r"foreign/1 is not a checkpoint of this project|no checkpoint in .*foreign"):
        load_checkpoint(foreign)
    shutil.rmtree(tmp_path / "4/integrity")
    info = tmp_path / "4/info/metadata"
    description = json.loads(info.read_text())
    description["config"]["model"]["width"] = 1 / 16
    info.write_text(json.dumps(description))
    with pytest.raises(InputError, match=r"the variables in .*4 cannot be read \(.* needs .*\); the files are damaged"):
        load_checkpoint(tmp_path)
    description["config"]["model"]["colour"] = "green"
    info.write_text(json.dumps(description))
    with pytest.raises(InputError, match=r"4 is not a checkpoint of this project \(.*colour"):
        load_checkpoint(tmp_path)


SMALL = DeconvNet(num_classes=3, width=1 / 64, fc_features=2, fc_window=1, dtype=jnp.dtype("float32"))
SMALL_INFO = {"config": {"model": config_from_network(SMALL)}, "class_names": INFO["class_names"]}
NET = DeconvNet(**{**MODEL, "dtype": jnp.dtype("float32")})
NAMES = {"class_names": INFO["class_names"]}


def test_averages_are_loaded_unless_the_weights_are_asked_for(tmp_path, state):
    """A training starts from them, too. Networks that were saved without averages have none, whatever the config."""
    averages = scaled(state, 3).variables
    with open_checkpoints(tmp_path / "run") as manager:
        optimizer = {"momentum": state.opt_state, "averages": averages}
        save_checkpoint(manager, 1, variables=state.variables, optimizer=optimizer, data={}, info=INFO)
    net, loaded, info = load_checkpoint(tmp_path / "run")
    assert_trees_equal(loaded, averages)
    save_network(tmp_path / "calibrated", net, loaded, {key: value for key, value in info.items() if key != "step"})
    assert_trees_equal(load_checkpoint(tmp_path / "calibrated")[1], averages)
    with pytest.raises(InputError, match=r"calibrated.0 holds the averages .* only; leave out --noaverages .*folder"):
        load_checkpoint(tmp_path / "calibrated", averages=False)
    assert_trees_equal(load_checkpoint(tmp_path / "run", averages=False)[1], state.variables)
    fresh = jax.tree.map(jnp.zeros_like, state.variables)
    assert_trees_equal(init_from_checkpoint(tmp_path / "run", NET, fresh, INFO["class_names"])[0], averages)
    shutil.rmtree(tmp_path / "run/1/averages")
    with pytest.raises(InputError, match=r"the variables in .*1 cannot be read"):
        load_checkpoint(tmp_path / "run")
    assert_trees_equal(load_checkpoint(tmp_path / "run", averages=False)[1], state.variables)
    save_network(tmp_path / "new", NET, averages, {**NAMES, "config": {"ema_decay": 0.9}})
    assert_trees_equal(load_checkpoint(tmp_path / "new")[1], averages)


def test_a_network_that_was_not_trained_here(tmp_path, state):
    save_network(tmp_path / "new", NET, state.variables, {**NAMES, "config": {"data": {"crop_size": 96}}})
    net, variables, info = load_checkpoint(tmp_path / "new")
    assert net == NET
    assert info["config"]["data"] == {"crop_size": 96}
    assert (info["step"], info["class_names"]) == (0, INFO["class_names"])
    assert_trees_equal(variables, state.variables)
    with pytest.raises(InputError, match=r"new already holds a checkpoint; name another folder"):
        save_network(tmp_path / "new", NET, state.variables, NAMES)


def test_fcn8s_too(tmp_path):
    net = FCN8s(num_classes=3, width=1 / 64, fc_features=4, dtype=jnp.dtype("float32"))
    variables = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    save_network(tmp_path, net, variables, NAMES)
    loaded, found, _ = load_checkpoint(tmp_path)
    assert loaded == net
    assert_trees_equal(found, variables)
    with pytest.raises(InputError, match="holds a network of the kind FCN8s, but the config trains a DeconvNet"):
        init_from_checkpoint(tmp_path, NET, variables, INFO["class_names"])


def test_training_starts_from_another_ones_network(tmp_path, state):
    save(tmp_path, state, {7: None})
    fresh = jax.tree.map(jnp.zeros_like, state.variables)
    variables, same_classes = init_from_checkpoint(tmp_path, NET, fresh, INFO["class_names"])
    assert same_classes
    assert_trees_equal(variables, scaled(state, 7).variables)


def test_with_other_classes_the_score_layer_starts_anew(tmp_path, state):
    save(tmp_path, state, {7: None})
    for fresh, names in (
        (init_variables(NET.clone(num_classes=2), seed=3), ("background", "cell")),
        (jax.tree.map(jnp.zeros_like, state.variables), ("background", "dog", "cat")),
    ):
        variables, same_classes = init_from_checkpoint(tmp_path, NET, fresh, names)
        assert not same_classes
        assert_trees_equal(variables["params"].pop("seg-score-voc"), fresh["params"]["seg-score-voc"])
        expected = scaled(state, 7).variables
        expected["params"].pop("seg-score-voc")
        assert_trees_equal(variables, expected)


def test_what_training_cannot_start_from(tmp_path, state):
    save_network(tmp_path / "folded", NET, state.variables, {**NAMES, "batch_statistics": "folded"})
    with pytest.raises(InputError, match=r"folded is for inference only: .*; start from a trained network"):
        init_from_checkpoint(tmp_path / "folded", NET, state.variables, INFO["class_names"])
    save_network(tmp_path / "fused", NET.clone(batch_norm=False), without_batch_norm(state), NAMES)
    message = (
        r"init_from=.*fused holds a network without batch normalisation, .*; give --config\.model\.batch_norm=False"
    )
    with pytest.raises(InputError, match=message):
        init_from_checkpoint(tmp_path / "fused", NET, state.variables, INFO["class_names"])
    save_network(tmp_path / "other", NET, state.variables, NAMES)
    wide = init_variables(NET.clone(fc_features=9), seed=0)
    message = (
        r"init_from=.*other: .* of layer 'bnfc6' has the shape \(8,\), but the config's network needs \(9,\); give the"
    )
    with pytest.raises(InputError, match=message):
        init_from_checkpoint(tmp_path / "other", NET, wide, INFO["class_names"])

    with pytest.raises(
        InputError, match=r"other has bn_epsilon 1e-05, but the config has 0\.1; give --config\.model\.bn_eps"
    ):
        init_from_checkpoint(tmp_path / "other", NET.clone(bn_epsilon=0.1), state.variables, INFO["class_names"])


def test_a_runs_folder_is_not_mixed_with_a_network_from_elsewhere(tmp_path, state):
    save(tmp_path / "run/checkpoints", state, {5: None})
    with pytest.raises(InputError, match="run already holds a checkpoint"):
        save_network(tmp_path / "run", NET, state.variables, NAMES)
    assert load_checkpoint(tmp_path / "run")[2]["step"] == 5


def changed_description(folder, change):
    """Edits the description of step 0 and removes its integrity record, which older versions did not write."""
    shutil.rmtree(folder / "0/integrity")
    path = folder / "0/info/metadata"
    description = json.loads(path.read_text())
    changed = change(description)
    path.write_text(json.dumps(description if changed is None else changed))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: [1], "its description has no config"),
        (lambda d: {**d, "config": "x"}, "its description has no config"),
        (lambda d: d.update(class_names=None), "class_names is no list of 3 names"),
        (lambda d: d.update(class_names=["a", "b"]), "class_names is no list of 3 names"),
        (lambda d: d.update(class_names=["a", "b", {"c": 1}]), "class_names is no list of 3 names"),
        (lambda d: d.update(batch_statistics=["folded"]), r"batch_statistics is \['folded'\]"),
        (lambda d: d["config"].update(data=7), "config.data is 7"),
        (lambda d: d["config"].update(inference=["x"]), r"config.inference is \['x'\]"),
        (lambda d: d["config"].update(model=None), "config.model is None"),
        (lambda d: d["config"].update(data={"crop_size": "a"}), "crop_size is 'a'"),
        (lambda d: d["config"]["model"].update(dtype="int32"), "dtype 'int32' is not a floating-point type"),
        (lambda d: d["config"]["model"].update(architecture="unet"), "unet"),
        (lambda d: d["config"]["model"].update(width="abc"), ""),
        (lambda d: d["config"]["model"].update(num_classes=None), ""),
        (lambda d: d["config"]["model"].update(width=float("nan")), ""),
        (lambda d: d["config"]["model"].update(fc_window=[7]), ""),
    ],
)
def test_a_nonsensical_description_is_one_line(tmp_path, change, message):
    save_network(tmp_path, SMALL, small_variables(), NAMES)
    changed_description(tmp_path, change)
    with pytest.raises(InputError, match=rf"0 is not a checkpoint of this project \(.*{message}") as error:
        load_checkpoint(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "sizes",
    [
        {"width": 1e9},
        {"width": -1},
        {"fc_window": 2000},
        {"fc_features": 10**12},
        {"fc_window": 10**6},
        {"num_classes": 4},
    ],
)
def test_sizes_that_the_files_do_not_have_take_no_memory(tmp_path, sizes):
    save_network(tmp_path, SMALL, small_variables(), NAMES)
    changed_description(tmp_path, lambda d: (d["config"]["model"].update(sizes), d)[1])
    with pytest.raises(InputError, match=r"0 (is not a checkpoint|cannot be read)"):
        load_checkpoint(tmp_path)


@functools.cache
def small_variables():
    """Returns variables drawn by NumPy, because compiling the initialisation takes longer than the tests."""
    rng, images = np.random.default_rng(1), jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    shapes = jax.eval_shape(SMALL.init, jax.random.key(0), images)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes)


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_flipped_bit_in_any_file_never_gives_other_values(tmp_path, rng, capsys):
    """Damages what prediction and `init_from_checkpoint` read."""
    info = {**NAMES, "config": {"data": {"crop_size": 32}, "seed": 3, "rate": 0.125, "on": True}}
    save_network(tmp_path, SMALL, small_variables(), info)
    expected = load_checkpoint(tmp_path)
    fresh = jax.tree.map(np.zeros_like, small_variables())
    noticed = 0
    for path, good in contents(tmp_path / "0").items():
        bad = bytearray(good)
        bad[rng.integers(0, len(good))] ^= 1 << rng.integers(0, 8)
        path.write_bytes(bad)
        try:
            found = load_checkpoint(tmp_path)
            assert found[0] == expected[0]
            assert found[2] == expected[2]
            assert_trees_equal(found[1], expected[1])
            assert_trees_equal(init_from_checkpoint(tmp_path, SMALL, fresh, INFO["class_names"])[0], expected[1])
        except InputError:
            noticed += 1
        path.write_bytes(good)
    assert noticed >= 5
    assert "older version" not in capsys.readouterr().err


def test_checkpoints_without_a_record_are_read_with_a_note(tmp_path, capsys):
    save_network(tmp_path, SMALL, small_variables(), NAMES)
    shutil.rmtree(tmp_path / "0/integrity")
    assert_trees_equal(load_checkpoint(tmp_path)[1], small_variables())
    assert capsys.readouterr().err.endswith(
        "0 was written by an older version without checksums; damage may go unnoticed\n"
    )


@pytest.mark.parametrize("name", ["lr[0.1]", "[!a]", "back\\slash", "a*b?c", "{a} %20#é", " \n", "no\udcffutf8"])
def test_folders_of_any_name(tmp_path, name):
    save_network(tmp_path / name, SMALL, small_variables(), NAMES)
    assert_trees_equal(load_checkpoint(tmp_path / name)[1], small_variables())


def test_arrays_that_were_not_written_are_noticed_at_once(tmp_path, monkeypatch):
    """Orbax loses arrays like this in folders whose name it takes for a pattern."""
    monkeypatch.setattr(checkpoint_folder, "_MISREAD", set())
    with pytest.raises(InputError, match=r"step 0 in .* was written without its arrays \(.*; use a folder"):
        save_network(tmp_path / "a[b]", SMALL, small_variables(), NAMES)


@pytest.mark.parametrize(
    "damage", ["", '{"mean_iou"', b"\xff\xfe", '{"mean_iou": "high"}', "[]", '{"mean_iou": 0.9, "sha256": "0"}']
)
def test_damaged_scores_block_nothing(tmp_path, damage, capsys):
    save(tmp_path, small_state(), {1: 0.7, 2: 0.3, 3: 0.1}, SMALL_INFO)
    path = tmp_path / "1/metrics/metrics"
    path.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    assert load_checkpoint(tmp_path)[2]["step"] == 2
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert "1/metrics/metrics cannot be read" in warning
    assert "step 1 counts as not evaluated" in warning


def test_a_flipped_bit_in_scores_is_noticed(tmp_path, capsys):
    save(tmp_path, small_state(), {1: 0.7, 2: 0.3}, SMALL_INFO)
    path = tmp_path / "2/metrics/metrics"
    path.write_text(path.read_text().replace("0.3", "0.8"))
    assert load_checkpoint(tmp_path)[2]["step"] == 1
    assert "2/metrics/metrics cannot be read (the values are not those that were written)" in capsys.readouterr().err


def small_state():
    return create_state(small_variables(), make_optimizer(OPTIMIZER, small_variables()["params"]))


def test_a_file_is_no_step(tmp_path):
    (tmp_path / "7").write_text("")
    with pytest.raises(InputError, match="no checkpoint in"):
        load_checkpoint(tmp_path)


def without_batch_norm(state):
    params = {name: layer for name, layer in state.variables["params"].items() if "kernel" in layer}
    return {"params": params}


def test_steps_in_a_bucket(bucket, state):
    """A step counts once Orbax has written its last object, which a damaged step before it may lack."""
    folder = bucket / "steps"
    save(folder, state, {1: 0.4, 2: 0.5, 3: None})
    net, variables, info = load_checkpoint(folder)
    assert (info["step"], type(net), finished_steps(folder)) == (2, DeconvNet, [2, 3])
    assert_trees_equal(variables, scaled(state, 2).variables)
    (folder / "3/commit_success.txt").unlink()
    assert finished_steps(folder) == [2]
    with pytest.raises(InputError, match="gs://bucket/steps already holds a checkpoint"):
        save_network(str(folder), net, variables, INFO)
    (folder / "2/info/metadata").write_text("{}")
    with pytest.raises(InputError, match="the description in gs://bucket/steps/2 cannot be read"):
        load_checkpoint("gs://bucket/steps")
    with pytest.raises(InputError, match="no checkpoint in gs://bucket/none"):
        load_checkpoint("gs://bucket/none")
