"""An imported training snapshot predicts after its statistics are re-estimated; other networks are refused."""

import numpy as np
import pytest
from caffe_networks import random_deconvnet, random_fcn8s
from caffemodel_writer import encode
from programs import run_program

from deconvnet_jax.data import open_split
from deconvnet_jax.errors import InputError
from deconvnet_jax.inference import Segmenter
from deconvnet_jax.weights import load_checkpoint
from experiments.common import dataset
from experiments.tasks import calibrate_bn, import_weights

pytestmark = pytest.mark.end_to_end

NARROW = {"width": 1 / 64, "fc": 8, "fc_window": 1}


@pytest.fixture
def snapshot(tmp_path, rng, tiny_run):
    """An imported training snapshot with the classes of the tiny run's data."""
    layers = random_deconvnet(rng, **NARROW, classes=len(tiny_run.class_names))
    (tmp_path / "net.caffemodel").write_bytes(encode([*layers, ("seg-loss", "SoftmaxWithLoss", [])]))
    names = tmp_path / "names.txt"
    names.write_text("\n".join(tiny_run.class_names))
    import_weights.run(tmp_path / "snapshot", caffemodel=tmp_path / "net.caffemodel", class_names=names)
    return tmp_path / "snapshot"


def overrides(tiny_run):
    return {"voc_root": str(tiny_run.voc_root), "data_dir": str(tiny_run.folder / "data/tfds")}


def test_a_snapshot_predicts_after_calibration_and_as_well_when_folded(tmp_path, snapshot, tiny_run):
    flags = [f"--checkpoint={snapshot}", "--batches=2", "--batch_size=8", f"--output={tmp_path / 'calibrated'}"]
    flags += [f"--{key}={value}" for key, value in overrides(tiny_run).items()]
    done = run_program("calibrate_bn", *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"statistics of 2 batches of 8 -> {tmp_path / 'calibrated'}\n"
    _, variables, info = load_checkpoint(tmp_path / "calibrated")
    assert info["calibrated"] == {"batches": 2, "batch_size": 8}
    assert "batch_statistics" not in info
    before = load_checkpoint(snapshot)[1]
    np.testing.assert_array_equal(variables["params"]["bn3_1"]["scale"], before["params"]["bn3_1"]["scale"])
    for name in ("bn3_1", "bnfc6"):
        assert (variables["batch_stats"][name]["var"] != 1).all()
        assert (variables["batch_stats"][name]["var"] > 0).any()

    image = open_split(dataset.packed_folder(tiny_run.voc_root, tiny_run.folder / "data/tfds"), "val")[0].image
    expected = Segmenter.from_checkpoint(tmp_path / "calibrated")(image).scores
    for fold in ("scale", "convolutions"):
        calibrate_bn.run(tmp_path / "calibrated", tmp_path / fold, batches=0, fold=fold)
        net, _, info = load_checkpoint(tmp_path / fold)
        assert info["batch_statistics"] == "folded"
        assert net.batch_norm == (fold == "scale")
        scores = Segmenter.from_checkpoint(tmp_path / fold)(image).scores
        difference = np.abs(scores - expected) / np.abs(expected).max()
        assert np.median(difference) < 1e-5  # a switch may flip by rounding
        with pytest.raises(InputError, match="the statistics are folded already; start from the result of a training"):
            calibrate_bn.run(tmp_path / fold, tmp_path / "again", batches=0, fold="scale")


def test_batches_are_rounded_up_to_the_devices(tmp_path, snapshot, tiny_run, capsys):
    calibrate_bn.run(snapshot, tmp_path / "out", batches=1, batch_size=6, overrides=overrides(tiny_run))
    assert capsys.readouterr().out.startswith("statistics of 1 batch of 8 ->")
    assert load_checkpoint(tmp_path / "out")[2]["calibrated"] == {"batches": 1, "batch_size": 8}


def test_what_cannot_be_calibrated(tmp_path, rng, snapshot, tiny_run):
    with pytest.raises(InputError, match=r"the batch statistics are unknown; re-estimate them: --batches=500"):
        calibrate_bn.run(snapshot, tmp_path / "out", batches=0, fold="scale")
    with pytest.raises(InputError, match="no data: give"):
        calibrate_bn.run(snapshot, tmp_path / "out", batches=1)
    with pytest.raises(InputError, match=r"batch_size=1: .* no variance in a single crop; give 2 or more"):
        calibrate_bn.run(snapshot, tmp_path / "out", batches=1, batch_size=1, overrides=overrides(tiny_run))
    with pytest.raises(InputError, match=r"snapshot already holds a checkpoint"):  # said before any work
        calibrate_bn.run(snapshot, snapshot, batches=10**9, overrides=overrides(tiny_run))
    (tmp_path / "fcn.caffemodel").write_bytes(encode(random_fcn8s(rng, width=1 / 64, fc=4, classes=3)))
    import_weights.run(tmp_path / "fcn", caffemodel=tmp_path / "fcn.caffemodel")
    with pytest.raises(InputError, match="holds an FCN8s, which has no batch normalisation"):
        calibrate_bn.run(tmp_path / "fcn", tmp_path / "out", batches=1)
