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


def test_other_processes_wait_while_the_first_one_packs(scenes, monkeypatch, tmp_path):
    """What a training and its calibration read; only the packing waits, and a second stage does not open it again."""
    inside, packed = [], []

    def first_process_first(make):
        inside.append("begin")
        builder = make()
        inside.append("end")
        return builder

    prepare = dataset.data.prepare_voc_layout
    monkeypatch.setattr(dataset, "first_process_first", first_process_first)
    monkeypatch.setattr(
        dataset.data, "prepare_voc_layout", lambda *arguments: packed.append(len(inside)) or prepare(*arguments)
    )
    config = default.get_config()
    config.data.voc_root, config.data.data_dir = str(scenes), str(tmp_path)
    found = dataset.open_training_data(config, scored=True)
    assert (inside, packed) == (["begin", "end"], [1])
    assert (len(found.trained), len(found.evaluated)) == (4, 3)
    config.data.label_mode = "all"
    second = dataset.open_training_data(config, found)
    assert second.builder is found.builder
    assert len(packed) == 1
    config.data.eval_split = "test"
    with pytest.raises(InputError, match="test"):
        dataset.open_training_data(config, found, scored=True)
