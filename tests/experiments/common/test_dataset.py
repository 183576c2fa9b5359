"""From a config to data."""

import pytest

from deconvnet_jax.errors import InputError
from experiments.common import dataset
from experiments.configs import default


def test_config_and_overrides_choose_the_data():
    own = dataset.data_config(None, {"data": {"voc_root": "a", "eval_split": "val"}}, {"eval_split": "train"})
    assert (own.data.voc_root, own.data.eval_split) == ("a", "train")
    config = default.get_config()
    config.data.voc_root = "b"
    given = dataset.data_config(config, {"data": {"voc_root": "a"}}, {})
    assert (given.data.voc_root, given.data.eval_split) == ("b", "val")
    imported = dataset.data_config(None, {"model": {}}, {"voc_root": "c"})
    assert imported.data.voc_root == "c"
    trained = {"data": {"windows": ["image"], "crop_size": 64, "data_dir": None, "forgotten": 1}}
    restored = dataset.data_config(None, trained, {})
    assert (restored.data.windows, restored.data.crop_size) == (("image",), 64)


@pytest.mark.parametrize(
    "trained", [{"data": 3}, {"data": {"crop_size": "large"}}, {"data": {"windows": 1}}, {"data": {}, "seed": "x"}]
)
def test_a_damaged_config_of_a_checkpoint(trained):
    with pytest.raises(InputError, match=r"the checkpoint's config is damaged .*; name data: --config=FILE"):
        dataset.data_config(None, trained, {})


def test_where_tfds_keeps_its_copies(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value, expected in (("", "tensorflow_datasets"), ("~/é [1]", "é [1]")):
        monkeypatch.setenv("TFDS_DATA_DIR", value)
        assert dataset.default_data_dir() == str(tmp_path / expected)
    monkeypatch.setenv("TFDS_DATA_DIR", "s3://bucket/data")
    with pytest.raises(InputError, match=r"TFDS_DATA_DIR=s3://bucket/data is an address"):
        dataset.default_data_dir()
