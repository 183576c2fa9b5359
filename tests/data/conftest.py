"""A few scenes, drawn and packed once for all tests of this folder."""

import pytest

from deconvnet_jax.data import open_split, prepare_voc_layout, write_scenes


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """Folder in the VOC layout with 10 training and 4 evaluation scenes."""
    root = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(root, train=10, val=4, seed=3)
    return root


@pytest.fixture(scope="session")
def train_split(scenes):
    """The packed training scenes."""
    return open_split(prepare_voc_layout(scenes, scenes.parent / "tfds"), "train")
