"""The command that makes the shipped edge network, on a data set of a few small photographs."""

import json

import numpy as np
import pytest
from PIL import Image
from programs import run_program

from deconvnet_jax.errors import InputError
from deconvnet_jax.proposals.edge_network import read_edge_network
from experiments.tasks import train_edges

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def data_dir(rng, tmp_path):
    for split in ("train", "val", "test"):
        folder = tmp_path / "bsds" / split
        folder.mkdir(parents=True)
        for name in ("a", "b"):
            image = np.full((64, 96, 3), rng.integers(0, 100, 3), np.uint8)
            image[20:44, 30:70] = rng.integers(150, 256, 3)
            outline = np.zeros((64, 96), np.uint8)
            outline[19:45, 29:71] = 255
            outline[20:44, 30:70] = 0
            Image.fromarray(image).save(folder / f"{name}.jpg")
            Image.fromarray(outline).save(folder / f"{name}_boundaries.png")
    return tmp_path / "bsds"


def test_from_photographs_to_scores(data_dir, tmp_path):
    output = tmp_path / "edges.npz"
    flags = [f"--data_dir={data_dir}", f"--output={output}", "--steps=2", "--batch_size=2"]
    done = run_program("train_edges", *flags)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["file"] == str(output)
    assert found["parameters"] == 169_113
    assert found["images"] == 2
    assert 0 <= found["ods"] <= 1
    assert found["ods_without_weights"] > 0.5  # the outline of a square on a plain ground
    assert "step 2/2  loss " in done.stderr
    read_edge_network(output)
    again = train_edges.run(str(data_dir), str(output), steps=0)
    assert again["ods"] == found["ods"]


def test_wrong_use(data_dir, tmp_path):
    with pytest.raises(InputError, match=r"there is no folder .*nowhere; make it first"):
        train_edges.run(str(data_dir), str(tmp_path / "nowhere/edges.npz"), steps=1)
    with pytest.raises(InputError, match=r"no file .*none\.npz; correct the name"):
        train_edges.run(str(data_dir), str(tmp_path / "none.npz"), steps=0)
    with pytest.raises(InputError, match="has no photographs of the split 'test'"):
        train_edges.run(str(tmp_path), str(tmp_path / "edges.npz"), steps=1)
