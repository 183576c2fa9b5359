"""Both layouts of BSDS500 give the same examples."""

import numpy as np
import pytest
import scipy.io
from PIL import Image

from deconvnet_jax.data.bsds500 import read_bsds500
from deconvnet_jax.errors import InputError


@pytest.fixture
def annotated(rng):
    """Photograph and the boundaries that 4 to 9 people drew, by name."""
    return {
        name: (rng.integers(0, 256, (21, 32, 3), np.uint8), rng.random((rng.integers(4, 10), 21, 32)) < 0.2)
        for name in ("8049", "100007")
    }


def write_official(root, annotated):
    (root / "images/train").mkdir(parents=True)
    (root / "groundTruth/train").mkdir(parents=True)
    for name, (image, people) in annotated.items():
        Image.fromarray(image).save(root / f"images/train/{name}.jpg")
        cells = np.empty((1, len(people)), object)
        for i, drawn in enumerate(people):
            cells[0, i] = {"Segmentation": np.ones(drawn.shape, np.uint16), "Boundaries": drawn.astype(np.uint8)}
        scipy.io.savemat(root / f"groundTruth/train/{name}.mat", {"groundTruth": cells})


def write_merged(root, annotated):
    (root / "train").mkdir(parents=True)
    for name, (image, people) in annotated.items():
        Image.fromarray(image).save(root / f"train/{name}.jpg")
        Image.fromarray(np.uint8(np.rint(255 * people.mean(axis=0)))).save(root / f"train/{name}_boundaries.png")


@pytest.mark.parametrize("write", [write_official, write_merged])
def test_shares(annotated, write, tmp_path):
    write(tmp_path, annotated)
    examples = read_bsds500(tmp_path, "train")
    assert [example.name for example in examples] == ["100007", "8049"]
    for example in examples:
        image, people = annotated[example.name]
        assert example.image.shape == image.shape
        assert example.share.dtype == np.float32
        np.testing.assert_allclose(example.share, people.mean(axis=0), atol=0.5 / 255 + 1e-6)


def test_unusable_folders(annotated, tmp_path):
    with pytest.raises(InputError, match="holds no photographs of the split 'train'; give the folder BSR/BSDS500/data"):
        read_bsds500(tmp_path, "train")
    official, merged = tmp_path / "official", tmp_path / "merged"
    write_official(official, annotated)
    write_merged(merged, annotated)
    with pytest.raises(InputError, match="no photographs of the split 'val'"):
        read_bsds500(official, "val")
    truth = official / "groundTruth/train/8049.mat"
    truth.write_bytes(b"MATLAB 5.0")
    with pytest.raises(InputError, match=r"8049\.mat is no MATLAB file with groundTruth .*; download it again"):
        read_bsds500(official, "train")
    scipy.io.savemat(truth, {"groundTruth": np.zeros((1, 3))})
    with pytest.raises(InputError, match=r"8049\.mat is no ground truth of BSDS500"):
        read_bsds500(official, "train")
    truth.unlink()
    with pytest.raises(InputError, match=rf"no file {truth}, the boundaries of the photograph of that name"):
        read_bsds500(official, "train")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(merged / "train/100007_boundaries.png")
    with pytest.raises(InputError, match=r"100007_boundaries\.png is 4x4 pixels, but 100007\.jpg is 32x21"):
        read_bsds500(merged, "train")


def test_the_real_one(real_data):
    examples = read_bsds500(real_data / "bsds500", "val")
    assert len(examples) == 100
    assert all(0 < example.share.mean() < 0.1 for example in examples)
