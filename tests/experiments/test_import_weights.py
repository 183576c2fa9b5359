"""A caffemodel is imported and segments a picture; unusable files are refused."""

import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from caffe_networks import random_deconvnet, random_fcn8s
from caffemodel_writer import encode
from PIL import Image
from programs import run_program

from deconvnet_jax.errors import InputError
from deconvnet_jax.inference import Segmenter
from deconvnet_jax.models import DeconvNet
from deconvnet_jax.weights import load_checkpoint
from deconvnet_jax.weights.vgg16_layers import TORCH_INDICES
from experiments.tasks import import_weights, predict

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).resolve().parents[2]
NARROW = {"width": 1 / 64, "fc": 8, "classes": 3}


@pytest.fixture
def photo(tmp_path, rng):
    path = tmp_path / "photo.png"
    Image.fromarray(rng.integers(0, 256, (224, 224, 3)).astype(np.uint8)).save(path)
    return path


def test_from_caffemodel_to_picture(tmp_path, rng, photo):
    layers = random_deconvnet(rng, **NARROW)
    (tmp_path / "net.caffemodel").write_bytes(encode(layers))
    done = run_program(
        "import_weights", f"--caffemodel={tmp_path / 'net.caffemodel'}", f"--output={tmp_path / 'imported'}"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    rows = [re.findall(r"[^│\s]+", line) for line in done.stdout.splitlines() if line.startswith("│")]
    kernel = dict((name, blobs) for name, _, blobs in layers)["conv1_1"][0]
    assert rows[0] == ["conv1_1", "kernel", "3x3x3x1", f"{kernel.mean():.4g}", f"{kernel.std():.4g}"]
    assert rows[-1][:3] == ["seg-score-voc", "bias", "3"]
    assert len(rows) == 30 * 2 + 29 * 2
    assert "DeconvNet," in done.stdout
    done = run_program("predict", f"--checkpoint={tmp_path / 'imported'}", f"--output={tmp_path / 'out'}", photo)
    assert done.returncode == 0, done.stderr
    labels = np.asarray(Image.open(tmp_path / "out/photo.png"))
    expected = Segmenter.from_caffe(tmp_path / "net.caffemodel")(np.asarray(Image.open(photo)))
    np.testing.assert_array_equal(labels, expected.labels)


def test_fcn8s(tmp_path, rng, photo, capsys):
    (tmp_path / "fcn.caffemodel").write_bytes(encode(random_fcn8s(rng, **NARROW)))
    names = tmp_path / "names.txt"
    names.write_text("ground\ntree\nsky\n")
    import_weights.run(tmp_path / "imported", caffemodel=tmp_path / "fcn.caffemodel", class_names=names)
    assert "FCN8s," in capsys.readouterr().out
    info = load_checkpoint(tmp_path / "imported")[2]
    assert (info["class_names"], info["imported_from"]) == (["ground", "tree", "sky"], "fcn.caffemodel")
    assert predict.run(tmp_path / "imported", tmp_path / "out", [str(photo)]) == 0
    assert set(re.findall(r"(\w+) [0-9.]+ %", capsys.readouterr().out)) <= {"ground", "tree", "sky"}


def test_a_training_snapshot_is_imported_but_does_not_predict(tmp_path, rng, photo, capsys):
    layers = [*random_deconvnet(rng, **NARROW), ("seg-loss", "SoftmaxWithLoss", [])]
    (tmp_path / "net.caffemodel").write_bytes(encode(layers))
    import_weights.run(tmp_path / "imported", caffemodel=tmp_path / "net.caffemodel")
    assert "batch statistics are unknown" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"Estimate them: python -m experiments\.calibrate_bn"):
        predict.run(tmp_path / "imported", tmp_path / "out", [str(photo)])
    import_weights.run(tmp_path / "folded", caffemodel=tmp_path / "net.caffemodel", bn="folded")
    assert predict.run(tmp_path / "folded", tmp_path / "out", [str(photo)]) == 0


def test_vgg16_becomes_the_encoder_of_a_network_to_train(tmp_path, rng, photo, capsys, monkeypatch):
    """In a narrow network: that the layers are those of the file, and that nobody predicts with the rest."""
    narrow = partial(DeconvNet, width=1 / 32, fc_features=4)
    monkeypatch.setattr(import_weights, "DeconvNet", narrow)
    vgg16 = [layer for layer in random_deconvnet(rng, width=1 / 32, fc=4) if re.fullmatch(r"conv\d_\d", layer[0])]
    (tmp_path / "vgg.caffemodel").write_bytes(encode(vgg16))
    import_weights.run(tmp_path / "imported", vgg16=tmp_path / "vgg.caffemodel")
    assert "batch statistics are unknown" in capsys.readouterr().out
    net, variables, info = load_checkpoint(tmp_path / "imported")
    assert net.num_classes == len(info["class_names"]) == 21
    expected = dict((name, blobs) for name, _, blobs in vgg16)["conv5_3"][0].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(variables["params"]["conv5_3"]["kernel"], expected)
    with pytest.raises(InputError, match="or is untrained"):
        predict.run(tmp_path / "imported", tmp_path / "out", [str(photo)])


def test_a_warning_is_one_line(tmp_path, rng, monkeypatch):
    monkeypatch.setattr("deconvnet_jax.models.DeconvNet", partial(DeconvNet, width=1 / 32, fc_features=4))
    vgg16 = [layer for layer in random_deconvnet(rng, width=1 / 16, fc=4) if re.fullmatch(r"conv\d_\d", layer[0])]
    arrays = {}
    for index, (_, _, (kernel, bias)) in zip(TORCH_INDICES, vgg16, strict=True):
        arrays[f"features.{index}.weight"], arrays[f"features.{index}.bias"] = kernel, bias.ravel()
    np.savez(tmp_path / "vgg.npz", **arrays)
    done = run_program("import_weights", f"--vgg16={tmp_path / 'vgg.npz'}", f"--output={tmp_path / 'out'}")
    assert done.returncode == 1
    warning, error = done.stderr.splitlines()
    assert warning.startswith("warning: VGG-16 weights: the first layer in ")
    assert error.startswith("error: VGG-16 weights: the kernel of conv1_1 in ")  # the file's network has another width


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give one of --caffemodel=FILE and --vgg16=FILE"),
        ({"caffemodel": "a", "vgg16": "b"}, "give one of --caffemodel=FILE and --vgg16=FILE"),
        ({"caffemodel": "none.caffemodel"}, r"no file none\.caffemodel in /.*; correct the name"),
        (
            {"caffemodel": "{tmp}/net.caffemodel", "class_names": "none.txt"},
            r"no file none\.txt in /.*; expected class names",
        ),
        (
            {"caffemodel": "{tmp}/net.caffemodel", "class_names": "{tmp}/names.txt"},
            r"names\.txt has 2 names, but the network has 3 classes",
        ),
        ({"caffemodel": "{tmp}/net.caffemodel", "output": "{tmp}/net.caffemodel"}, "--output=.* cannot be a folder"),
    ],
)
def test_unusable_arguments(tmp_path, arguments, message):
    (tmp_path / "net.caffemodel").write_bytes(encode(random_deconvnet(np.random.default_rng(0), **NARROW)))
    (tmp_path / "names.txt").write_text("a\nb\n")
    arguments = {key: value.replace("{tmp}", str(tmp_path)) for key, value in arguments.items()}
    with pytest.raises(InputError, match=message) as error:
        import_weights.run(**{"output": tmp_path / "out", **arguments})
    assert "\n" not in str(error.value)


def test_an_existing_checkpoint_is_not_overwritten(tmp_path):
    (tmp_path / "net.caffemodel").write_bytes(encode(random_deconvnet(np.random.default_rng(0), **NARROW)))
    import_weights.run(tmp_path / "out", caffemodel=tmp_path / "net.caffemodel")
    with pytest.raises(InputError, match="already holds a checkpoint"):
        import_weights.run(tmp_path / "out", caffemodel=tmp_path / "net.caffemodel")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
def test_the_full_network_in_a_minute_and_4_gb(tmp_path, rng, photo):
    (tmp_path / "full.caffemodel").write_bytes(encode(random_deconvnet(rng)))
    script = (
        "import sys; from experiments.tasks import import_weights\n"
        "import_weights.run(sys.argv[2], caffemodel=sys.argv[1])\n"
        "print(open('/proc/self/status').read())"
    )
    command = [sys.executable, "-c", script, tmp_path / "full.caffemodel", tmp_path / "imported"]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    assert done.returncode == 0, done.stderr
    assert "251,805,653 parameters" in done.stdout
    peak = 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", done.stdout)[1])
    print(f"{seconds:.0f} s, peak {peak / 1e9:.2f} GB")
    assert seconds < 60
    assert peak < 4e9
    done = run_program("predict", f"--checkpoint={tmp_path / 'imported'}", f"--output={tmp_path / 'out'}", photo)
    assert done.returncode == 0, done.stderr
    assert np.asarray(Image.open(tmp_path / "out/photo.png")).shape == (224, 224)
