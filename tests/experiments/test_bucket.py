"""Programs whose run folder, data and results lie in a bucket; those of other tests have them on the disk."""

import json
import os
import shutil
import time

import jax
import numpy as np
import pytest
from camvid_folder import write_camvid
from PIL import Image

from deconvnet_jax import buckets
from deconvnet_jax.checkpoint_places import finished_steps
from deconvnet_jax.data import prepare_camvid
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import local_copy
from deconvnet_jax.inference import Segmenter
from deconvnet_jax.training import Preempted
from deconvnet_jax.training import loop as training_loop
from deconvnet_jax.training.metric_writer import metric_lines
from deconvnet_jax.weights import load_checkpoint
from experiments.common import evaluation as voc_eval
from experiments.common import photographs
from experiments.common import training as voc_train
from experiments.configs import default
from experiments.tasks import calibrate_bn, export_model, plot_metrics, predict

pytestmark = pytest.mark.slow

TINY = {
    "batch_size": 4,
    "num_steps": 3,
    "log_every": 1,
    "eval_every": 3,
    "eval_images": 1,
    "checkpoint_every": 1,
    "data.dataset": "camvid",
    "data.windows": ("image",),
    "data.resize_size": 36,
    "data.crop_size": 32,
    "inference.mode": "whole_image",
    "model.width": 1 / 32,
    "model.fc_features": 4,
    "model.fc_window": 1,
}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Folder with CamVid as TFDS keeps it: 4 images to train on, 2 to evaluate."""
    root, rng = tmp_path_factory.mktemp("camvid"), np.random.default_rng(0)
    write_camvid(root / "CamVid", rng, {"train": 4, "val": 2, "test": 1})
    prepare_camvid(root / "CamVid", root / "tfds")
    shutil.rmtree(root / "CamVid")
    return root / "tfds"


@pytest.fixture(scope="module")
def data_dir(bucket, packed, tmp_path_factory):
    """The same in the bucket; copies of it go to a folder of these tests."""
    buckets.upload_folder(packed, bucket / "tfds")
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield bucket / "tfds"
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


def settings(data_dir, **changes):
    config = default.get_config()
    config.update_from_flattened_dict({**TINY, "data.data_dir": str(data_dir), **changes})
    return config


@pytest.fixture(scope="module")
def run(bucket, data_dir, packed, tmp_path_factory):
    """A run in the bucket that was stopped at step 2 and resumed, and one on the disk that was not."""
    patch = pytest.MonkeyPatch()
    requested = training_loop.Interruption.requested
    patch.setattr(
        training_loop.Interruption, "requested", lambda self, step: 15 if step == 2 else requested(self, step)
    )
    with pytest.raises(Preempted):
        voc_train.run(settings(data_dir), bucket / "run")
    patch.undo()
    assert [line["step"] for line in metric_lines(bucket / "run/metrics.jsonl")] == [1, 2]
    voc_train.run(settings(data_dir), "gs://bucket/run")
    local = tmp_path_factory.mktemp("local") / "run"
    voc_train.run(settings(packed), local)
    return bucket / "run", local


def test_a_resumed_run_equals_one_on_the_disk(run):
    in_bucket, local = run
    assert finished_steps(in_bucket / "checkpoints") == finished_steps(local / "checkpoints") == [2, 3]
    (_, found, info), (_, expected, _) = (load_checkpoint(folder, 3) for folder in run)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert info["config"]["data"]["data_dir"] == "gs://bucket/tfds"
    lines = [metric_lines(each / "metrics.jsonl") for each in run]
    for line, other in zip(*lines, strict=True):
        assert line["step"] == other["step"]
        assert line.get("train/loss") == other.get("train/loss")
    files = [{str(path.relative_to(each)) for path in _files(each)} for each in run]
    assert {name for name in files[0] if name.startswith("pictures")} == {
        name for name in files[1] if name.startswith("pictures")
    }
    assert sum(name.startswith("tensorboard/events") for name in files[0]) == 2
    assert "config.json" in files[0]


def test_a_killed_run_resumes(run, bucket, data_dir, start_training):
    _, local = run
    folder = bucket / "killed"
    process = start_training(folder, {**TINY, "data.data_dir": data_dir}, devices=4)
    while not finished_steps(folder / "checkpoints"):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.kill()
    process.communicate()
    voc_train.run(settings(data_dir), folder)
    (_, found, _), (_, expected, _) = (load_checkpoint(each, 3) for each in (folder, local))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert [line["step"] for line in metric_lines(folder / "metrics.jsonl")] == [1, 2, 3, 3]


def _files(folder):
    if isinstance(folder, buckets.Address):
        return [folder / name for name in buckets._below(folder)]
    return [path for path in folder.rglob("*") if path.is_file()]


def test_half_written_steps_are_not_there(run, bucket):
    folder, _ = run
    copy = bucket / "half"
    for name in buckets._below(folder / "checkpoints"):
        if name != "3/commit_success.txt":
            buckets._store().cp_file(str(folder / "checkpoints" / name), str(copy / "checkpoints" / name))
    assert finished_steps(copy / "checkpoints") == [2]
    assert load_checkpoint(copy)[2]["step"] == 2


def test_a_damaged_step_is_set_aside(run, bucket, data_dir, capsys):
    folder, _ = run
    copy = bucket / "damaged"
    for name in buckets._below(folder):
        buckets._store().cp_file(str(folder / name), str(copy / name))
    for name in buckets._below(copy / "checkpoints/3/variables"):
        if "/d/" in name:
            buckets._store().pipe_file(str(copy / "checkpoints/3/variables" / name), b"damaged")
    voc_train.run(settings(data_dir, num_steps=3), copy)
    assert "the checkpoint of step 3 cannot be read" in capsys.readouterr().err
    assert (copy / "checkpoints_damaged/3/commit_success.txt").exists()
    (_, found, _), (_, expected, _) = (load_checkpoint(each, 3) for each in (copy, folder))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_another_config_is_refused(run, data_dir):
    with pytest.raises(InputError, match=r"--workdir=gs://bucket/run holds a run with another config: seed was"):
        voc_train.run(settings(data_dir, seed=5), "gs://bucket/run")


def test_evaluate_and_predict(run, bucket, tmp_path):
    folder, local = run
    scores = voc_eval.run(folder, output=bucket / "scores")
    assert scores["mean_iou"] == voc_eval.run(local, output=tmp_path / "scores")["mean_iou"]
    assert json.loads((bucket / "scores/metrics.json").read_text())["images"] == 2
    names = {"run.json", "metrics.json", "confusion.png", "labels/val_000.png", "labels/val_001.png"}
    assert set(buckets._below(bucket / "scores")) == names | {"panels/val_000.jpg", "panels/val_001.jpg"}
    with pytest.raises(InputError, match="--output=gs://bucket/scores holds results of another evaluation"):
        voc_eval.run(folder, step=2, output=bucket / "scores")

    photograph = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)).save(photograph)
    assert predict.run("gs://bucket/run", "gs://bucket/predicted", [str(photograph)]) == 0
    with Image.open(local_copy(bucket / "predicted/a.png")) as labels:
        image = np.asarray(Image.open(photograph))
        np.testing.assert_array_equal(np.asarray(labels), Segmenter.from_checkpoint(local)(image).labels)
    assert (bucket / "predicted/a_overlay.jpg").exists()
    with pytest.raises(InputError, match=r"IMAGE=gs://bucket/a\.jpg is an address; .* gcloud storage cp"):
        photographs.find_images(["gs://bucket/a.jpg"])


def test_networks_are_written(run, bucket, tmp_path):
    folder, _ = run
    export_model.run(folder, bucket / "exported", platforms=["cpu"])
    assert json.loads((bucket / "exported/model.json").read_text())["checkpoint_step"] == 3
    with np.load(local_copy(bucket / "exported/weights.npz")) as weights:
        _, variables, _ = load_checkpoint(folder)
        np.testing.assert_array_equal(weights["params/conv1_1/bias"], variables["params"]["conv1_1"]["bias"])
    calibrate_bn.run(folder, bucket / "calibrated", batches=1, batch_size=4)
    assert load_checkpoint(bucket / "calibrated")[2]["calibrated"]["batches"] == 1
    with pytest.raises(InputError, match="gs://bucket/calibrated already holds a checkpoint"):
        calibrate_bn.run(folder, bucket / "calibrated", batches=1, batch_size=4)
    plot_metrics.run([str(folder)], tmp_path / "metrics.png")
    assert (tmp_path / "metrics.png").exists()
