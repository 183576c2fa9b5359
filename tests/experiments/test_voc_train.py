"""Training as people start it: a small run from end to end, and every kind of bad input as one line."""

import importlib
import json
import re
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from caffe_networks import random_deconvnet
from caffemodel_writer import encode
from PIL import Image
from programs import run_program
from training_programs import with_devices

from deconvnet_jax.data import Example, class_names
from deconvnet_jax.errors import InputError
from deconvnet_jax.models import FCN8s, network_from_config
from deconvnet_jax.training import (
    SCHEDULES,
    Preempted,
    batch_layout,
    calibrate_batch_norm,
    init_variables,
    make_optimizer,
)
from deconvnet_jax.weights import load_checkpoint
from experiments.common import checks, dataset, training
from experiments.common import training as voc_train
from experiments.configs import default, voc_fcn8s, voc_two_stage, voc_two_stage_released
from experiments.tasks import import_weights

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.end_to_end, pytest.mark.usefixtures("shared_steps")]
DEFAULT = "--config=experiments/configs/default.py"
TINY = {
    "batch_size": 4,
    "num_steps": 2,
    "data.resize_size": 36,
    "data.crop_size": 32,
    "model.width": 1 / 32,
    "model.fc_features": 4,
    "model.fc_window": 1,
    "eval_images": 1,
    "class_balance": 0.5,
}


@pytest.fixture
def own_scenes(scenes, tmp_path):
    """A copy that a test may damage."""
    return Path(shutil.copytree(scenes, tmp_path / "scenes"))


def settings(voc_root, **changes):
    config = default.get_config()
    values = {**TINY, "data.voc_root": str(voc_root), "data.data_dir": str(Path(voc_root).parent / "tfds")}
    config.update_from_flattened_dict({**values, **changes})
    return config


def test_train_then_evaluate(scenes, tmp_path):
    flags = [f"--config.{key}={value}" for key, value in {**TINY, "bn_group": 2}.items()]
    flags += [f"--config.data.voc_root={scenes}", f"--config.data.data_dir={scenes.parent / 'tfds'}"]
    command = ("voc_train", DEFAULT, f"--workdir={tmp_path}", *flags)
    process = [sys.executable, "-m", f"experiments.{command[0]}", *command[1:]]
    done = subprocess.run(process, cwd=ROOT, capture_output=True, text=True, env=with_devices(2))
    assert done.returncode == 0, done.stderr
    assert re.search(r"6 classes, 4 training images, \d+ windows, 2 cpu devices; ", done.stderr)
    assert re.search(r"^compiling the training step; this takes a while\nstep 2/2  loss", done.stderr, re.M)
    assert "evaluation: mean_iou" in done.stderr
    saved = json.loads((tmp_path / "config.json").read_text())
    assert (saved["model"]["num_classes"], saved["data"]["voc_root"]) == (6, str(scenes))
    with Image.open(tmp_path / "pictures/step_000002_image0.png") as picture:
        assert picture.mode == "RGB"
    again = run_program(*command)
    assert again.returncode == 0, again.stderr
    assert "resumed at step 2 of 2" in again.stderr
    assert "compiling" not in again.stderr

    scored = run_program("voc_eval", f"--checkpoint={tmp_path}")
    assert scored.returncode == 0, scored.stderr
    scores = json.loads(scored.stdout.splitlines()[-1])
    assert (scores["images"], scores["step"]) == (3, 2)
    assert 0 <= scores["mean_iou"] <= 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--config.optimizer.learnin_rate=1"],
            ["no such setting: optimizer.learnin_rate; did you mean optimizer.learning_rate? (experiments/configs/"],
        ),
        (["--config.data.qqqq=1"], ["no such setting: data.qqqq (experiments/configs/default.py lists all settings)"]),
        (["--config.dta.voc_root=a"], ["no such setting: dta.voc_root; did you mean data.voc_root? ("]),
        (["--config.batch_sise=1"], ["no such setting: batch_sise; did you mean batch_size? ("]),
        (["--config.crop_size=1"], ["no such setting: crop_size; did you mean data.crop_size? ("]),
        (["--config.stage1.seed=1"], ["no such setting: stage1.seed; only configs of two stages have it"]),
        (["--config.num_steps=many"], ["num_steps"]),
        (["--config.optimizer.momentum=nan"], ["config.optimizer.momentum=nan: expected a number from 0 and below 1"]),
        ([], ["data.voc_root"]),
        (["--config.data.voc_root=no/such/folder"], ["no/such/folder"]),
        (["--config.data.voc_root={scenes}", "--config.data.train_split=trian"], ["trian.txt"]),
    ],
)
def test_wrong_flags_are_one_line_and_exit_status_1(scenes, tmp_path, flags, words):
    flags = [flag.format(scenes=scenes) for flag in flags]
    first = (DEFAULT, f"--workdir={tmp_path / 'run'}")
    done = run_program("voc_train", *first, f"--config.data.data_dir={tmp_path}", *flags)
    assert done.returncode == 1
    *before, error = done.stderr.splitlines()
    assert all(line.startswith("checking and packing") or " is packed in " in line for line in before)
    assert error.startswith("error: ")
    for word in words:
        assert word in error
    assert not (tmp_path / "run").exists()


def test_a_config_that_is_not_there(tmp_path):
    done = run_program("voc_train", "--config=experiments/configs/nothing.py", f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert "nothing.py" in done.stderr


def refused(config, workdir):
    """The one line with which a run is refused."""
    with pytest.raises(InputError) as error:
        voc_train.run(config, str(workdir))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "config.seed=-1: expected a whole number from 0 to"),
        ({"num_steps": 0}, "config.num_steps=0: expected a whole number from 1 to"),
        ({"log_every": 0}, "config.log_every=0: expected a whole number from 1 to"),
        ({"eval_images": -5}, "config.eval_images=-5: expected a whole number from 0 to"),
        ({"data.cache_mb": -1}, "config.data.cache_mb=-1: expected a whole number from 0 to"),
        ({"profile": -1}, "config.profile=-1: expected a whole number from 0 to 10,000"),
        ({"batch_size": 16, "micro_batch": 3}, "config.micro_batch=3"),
        ({"bn_group": 3}, "config.bn_group=3"),
        (
            {"optimizer.schedule": "unknown"},
            f"config.optimizer.schedule='unknown': expected one of {', '.join(SCHEDULES)}",
        ),
        (
            {"optimizer.plateau_metric": "loss"},
            "config.optimizer.plateau_metric='loss': expected one of pixel",
        ),
        ({"optimizer.schedule": "plateau", "eval_every": 0}, "config.optimizer.schedule=plateau needs evaluations"),
        ({"model.dtype": "float16"}, "config.model.dtype='float16': expected one of float32, bfloat16"),
        ({"all_reduce_dtype": "int8"}, "config.all_reduce_dtype='int8': expected one of float32, bfloat16"),
        ({"calibrate.batch_size": 1}, "config.calibrate.batch_size=1: expected a whole number from 2 to"),
    ],
)
def test_numbers_out_of_range(scenes, tmp_path, change, message):
    assert message in refused(settings(scenes, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_evaluation_the_last_step_is_saved(scenes, tmp_path, shallow_here):
    voc_train.run(settings(scenes, eval_every=0, checkpoint_every=0, num_steps=1), str(tmp_path / "run"))
    load_checkpoint(tmp_path / "run")


def test_input_size(scenes, tmp_path):
    message = refused(settings(scenes, **{"data.crop_size": 40, "data.resize_size": 40}), tmp_path / "run")
    assert "config.data.crop_size=40" in message
    assert "for example to 64x64" in message
    message = refused(settings(scenes, **{"model.fc_window": 2}), tmp_path / "run")
    assert "config.model.fc_window=2" in message
    assert "at least 64" in message


def test_batch_size(scenes, tmp_path):
    assert "for example 4" in refused(settings(scenes, batch_size=5), tmp_path / "run")


def test_no_split_file(own_scenes, tmp_path):
    (own_scenes / "ImageSets/Segmentation/train.txt").unlink()
    message = refused(settings(own_scenes), tmp_path / "run")
    assert "train.txt" in message


def test_an_image_without_its_mask(own_scenes, tmp_path):
    (own_scenes / "SegmentationClass/train_0002.png").unlink()
    message = refused(settings(own_scenes), tmp_path / "run")
    assert "train_0002" in message
    assert "SegmentationClass" in message


def test_a_mask_with_an_unknown_id(own_scenes, tmp_path):
    path = own_scenes / "SegmentationClass/train_0001.png"
    with Image.open(path) as mask:
        labels, palette = np.array(mask), mask.getpalette()
    labels[3, 4] = 77
    mask = Image.fromarray(labels)
    mask.putpalette(palette)
    mask.save(path)
    message = refused(settings(own_scenes), tmp_path / "run")
    assert str(path) in message
    assert "77" in message


def test_what_is_allowed_and_seldom_meant():
    names = ("background", "cat", "dog")
    config = default.get_config()
    config.init.vgg16 = "file"

    assert list(checks.likely_mistakes(config, names)) == []
    streets = ("sky", "road", "car")
    (warning,) = checks.likely_mistakes(config, streets)
    assert warning.startswith("'sky' has the id 0, which counts as background: no window is cut around it")
    for changes in ({"data.windows": ("image",)}, {"data.window_list": "list.txt"}):
        other = config.copy_and_resolve_references()
        other.update_from_flattened_dict(changes)
        assert list(checks.likely_mistakes(other, streets)) == []
    assert list(checks.likely_mistakes(config, ("_Background_", "road", "car"))) == []
    config.optimizer.learning_rate = 1e-10
    (warning,) = checks.likely_mistakes(config, names)
    assert "learning_rate=1e-10 is unusual: the loss here is a mean over pixels" in warning
    config.optimizer.learning_rate, config.init.vgg16 = 0.01, None
    (warning,) = checks.likely_mistakes(config, names)
    assert warning.startswith("the encoder starts from random weights")
    config.init_from = "folder"
    assert list(checks.likely_mistakes(config, names)) == []


def test_a_corrupt_jpeg(own_scenes, tmp_path):
    path = own_scenes / "JPEGImages/train_0003.jpg"
    path.write_bytes(path.read_bytes()[:2000])
    assert str(path) in refused(settings(own_scenes), tmp_path / "run")


def test_a_workdir_of_another_config(scenes, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"seed": 7}))
    message = refused(settings(scenes), run)
    assert "seed was 7 and is now 0" in message
    assert "another --workdir" in message


def test_vgg16_weights_that_are_no_weights(scenes, tmp_path):
    (tmp_path / "vgg.npz").write_bytes(b"nothing")
    message = refused(settings(scenes, **{"init.vgg16": str(tmp_path / "vgg.npz")}), tmp_path / "run")
    assert "vgg.npz" in message


def test_initial_variables_keep_vgg16s_features_where_asked(tmp_path, rng):
    config = settings(tmp_path, **{"model.num_classes": 2, "init.vgg16": str(tmp_path / "vgg.npz")})
    net = network_from_config(config.model.to_dict())
    params = init_variables(net, 0)["params"]
    layers = [name for name in params if re.fullmatch(r"conv\d_\d", name)]
    arrays = {f"block{n[4]}_conv{n[6]}/{part}": np.asarray(v) for n in layers for part, v in params[n].items()}
    np.savez(tmp_path / "vgg.npz", **{name: value + 0.5 for name, value in arrays.items()})
    images = [rng.integers(0, 256, (40, 60, 3), np.uint8) for _ in range(3)]
    source = [Example(str(i), image, np.zeros((40, 60), np.uint8), None) for i, image in enumerate(images)]
    plain = training.initial_variables(net, config, source, ("a", "b"))
    np.testing.assert_allclose(plain["params"]["conv5_3"]["bias"], 0.5)
    np.testing.assert_array_equal(plain["params"]["bn5_3"]["scale"], 1)
    config.init.keep_features = True
    kept = training.initial_variables(net, config, source, ("a", "b"))
    assert (kept["params"]["bn5_3"]["bias"] != plain["params"]["bn5_3"]["bias"]).all()
    assert (kept["batch_stats"]["bn1_1"]["mean"] != 0).all()


CONFIGS = [path.stem for path in (ROOT / "experiments/configs").glob("*.py") if "def get_config" in path.read_text()]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_fits_together(name):
    """On any number of devices that people have, and locked; its docstring holds the command that starts it."""
    module = importlib.import_module(f"experiments.configs.{name}")
    config = module.get_config()
    for each in (config, config.get("stage1", config)):
        checks.check_settings(each)
        net = network_from_config({**each.model.to_dict(), "num_classes": 21})
        make_optimizer(each.optimizer.to_dict(), jax.eval_shape(partial(init_variables, net), 0)["params"])
    for devices in (1, 2, 4):
        batch_layout(config.batch_size, devices, config.micro_batch, config.bn_group)
    with pytest.raises(AttributeError):
        config.num_stepz = 1
    assert f"--config={name} " in module.__doc__


def test_overrides_reach_what_is_derived_from_them():
    config = voc_two_stage_released.get_config()
    config.update_from_flattened_dict({"batch_size": 32, "data.voc_root": "somewhere", "init.vgg16": "file"})
    config.stage1.num_steps = 3
    config = config.copy_and_resolve_references()
    for stage in (config, config.stage1):
        assert stage.optimizer.weight_decay == pytest.approx(5e-4 / 4)
        assert stage.caffe_gradients
        assert (stage.batch_size, stage.micro_batch, stage.bn_group) == (32, 8, 8)
        assert stage.data.voc_root == "somewhere"
        assert stage.init.vgg16 == "file"
    assert (config.num_steps, config.stage1.num_steps) == (40_000, 3)
    assert (config.calibrate.batches, config.stage1.calibrate.batches) == (500, 0)
    assert (config.data.windows, config.stage1.data.windows) == (("proposal",), ("instance",))
    assert (config.data.label_mode, config.stage1.data.label_mode) == ("all", "instance")


def test_stage_1_can_have_its_own_value_of_what_both_share():
    config = voc_two_stage.get_config()
    config.update_from_flattened_dict({"stage1.batch_size": 32, "stage1.init.vgg16": "file", "optimizer.momentum": 0.8})
    config.update_from_flattened_dict({"stage1.optimizer.learning_rate": 0.1, "stage1.data.balance": 0.5})
    config = config.copy_and_resolve_references()
    assert (config.batch_size, config.stage1.batch_size) == (64, 32)
    assert (config.init.vgg16, config.stage1.init.vgg16) == (None, "file")
    assert (config.optimizer.learning_rate, config.stage1.optimizer.learning_rate) == (0.01, 0.1)
    assert (config.data.balance, config.stage1.data.balance) == (1.0, 0.5)
    assert config.stage1.optimizer.momentum == 0.8


def test_two_stages_with_one_command(scenes, tmp_path, capsys, monkeypatch, shallow_here):
    """Stage 2 starts with zero momentum, and batch statistics are re-estimated at the end.

    Finished stages are not done again. The data are opened once, for both stages and the calibration.
    """
    opened, open_dataset = [], dataset.open_dataset
    monkeypatch.setattr(dataset, "open_dataset", lambda config: opened.append(config) or open_dataset(config))
    config = voc_two_stage.get_config()
    tiny = {**TINY, "data.voc_root": str(scenes), "data.data_dir": str(scenes.parent / "tfds"), "bn_group": 0}
    config.update_from_flattened_dict({**tiny, "data.windows": ("image",), "calibrate.batches": 2})
    config.stage1.num_steps = 1
    config.calibrate.batch_size = 3  # on four devices
    config.data.balance = 0.0
    voc_train.run(config, str(tmp_path))
    assert len(opened) == 1
    said = capsys.readouterr().err
    assert f"starting from {tmp_path / 'stage1'}\n" in said
    assert "batch statistics re-estimated over 2 batches: mean_iou" in said
    _, first, info = load_checkpoint(tmp_path / "stage1")
    assert info["step"] == 1
    _, second, _ = load_checkpoint(tmp_path, 2)
    _, calibrated, description = load_checkpoint(tmp_path / "calibrated")
    assert description["calibrated"] == {"batches": 2, "batch_size": 4}
    jax.tree.map(np.testing.assert_array_equal, calibrated["params"], second["params"])
    assert (calibrated["batch_stats"]["bn1_1"]["mean"] != second["batch_stats"]["bn1_1"]["mean"]).any()
    assert np.abs(second["params"]["fc6"]["kernel"] - first["params"]["fc6"]["kernel"]).max() < 0.1
    saved = [json.loads((tmp_path / part / "config.json").read_text()) for part in ("stage1", "")]
    assert [part["data"]["label_mode"] for part in saved] == ["instance", "all"]
    assert (saved[1]["init_from"], saved[1]["init_from_step"]) == (str(tmp_path / "stage1"), 1)
    files = sorted(tmp_path.rglob("*"))
    voc_train.run(config, str(tmp_path))
    assert [path for path in sorted(tmp_path.rglob("*")) if "tensorboard" not in str(path)] == [
        path for path in files if "tensorboard" not in str(path)
    ]


def test_calibration_without_evaluations(scenes, tmp_path, capsys, shallow_here):
    """The statistics are the means over the batches that the config's seed begins with; nothing is scored."""
    config = settings(scenes, eval_every=0, **{"calibrate.batches": 2, "calibrate.batch_size": 4})
    assert voc_train.run(config, tmp_path) == {}
    assert f"batch statistics re-estimated over 2 batches: {tmp_path / 'calibrated'}\n" in capsys.readouterr().err
    net, trained, _ = load_checkpoint(tmp_path)
    _, calibrated, _ = load_checkpoint(tmp_path / "calibrated")
    with closing(dataset.open_training_data(config).batches(4)) as batches:
        expected = calibrate_batch_norm(net, trained, batches, 2)
    jax.tree.map(np.testing.assert_array_equal, calibrated, jax.device_get(expected))
    assert (calibrated["batch_stats"]["bn1_1"]["mean"] != trained["batch_stats"]["bn1_1"]["mean"]).any()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_status_of_a_run_that_was_asked_to_stop(scenes, tmp_path, monkeypatch, number, status):
    def stop(*_):
        raise Preempted(3, number)

    monkeypatch.setattr(training, "run", stop)
    done = run_program("voc_train", DEFAULT, f"--workdir={tmp_path}", "--stopped_status=75")
    assert (done.returncode, done.stderr) == (
        status,
        "stopped as asked: step 3 is saved; give the same command to resume\n",
    )


def test_what_each_stage_starts_from(scenes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("vgg16.npz").write_bytes(b"")
    started = []
    monkeypatch.setattr(training, "run_stage", lambda *arguments: started.append(arguments))
    config = voc_two_stage.get_config()
    data = {"data.voc_root": str(scenes), "data.data_dir": str(scenes.parent / "tfds"), "data.windows": ("image",)}
    config.update_from_flattened_dict({**data, "init.vgg16": "vgg16.npz", "init.keep_features": True})
    voc_train.run(config, str(tmp_path), accept_changes=True)
    (first, first_folder, accepted), (second, second_folder, _) = started
    assert accepted
    first, second = first.config, second.config
    assert (Path(first_folder), Path(second_folder)) == (tmp_path / "stage1", tmp_path)
    assert (first.init_from_step, second.init_from_step) == (None, 20_000)
    assert (first.init_from, first.init.vgg16, first.init.keep_features) == (
        None,
        str(Path("vgg16.npz").absolute()),
        True,
    )
    assert (second.init_from, second.init.vgg16, second.init.keep_features) == (str(first_folder), None, False)


def test_what_stage_2_lacks_is_said_before_stage_1_begins(scenes, tmp_path):
    config = voc_two_stage.get_config()
    config.update_from_flattened_dict({**TINY, "data.voc_root": str(scenes), "bn_group": 0})
    config.data.data_dir = str(tmp_path / "tfds")
    message = refused(config, tmp_path / "run")
    assert "no proposals of the split 'train' yet" in message
    assert not (tmp_path / "run").exists()


def test_an_fcn8s_learns(scenes, tmp_path, shallow_here):
    """Another network through the same program; scores begin at zero, so the first loss is that of chance."""
    config = voc_fcn8s.get_config()
    values = {"data.voc_root": str(scenes), "data.data_dir": str(scenes.parent / "tfds"), "num_steps": 20}
    values |= {"batch_size": 4, "micro_batch": 1, "data.crop_size": 64, "data.resize_size": 72, "log_every": 1}
    config.update_from_flattened_dict({**values, "model.width": 1 / 16, "model.fc_features": 16, "eval_every": 20})
    scores = voc_train.run(config, str(tmp_path))
    assert 0 < scores["pixel_accuracy"] <= 1
    losses = [
        line["train/loss"]
        for line in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
        if "train/loss" in line
    ]
    assert losses[0] == pytest.approx(np.log(6), rel=1e-3)
    assert losses[-1] < 0.9 * losses[0]
    net, variables, _ = load_checkpoint(tmp_path)
    assert isinstance(net, FCN8s)
    before = init_variables(net, config.seed)["params"]["upsample"]["kernel"]
    np.testing.assert_array_equal(variables["params"]["upsample"]["kernel"], before)


def test_training_goes_on_from_an_imported_network(scenes, tmp_path, rng, capsys):
    """A training snapshot of Caffe's with other classes, over the devices that tests have."""
    layers = random_deconvnet(rng, width=1 / 32, fc=4, classes=3, fc_window=1)
    (tmp_path / "net.caffemodel").write_bytes(encode([*layers, ("loss", "SoftmaxWithLoss", [])]))
    import_weights.run(tmp_path / "imported", caffemodel=tmp_path / "net.caffemodel")
    config = settings(scenes, init_from=str(tmp_path / "imported"), num_steps=1, **{"optimizer.learning_rate": 1e-6})
    voc_train.run(config, tmp_path / "run")
    said = capsys.readouterr().err
    reason = "it was trained on other classes: the score layer starts from random weights"
    assert f"starting from {tmp_path / 'imported'}; {reason}" in said
    _, trained, _ = load_checkpoint(tmp_path / "run")
    _, imported, _ = load_checkpoint(tmp_path / "imported")
    for name in ("conv3_1", "fc6", "deconv4_3"):
        np.testing.assert_allclose(trained["params"][name]["kernel"], imported["params"][name]["kernel"], atol=1e-3)
    assert trained["params"]["seg-score-voc"]["kernel"].shape[-1] == len(class_names(scenes))
    shutil.rmtree(tmp_path / "imported")  # A run does not need it to resume.
    config.num_steps = 2
    voc_train.run(config, tmp_path / "run")
    assert load_checkpoint(tmp_path / "run", step=2)[2]["step"] == 2


def test_two_ways_to_start_exclude_each_other(scenes, tmp_path):
    message = refused(settings(scenes, init_from="a", **{"init.vgg16": "b"}), tmp_path / "run")
    assert "--config.init_from and --config.init.vgg16 exclude each other" in message
    message = refused(settings(scenes, init_from="a", **{"init.keep_features": True}), tmp_path / "run")
    assert "--config.init_from and --config.init.keep_features exclude each other" in message
    assert f"no checkpoint in {Path('none').absolute()}" in refused(
        settings(scenes, init_from="none"), tmp_path / "run"
    )


def test_a_workdir_that_is_an_imported_network(scenes, tmp_path, rng):
    (tmp_path / "net.caffemodel").write_bytes(encode(random_deconvnet(rng, width=1 / 64, fc=4, classes=3)))
    import_weights.run(tmp_path / "imported", caffemodel=tmp_path / "net.caffemodel")
    message = refused(settings(scenes), tmp_path / "imported")
    assert f"start from this one: --config.init_from={tmp_path / 'imported'}" in message


@pytest.mark.parametrize("asked", [True, False])
def test_compiled_programs_are_kept_where_asked_for(monkeypatch, tmp_path, asked):
    """On a CPU few can be: XLA cannot serialize programs with oneDNN."""
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    jax.config.update("jax_compilation_cache_dir", None)
    config = default.get_config()
    if asked:
        config.compilation_cache = str(tmp_path / "kept")
    try:
        training.use_compilation_cache(config, str(tmp_path / "run"))
        folder = jax.config.jax_compilation_cache_dir
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    by_default = None if jax.default_backend() == "cpu" else str(tmp_path / "run" / "compiled")
    assert folder == (str(tmp_path / "kept") if asked else by_default)
