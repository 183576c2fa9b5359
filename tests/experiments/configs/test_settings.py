"""Tests that every setting has a type and a range, and that a wrong value gives one line that names the setting."""

import importlib
import json
import tarfile
from pathlib import Path

import ml_collections
import pytest
from ml_collections import config_dict

from deconvnet_jax.errors import InputError
from deconvnet_jax.settings import LocalPath, Number
from deconvnet_jax.training import SCHEDULES, flatten
from deconvnet_jax.training.optimizer import make_schedule
from deconvnet_jax.training.workdir import ACCEPTABLE, FIXED, HARMLESS, SINCE
from experiments.common import checks
from experiments.common import training as voc_train
from experiments.configs import default, demo, semantic, settings, stages, voc_fcn8s, voc_stage1_released, voc_two_stage

VERSION_0_1 = Path(__file__).resolve().parents[2] / "support/version_0_1.tar.xz"
CONFIGS = [path.stem for path in Path(default.__file__).parent.glob("*.py") if "def get_config" in path.read_text()]
DEFAULTS = flatten(default.get_config().to_dict())
NAN, INF = float("nan"), float("inf")
ODD = (NAN, INF, -INF, -1e9, 10**18, "abc", "", (), ("abc",), ((1, 2, 3),), {}, None, True, b"x", 1j)


def changed(key, value, config=None):
    """Returns a config with any value for a key, even one that ml_collections refuses on the command line."""
    config = config or default.get_config()
    section, _, name = key.rpartition(".")
    with config.ignore_type(), config.unlocked():
        (config[section] if section else config)[name] = value
    return config


def refused(config):
    with pytest.raises(InputError) as caught:
        settings.check_config(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_setting_has_a_kind():
    assert set(settings.KINDS) == {*DEFAULTS, "model.architecture"}


def test_runs_of_version_0_1_have_a_value_for_every_setting():
    """A run that is older than a setting resumes with the value in `SINCE`, or with any value if it is harmless."""
    with tarfile.open(VERSION_0_1) as archive:
        stored = archive.extractfile("./run/config.json")
        assert stored is not None
        known = flatten(json.load(stored))
    assert set(DEFAULTS) - set(known) - set(HARMLESS) <= set(SINCE)


def test_tables_about_settings_name_settings_that_exist():
    sections = {f"{key.rpartition('.')[0]}." for key in DEFAULTS if "." in key}
    assert {*HARMLESS, *ACCEPTABLE} <= {*DEFAULTS, *sections}
    assert {*SINCE, *FIXED, *stages.OWN} <= set(DEFAULTS)


def test_older_runs_have_the_defaults_of_the_optimizer():
    """They trained with them, and a run with the defaults does what it always did."""
    newer = {key: value for key, value in SINCE.items() if key.startswith(("optimizer.", "ema"))}
    assert newer == {key: DEFAULTS[key] for key in newer}


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_has_its_settings(name):
    config = changed("optimizer.schedule", name)
    config.optimizer.decay_steps = config.get_ref("num_steps")
    settings.check_config(config)
    assert make_schedule(config.optimizer.to_dict())(0) >= 0


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_configs_that_come_with_the_project(name):
    settings.check_config(importlib.import_module(f"experiments.configs.{name}").get_config())


@pytest.mark.parametrize("key", DEFAULTS)
def test_values_of_another_type_or_out_of_range(key):
    kind = settings.KINDS[key]
    fraction = isinstance(kind, Number) and not kind.whole  # ml_collections turns True into 1.0 there.
    wrong = [value for value in ODD if not (value in kind or (value is True and fraction))]
    assert len(wrong) >= len(ODD) - 3  # At most three of them are right for one setting.
    for value in wrong:
        assert f"config.{key}" in refused(changed(key, value))


@pytest.mark.parametrize("key", [key for key, kind in settings.KINDS.items() if isinstance(kind, Number)])
def test_numbers_are_never_nan_negative_or_huge(key):
    kind = settings.KINDS[key]
    for value in (NAN, INF, -1, -1.0, 1e12, 10**12, kind.low - 1, kind.high + 1, str(kind.low)):
        assert value not in kind


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optimizer.drops", (3, "abc"), "config.optimizer.drops=(3, 'abc'): expected a tuple, each a whole number"),
        ("optimizer.drops", (9, 3), "in ascending order"),
        ("optimizer.rates", (("conv", -1.0),), "config.optimizer.rates="),
        ("optimizer.freeze", ("",), "config.optimizer.freeze=('',)"),
        ("data.windows", ("proposal", "proposal"), "without duplicates"),
        ("data.windows", ("objects",), "each one of instance, proposal, image"),
        ("data.zoom", (2.0, 1.0), "config.data.zoom=(2.0, 1.0): expected a pair of"),
        ("data.zoom", (1.0,), "config.data.zoom=(1.0,)"),
        ("optimizer.momentum", 1.0, "expected a number from 0 and below 1"),
        ("data.voc_root", "gs://bucket/VOC2012", "config.data.voc_root=gs://bucket/VOC2012 is an address"),
        ("init.vgg16", "", "config.init.vgg16 is empty"),
        ("inference.ensemble_checkpoint", "s3://a/b", "config.inference.ensemble_checkpoint=s3://a/b is an address"),
        ("inference.flip", "yes", "config.inference.flip='yes': expected True or False"),
        ("new", 3, "config.new: no such setting"),
        ("data", 3, "config.data: no such setting"),
    ],
)
def test_messages(key, value, message):
    assert message in refused(changed(key, value))


def test_stage_1_is_checked_too():
    config = voc_two_stage.get_config()
    config.stage1.optimizer.learning_rate = NAN
    assert "config.stage1.optimizer.learning_rate=nan: expected a number above 0" in refused(config)
    with pytest.raises(InputError, match=r"config\.stage1\.optimizer"):
        voc_train.run(config, "never/made")


def test_objects_that_are_no_configs():
    assert "config.seed is missing" in refused(ml_collections.ConfigDict())
    assert "returned NoneType" in refused(None)
    config = default.get_config()
    with config.unlocked():
        del config.optimizer
    assert "config.optimizer.name is missing" in refused(config)
    config = voc_fcn8s.get_config()
    with config.unlocked():
        del config.model.width
    assert "config.model.width is missing" in refused(config)


def test_a_value_that_cannot_be_computed():
    config = voc_stage1_released.get_config()
    config.bn_group = 0
    assert "give a config.bn_group that divides config.batch_size" in refused(config)


def test_paths_become_absolute(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    paths = {key for key, kind in settings.KINDS.items() if isinstance(getattr(kind, "kind", kind), LocalPath)}
    assert {"data.voc_root", "init_from", "init.vgg16", "compilation_cache", "inference.proposals"} < paths
    config = default.get_config()
    config.update_from_flattened_dict({key: "~/é [1]" for key in paths})
    found = flatten(settings.checked(config).to_dict())
    assert {found[key] for key in paths} == {str(tmp_path / "é [1]")}
    assert flatten(settings.checked(default.get_config()).to_dict()) == DEFAULTS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.width": 64.0}, "parameters and their momentum need"),
        (
            {"model.width": 20.0, "optimizer.name": "adamw", "ema_decay": 0.9},
            "parameters with averages and their moments",
        ),
        ({"model.fc_features": 2**20}, "with config.model.fc_features=1048576"),
        (
            {"data.crop_size": 16_384, "data.resize_size": 16_384, "batch_size": 64},
            "the output of the first layer needs",
        ),
        ({"batch_size": 2**20, "micro_batch": 2}, "the crops of one step need"),
    ],
)
def test_settings_that_need_too_much_memory(monkeypatch, changes, message):
    monkeypatch.setattr(checks, "host_memory", lambda: 8 * checks.GIB)
    monkeypatch.setattr(checks, "device_memory", lambda: 8 * checks.GIB)
    config = demo.get_config()
    checks.check_memory(config)
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=message) as caught:
        checks.check_settings(config)
    assert "there are 8.0 GiB" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inference.mode": "paper", "inference.scales": (0.5, 1.0)}, "inference.scales=(0.5, 1.0): inference.mode='p"),
        ({"optimizer.freeze": ("convx",)}, "config.optimizer.freeze: no layer's name begins with 'convx'"),
        ({"optimizer.rates": (("fc9", 2.0),)}, "config.optimizer.rates: no layer's name begins with 'fc9'"),
    ],
)
def test_settings_that_exclude_each_other_are_refused_before_any_work(tmp_path, changes, message):
    """A folder that holds the wrong config would refuse the right one; data and stage 2 do not exist yet."""
    config = voc_two_stage.get_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError) as caught:
        voc_train.run_stages(settings.checked(config), tmp_path)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_stage_1_with_wrong_settings_is_refused_before_any_work(tmp_path):
    config = voc_two_stage.get_config()
    config.stage1.inference.mode, config.stage1.inference.scales = "paper", (2.0,)
    with pytest.raises(InputError, match=r"inference\.scales"):
        voc_train.run_stages(settings.checked(config), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("steps", "shorter"), [(200, 20), (100, 10), (5, 0)])
def test_a_training_that_ends_in_its_warmup(steps, shorter):
    """The message names what the user gave, and its remedy works."""
    config = semantic.get_config()
    config.num_steps = steps
    with pytest.raises(InputError) as caught:
        checks.check_combinations(config)
    assert str(caught.value) == (
        f"config.num_steps={steps}, the end of the learning rate's schedule too, must be above "
        f"config.optimizer.warmup_steps=200; give --config.optimizer.warmup_steps={shorter}"
    )
    config.optimizer.warmup_steps = shorter
    checks.check_combinations(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer.decay_steps": 50}, "config.optimizer.decay_steps=50 has no effect with config.optimizer.sched"),
        ({"optimizer.end_factor": 0.1}, "config.optimizer.end_factor=0.1 has no effect with config.optimizer.sched"),
        (
            {"optimizer.schedule": "poly", "optimizer.decay_steps": 10**6},
            "config.optimizer.decay_steps=1000000: the training ends at step 1000, before the learning rate does; "
            "give --config.optimizer.decay_steps=1000",
        ),
    ],
)
def test_schedules_that_never_end(changes, message):
    config = default.get_config()
    config.update_from_flattened_dict({"num_steps": 1000, "init.vgg16": "file"})
    assert list(checks.likely_mistakes(config, ("background", "cat"))) == []
    config.update_from_flattened_dict(changes)
    (warning,) = checks.likely_mistakes(config, ("background", "cat"))
    assert warning.startswith(message)


def test_the_end_of_a_schedule_can_follow_the_length_until_it_is_given():
    """As docs/training.md writes it: giving the end leaves the length alone."""
    config = default.get_config()
    config.optimizer.decay_steps = config_dict.FieldReference(config.get_ref("num_steps"))
    config.num_steps = 9
    assert config.optimizer.decay_steps == 9
    config.optimizer.decay_steps = 300
    assert (config.num_steps, config.optimizer.decay_steps) == (9, 300)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_a_setting_that_follows_another_can_be_given_alone(name):
    """A config lets micro_batch follow bn_group; giving micro_batch leaves bn_group alone."""
    load = importlib.import_module(f"experiments.configs.{name}").get_config
    flat = flatten(load().to_dict())
    numbers = [key for key, value in flat.items() if type(value) in (int, float)]
    follows = {}
    for key in numbers:
        config = load()
        config.update_from_flattened_dict({key: flat[key] + 1})
        now = flatten(config.to_dict())
        follows[key] = {each for each in numbers if each != key and now[each] != flat[each]}
    assert [(key, each) for key in numbers for each in follows[key] if key in follows[each]] == []


def test_two_drops_at_one_step_are_refused():
    assert "config.optimizer.drops=(1000, 1000): expected" in refused(changed("optimizer.drops", (1000, 1000)))
