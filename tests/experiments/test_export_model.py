"""The artefact in a process that knows nothing of this package gives the network's scores."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from programs import run_program

from deconvnet_jax.errors import InputError
from deconvnet_jax.models import FCN8s
from deconvnet_jax.ops import normalize_images
from deconvnet_jax.weights import load_checkpoint, save_network
from experiments.tasks import export_model

pytestmark = pytest.mark.end_to_end

# As the documentation tells it.
USE = """
import sys
sys.modules["deconvnet_jax"] = sys.modules["experiments"] = None  # importing them is an error
import jax, numpy as np
model = jax.export.deserialize(bytearray(open(f"{sys.argv[1]}/model.stablehlo", "rb").read()))
weights = dict(np.load(f"{sys.argv[1]}/weights.npz"))
for file in sys.argv[2:]:
    np.save(file + ".scores.npy", model.call(weights, np.load(file)))
"""


def scores_of_another_process(folder, images, cwd):
    files = []
    for i, batch in enumerate(images):
        files.append(cwd / f"images{i}.npy")
        np.save(files[-1], batch)
    done = subprocess.run(
        [sys.executable, "-c", USE, folder, *files], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [np.load(f"{file}.scores.npy") for file in files]


def test_round_trip_for_any_number_of_images(tiny_run, tmp_path, rng):
    flags = [f"--checkpoint={tiny_run.folder}", f"--output={tmp_path / 'model'}", "--platforms=cpu,cuda"]
    done = run_program("export_model", *flags)
    assert done.returncode == 0, done.stderr
    description = json.loads((tmp_path / "model/model.json").read_text())
    assert description["class_names"] == list(tiny_run.class_names)
    assert (description["input_size"], description["platforms"], description["checkpoint_step"]) == (
        224,
        ["cpu", "cuda"],
        1,
    )

    net, variables, _ = load_checkpoint(tiny_run.folder)
    images = [rng.integers(0, 256, (n, 224, 224, 3)).astype(np.uint8) for n in (1, 3)]
    apply = jax.jit(net.apply)
    for found, batch in zip(scores_of_another_process(tmp_path / "model", images, tmp_path), images, strict=True):
        expected = np.asarray(apply(variables, normalize_images(batch)))
        assert np.std(expected) > 0
        difference = np.abs(found - expected) / np.abs(expected).max()
        assert found.shape == expected.shape
        assert np.median(difference) < 1e-5  # compiled with other options: a switch may flip by rounding
        assert np.mean(difference) < 1e-3


def test_fcn8s_at_another_size(tmp_path, rng):
    net = FCN8s(num_classes=3, width=1 / 64, fc_features=4)
    shapes = jax.eval_shape(net.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    variables = jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), shapes)
    save_network(tmp_path / "fcn", net, variables, {"class_names": ["a", "b", "c"]})
    export_model.run(tmp_path / "fcn", tmp_path / "default", platforms=["cpu"])
    assert json.loads((tmp_path / "default/model.json").read_text())["input_size"] == 500
    export_model.run(tmp_path / "fcn", tmp_path / "model", input_size=75, platforms=["cpu"])
    images = rng.integers(0, 256, (2, 75, 75, 3)).astype(np.uint8)
    (found,) = scores_of_another_process(tmp_path / "model", [images], tmp_path)
    expected = np.asarray(net.apply(variables, normalize_images(images)))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_unusable_arguments(tiny_run, tmp_path):
    with pytest.raises(InputError, match="--platforms=cpu,abacus: expected some of cpu, cuda, rocm, tpu"):
        export_model.run(tiny_run.folder, tmp_path, platforms=["cpu", "abacus"])
    with pytest.raises(InputError, match="multiples of 32 and at least 224, got 100x100"):
        export_model.run(tiny_run.folder, tmp_path, input_size=100)
    with pytest.raises(InputError, match="no checkpoint in"):
        export_model.run(tmp_path / "none", tmp_path)
