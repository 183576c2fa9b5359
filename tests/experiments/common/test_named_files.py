"""Missing files that a config names are reported before JAX starts; a run that resumes needs no initial weights."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from programs import run_program

from deconvnet_jax.errors import InputError
from experiments.common.named_files import check_data, check_prediction, check_training
from experiments.configs import coco128, coco128_fcn8s, default, semantic_cpu, voc_two_stage

ROOT = Path(__file__).resolve().parents[3]
CURL = "curl -LO https://download.pytorch.org/models/vgg16-397923af.pth"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with data, a run of one step and the folder `new` of a run that has no step yet."""
    for each in ("data", "old/checkpoints/3", "two/stage1/checkpoints/3", "new"):
        (tmp_path / each).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def changed(config=default, **changes):
    found = config.get_config()
    found.update_from_flattened_dict({"data.voc_root": "data", **changes})
    return found


MISSING = {
    "init.vgg16": "config.init.vgg16=none: no such file or folder in {}; correct the name, or download torchvision's: "
    + CURL,
    "init_from": "no checkpoint in none (looked for in {}); expected the 'checkpoints' folder of a training run, with "
    "one folder per step",
    "data.voc_root": "config.data.voc_root=none: no such file or folder in {}; give the folder that holds JPEGImages, "
    "SegmentationClass and ImageSets",
    "data.window_list": "config.data.window_list=none: no such file or folder in {}; correct the name",
    "data.proposals": "config.data.proposals=none: no such file or folder in {}; correct the name",
}


@pytest.mark.parametrize("key", MISSING)
def test_a_missing_file_of_a_new_run(folder, key):
    with pytest.raises(InputError) as caught:
        check_training(changed(**{"data.windows": ("proposal",), key: "none"}), Path("new"))
    assert str(caught.value) == MISSING[key].format(folder)


def test_a_run_that_resumes_needs_its_data_but_not_its_initial_weights(folder):
    for key in ("init.vgg16", "init_from"):
        check_training(changed(**{key: "none"}), folder / "old")
    with pytest.raises(InputError, match=r"config\.data\.window_list=none"):
        check_training(changed(**{"data.window_list": "none"}), folder / "old")


def test_stage_1_starts_from_the_weights(folder):
    config = changed(voc_two_stage, **{"init.vgg16": "none"})
    check_training(config, folder / "two")
    with pytest.raises(InputError, match=r"config\.init\.vgg16=none"):
        check_training(config, folder / "old")  # The checkpoints there are those of stage 2.
    with pytest.raises(InputError, match=r"config\.data\.proposals=none"):  # of stage 2
        check_training(changed(voc_two_stage, **{"data.proposals": "none"}), folder / "two")


@pytest.mark.parametrize("config", [coco128, coco128_fcn8s, semantic_cpu])
def test_frozen_layers_need_trained_weights(folder, config):
    """A file of VGG-16 forgotten by mistake does not train a decoder on random features."""
    with pytest.raises(InputError, match=r"config\.optimizer\.freeze would keep the layers conv.* at random") as caught:
        check_training(changed(config), folder / "new")
    assert "upsample" not in str(caught.value)
    assert str(caught.value).endswith(
        f"--config.init.vgg16=FILE (download torchvision's: {CURL}) or --config.init_from=FOLDER"
    )
    check_training(changed(config), folder / "old")  # It resumes.
    check_training(changed(config, **{"optimizer.freeze": ()}), folder / "new")
    check_training(changed(config, **{"init_from": "old", "init.keep_features": False}), folder / "new")
    check_training(changed(config, **{"init.vgg16": "data"}), folder / "new")
    check_training(changed(default, **{"optimizer.freeze": ("upsample",)}), folder / "new")


def test_what_is_not_used_may_be_missing(folder):
    (folder / "model.ckpt.index").write_bytes(b"")  # The reader of VGG-16 explains what to do with it.
    for changes in (
        {"data.proposals": "none"},  # The windows are those of objects.
        {"data.voc_root": "none", "data.dataset": "camvid"},  # They exclude each other, which is reported later.
        {"inference.ensemble_checkpoint": "none"},
        {"init.vgg16": "model.ckpt"},
        {"init_from": "a", "init.vgg16": "b"},
        {"init_from": "a", "init.keep_features": True},
    ):
        check_training(changed(**changes), folder / "new")
    config = changed()
    config.unlock()
    del config.init, config.data
    check_training(config, folder / "new")
    check_data(config)


def test_checkpoints_of_a_prediction(folder):
    check_prediction(Path("old"), None, {})
    check_prediction(Path("old"), changed(), {"inference.ensemble_checkpoint": "two/stage1"})
    for config, changes in (
        (None, {"inference.ensemble_checkpoint": "none"}),
        (changed(**{"inference.ensemble_checkpoint": "none"}), {}),
    ):
        with pytest.raises(InputError, match="no checkpoint in none"):
            check_prediction(Path("old"), config, changes)
    with pytest.raises(InputError, match=r"did you mean old\?$"):
        check_prediction(Path("old/calibrated"), None, None)


@pytest.mark.end_to_end
def test_programs_check_first(folder):
    """The programs end before they import JAX."""
    code = (
        "import runpy, sys; sys.modules['jax'] = None; name, *sys.argv[1:] = sys.argv[1:]; "
        "runpy.run_module('experiments.' + name, run_name='__main__', alter_sys=True)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # The programs run in the folder of the test.
    for words, message in (
        (
            ("voc_train", "--config=demo", "--workdir=new", "--config.init.vgg16=none"),
            "config.init.vgg16=none: no such",
        ),
        (
            ("browse_data", "--config=demo", "--output=new", "--config.data.voc_root=no"),
            "config.data.voc_root=no: no such",
        ),
        (("voc_eval", "--checkpoint=old/calibrated"), "did you mean old?"),
        (("predict", "--checkpoint=none", "--output=new", "a.jpg"), "no checkpoint in none (looked for in "),
        (("visualize", "--checkpoint=none", "--output=new", "a.jpg"), "no checkpoint in none (looked for in "),
    ):
        command = [sys.executable, "-c", code, *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert list((folder / "new").iterdir()) == []


def test_the_message_of_a_program(folder):
    done = run_program("voc_train", "--config=demo", "--workdir=new", "--config.init.vgg16=none.pth")
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith(CURL)
